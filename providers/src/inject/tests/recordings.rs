//! What the vendors' own clients send (`recordings/NAME.http`), and what the provider receives for it (`NAME.snap` beside).

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::placeholder::is_placeholder;

const LEASE: &str = "clv_EAAR-lease_0";

/// A recorded request of a template's client.
struct Recording {
    template: Arc<Template>,
    head: String,
}

impl Recording {
    fn all() -> Vec<Self> {
        let templates = Catalog::builtin();
        let recorded = templates.iter().filter_map(Self::of).collect::<Vec<_>>();
        assert!(recorded.len() >= 110, "{} are recorded", recorded.len());
        recorded
    }

    fn of(template: &Arc<Template>) -> Option<Self> {
        let text = std::fs::read_to_string(file_of(template.name())).ok()?;
        let (origin, head) = text.split_once('\n').unwrap();
        assert!(origin.starts_with("# "), "{origin}");
        Some(Self {
            template: Arc::clone(template),
            head: head.to_owned(),
        })
    }

    fn name(&self) -> &str {
        self.template.name()
    }

    /// Method, host, port and path.
    fn endpoint(&self) -> (&str, crate::Host, u16, &str) {
        let mut words = self.head.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let host = self
            .fields()
            .find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let authority = Authority::parse(host.unwrap().1).unwrap();
        let path = target.split('?').next().unwrap();
        (method, authority.host, authority.port.unwrap_or(443), path)
    }

    fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let lines = self.head.lines().skip(1);
        lines.filter_map(|line| line.split_once(": "))
    }

    /// A set in which every key has a value that tells its name.
    fn plan(&self) -> Plan {
        let keys = self.template.keys().keys();
        let secrets = keys.map(|key| (key.clone(), Arc::new(Secret::from(value_of(key)))));
        Plan::prepare(&self.template, |_| true, secrets.collect()).unwrap()
    }
}

pub(super) fn file_of(template: &str) -> PathBuf {
    directory().join(format!("{template}.http"))
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings")
}

fn value_of(key: &str) -> String {
    format!("value-of-{key}")
}

/// The text, with what stands in Basic decoded.
fn plain(value: &str) -> String {
    let encoded = value
        .strip_prefix("Basic ")
        .map(|text| STANDARD.decode(text).unwrap());
    encoded.map_or_else(|| value.to_owned(), |text| String::from_utf8(text).unwrap())
}

/// The lines of a head, each with what stands in Basic decoded.
fn plain_lines(head: &str) -> String {
    let line = |line: &str| match line.split_once(": ") {
        Some((name, value)) => format!("{name}: {}", plain(value)),
        None => line.to_owned(),
    };
    head.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_clients_request_reaches_its_provider_with_the_sets_key() {
    for recording in Recording::all() {
        let received = forwarded(&recording.plan(), &recording.head);
        insta::with_settings!({
            snapshot_path => directory(),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!(recording.name(), plain_lines(&received));
        });
    }
}

#[test]
fn the_client_takes_the_placeholder_for_a_key_and_sends_it_where_the_template_says() {
    for recording in Recording::all() {
        let (name, plan) = (recording.name(), recording.plan());
        let in_slot = recording
            .fields()
            .any(|(field, value)| plan.is_slot(field) && is_placeholder(&plain(value)));
        let target = recording.head.lines().next().unwrap();
        let query = target.split_once('?').map(|(_, query)| query);
        let in_query = query.is_some_and(is_placeholder);
        assert!(in_slot || in_query, "{name}: {}", recording.head);
    }
}

#[test]
fn no_placeholder_is_left_and_every_slot_of_the_endpoint_is_filled() {
    for recording in Recording::all() {
        let (name, plan) = (recording.name(), recording.plan());
        let received = plain_lines(&forwarded(&plan, &recording.head));
        assert!(!is_placeholder(&received), "{name}: {received}");
        let (_, host, _, path) = recording.endpoint();
        let injections = recording.template.injections().iter();
        for injection in injections.filter(|one| one.applies(host.as_str(), path)) {
            for key in injection.inject.keys() {
                assert!(
                    received.contains(&value_of(key)),
                    "{name}: {key}: {received}"
                );
            }
        }
        let is_filled = received.contains("value-of-");
        assert!(is_filled, "{name}: {received}");
    }
}

#[test]
fn the_clients_first_request_goes_to_a_host_of_the_template_and_is_not_denied() {
    for recording in Recording::all() {
        let (method, host, port, path) = recording.endpoint();
        let (name, template) = (recording.name(), &recording.template);
        let endpoint = template.endpoint(crate::Scheme::Https, host.as_str(), port);
        assert!(endpoint.is_some(), "{name}: {host}:{port}");
        let denied = template.denied(host.as_str(), method, path, std::iter::empty);
        assert!(denied.is_none(), "{name}: {method} {path}");
    }
}

#[test]
fn a_lease_in_the_place_of_the_placeholder_is_found_by_the_gateway() {
    for recording in Recording::all() {
        let (name, template) = (recording.name(), &recording.template);
        let mut headers = HeaderMap::new();
        for (field, value) in recording.fields() {
            let placeholders = template.placeholders();
            let mut leased = plain(value);
            for (_, placeholder) in placeholders {
                leased = leased.replace(&placeholder, LEASE);
            }
            let leased = match value.strip_prefix("Basic ") {
                Some(_) => format!("Basic {}", STANDARD.encode(leased)),
                None => leased,
            };
            let field = HeaderName::from_bytes(field.as_bytes()).unwrap();
            headers.append(field, HeaderValue::from_str(&leased).unwrap());
        }
        let holds = |value: &HeaderValue| plain(value.to_str().unwrap()).contains(LEASE);
        let in_slot = template
            .secret_slots()
            .iter()
            .any(|slot| headers.get_all(slot).iter().any(holds));
        // What reads its key from the query alone, and OAuth 1 of an older client, take no lease.
        let takes_none = matches!(name, "serpapi" | "trello");
        assert_eq!(in_slot, name != "serpapi", "{name}");
        if !takes_none {
            assert_eq!(
                template.gateway_lease(&headers).as_deref(),
                Some(LEASE),
                "{name}"
            );
        }
    }
}
