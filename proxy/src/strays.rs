//! Leases where none belongs. A lease opens doors here alone, so what an agent put beside its slot neither travels on
//! (threats.md A21) nor is recorded (A22).

use std::borrow::Cow;
use std::sync::LazyLock;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use leases::token::PREFIX;
use memchr::memmem;
use pingora::http::RequestHeader;

use crate::normalize::RawTarget;
use crate::refuse::{Code, Refusal};

/// The shortest text behind the prefix that is taken for a lease: less holds no signature.
const LEAST: usize = 64;

/// Whether a lease stands anywhere in these bytes.
fn bears_lease(bytes: &[u8]) -> bool {
    static FINDER: LazyLock<memmem::Finder<'_>> = LazyLock::new(|| memmem::Finder::new(PREFIX));
    if bytes.len() < PREFIX.len() + LEAST {
        return false;
    }
    FINDER.find_iter(bytes).any(|at| {
        let rest = &bytes[at + PREFIX.len()..];
        let is_base64url = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        rest.iter().take_while(is_base64url).count() >= LEAST
    })
}

/// Refuses a target with a lease in it: providers, and whoever stands before them, write targets into their logs.
pub(crate) fn check_target(target: &RawTarget<'_>) -> Result<(), Refusal> {
    let parts = [Some(target.path), target.query, target.authority];
    if parts
        .into_iter()
        .flatten()
        .any(|part| bears_lease(part.as_bytes()))
    {
        return Err(Refusal::new(
            Code::AmbiguousRequest,
            "a lease does not belong into a URL; send it as Proxy-Authorization, and revoke this one if the URL was logged",
        ));
    }
    Ok(())
}

/// Takes leases out of the fields that go upstream; of Cookie, the crumbs that bear one.
pub(crate) fn drop_leases(request: &mut RequestHeader) {
    for name in bearing(&request.headers) {
        let kept = (name == COOKIE).then(|| crumbs(&request.headers)).flatten();
        request.remove_header(&name);
        if let Some(kept) = kept {
            request
                .insert_header(COOKIE, kept)
                .expect("a field that was there has a proper name");
        }
    }
}

/// The fields as [`drop_leases`] leaves them.
pub(crate) fn without_leases(headers: &HeaderMap) -> Vec<(&HeaderName, Cow<'_, HeaderValue>)> {
    let bearing = bearing(headers);
    let cookies = bearing.contains(&COOKIE).then(|| crumbs(headers)).flatten();
    let kept = headers.iter().filter(|(name, _)| !bearing.contains(name));
    kept.map(|(name, value)| (name, Cow::Borrowed(value)))
        .chain(cookies.map(|cookies| (&COOKIE, Cow::Owned(cookies))))
        .collect()
}

/// The names of the fields that bear a lease.
fn bearing(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .iter()
        .filter(|(_, value)| bears_lease(value.as_bytes()))
        .map(|(name, _)| name.clone())
        .collect()
}

/// The cookies without those that bear a lease.
fn crumbs(headers: &HeaderMap) -> Option<HeaderValue> {
    let kept: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .map(<[u8]>::trim_ascii)
        .filter(|crumb| !crumb.is_empty() && !bears_lease(crumb))
        .collect();
    if kept.is_empty() {
        return None;
    }
    HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> String {
        format!("{PREFIX}{}", "Ab-_".repeat(40))
    }

    #[test]
    fn a_lease_is_found_wherever_it_stands_and_its_prefix_alone_is_none() {
        let lease = lease();
        for text in [
            lease.clone(),
            format!("/a/{lease}/b"),
            format!("clv_x clv_{lease}"),
        ] {
            assert!(bears_lease(text.as_bytes()), "{text}");
        }
        for text in ["clv_", "clv_short", "CLV_".repeat(40).as_str(), ""] {
            assert!(!bears_lease(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_url_with_a_lease_is_refused_without_repeating_it() {
        let lease = lease();
        for target in [format!("/v1/{lease}"), format!("/v1?lease={lease}")] {
            let refusal = check_target(&RawTarget::parse(&target).unwrap()).unwrap_err();
            assert_eq!(refusal.code, Code::AmbiguousRequest);
            assert!(!refusal.detail.contains(&lease));
        }
        check_target(&RawTarget::parse("/v1?lease=clv_no").unwrap()).unwrap();
    }

    #[test]
    fn fields_and_cookies_that_bear_a_lease_stay_here() {
        let lease = lease();
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in [
            ("x-lease", lease.clone()),
            ("x-other", "clv_short".to_owned()),
            ("cookie", format!("a=1; l={lease}; b=2")),
        ] {
            request.append_header(name, value).unwrap();
        }
        let told: HeaderMap = without_leases(&request.headers)
            .into_iter()
            .map(|(name, value)| (name.clone(), value.into_owned()))
            .collect();
        drop_leases(&mut request);
        assert_eq!(told, request.headers);
        assert!(!request.headers.contains_key("x-lease"));
        assert_eq!(request.headers["x-other"], "clv_short");
        assert_eq!(request.headers["cookie"], "a=1; b=2");
    }
}
