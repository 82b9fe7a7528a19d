//! How each template takes the lease in gateway form: where the provider's own key would stand.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use crate::template::{Inject, Template};

impl Template {
    /// The lease in the provider's own slot: `authorization: Bearer <lease>`, `x-api-key: <lease>`,
    /// Basic with the lease as user or password, the session token or the access key id of SigV4.
    ///
    /// It is the text that stands there, not checked. Where the slots hold several texts (Datadog's two keys, a user beside
    /// a password) the first that has a lease's form is meant, and else the first. `None` if the slots are empty.
    pub fn gateway_lease(&self, headers: &HeaderMap) -> Option<String> {
        let mut texts: Vec<String> = self
            .secret_slots()
            .iter()
            .flat_map(|slot| self.texts(slot, headers))
            .collect();
        let lease = texts
            .iter()
            .position(|text| text.starts_with(LEASE_PREFIX))
            .unwrap_or(0);
        (!texts.is_empty()).then(|| texts.swap_remove(lease))
    }

    /// The URL that stands behind `/gateway/<provider>/`: `https://api.stripe.com`, the first host of the template.
    /// `None` if that host is a pattern: then only a proxy can tell which host is meant.
    pub fn gateway_base(&self) -> Option<String> {
        let first = self.hosts().first()?;
        first.exact().map(|_| first.to_string())
    }

    fn texts(&self, slot: &HeaderName, headers: &HeaderMap) -> Vec<String> {
        let signs = self
            .injections()
            .iter()
            .any(|injection| matches!(injection.inject, Inject::SigV4(_)));
        let values = headers
            .get_all(slot)
            .iter()
            .filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| {
                if slot == AUTHORIZATION {
                    authorization(value.trim(), signs)
                } else {
                    vec![value.trim().to_owned()]
                }
            })
            .filter(|text| !text.is_empty())
            .collect()
    }
}

/// What an Authorization header holds: of Basic both halves, of SigV4 the key id, of any other scheme what follows it
/// (`Bearer`, GitHub's `token`), and of no scheme the whole (Linear). Where a key has a name before it (`PagerDuty`'s
/// `token=KEY`, `PlanetScale`'s `ID:KEY`), the key alone, too.
fn authorization(value: &str, signs: bool) -> Vec<String> {
    let Some((scheme, rest)) = value.split_once(' ') else {
        // A scheme with nothing after it is an empty slot.
        let is_scheme = ["basic", "bearer", "token"]
            .iter()
            .any(|scheme| value.eq_ignore_ascii_case(scheme));
        return if is_scheme {
            Vec::new()
        } else {
            with_named(value)
        };
    };
    let rest = rest.trim_start();
    if scheme.eq_ignore_ascii_case("basic") {
        return basic(rest).unwrap_or_default();
    }
    if signs {
        let credential = rest
            .split(',')
            .find_map(|pair| pair.trim().strip_prefix("Credential="));
        return credential
            .and_then(|credential| credential.split('/').next())
            .map(str::to_owned)
            .into_iter()
            .collect();
    }
    with_named(rest)
}

/// What stands behind a name in the text, and the text.
fn with_named(text: &str) -> Vec<String> {
    let named = text.split_once(['=', ':']).map(|(_, key)| key.to_owned());
    named
        .into_iter()
        .chain(std::iter::once(text.to_owned()))
        .collect()
}

fn basic(encoded: &str) -> Option<Vec<String>> {
    let decoded = String::from_utf8(BASE64.decode(encoded).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some(vec![password.to_owned(), user.to_owned()])
}

/// Clients send Basic with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const LEASE_PREFIX: &str = "clv_";

#[cfg(test)]
mod tests;
