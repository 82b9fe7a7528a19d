//! What the tests of this crate share: targets, templates and plans.

use std::collections::BTreeMap;
use std::sync::Arc;

use pingora::http::RequestHeader;
use providers::inject::Plan;
use providers::template::Template;
use time::{OffsetDateTime, macros::datetime};
use vault::Secret;

use crate::normalize::{self, Target};

/// A Sunday.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-11-22 07:00 UTC);

/// The target of this URL.
pub(crate) fn target(url: &str) -> Target {
    let request = RequestHeader::build("GET", url.as_bytes(), None).unwrap();
    normalize::absolute(&request, None).unwrap()
}

/// A template of one host from what else its file says; its one key is `KEY`.
pub(crate) fn template(host: &str, rest: &str) -> Arc<Template> {
    let text = format!(
        "name = \"acme\"\ndocs = \"https://example.com\"\nhosts = [\"{host}\"]\nkeys = {{ KEY = \"required\" }}\n{rest}"
    );
    Arc::new(providers::load::parse_template("acme.toml", &text).unwrap())
}

/// What a template makes of these secrets.
pub(crate) fn plan(template: &Arc<Template>, secrets: &[(&str, &str)]) -> Plan {
    let secret =
        |&(key, value): &(&str, &str)| (key.to_owned(), Arc::new(Secret::from(value.to_owned())));
    let secrets: BTreeMap<_, _> = secrets.iter().map(secret).collect();
    Plan::prepare(template, |_| true, secrets).unwrap()
}
