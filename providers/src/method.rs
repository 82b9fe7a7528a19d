//! Which methods are proxied, and where a request may name another one than its own (threats.md B10).

use percent_encoding::percent_decode_str;

/// The methods that are proxied, as an `Allow` field lists them. Their names are case-sensitive (RFC 9110 section 9.1).
pub const PROXIED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// A method that is not proxied; 32 characters of it are told at most, those that are plain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not proxied; use one of {PROXIED}")]
pub struct NotProxied(String);

/// A query that names another method than its request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the query names another method than the request; send that method itself")]
pub struct OtherMethod;

/// Refuses a method that is not of the short list of those that are proxied.
///
/// # Errors
/// [`NotProxied`].
pub fn check(method: &str) -> Result<(), NotProxied> {
    if PROXIED.split(", ").any(|one| one == method) {
        return Ok(());
    }
    let told = method.chars().take(LONGEST_TOLD);
    Err(NotProxied(told.filter(char::is_ascii_graphic).collect()))
}

/// Refuses a query that names another method than the request's: a framework that takes the method from there would carry
/// out what policy did not see.
///
/// # Errors
/// [`OtherMethod`].
pub fn check_query(query: Option<&str>, method: &str) -> Result<(), OtherMethod> {
    for pair in query.unwrap_or_default().split(['&', ';']) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8_lossy();
        if is_named_by(name) && !value.trim().eq_ignore_ascii_case(method) {
            return Err(OtherMethod);
        }
    }
    Ok(())
}

/// Whether a server may take the method from a parameter of this name, as it is written.
pub fn is_named_by(name: &str) -> bool {
    const NAMES: [&str; 4] = [
        "-method",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
    ];
    let name = name.replace('+', " ");
    let name = percent_decode_str(&name).decode_utf8_lossy();
    // As PHP reads a name: up to its brackets or a zero.
    let name = name.split(['[', '\0']).next().unwrap_or_default();
    let name = name.trim().to_ascii_lowercase().replace('_', "-");
    NAMES.contains(&&*name)
}

const LONGEST_TOLD: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_has_one_spelling() {
        for method in PROXIED.split(", ") {
            assert_eq!(check(method), Ok(()));
            assert!(check(&method.to_ascii_lowercase()).is_err());
        }
        for method in ["", "TRACE", "CONNECT", "GETX", "GET, HEAD", " GET"] {
            assert!(check(method).is_err(), "{method}");
        }
        let told = check(&format!("\u{1b}[31m{}", "X".repeat(100)));
        let told = told.unwrap_err().to_string();
        let plain = format!("[31m{} is not proxied; ", "X".repeat(LONGEST_TOLD - 5));
        assert!(told.starts_with(&plain), "{told}");
    }

    #[test]
    fn a_query_that_names_another_method_is_refused() {
        let check = |query, method| check_query(Some(query), method);
        for query in [
            "_method=DELETE",
            "a=1&_method=delete",
            "a=1;_method=PUT",
            "%5Fmethod=DELETE",
            "_METHOD=DELETE",
            "_method[]=DELETE",
            "_method%00=DELETE",
            "+_method=DELETE",
            "_method=POST&_method=DELETE",
            "_method",
            "X-HTTP-Method-Override=DELETE",
            "x_http_method_override=DELETE",
            "x-http-method=PUT",
            "X-Method-Override=PATCH",
        ] {
            assert_eq!(check(query, "POST"), Err(OtherMethod), "{query}");
        }
        for query in [
            "",
            "_method=POST",
            "_method=p%4Fst",
            "method=DELETE",
            "a=_method",
            "x=1&my_method=PUT",
        ] {
            assert_eq!(check(query, "POST"), Ok(()), "{query}");
        }
        assert_eq!(check_query(None, "POST"), Ok(()));
    }
}
