//! `[[deny]]` and `[presets.NAME]`: what they hold, and what they mean.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeValue;

use super::check::{Check, LONGEST_TEXT, MOST};
use super::read::Reader;
use super::{At, Place};
use crate::deny::{Denial, DeniedPath};
use crate::template::Preset;

/// A `[[deny]]` as it is written.
#[derive(Debug, Default)]
pub(super) struct RawDenial {
    why: Option<At<String>>,
    hosts: Vec<At<String>>,
    methods: Vec<At<String>>,
    by_method: bool,
    paths: Vec<At<String>>,
    place: Place,
}

/// A `[presets.NAME]` as it is written.
#[derive(Debug, Default)]
pub(super) struct RawPreset {
    name: At<String>,
    about: Option<At<String>>,
    hosts: Vec<At<String>>,
    methods: Vec<At<String>>,
    paths: Vec<At<String>>,
}

impl Reader<'_, '_> {
    pub(super) fn denials(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        place: &Place,
    ) -> Vec<RawDenial> {
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, place, "a table `[[deny]]`");
            return Vec::new();
        };
        let tables = array.iter().enumerate().map(|(n, value)| {
            let place = Place::new(self.line(value), format!("deny[{n}]"));
            self.denial(value, place)
        });
        tables.collect()
    }

    fn denial(&mut self, value: &Spanned<DeValue<'_>>, place: Place) -> RawDenial {
        let fields = self.table(value, &place);
        let mut raw = RawDenial {
            place,
            ..RawDenial::default()
        };
        for (name, value) in fields {
            let place = self.place(name, &raw.place.field);
            match name.get_ref().as_ref() {
                "why" => raw.why = self.string(value, place),
                "hosts" => raw.hosts = self.list(value, place),
                "methods" => raw.methods = self.list(value, place),
                "by_method" => raw.by_method = self.flag(value, &place),
                "paths" => raw.paths = self.list(value, place),
                _ => self.unknown(&place, "why, hosts, methods, by_method, paths"),
            }
        }
        raw
    }

    pub(super) fn presets(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        place: &Place,
    ) -> Vec<RawPreset> {
        let tables = self.table(value, place).map(|(name, value)| {
            let place = self.place(name, &place.field);
            let name = At::new(name.get_ref().to_string(), place);
            self.preset(name, value)
        });
        tables.collect()
    }

    fn preset(&mut self, name: At<String>, value: &Spanned<DeValue<'_>>) -> RawPreset {
        let fields = self.table(value, &name.place);
        let mut raw = RawPreset {
            name,
            ..RawPreset::default()
        };
        for (name, value) in fields {
            let place = self.place(name, &raw.name.place.field);
            match name.get_ref().as_ref() {
                "about" => raw.about = self.string(value, place),
                "hosts" => raw.hosts = self.list(value, place),
                "methods" => raw.methods = self.list(value, place),
                "paths" => raw.paths = self.list(value, place),
                _ => self.unknown(&place, "about, hosts, methods, paths"),
            }
        }
        raw
    }
}

