//! `hmac` of an `[[inject]]`: what is signed, and where the signature stands.

use super::super::{At, RawTexts};
use super::{Check, LONGEST_TEXT};
use crate::template::{HmacEncoding, HmacPiece, HmacSignature, HmacTime};

/// The fields, each a text.
pub(in crate::load) const FIELDS: [&str; 8] = [
    "key",
    "over",
    "header",
    "prefix",
    "encoding",
    "algorithm",
    "time",
    "time_header",
];

impl Check<'_> {
    pub(super) fn hmac(&mut self, raw: &RawTexts) -> Option<HmacSignature> {
        let key = self.hmac_text(raw, "key").cloned();
        let key = key.and_then(|key| self.reference(&key));
        let over = self.hmac_text(raw, "over").cloned();
        let over = over.and_then(|over| self.pieces(&over));
        let header = self.hmac_text(raw, "header").cloned();
        let header = header.and_then(|header| self.slot(&header));
        let prefix = raw.get("prefix").map_or("", |prefix| &prefix.value);
        if let Some(at) = raw.get("prefix")
            && (!at
                .value
                .bytes()
                .all(|byte| byte.is_ascii_graphic() || byte == b' ')
                || at.value.len() > LONGEST_TEXT)
        {
            self.report.add(
                &at.place,
                "is not what stands before a signature; write visible ASCII",
            );
        }
        let encoding = self.word(
            raw,
            "encoding",
            [("hex", HmacEncoding::Hex), ("base64", HmacEncoding::Base64)],
        );
        let is_sha512 = self.word(raw, "algorithm", [("sha256", false), ("sha512", true)]);
        let time = self.word(
            raw,
            "time",
            [
                ("seconds", HmacTime::Seconds),
                ("milliseconds", HmacTime::Milliseconds),
            ],
        );
        let time_header = raw.get("time_header").cloned();
        let time_header = time_header.map(|header| self.slot(&header));
        if let Some(at) = raw.get("unknown") {
            self.report.add(
                &at.place,
                format!("is not a known field; use one of {}", FIELDS.join(", ")),
            );
        }
        Some(HmacSignature {
            key: key?,
            over: over?,
            header: header?,
            prefix: prefix.to_owned(),
            encoding: encoding?,
            is_sha512: is_sha512?,
            time: time?,
            time_header: match time_header {
                Some(header) => Some(header?),
                None => None,
            },
        })
    }

    fn hmac_text<'r>(&mut self, raw: &'r RawTexts, name: &str) -> Option<&'r At<String>> {
        let found = raw.get(name);
        if found.is_none() {
            self.report
                .add(&raw.place, format!("has no `{name}`; add it"));
        }
        found
    }

    /// One of two words; the first is the usual one.
    fn word<T: Copy>(&mut self, raw: &RawTexts, name: &str, words: [(&str, T); 2]) -> Option<T> {
        let Some(text) = raw.get(name) else {
            return Some(words[0].1);
        };
        let found = words.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            let [(first, _), (second, _)] = words;
            self.report.add(
                &text.place,
                format!("is neither \"{first}\" nor \"{second}\""),
            );
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// `{timestamp}{method}{target}{body}`: parts in braces, all else as it stands.
    fn pieces(&mut self, raw: &At<String>) -> Option<Vec<HmacPiece>> {
        let pieces = parse(&raw.value);
        if pieces.is_none() {
            self.report.add(
                &raw.place,
                "is not what is signed; write `{method}`, `{host}`, `{path}`, `{query}`, `{target}` (path and query), `{time}`, `{body}`, `{body_sha256}`, `{newline}` and visible ASCII between them",
            );
        }
        pieces
    }
}

fn parse(text: &str) -> Option<Vec<HmacPiece>> {
    let is_plain = |text: &str| {
        text.bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && byte != b'}')
    };
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        let (name, behind) = behind.split_once('}')?;
        if !is_plain(before) {
            return None;
        }
        if !before.is_empty() {
            pieces.push(HmacPiece::Literal(before.to_owned()));
        }
        pieces.push(match name {
            "method" => HmacPiece::Method,
            "host" => HmacPiece::Host,
            "path" => HmacPiece::Path,
            "query" => HmacPiece::Query,
            "target" => HmacPiece::Target,
            "time" => HmacPiece::Time,
            "body" => HmacPiece::Body,
            "body_sha256" => HmacPiece::BodySha256,
            "newline" => HmacPiece::Literal("\n".to_owned()),
            _ => return None,
        });
        rest = behind;
    }
    if !is_plain(rest) || text.len() > LONGEST_TEXT {
        return None;
    }
    if !rest.is_empty() {
        pieces.push(HmacPiece::Literal(rest.to_owned()));
    }
    // A constant signed is a constant.
    let is_constant = pieces
        .iter()
        .all(|piece| matches!(piece, HmacPiece::Literal(_)));
    (!is_constant).then_some(pieces)
}
