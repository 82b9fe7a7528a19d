//! The places of a credential beyond the header fields and the query: path, cookie, body, TLS handshake.

use super::super::{At, RawCertificate, RawInject};
use super::{Check, LONGEST_TEXT, MOST, is_visible, parse_text};
use crate::template::{ClientCertificateKeys, Inject, JsonPointer, PathPiece, PathSlot, Text};

/// How deep a JSON field may lie.
const DEEPEST: usize = 8;

impl Check<'_> {
    /// Each kind that is written; one with a mistake is `None`, and its mistake is reported.
    pub(super) fn carriers(
        &mut self,
        raw: &RawInject,
        value: Option<&Text>,
    ) -> Vec<Option<Inject>> {
        let value = || value.cloned();
        let path = raw.path.as_ref().map(|path| {
            if let Some(paths) = raw.paths.first() {
                self.report.add(
                    &paths.place,
                    "belongs to no `path`, which says itself where it is filled; remove it",
                );
            }
            self.path_slot(path).map(Inject::Path)
        });
        let cookie = raw.cookie.as_ref().map(|name| {
            let name = self.cookie_name(name)?;
            Some(Inject::Cookie {
                name,
                value: value()?,
            })
        });
        let form = raw.form.as_ref().map(|name| {
            let name = self.form_name(name)?;
            Some(Inject::Form {
                name,
                value: value()?,
            })
        });
        let json = raw.json.as_ref().map(|pointer| {
            let pointer = self.pointer(pointer)?;
            Some(Inject::Json {
                pointer,
                value: value()?,
            })
        });
        let certificate = raw.client_certificate.as_ref().map(|pair| {
            if let Some(paths) = raw.paths.first() {
                self.report.add(
                    &paths.place,
                    "comes too late for a TLS handshake, which is before any path; remove it",
                );
            }
            self.certificate(pair).map(Inject::ClientCertificate)
        });
        let hmac = raw
            .hmac
            .as_ref()
            .map(|texts| self.hmac(texts).map(Inject::Hmac));
        let written = [path, cookie, form, json, certificate, hmac];
        written.into_iter().flatten().collect()
    }

    fn path_slot(&mut self, raw: &At<String>) -> Option<PathSlot> {
        let slot = self.parse_path_slot(raw);
        if slot.is_none() {
            self.report.add(
                &raw.place,
                "is not a path with one key; write it as `/bot${MY_KEY}/**`: one `${MY_KEY}` in one segment, `*` for a whole other segment, `**` for any number of them at the end",
            );
        }
        slot
    }

    fn parse_path_slot(&mut self, raw: &At<String>) -> Option<PathSlot> {
        // Reports a key that is not there or never sent.
        let parsed = parse_text(raw, self.keys, self.report)?;
        let text = raw.value.strip_prefix('/')?;
        let is_plain = is_visible(text) && !text.contains(['?', '#', '\\', '%']);
        if !is_plain || parsed.keys().count() != 1 {
            return None;
        }
        let (text, is_open) = match text.strip_suffix("/**") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let segments: Vec<&str> = text.split('/').collect();
        let at = segments.iter().position(|segment| segment.contains("${"))?;
        let (prefix, rest) = segments[at].split_once("${")?;
        let (key, suffix) = rest.split_once('}')?;
        let piece = |segment: &&str| match *segment {
            "*" => Some(PathPiece::Any),
            "" | "." | ".." => None,
            segment if segment.contains('*') => None,
            segment => Some(PathPiece::Literal(segment.to_owned())),
        };
        if segments.len() > MOST || prefix.contains('*') || suffix.contains('*') {
            return None;
        }
        Some(PathSlot {
            before: segments[..at].iter().map(piece).collect::<Option<_>>()?,
            prefix: prefix.to_owned(),
            key: key.to_owned(),
            suffix: suffix.to_owned(),
            after: segments[at + 1..]
                .iter()
                .map(piece)
                .collect::<Option<_>>()?,
            is_open,
        })
    }

    /// A token of RFC 6265, section 4.1.1.
    fn cookie_name(&mut self, raw: &At<String>) -> Option<String> {
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !(1..=128).contains(&raw.value.len()) || !raw.value.bytes().all(is_token) {
            self.report.add(
                &raw.place,
                "is not a cookie's name; use letters, digits, `-`, `_` and `.`, at most 128",
            );
            return None;
        }
        Some(raw.value.clone())
    }

    fn form_name(&mut self, raw: &At<String>) -> Option<String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if !(1..=128).contains(&raw.value.len()) || !raw.value.bytes().all(plain) {
            self.report.add(
                &raw.place,
                "is not a field's name; use letters, digits and `-._~`, at most 128",
            );
            return None;
        }
        Some(raw.value.clone())
    }

    /// RFC 6901: `/a/b`, with `~1` for a slash and `~0` for a tilde.
    fn pointer(&mut self, raw: &At<String>) -> Option<JsonPointer> {
        let names: Option<Vec<String>> = raw
            .value
            .strip_prefix('/')
            .filter(|_| is_visible(&raw.value) && raw.value.len() <= LONGEST_TEXT)
            .map(|text| text.split('/').collect::<Vec<_>>())
            .filter(|names| names.len() <= DEEPEST)
            .and_then(|names| names.into_iter().map(unescape).collect());
        if names.is_none() {
            self.report.add(
                &raw.place,
                "is not a JSON pointer to a member; write `/auth/token` (RFC 6901), at most 8 names of visible ASCII",
            );
        }
        names.map(JsonPointer)
    }

    fn certificate(&mut self, raw: &At<RawCertificate>) -> Option<ClientCertificateKeys> {
        let certificate = self.certificate_key(raw.value.certificate.as_ref(), "certificate", raw);
        let key = self.certificate_key(raw.value.key.as_ref(), "key", raw);
        Some(ClientCertificateKeys {
            certificate: certificate?,
            key: key?,
        })
    }

    fn certificate_key(
        &mut self,
        text: Option<&At<String>>,
        name: &str,
        whole: &At<RawCertificate>,
    ) -> Option<String> {
        let Some(text) = text else {
            self.report.add(
                &whole.place,
                format!("has no `{name}`; add it as `${{MY_KEY}}`, a key that holds PEM"),
            );
            return None;
        };
        self.reference(text)
    }
}

fn unescape(name: &str) -> Option<String> {
    let is_escaped = name
        .split('~')
        .skip(1)
        .all(|rest| rest.starts_with(['0', '1']));
    (is_escaped && !name.is_empty()).then(|| name.replace("~1", "/").replace("~0", "~"))
}