impl Check<'_> {
    pub(super) fn denials(&mut self, raw: &[RawDenial]) -> Vec<Denial> {
        if let Some(extra) = raw.get(MOST) {
            let message = format!("is one of more than {MOST} `[[deny]]`; split the template");
            self.report.add(&extra.place, message);
        }
        raw.iter()
            .take(MOST)
            .map(|one| Denial {
                why: self.sentence(one.why.as_ref(), &one.place, "why", "makes API keys"),
                hosts: self.rule_hosts(&one.hosts),
                methods: self.methods(&one.methods),
                by_method: self.by_method(one),
                paths: self.denied_paths(one),
            })
            .collect()
    }

    fn by_method(&mut self, raw: &RawDenial) -> bool {
        if raw.by_method && raw.methods.is_empty() {
            let message =
                "is by method and names no `methods`; list those that a path does not name";
            self.report.add(&raw.place, message);
        }
        raw.by_method
    }

    fn denied_paths(&mut self, raw: &RawDenial) -> Vec<DeniedPath> {
        if raw.paths.is_empty() {
            self.report.add(
                &raw.place,
                "names no `paths`; list the endpoints, as in `paths = [\"/v1/keys\"]`",
            );
        }
        let mut paths = Vec::new();
        for path in &raw.paths {
            if !self.glob(path) {
                continue;
            }
            let is_every = |segment: &str| segment.chars().all(|c| c == '*');
            if path.value != "/" && path.value.split('/').all(is_every) {
                let message = "denies every path, which nobody could name; name the endpoints, or leave the host out of `hosts`";
                self.report.add(&path.place, message);
            }
            paths.push(DeniedPath::new(&path.value));
        }
        paths
    }

    pub(super) fn presets(
        &mut self,
        raw: &[RawPreset],
        denials: &[RawDenial],
    ) -> BTreeMap<String, Preset> {
        let mut presets = BTreeMap::new();
        for one in raw {
            let place = &one.name.place;
            self.preset_name(&one.name);
            if one.hosts.is_empty() && one.methods.is_empty() && one.paths.is_empty() {
                let message = "limits nothing; give it `hosts`, `methods` or `paths`";
                self.report.add(place, message);
            }
            let preset = Preset {
                about: self.sentence(
                    one.about.as_ref(),
                    place,
                    "about",
                    "Reads everything, changes nothing",
                ),
                hosts: self.rule_hosts(&one.hosts),
                methods: self.methods(&one.methods),
                paths: self.preset_paths(one, denials),
            };
            presets.insert(one.name.value.clone(), preset);
        }
        presets
    }

    fn preset_name(&mut self, name: &At<String>) {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !name.value.bytes().all(plain) || !(1..=63).contains(&name.value.len()) {
            let message = "is not a preset's name; use lower-case letters, digits and hyphens, as in `read-only`";
            self.report.add(&name.place, message);
        }
    }

    /// A path that lies within a denied one would name it, and so lift the denial behind the back of whoever chose the preset.
    fn preset_paths(&mut self, raw: &RawPreset, denials: &[RawDenial]) -> Vec<String> {
        if let Some(extra) = raw.paths.get(MOST) {
            let message = format!("is one of more than {MOST} paths; use wider globs");
            self.report.add(&extra.place, message);
        }
        let mut paths = Vec::new();
        for path in raw
            .paths
            .iter()
            .filter(|path| self.glob(path))
            .collect::<Vec<_>>()
        {
            let mut denials = denials.iter().filter(|denial| !denial.by_method);
            let naming = denials.find(|denial| {
                let mut denied = denial
                    .paths
                    .iter()
                    .filter(|denied| denied.value.starts_with('/'));
                denied.any(|denied| DeniedPath::new(&denied.value).holds(&path.value))
            });
            if let Some(denial) = naming {
                let message = format!(
                    "names what {} denies; remove it, and let a grant name it",
                    denial.place.field
                );
                self.report.add(&path.place, message);
            }
            paths.push(path.value.clone());
        }
        paths
    }

    fn sentence(
        &mut self,
        raw: Option<&At<String>>,
        place: &Place,
        field: &str,
        example: &str,
    ) -> String {
        let Some(text) = raw else {
            let message =
                format!("has no `{field}`; say it in a few words, as in `{field} = \"{example}\"`");
            self.report.add(place, message);
            return String::new();
        };
        let is_plain = text.value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if text.value.is_empty() || text.value.len() > LONGEST_SENTENCE || !is_plain {
            let message = format!(
                "is not a short text; use 1 to {LONGEST_SENTENCE} characters of ASCII on one line"
            );
            self.report.add(&text.place, message);
        }
        text.value.clone()
    }

    fn rule_hosts(&mut self, raw: &[At<String>]) -> Vec<crate::host::HostRule> {
        raw.iter()
            .filter_map(|host| self.injection_host(host))
            .collect()
    }

    fn methods(&mut self, raw: &[At<String>]) -> Vec<String> {
        for method in raw {
            if !METHODS.contains(&method.value.as_str()) {
                let message = format!(
                    "is not a method that is proxied; use {}",
                    METHODS.join(", ")
                );
                self.report.add(&method.place, message);
            }
        }
        raw.iter().map(|method| method.value.clone()).collect()
    }

    /// Whether a text is a path glob as grants have them: then a refusal may propose it, and a preset become a grant's.
    fn glob(&mut self, raw: &At<String>) -> bool {
        let is_path = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,=:@".contains(c);
        let text = &raw.value;
        let segments: Vec<&str> = text.split('/').skip(1).collect();
        let is_segment = |segment: &&str| {
            !matches!(*segment, "." | "..") && (!segment.contains("**") || *segment == "**")
        };
        let is_good = text.starts_with('/')
            && text.chars().all(is_path)
            && text.len() <= LONGEST_TEXT
            && segments.len() <= MOST
            && segments.iter().all(is_segment)
            && !text.contains("//")
            && !text.contains("/**/**");
        if !is_good {
            let message = "is not a path; begin with `/`, use `*` within a segment and `**` for any number of segments, without escapes, a query or empty segments";
            self.report.add(&raw.place, message);
        }
        is_good
    }
}

/// What is proxied at all.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// In bytes.
const LONGEST_SENTENCE: usize = 120;
