//! An injection that the caller writes out. It is never what places the key: it must say what is done without it.
//!
//! A caller who could place a key freely could have it sent in a field that the provider shows to others, or gives back.

use std::fmt::Write as _;

use leases::verify::VerifiedLease;
use providers::Template;
use providers::template::{Inject, Piece, Text};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::AppState;
use crate::error::ApiError;
use crate::injector::Outgoing;
use crate::problem::Code;
use crate::templates;

/// Where the caller says that the key goes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Explicit {
    /// `header`.
    r#type: String,
    #[schema(example = "Authorization")]
    header: Option<String>,
    /// With `${KEY}` for the value of a key.
    #[schema(example = "Bearer ${STRIPE_SECRET_KEY}")]
    format: Option<String>,
}

/// Refuses an injection that is not one of those which the set's template makes on this request.
pub(crate) async fn check(
    state: &AppState,
    lease: &VerifiedLease,
    outgoing: &Outgoing,
    injection: &Explicit,
) -> Result<(), ApiError> {
    let (header, format) = match (
        injection.r#type.as_str(),
        &injection.header,
        &injection.format,
    ) {
        ("header", Some(header), Some(format)) => (header, format),
        ("header", _, _) => {
            return Err(ApiError::invalid("injection", "needs header and format"));
        }
        _ => {
            return Err(ApiError::invalid(
                "injection.type",
                "is none that can be written out; the only one is header, and without `injection` the provider's template does the rest",
            ));
        }
    };
    let template = template(state, lease, outgoing).await?;
    let (host, path) = place(outgoing);
    let made: Vec<(String, String)> = template
        .injections()
        .iter()
        .filter(|injection| injection.applies(&host, path))
        .filter_map(|injection| match &injection.inject {
            Inject::Header { name, value } => Some((name.to_string(), written(value))),
            Inject::Basic { .. }
            | Inject::Query { .. }
            | Inject::SigV4(_)
            | Inject::Path(_)
            | Inject::Cookie { .. }
            | Inject::Form { .. }
            | Inject::Json { .. }
            | Inject::ClientCertificate(_)
            | Inject::Hmac(_) => None,
        })
        .collect();
    let is_made = made
        .iter()
        .any(|(name, value)| name.eq_ignore_ascii_case(header) && value == format);
    if is_made {
        return Ok(());
    }
    let known = if made.is_empty() {
        "sets no header here".to_owned()
    } else {
        let mut known = "sets ".to_owned();
        for (index, (name, value)) in made.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let _ = write!(known, "{comma}`{name}: {value}`");
        }
        known
    };
    let detail = format!(
        "a key goes where its template says and nowhere else: {} {known}; leave `injection` out",
        template.name()
    );
    Err(ApiError::new(Code::InjectionDenied, detail))
}

/// The template of the set that serves the request, by its host.
async fn template(
    state: &AppState,
    lease: &VerifiedLease,
    outgoing: &Outgoing,
) -> Result<std::sync::Arc<Template>, ApiError> {
    let (host, _) = place(outgoing);
    let denied = || {
        let detail = format!(
            "host {} is outside this lease; ask for a grant that includes it",
            crate::text::excerpt(&host)
        );
        ApiError::new(Code::GrantDenied, detail)
    };
    let binding = leases::authorize::covers_host(lease, &host, port(outgoing), state.clock.now());
    let binding = binding.map_err(|_| denied())?;
    let sets = state.store.secret_sets();
    let set = sets.get(lease.org(), &binding.set).await?;
    templates::of_set(state, &set.ok_or_else(denied)?)
}

/// Host and path as the injector will see them, if they are in its one form; any other it refuses.
pub(super) fn place(outgoing: &Outgoing) -> (String, &str) {
    let host = outgoing.url.host().unwrap_or_default();
    (host.to_ascii_lowercase(), outgoing.url.path())
}

pub(super) fn port(outgoing: &Outgoing) -> u16 {
    let default = if outgoing.url.scheme_str() == Some("http") {
        80
    } else {
        443
    };
    outgoing.url.port_u16().unwrap_or(default)
}

/// A value as a template has it.
fn written(text: &Text) -> String {
    text.pieces()
        .iter()
        .map(|piece| match piece {
            Piece::Literal(literal) => literal.clone(),
            Piece::Key(key) => format!("${{{key}}}"),
        })
        .collect()
}
