//! One spelling for each email, so that no limit and no uniqueness is got round by case, spaces or look-alike code points.

use unicode_normalization::UnicodeNormalization as _;

use crate::error::ApiError;

/// The canonical form: compatibility forms folded (NFKC), lower case, without spaces around it; `None` for what is no email.
///
/// At most 254 bytes (RFC 5321, section 4.5.3.1.3). Letters and digits of any script, and what RFC 5322 calls `atext`.
pub fn canonical(text: &str) -> Option<String> {
    if text.len() > MAX_RAW {
        return None;
    }
    let folded: String = text.trim().nfkc().flat_map(char::to_lowercase).collect();
    // Lower case may bring forms back that NFKC folds.
    let folded: String = folded.nfkc().collect();
    let (local, domain) = folded.rsplit_once('@')?;
    let is_good = folded.len() <= MAX_BYTES && is_local(local) && is_domain(domain);
    is_good.then_some(folded)
}

/// [`canonical`], for a body's field.
pub(crate) fn required(text: &str) -> Result<String, ApiError> {
    canonical(text).ok_or_else(|| {
        ApiError::invalid(
            "email",
            "is not an email address; write it like ada@example.org",
        )
    })
}

/// What limits count by: the canonical form, or for what is no email a form that is as blind to case and spaces.
pub(crate) fn limit_key(text: &str) -> String {
    canonical(text).unwrap_or_else(|| {
        let folded = text.nfkc().flat_map(char::to_lowercase);
        folded
            .filter(|character| character.is_alphanumeric())
            .take(MAX_BYTES)
            .collect()
    })
}

fn is_local(local: &str) -> bool {
    let is_atom = |atom: &str| !atom.is_empty() && atom.chars().all(is_atext);
    local.len() <= MAX_LOCAL && local.split('.').all(is_atom)
}

fn is_atext(character: char) -> bool {
    character.is_alphanumeric()
        || matches!(
            character,
            '!' | '#'
                | '$'
                | '%'
                | '&'
                | '\''
                | '*'
                | '+'
                | '-'
                | '/'
                | '='
                | '?'
                | '^'
                | '_'
                | '`'
                | '{'
                | '|'
                | '}'
                | '~'
        )
}

fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        let edges = !label.starts_with('-') && !label.ends_with('-');
        let all = label
            .chars()
            .all(|character| character.is_alphanumeric() || character == '-');
        !label.is_empty() && label.len() <= 63 && edges && all
    };
    domain.split('.').all(is_label)
}

const MAX_RAW: usize = 1024;
const MAX_BYTES: usize = 254;
const MAX_LOCAL: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_spaces_and_compatibility_forms_are_one_email() {
        for spelling in [
            "ada@example.org",
            " Ada@Example.ORG ",
            "ADA@EXAMPLE.ORG\n",
            "\u{ff41}\u{ff44}\u{ff41}@example.org",
            "ada\u{ff20}example.org",
            "\u{1d41a}da@example\u{ff0e}org",
        ] {
            assert_eq!(
                canonical(spelling).as_deref(),
                Some("ada@example.org"),
                "{spelling:?}"
            );
        }
        let composed = canonical("ren\u{e9}e@example.org");
        assert_eq!(composed, canonical("RENE\u{301}E@example.org"));
        assert!(composed.is_some());
    }

    #[test]
    fn canonical_is_its_own_canonical_form() {
        for text in ["Ada+x@example.org", "\u{130}z@example.org", "a.b@c"] {
            let once = canonical(text);
            if let Some(once) = once {
                assert_eq!(canonical(&once), Some(once.clone()), "{text}");
            }
        }
    }

    #[test]
    fn what_hides_something_is_no_email() {
        for bad in [
            "",
            "ada",
            "@example.org",
            "ada@",
            "a b@example.org",
            "ada\u{200b}@example.org",
            "ada@exa\u{ad}mple.org",
            "ada@@example.org",
            "a..b@example.org",
            ".a@example.org",
            "ada@-example.org",
            "ada@example..org",
            "ada\0@example.org",
            "ada\u{202e}@example.org",
            "<script>@example.org",
            &format!("{}@example.org", "a".repeat(65)),
            &format!("a@{}", "b.".repeat(200)),
        ] {
            assert_eq!(canonical(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_limit_is_not_got_round_by_what_is_no_email() {
        assert_eq!(limit_key(" A\u{200b}da@@x "), limit_key("ada@x\u{200b}@"));
        assert!(limit_key(&"x".repeat(5_000)).len() <= MAX_BYTES);
    }
}
