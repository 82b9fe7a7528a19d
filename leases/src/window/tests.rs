use proptest::prelude::*;
use time::macros::datetime;

use super::*;

fn window(json: &str) -> Result<TimeWindow, serde_json::Error> {
    serde_json::from_str(json)
}

fn open(json: &str, at: OffsetDateTime) -> bool {
    window(json).unwrap().contains(at)
}

#[test]
fn a_window_is_open_from_its_first_minute_to_the_one_before_its_last() {
    let json = r#"{"after": "08:00", "before": "20:00", "timezone": "UTC"}"#;
    assert!(!open(json, datetime!(2026-11-22 07:59:59.999 UTC)));
    assert!(open(json, datetime!(2026-11-22 08:00 UTC)));
    assert!(open(json, datetime!(2026-11-22 19:59:59.999 UTC)));
    assert!(!open(json, datetime!(2026-11-22 20:00 UTC)));
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
    let json = r#"{"after": "22:00", "before": "06:00", "days": ["sun"]}"#;
    assert!(open(json, datetime!(2026-11-22 23:00 UTC)));
    assert!(open(json, datetime!(2026-11-23 05:59 UTC)));
    assert!(!open(json, datetime!(2026-11-22 05:00 UTC)));
    assert!(!open(json, datetime!(2026-11-23 23:00 UTC)));
}

#[test]
fn an_offset_moves_the_window_and_its_day() {
    // Monday 01:00 to 02:00 in +02:00 is Sunday 23:00 to 24:00 in UTC.
    let json = r#"{"after": "01:00", "before": "02:00", "timezone": "+02:00", "days": ["monday"]}"#;
    assert!(open(json, datetime!(2026-11-22 23:30 UTC)));
    assert!(!open(json, datetime!(2026-11-23 01:30 UTC)));
    let json = r#"{"after": "23:00", "before": "23:30", "timezone": "-03:30"}"#;
    assert!(open(json, datetime!(2026-11-22 02:45 UTC)));
}

#[test]
fn json_is_read_and_written() {
    let json = r#"{"after":"09:00","before":"17:00","timezone":"+05:30","days":["mon","fri"]}"#;
    let read = window(json).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
    assert_eq!(read.to_string(), "09:00 to 17:00 +05:30 on mon,fri");
    let unsorted =
        r#"{"after":"09:00","before":"17:00","timezone":"+05:30","days":["friday","mon","fri"]}"#;
    assert_eq!(window(unsorted).unwrap(), read);
    assert_eq!(
        window(r#"{"after":"09:00","before":"17:00"}"#)
            .unwrap()
            .timezone(),
        Zone::UTC
    );
}

#[test]
fn every_mistake_is_named() {
    for (json, expected) in [
        (
            r#"{"after":"9:00","before":"17:00"}"#,
            "`9:00` is no time of day",
        ),
        (
            r#"{"after":"09:00","before":"24:00"}"#,
            "`24:00` is no time of day",
        ),
        (
            r#"{"after":"09:60","before":"17:00"}"#,
            "`09:60` is no time of day",
        ),
        (
            r#"{"after":"+9:00","before":"17:00"}"#,
            "`+9:00` is no time of day",
        ),
        (r#"{"after":"09:00","before":"09:00"}"#, "the same time"),
        (
            r#"{"after":"09:00","before":"17:00","timezone":"Europe/Berlin"}"#,
            "`Europe/Berlin` is no time zone",
        ),
        (
            r#"{"after":"09:00","before":"17:00","timezone":"+15:00"}"#,
            "`+15:00` is no time zone",
        ),
        (
            r#"{"after":"09:00","before":"17:00","timezone":"ä"}"#,
            "`ä` is no time zone",
        ),
        (
            r#"{"after":"09:00","before":"17:00","days":[]}"#,
            "names no day",
        ),
        (
            r#"{"after":"09:00","before":"17:00","days":["someday"]}"#,
            "someday",
        ),
        (r#"{"after":"09:00","before":"17:00","zone":"UTC"}"#, "zone"),
        (r#"{"after":"09:00"}"#, "before"),
    ] {
        let error = window(json).unwrap_err().to_string();
        assert!(error.contains(expected), "{json}: {error}");
    }
}

fn any_window() -> impl Strategy<Value = TimeWindow> {
    let days = proptest::option::of(proptest::collection::vec(0_usize..7, 1..4));
    (0_u16..DAY, 1_u16..DAY, -MAX_OFFSET..=MAX_OFFSET, days).prop_map(
        |(after, length, zone, days)| {
            let before = TimeOfDay((after + length) % DAY);
            let days = days.map(|days| days.into_iter().map(|day| DAYS[day].0).collect());
            TimeWindow::new(TimeOfDay(after), before, Zone(zone), days).unwrap()
        },
    )
}

fn any_time() -> impl Strategy<Value = OffsetDateTime> {
    (1_700_000_000_i64..1_900_000_000).prop_map(|s| OffsetDateTime::from_unix_timestamp(s).unwrap())
}

proptest! {
    /// The window as its words say it, by the local clock.
    #[test]
    fn a_window_is_open_when_the_local_clock_says_so(window in any_window(), at in any_time()) {
        let local = at + time::Duration::minutes(window.zone.0.into());
        let minute = u16::from(local.hour()) * 60 + u16::from(local.minute());
        let today = DAYS[usize::from(local.weekday().number_days_from_monday())].0;
        let yesterday = DAYS[(usize::from(local.weekday().number_days_from_monday()) + 6) % 7].0;
        let is_day = |day| window.days.as_ref().is_none_or(|days| days.contains(&day));
        let (after, before) = (window.after.0, window.before.0);
        let expected = if after < before {
            is_day(today) && (after..before).contains(&minute)
        } else {
            (is_day(today) && minute >= after) || (is_day(yesterday) && minute < before)
        };
        prop_assert_eq!(window.contains(at), expected);
    }

    #[test]
    fn nothing_changes_before_the_next_change(window in any_window(), at in any_time(), part in 0.0_f64..1.0) {
        let change = window.next_change(at);
        prop_assert!(change > at && change - at <= time::Duration::weeks(1));
        let between = at + (change - at - time::Duration::milliseconds(1)) * part;
        prop_assert_eq!(window.contains(between), window.contains(at));
    }

    #[test]
    fn a_window_is_read_back_from_its_words(window in any_window()) {
        let [after, before] = [window.after(), window.before()].map(|time| time.to_string());
        let zone = window.timezone().to_string();
        let read = TimeWindow::from_words(&after, &before, &zone, &window.days_word());
        prop_assert_eq!(read, Some(window));
    }
}
