use std::net::Ipv4Addr;

use time::macros::datetime;
use time::{Duration, Month, UtcOffset, Weekday as Day};

use super::*;
use crate::window::{TimeOfDay, Weekday};

fn path(text: &str) -> SecretPath {
    SecretPath::parse(text).unwrap()
}

fn pattern(text: &str) -> PathPattern {
    PathPattern::parse(text).unwrap()
}

fn rule(text: &str, permissions: &[Permission]) -> Rule {
    Rule {
        pattern: pattern(text),
        permissions: permissions.to_vec(),
        effect: Effect::Allow,
        priority: 0,
        conditions: Conditions::default(),
        environments: Vec::new(),
        expires_at: None,
    }
}

const NOW: OffsetDateTime = datetime!(2026-11-22 07:00 UTC);

fn ask(path: &SecretPath, permission: Permission) -> Ask<'_> {
    Ask {
        path,
        permission,
        now: NOW,
        client_ip: Some(Ipv4Addr::new(10, 0, 0, 7).into()),
    }
}

#[test]
fn a_star_is_one_segment_and_two_are_any_number() {
    for (glob, good, bad) in [
        ("a/b", &["a/b"][..], &["a", "a/b/c", "A/b"][..]),
        ("a/*", &["a/b"], &["a", "a/b/c", "b/b"]),
        ("*", &["a"], &["a/b"]),
        ("a/**", &["a", "a/b", "a/b/c"], &["ab", "b/a"]),
        ("**", &["a", "a/b/c"], &[]),
        ("a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["a", "a/zz", "z"]),
        ("a/*-key", &["a/x-key"], &["a/b/x-key", "a/x-keys"]),
    ] {
        for text in good {
            assert!(pattern(glob).matches(&path(text)), "{glob} {text}");
        }
        for text in bad {
            assert!(!pattern(glob).matches(&path(text)), "{glob} {text}");
        }
    }
}

#[test]
fn permissions_and_patterns_have_one_name() {
    for (permission, name) in Permission::ALL
        .into_iter()
        .zip(["read", "write", "delete", "rotate"])
    {
        assert_eq!(permission.as_str(), name);
        assert_eq!(serde_json::to_value(permission).unwrap(), name);
    }
    let parsed: PathPattern = "prod/*/db".parse().unwrap();
    assert_eq!(
        (parsed.as_str(), parsed.to_string().as_str()),
        ("prod/*/db", "prod/*/db")
    );
}

#[test]
fn what_other_grammars_know_is_no_pattern() {
    for bad in [
        "", "/a", "a/", "a//b", "a?", "[a-z]", "{a,b}", "a/../b", "a.b", "a%2fb", "***", "a**",
        "**/**", "a\\*", "!a",
    ] {
        assert!(PathPattern::parse(bad).is_err(), "{bad}");
    }
    assert!(PathPattern::parse(&"x".repeat(600)).is_err());
}

#[test]
fn matching_a_hostile_pattern_takes_no_time() {
    let glob = pattern(&"*a".repeat(200));
    let deep = pattern(&["**/a"; 30].join("/"));
    let long = path(&"a".repeat(500));
    let many = path(&["a"; 64].join("/"));
    for _ in 0..1000 {
        assert!(glob.matches(&long));
        assert!(deep.matches(&many));
    }
}

#[test]
fn no_rule_is_silence() {
    assert_eq!(
        decide([], &ask(&path("a"), Permission::Read)),
        Ruling::Silent
    );
    let other = rule("b/**", &Permission::ALL);
    assert_eq!(
        decide([&other], &ask(&path("a"), Permission::Read)),
        Ruling::Silent
    );
}

#[test]
fn the_highest_priority_wins_and_a_denial_wins_a_tie() {
    let allow = rule("**", &[Permission::Read]);
    let deny = Rule {
        effect: Effect::Deny,
        ..rule("a/**", &[Permission::Read])
    };
    let above = Rule {
        priority: 1,
        ..allow.clone()
    };
    let inside = path("a/b");
    let ask = ask(&inside, Permission::Read);
    assert_eq!(decide([&allow, &deny], &ask), Ruling::Deny(1));
    assert_eq!(decide([&deny, &allow], &ask), Ruling::Deny(0));
    assert_eq!(decide([&allow, &deny, &above], &ask), Ruling::Allow(2));
    assert_eq!(decide([&allow, &allow], &ask), Ruling::Allow(0));
}

#[test]
fn who_may_write_may_rotate_and_not_the_other_way() {
    let secret = path("a");
    let write = rule("a", &[Permission::Write]);
    let rotate = rule("a", &[Permission::Rotate]);
    assert_eq!(
        decide([&write], &ask(&secret, Permission::Rotate)),
        Ruling::Allow(0)
    );
    assert_eq!(
        decide([&rotate], &ask(&secret, Permission::Write)),
        Ruling::Silent
    );
    assert_eq!(
        decide([&write], &ask(&secret, Permission::Read)),
        Ruling::Silent
    );
    assert_eq!(
        decide([&write], &ask(&secret, Permission::Delete)),
        Ruling::Silent
    );
}

#[test]
fn each_condition_is_named_when_it_is_not_met() {
    let secret = path("stripe/prod/bot");
    let base = rule("**", &[Permission::Read]);
    let ask = ask(&secret, Permission::Read);
    let conditions = |json: &str| Rule {
        conditions: serde_json::from_str(json).unwrap(),
        ..base.clone()
    };
    let ended = Rule {
        expires_at: Some(NOW),
        ..base.clone()
    };
    let elsewhere = Rule {
        environments: vec!["dev".to_owned()],
        ..base.clone()
    };
    for (rule, misfit) in [
        (ended, Misfit::Expired),
        (rule("**", &[Permission::Write]), Misfit::Permission),
        (rule("stripe/*", &[Permission::Read]), Misfit::Path),
        (elsewhere, Misfit::Environment),
        (
            conditions(r#"{"ip_allowlist": ["192.0.2.0/24"]}"#),
            Misfit::Network,
        ),
        (
            conditions(r#"{"time_window": {"after": "08:00", "before": "20:00"}}"#),
            Misfit::Time,
        ),
    ] {
        assert_eq!(rule.fits(&ask), Err(misfit));
    }
    let met = r#"{"ip_allowlist": ["10.0.0.0/8"], "time_window": {"after": "08:00", "before": "20:00", "timezone": "Europe/Berlin"}}"#;
    assert_eq!(conditions(met).fits(&ask), Ok(()));
}

#[test]
fn an_unknown_address_gets_nothing_by_a_network_and_loses_by_one() {
    let secret = path("a");
    let allow = Rule {
        conditions: serde_json::from_str(r#"{"ip_allowlist": ["0.0.0.0/0", "::/0"]}"#).unwrap(),
        ..rule("**", &[Permission::Read])
    };
    let deny = Rule {
        effect: Effect::Deny,
        ..allow.clone()
    };
    let ask = Ask {
        client_ip: None,
        ..ask(&secret, Permission::Read)
    };
    assert_eq!(decide([&allow], &ask), Ruling::Silent);
    assert_eq!(decide([&deny], &ask), Ruling::Deny(0));
}

#[test]
fn a_mistyped_condition_is_refused() {
    for bad in [
        r#"{"ip_allow_list": []}"#,
        r#"{"ip_allowlist": ["10.0.0.1/8"]}"#,
        r#"{"ip_allowlist": ["all"]}"#,
        r#"{"time_window": {"after": "08:00"}}"#,
        r#"{"time_window": {"after": "8:00", "before": "20:00"}}"#,
        r#"{"time_window": {"after": "08:00", "before": "08:00"}}"#,
        r#"{"time_window": {"after": "08:00", "before": "20:00", "timezone": "Mars/Olympus"}}"#,
        r#"{"time_window": {"after": "08:00", "before": "20:00", "timezone": "../../etc/localtime"}}"#,
        r#"{"time_window": {"after": "08:00", "before": "20:00", "days": []}}"#,
        r#"{"time_window": {"after": "08:00", "before": "20:00", "day": ["mon"]}}"#,
    ] {
        assert!(serde_json::from_str::<Conditions>(bad).is_err(), "{bad}");
    }
    let many = vec!["\"10.0.0.0/8\""; 65].join(",");
    assert!(
        serde_json::from_str::<Conditions>(&format!("{{\"ip_allowlist\": [{many}]}}")).is_err()
    );
}

#[test]
fn a_zone_is_kept_in_one_spelling_and_follows_its_summer_time() {
    let window: LocalWindow = serde_json::from_str(
        r#"{"after": "09:00", "before": "17:00", "timezone": "europe/berlin"}"#,
    )
    .unwrap();
    assert_eq!(
        serde_json::to_value(&window).unwrap()["timezone"],
        "Europe/Berlin"
    );
    // 09:00 in Berlin is 08:00 UTC in winter and 07:00 UTC in summer.
    for (instant, is_open) in [
        (datetime!(2026-01-15 07:59:59 UTC), false),
        (datetime!(2026-01-15 08:00 UTC), true),
        (datetime!(2026-07-15 06:59:59 UTC), false),
        (datetime!(2026-07-15 07:00 UTC), true),
        (datetime!(2026-07-15 14:59:59 UTC), true),
        (datetime!(2026-07-15 15:00 UTC), false),
        // The clocks go forward on 29 March 2026 and back on 25 October.
        (datetime!(2026-03-28 07:30 UTC), false),
        (datetime!(2026-03-29 07:30 UTC), true),
        (datetime!(2026-10-24 07:30 UTC), true),
        (datetime!(2026-10-25 07:30 UTC), false),
    ] {
        assert_eq!(window.contains(instant), is_open, "{instant}");
    }
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_it_begins_on() {
    let window: LocalWindow =
        serde_json::from_str(r#"{"after": "22:00", "before": "06:00", "days": ["friday"]}"#)
            .unwrap();
    // 20 November 2026 is a Friday.
    for (instant, is_open) in [
        (datetime!(2026-11-20 21:59 UTC), false),
        (datetime!(2026-11-20 22:00 UTC), true),
        (datetime!(2026-11-21 05:59 UTC), true),
        (datetime!(2026-11-21 06:00 UTC), false),
        (datetime!(2026-11-21 22:00 UTC), false),
        (datetime!(2026-11-20 05:00 UTC), false),
    ] {
        assert_eq!(window.contains(instant), is_open, "{instant}");
    }
}

/// A second evaluator, written from the documentation and not from the code: it sorts where `decide` keeps the best, matches by
/// recursion, and knows the summer time of Berlin by its rule.
mod reference {
    use super::*;

    pub(super) fn decide(rules: &[Case], ask: &Ask<'_>) -> Ruling {
        let mut fitting: Vec<(usize, &Case)> = rules
            .iter()
            .enumerate()
            .filter(|(_, case)| case.fits(ask))
            .collect();
        fitting.sort_by_key(|(index, case)| {
            (
                -i64::from(case.rule.priority),
                case.rule.effect != Effect::Deny,
                *index,
            )
        });
        match fitting.first() {
            Some((index, case)) if case.rule.effect == Effect::Deny => Ruling::Deny(*index),
            Some((index, _)) => Ruling::Allow(*index),
            None => Ruling::Silent,
        }
    }

    /// A rule with the parts that it was made of.
    pub(super) struct Case {
        pub(super) rule: Rule,
        pub(super) glob: String,
        pub(super) networks: Vec<(u32, u32)>,
        pub(super) window: Option<(u16, u16, &'static str, Vec<u8>)>,
    }

    impl Case {
        fn fits(&self, ask: &Ask<'_>) -> bool {
            let segments: Vec<&str> = ask.path.as_str().split('/').collect();
            let glob: Vec<&str> = self.glob.split('/').collect();
            let rule = &self.rule;
            let permitted = rule.permissions.contains(&ask.permission)
                || (ask.permission == Permission::Rotate
                    && rule.permissions.contains(&Permission::Write));
            let alive = match rule.expires_at {
                Some(end) => ask.now < end,
                None => true,
            };
            let environment = rule.environments.is_empty()
                || (segments.len() >= 3 && rule.environments.iter().any(|one| one == segments[1]));
            permitted
                && alive
                && environment
                && matches(&glob, &segments)
                && self.is_near(ask)
                && self.is_open(ask.now)
        }

        fn is_near(&self, ask: &Ask<'_>) -> bool {
            if self.networks.is_empty() {
                return true;
            }
            match ask.client_ip {
                None => self.rule.effect == Effect::Deny,
                Some(IpAddr::V6(_)) => false,
                Some(IpAddr::V4(address)) => {
                    let bits = u64::from(address.to_bits());
                    self.networks.iter().any(|(network, length)| {
                        let shift = 32 - length;
                        bits >> shift == u64::from(*network) >> shift
                    })
                }
            }
        }

        fn is_open(&self, now: OffsetDateTime) -> bool {
            let Some((after, before, zone, days)) = &self.window else {
                return true;
            };
            let hours = match *zone {
                "Europe/Berlin" if is_summer(now) => 2,
                "Europe/Berlin" => 1,
                "Asia/Tokyo" => 9,
                _ => 0,
            };
            let local = now.to_offset(UtcOffset::from_hms(hours, 0, 0).unwrap());
            // The window that may be open now began today or yesterday.
            [0, 1].iter().any(|back| {
                let day = local.date() - Duration::days(*back);
                let begin = day.midnight() + Duration::minutes(i64::from(*after));
                let length = (i64::from(*before) - i64::from(*after)).rem_euclid(24 * 60);
                let wall = time::PrimitiveDateTime::new(local.date(), local.time());
                let number = day.weekday().number_days_from_monday();
                (days.is_empty() || days.contains(&number))
                    && wall >= begin
                    && wall < begin + Duration::minutes(length)
            })
        }
    }

    fn matches(glob: &[&str], segments: &[&str]) -> bool {
        match (glob.split_first(), segments.split_first()) {
            (None, None) => true,
            (Some((&"**", rest)), _) => {
                (0..=segments.len()).any(|taken| matches(rest, &segments[taken..]))
            }
            (Some((&"*", globs)), Some((_, rest))) => matches(globs, rest),
            (Some((literal, globs)), Some((segment, rest))) => {
                literal == segment && matches(globs, rest)
            }
            _ => false,
        }
    }

    /// From the last Sunday of March, 01:00 UTC, to that of October (Directive 2000/84/EC).
    fn is_summer(now: OffsetDateTime) -> bool {
        let change = |month| {
            let last = time::Date::from_calendar_date(now.year(), month, 31).unwrap();
            let sunday = (0..7)
                .map(|back| last - Duration::days(back))
                .find(|day| day.weekday() == Day::Sunday)
                .unwrap();
            sunday.with_hms(1, 0, 0).unwrap().assume_utc()
        };
        change(Month::March) <= now && now < change(Month::October)
    }
}

/// Random numbers that are the same on every run (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let index = self.roll(from.len() as u64);
        from[usize::try_from(index).unwrap()]
    }

    fn some<T: Copy>(&mut self, from: &[T]) -> Vec<T> {
        from.iter().copied().filter(|_| self.roll(2) == 0).collect()
    }

    fn path(&mut self) -> SecretPath {
        let length = 1 + self.roll(4);
        let segments: Vec<&str> = (0..length)
            .map(|_| self.pick(&["a", "b", "prod"]))
            .collect();
        path(&segments.join("/"))
    }

    fn glob(&mut self) -> String {
        let length = 1 + self.roll(4);
        let mut segments: Vec<&str> = Vec::new();
        for _ in 0..length {
            let next = self.pick(&["a", "b", "prod", "*", "**", "**"]);
            // The grammar has `**` once in a row.
            if next != "**" || segments.last() != Some(&"**") {
                segments.push(next);
            }
        }
        segments.join("/")
    }

    fn time(&mut self) -> OffsetDateTime {
        datetime!(2024-01-01 00:00 UTC)
            + Duration::minutes(i64::try_from(self.roll(3 * 366 * 24 * 60)).unwrap())
    }

    fn case(&mut self) -> reference::Case {
        let mut permissions = self.some(&Permission::ALL);
        permissions.push(self.pick(&Permission::ALL));
        let networks: Vec<(u32, u32)> = (0..self.roll(3))
            .map(|_| {
                self.pick(&[
                    (0x0a00_0000, 8),
                    (0x0a00_0000, 24),
                    (0xc000_0200, 24),
                    (0, 0),
                ])
            })
            .collect();
        let window = (self.roll(3) == 0).then(|| {
            let after = u16::try_from(self.roll(24 * 60)).unwrap();
            let before = (after + 1 + u16::try_from(self.roll(24 * 60 - 1)).unwrap()) % (24 * 60);
            let zone = self.pick(&["UTC", "Europe/Berlin", "Asia/Tokyo"]);
            (after, before, zone, self.some(&[0, 1, 2, 3, 4, 5, 6]))
        });
        let glob = self.glob();
        let expires_at = (self.roll(3) == 0).then(|| self.time());
        let environments = if self.roll(4) == 0 {
            vec!["prod".to_owned()]
        } else {
            Vec::new()
        };
        let rule = Rule {
            pattern: pattern(&glob),
            permissions,
            effect: self.pick(&[Effect::Allow, Effect::Deny]),
            priority: self.pick(&[-1, 0, 0, 1, i32::MIN, i32::MAX]),
            conditions: Conditions {
                ip_allowlist: networks
                    .iter()
                    .map(|(bits, length)| network(*bits, *length))
                    .collect(),
                time_window: window.as_ref().map(local_window),
            },
            environments,
            expires_at,
        };
        reference::Case {
            rule,
            glob,
            networks,
            window,
        }
    }
}

fn network(bits: u32, length: u32) -> IpNet {
    let length = u8::try_from(length).unwrap();
    IpNet::new(Ipv4Addr::from_bits(bits).into(), length).unwrap()
}

fn local_window((after, before, zone, days): &(u16, u16, &'static str, Vec<u8>)) -> LocalWindow {
    let time = |minute: &u16| -> TimeOfDay {
        format!("{:02}:{:02}", minute / 60, minute % 60)
            .parse()
            .unwrap()
    };
    let names = [
        Weekday::Mon,
        Weekday::Tue,
        Weekday::Wed,
        Weekday::Thu,
        Weekday::Fri,
        Weekday::Sat,
        Weekday::Sun,
    ];
    let days: Vec<Weekday> = days.iter().map(|day| names[usize::from(*day)]).collect();
    LocalWindow::new(
        time(after),
        time(before),
        zone,
        (!days.is_empty()).then_some(days),
    )
    .unwrap()
}

fn both_evaluators_agree(cases: u64, seed: u64) {
    let mut dice = Dice(seed);
    let mut rulings = [0_u64; 3];
    let addresses = [
        Some(IpAddr::from([10, 0, 0, 9])),
        Some(IpAddr::from([10, 9, 0, 9])),
        Some(IpAddr::from([192, 0, 2, 1])),
        Some("2001:db8::1".parse().unwrap()),
        None,
    ];
    let mut asked = 0;
    while asked < cases {
        let rules: Vec<reference::Case> = (0..dice.roll(7)).map(|_| dice.case()).collect();
        // Many questions for each set of rules: rules are dearer to make than to ask.
        for _ in 0..20 {
            let path = dice.path();
            let ask = Ask {
                path: &path,
                permission: dice.pick(&Permission::ALL),
                now: dice.time(),
                client_ip: dice.pick(&addresses),
            };
            let decided = decide(rules.iter().map(|case| &case.rule), &ask);
            let expected = reference::decide(&rules, &ask);
            assert_eq!(decided, expected, "seed {seed}, case {asked}: {ask:?}");
            rulings[match decided {
                Ruling::Allow(_) => 0,
                Ruling::Deny(_) => 1,
                Ruling::Silent => 2,
            }] += 1;
            asked += 1;
        }
    }
    assert!(
        rulings.iter().all(|count| *count > cases / 20),
        "{rulings:?}"
    );
}

#[test]
fn another_evaluator_agrees_on_a_hundred_thousand_cases() {
    both_evaluators_agree(100_000, 20_261_122);
}

#[test]
#[ignore = "takes several seconds; run it after a change to policies"]
fn a_million_cases() {
    both_evaluators_agree(1_000_000, 4711);
}
