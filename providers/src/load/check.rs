//! What is written in a template to what it means. Every mistake is added to the report; the first one does not stop.

mod carrier;
mod hmac;
mod recipe;

use std::collections::{BTreeMap, BTreeSet};

use http::HeaderName;

use super::{
    At, Entry, Origin, Place, RawBasic, RawInject, RawMake, RawSigV4, RawTemplate, Report,
};
use crate::exchange::Recipe;
use crate::host::HostRule;
use crate::inject::{names, sigv4::endpoint};
use crate::placeholder;
use crate::template::{Inject, Injection, KeyUse, PathPattern, Piece, SigV4Keys, Template, Text};
use crate::usage::Format;

pub(super) use hmac::FIELDS as HMAC_FIELDS;
pub(super) use recipe::FIELDS as MAKE_FIELDS;

/// Checks a template; what it returns is used only if nothing was added to the report.
pub(super) fn template(raw: &RawTemplate, origin: Origin, report: &mut Report) -> Template {
    let mut keys = keys(raw.keys.as_ref(), &raw.place, report);
    // A made key is referred to like a stored one, and is there when what it is made of is.
    for made in raw.make.iter().filter_map(RawMake::key) {
        let optional = At::new(KeyUse::Optional, made.place.clone());
        if keys.insert(made.value.clone(), optional).is_some() {
            report.add(
                &made.place,
                "is a stored key, or made twice; choose another name",
            );
        }
    }
    let hosts = hosts(raw.hosts.as_ref(), &raw.place, report);
    let mut check = Check {
        keys: &keys,
        hosts: &hosts,
        report,
    };
    let recipes = check.recipes(&raw.make);
    let injections = check.injections(raw);
    check.sessions(&injections, &recipes);
    check.unused_keys(raw, &injections, &recipes);
    Template {
        name: check.name(raw.name.as_ref(), origin, &raw.place),
        docs: check.docs(raw.docs.as_ref()),
        identifiers: check.identifiers(&raw.identifiers),
        env: check.env(&raw.env),
        placeholders: check.placeholders(&raw.placeholders),
        strip: raw
            .strip
            .iter()
            .filter_map(|name| check.slot(name))
            .collect(),
        strip_query: raw
            .strip_query
            .iter()
            .filter_map(|name| check.parameter(name))
            .collect(),
        encoded_slash: raw.encoded_slash,
        passes_cookies: check.cookies(raw, origin),
        denials: check.denials(&raw.deny),
        presets: check.presets(&raw.presets, &raw.deny),
        usage: check.usage(raw.usage.as_ref()),
        injections: injections
            .into_iter()
            .map(|(injection, _)| injection)
            .collect(),
        hosts: hosts.iter().map(|rule| rule.value.clone()).collect(),
        keys: keys
            .into_iter()
            .filter(|(name, _)| !recipes.iter().any(|recipe| recipe.key() == name))
            .map(|(name, key)| (name, key.value))
            .collect(),
        recipes,
    }
}

fn keys(
    raw: Option<&At<Vec<Entry>>>,
    place: &Place,
    report: &mut Report,
) -> BTreeMap<String, At<KeyUse>> {
    let mut keys = BTreeMap::new();
    let Some(raw) = raw else {
        report.add(
            place,
            "has no `keys`; name every key of a set, as in `keys = { MY_KEY = \"required\" }`",
        );
        return keys;
    };
    for (name, word) in &raw.value {
        if !is_variable(&name.value) {
            report.add(
                &name.place,
                "is not a key's name; use letters, digits and `_`, not a digit first, at most 128",
            );
        }
        let key = match word.value.as_str() {
            "required" => KeyUse::Required,
            "optional" => KeyUse::Optional,
            "never_sent" => KeyUse::NeverSent,
            _ => {
                report.add(
                    &word.place,
                    "is not a use; write \"required\", \"optional\" or \"never_sent\"",
                );
                continue;
            }
        };
        keys.insert(name.value.clone(), At::new(key, word.place.clone()));
    }
    if raw.value.len() > MOST {
        report.add(
            &raw.place,
            format!("names more than {MOST} keys; split the template"),
        );
    }
    if !raw.value.iter().any(|(_, word)| word.value == "required") {
        report.add(
            &raw.place,
            "has no required key; mark the key that opens the provider as \"required\"",
        );
    }
    keys
}

fn hosts(
    raw: Option<&At<Vec<At<String>>>>,
    place: &Place,
    report: &mut Report,
) -> Vec<At<HostRule>> {
    let Some(raw) = raw else {
        report.add(place, "has no `hosts`; list where the credentials may go, as in `hosts = [\"api.example.com\"]`");
        return Vec::new();
    };
    if raw.value.is_empty() {
        report.add(&raw.place, "is empty; list where the credentials may go");
    }
    if raw.value.len() > MOST {
        report.add(
            &raw.place,
            format!("names more than {MOST} hosts; split the template"),
        );
    }
    let mut rules: Vec<At<HostRule>> = Vec::new();
    for host in &raw.value {
        match HostRule::parse(&host.value) {
            Err(error) => report.add(&host.place, error.to_string()),
            Ok(rule) if rules.iter().any(|other| other.value == rule) => {
                report.add(&host.place, format!("names {rule} again; remove one"));
            }
            Ok(rule) => rules.push(At::new(rule, host.place.clone())),
        }
    }
    rules
}

pub(super) struct Check<'c> {
    keys: &'c BTreeMap<String, At<KeyUse>>,
    hosts: &'c [At<HostRule>],
    pub(super) report: &'c mut Report,
}

impl Check<'_> {
    fn name(&mut self, raw: Option<&At<String>>, origin: Origin, file: &Place) -> String {
        let Some(name) = raw else {
            self.report
                .add(file, "has no `name`; add one, as in `name = \"stripe\"`");
            return String::new();
        };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !name.value.bytes().all(plain)
            || !(1..=63).contains(&name.value.len())
            || name.value.starts_with('-')
        {
            self.report.add(
                &name.place,
                "is not a provider's name; use lower-case letters, digits and hyphens, at most 63",
            );
        }
        if origin == Origin::File && name.value == "custom" {
            self.report.add(
                &name.place,
                "is taken by sets that carry their own hosts; choose another name",
            );
        }
        name.value.clone()
    }

    fn docs(&mut self, raw: Option<&At<String>>) -> String {
        let Some(docs) = raw else {
            return String::new();
        };
        if !docs.value.starts_with("https://")
            || !is_visible(&docs.value)
            || docs.value.len() > LONGEST_TEXT
        {
            self.report.add(
                &docs.place,
                "is not an https URL; link the provider's page on authentication, or leave it out",
            );
        }
        docs.value.clone()
    }

    /// Unless it says so itself: a template whose key is no cookie needs none, and who describes a host of his own may need
    /// his sessions there.
    fn cookies(&mut self, raw: &RawTemplate, origin: Origin) -> bool {
        let usual = origin == Origin::Set || raw.inject.iter().any(|one| one.cookie.is_some());
        match raw.cookies.as_ref().map(|word| word.value.as_str()) {
            None => usual,
            Some("pass") => true,
            Some("drop") => false,
            Some(_) => {
                let place = raw.cookies.as_ref().map(|word| &word.place);
                let message = "is not what becomes of cookies; write \"drop\" or \"pass\"";
                self.report.add(place.unwrap_or(&raw.place), message);
                usual
            }
        }
    }

    fn usage(&mut self, raw: Option<&At<String>>) -> Option<Format> {
        let raw = raw?;
        let format = raw.value.parse().ok();
        if format.is_none() {
            let known = Format::ALL.map(|(name, _)| name).join(", ");
            self.report.add(
                &raw.place,
                format!("is no form of usage that is known ({known}); leave it out for a provider that counts no tokens"),
            );
        }
        format
    }

    fn identifiers(&mut self, raw: &[At<String>]) -> Vec<String> {
        for name in raw {
            self.known_key(&name.value, &name.place);
        }
        raw.iter().map(|name| name.value.clone()).collect()
    }

    fn env(&mut self, raw: &[Entry]) -> BTreeMap<String, String> {
        for (variable, key) in raw {
            if !is_variable(&variable.value) {
                self.report.add(
                    &variable.place,
                    "is not a variable's name; use letters, digits and `_`, at most 128",
                );
            } else if steers_programs(&variable.value) {
                self.report.add(&variable.place, "steers every program, not only the provider's; name the provider's own variable");
            }
            self.travelling_key(&key.value, &key.place, "has a placeholder");
        }
        raw.iter()
            .map(|(variable, key)| (variable.value.clone(), key.value.clone()))
            .collect()
    }

    fn placeholders(&mut self, raw: &[Entry]) -> BTreeMap<String, String> {
        for (key, text) in raw {
            self.known_key(&key.value, &key.place);
            let is_short = text.value.len() <= LONGEST_TEXT;
            if !is_short || !is_visible(&text.value) || !placeholder::is_placeholder(&text.value) {
                self.report.add(
                    &text.place,
                    "is not a placeholder; write visible ASCII that holds the word `claviger`, so that nobody takes it for a key",
                );
            }
        }
        raw.iter()
            .map(|(key, text)| (key.value.clone(), text.value.clone()))
            .collect()
    }

    /// Each injection with its place.
    fn injections(&mut self, raw: &RawTemplate) -> Vec<(Injection, Place)> {
        if raw.inject.is_empty() {
            self.report.add(
                &raw.place,
                "has no `[[inject]]`; say how a request carries the key",
            );
        }
        if raw.inject.len() > MOST {
            self.report.add(
                &raw.place,
                format!("has more than {MOST} `[[inject]]`; split the template"),
            );
        }
        let mut injections: Vec<(Injection, Place)> = Vec::new();
        for one in raw.inject.iter().take(MOST) {
            let injection = self.injection(one);
            for other in injection.iter().flat_map(|injection| {
                injections
                    .iter()
                    .filter(|(other, _)| collide(injection, other))
            }) {
                self.report.add(&one.place, format!("fills a slot that {} fills on the same hosts; remove one or give each its `hosts`", other.1.field));
            }
            injections.extend(injection.map(|injection| (injection, one.place.clone())));
        }
        if let Some((_, place)) = injections
            .iter()
            .find(|(i, _)| injections.len() > 1 && matches!(i.inject, Inject::SigV4(_)))
        {
            self.report.add(
                place,
                "signs the request and must stand alone; remove the other `[[inject]]`",
            );
        }
        injections
    }

    fn injection(&mut self, raw: &RawInject) -> Option<Injection> {
        let hosts = raw
            .hosts
            .iter()
            .filter_map(|host| self.injection_host(host))
            .collect();
        let paths = raw
            .paths
            .iter()
            .filter_map(|path| self.path(path))
            .collect();
        let inject = self.inject(raw)?;
        Some(Injection {
            inject,
            hosts,
            paths,
        })
    }

    fn inject(&mut self, raw: &RawInject) -> Option<Inject> {
        let takes_value = raw.header.is_some()
            || raw.query.is_some()
            || raw.cookie.is_some()
            || raw.form.is_some()
            || raw.json.is_some();
        match (&raw.value, takes_value) {
            (None, true) => self.report.add(
                &raw.place,
                "has no `value`; add one, as in `value = \"Bearer ${MY_KEY}\"`",
            ),
            (Some(value), false) => self.report.add(
                &value.place,
                "belongs to a `header`, `query`, `cookie`, `form` or `json`; add that or remove the value",
            ),
            _ => {}
        }
        let value = raw
            .value
            .as_ref()
            .filter(|_| takes_value)
            .and_then(|value| self.text(value, "a value"));
        // Each part is read even if there are too many of them, so that its own mistakes are reported too.
        let header = raw.header.as_ref().map(|header| {
            let name = self.slot(header);
            Some(Inject::Header {
                name: name?,
                value: value.clone()?,
            })
        });
        let query = raw.query.as_ref().map(|query| {
            let name = self.parameter(query);
            Some(Inject::Query {
                name: name?,
                value: value.clone()?,
            })
        });
        let basic = raw.basic.as_ref().map(|basic| self.basic(basic));
        let sigv4 = raw
            .sigv4
            .as_ref()
            .map(|sigv4| self.sigv4(sigv4).map(Inject::SigV4));
        let mut parts = [header, basic, query, sigv4]
            .into_iter()
            .flatten()
            .chain(self.carriers(raw, value.as_ref()));
        if let (Some(part), None) = (parts.next(), parts.next()) {
            return part;
        }
        self.report.add(
            &raw.place,
            "must hold exactly one of `header`, `basic`, `query`, `path`, `cookie`, `form`, `json`, `client_certificate`, `hmac` and `sigv4`",
        );
        None
    }

    fn basic(&mut self, raw: &At<RawBasic>) -> Option<Inject> {
        let mut part = |part: &Option<At<String>>, name: &str| {
            let Some(text) = part else {
                self.report
                    .add(&raw.place, format!("has no `{name}`; add it"));
                return None;
            };
            if name == "user" && text.value.contains(':') {
                self.report.add(
                    &text.place,
                    "holds a colon, which ends the user in HTTP Basic; remove it",
                );
            }
            // Either half alone may be a constant (`x-access-token`) or empty.
            parse_text(text, self.keys, self.report)
        };
        let (user, password) = (
            part(&raw.value.user, "user"),
            part(&raw.value.password, "password"),
        );
        let (user, password) = (user?, password?);
        if user.keys().chain(password.keys()).next().is_none() {
            self.report
                .add(&raw.place, "refers to no key; write the key as `${MY_KEY}`");
        }
        Some(Inject::Basic { user, password })
    }

    fn sigv4(&mut self, raw: &At<RawSigV4>) -> Option<SigV4Keys> {
        let access_key_id = self.required_reference(
            raw.value.access_key_id.as_ref(),
            "access_key_id",
            &raw.place,
        );
        let secret_access_key = self.required_reference(
            raw.value.secret_access_key.as_ref(),
            "secret_access_key",
            &raw.place,
        );
        let session_token = raw
            .value
            .session_token
            .as_ref()
            .map(|text| self.reference(text));
        let session = raw.value.session.as_ref().map(|text| self.reference(text));
        let region = raw.value.region.as_ref().map(|text| self.reference(text));
        for (list, what) in [
            (&raw.value.regions, "region"),
            (&raw.value.services, "service"),
        ] {
            for name in list
                .iter()
                .filter(|name| !endpoint::is_scope_word(&name.value))
            {
                self.report.add(
                    &name.place,
                    format!(
                        "is not a {what}'s name; use letters, digits, `-`, `_` and `.`, at most 64"
                    ),
                );
            }
        }
        let is_fixed = !raw.value.regions.is_empty() && !raw.value.services.is_empty();
        for host in self
            .hosts
            .iter()
            .filter(|host| !is_fixed && !endpoint::is_aws(host.value.base().as_str()))
        {
            self.report.add(&host.place, "does not say region and service in its name as hosts of AWS do; list both in `sigv4.regions` and `sigv4.services`");
        }
        Some(SigV4Keys {
            access_key_id: access_key_id?,
            secret_access_key: secret_access_key?,
            session_token: session_token.flatten(),
            session: session.flatten(),
            region: region.flatten(),
            regions: raw
                .value
                .regions
                .iter()
                .map(|name| name.value.clone())
                .collect(),
            services: raw
                .value
                .services
                .iter()
                .map(|name| name.value.clone())
                .collect(),
        })
    }

    fn required_reference(
        &mut self,
        raw: Option<&At<String>>,
        name: &str,
        place: &Place,
    ) -> Option<String> {
        let Some(text) = raw else {
            self.report
                .add(place, format!("has no `{name}`; add it as `${{KEY}}`"));
            return None;
        };
        let key = self.reference(text)?;
        if self
            .keys
            .get(&key)
            .is_some_and(|at| at.value != KeyUse::Required)
        {
            self.report.add(
                &text.place,
                format!("needs `{key}`; mark it \"required\" in `keys`"),
            );
        }
        Some(key)
    }

    /// A text that is one `${KEY}` and nothing else.
    fn reference(&mut self, text: &At<String>) -> Option<String> {
        let parsed = parse_text(text, self.keys, self.report)?;
        if let [Piece::Key(key)] = parsed.pieces() {
            return Some(key.clone());
        }
        self.report.add(
            &text.place,
            "must be one key and nothing else; write `${MY_KEY}`",
        );
        None
    }

    fn text(&mut self, text: &At<String>, what: &str) -> Option<Text> {
        let parsed = parse_text(text, self.keys, self.report)?;
        if parsed.keys().next().is_none() {
            self.report.add(
                &text.place,
                format!("is {what} without a key; write the key as `${{MY_KEY}}`"),
            );
        }
        Some(parsed)
    }

    /// A header that may hold a credential.
    fn slot(&mut self, raw: &At<String>) -> Option<HeaderName> {
        let Ok(name) = HeaderName::from_bytes(raw.value.as_bytes()) else {
            self.report.add(
                &raw.place,
                "is not a header's name; use letters, digits and hyphens",
            );
            return None;
        };
        if let Some(why) = names::why_never_a_slot(name.as_str()) {
            self.report.add(
                &raw.place,
                format!(
                    "cannot be a slot: {why}; choose the header in which the provider reads its key"
                ),
            );
            return None;
        }
        Some(name)
    }

    fn parameter(&mut self, raw: &At<String>) -> Option<String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if raw.value.is_empty() || raw.value.len() > 128 || !raw.value.bytes().all(plain) {
            self.report.add(
                &raw.place,
                "is not a parameter's name; use letters, digits and `-._~`, at most 128",
            );
            return None;
        }
        Some(raw.value.clone())
    }

    /// A host of one `[[inject]]`: it must be one to which the template sends.
    pub(super) fn injection_host(&mut self, raw: &At<String>) -> Option<HostRule> {
        let rule = match HostRule::parse(&raw.value) {
            Ok(rule) => rule,
            Err(error) => {
                self.report.add(&raw.place, error.to_string());
                return None;
            }
        };
        let covers = |host: &HostRule| {
            *host == rule
                || rule
                    .exact()
                    .is_some_and(|exact| host.matches(rule.scheme(), exact.as_str(), rule.port()))
        };
        if !self.hosts.iter().any(|host| covers(&host.value)) {
            self.report.add(
                &raw.place,
                format!(
                    "is not among the template's hosts; add {rule} to `hosts` or remove it here"
                ),
            );
        }
        Some(rule)
    }

    fn path(&mut self, raw: &At<String>) -> Option<PathPattern> {
        let text = &raw.value;
        let stars = |segment: &str| !segment.contains('*') || segment == "*" || segment == "**";
        let is_plain = is_visible(text) && !text.contains(['?', '#', '\\', '%']);
        let is_bounded = text.len() <= LONGEST_TEXT && text.split('/').count() <= MOST;
        if !text.starts_with('/') || !is_plain || !is_bounded || !text.split('/').all(stars) {
            self.report.add(
                &raw.place,
                "is not a path; begin with `/`, use `*` for one whole segment and `**` for any number, at most 64 segments",
            );
            return None;
        }
        Some(PathPattern(text.clone()))
    }

    /// A key that never reaches a slot is a mistake: the operator believes that it is used.
    /// The session of a role signs, and is sent by no other way: it holds a key that stays here.
    fn sessions(&mut self, injections: &[(Injection, Place)], recipes: &[Recipe]) {
        let is_session = |key: &str| {
            let mut recipes = recipes.iter();
            recipes.any(|recipe| recipe.key() == key && recipe.is_session())
        };
        for (injection, place) in injections {
            let session = match &injection.inject {
                Inject::SigV4(keys) => keys.session.as_deref(),
                _ => None,
            };
            let keys = injection.inject.keys();
            let is_odd = |key: &&str| is_session(key) != (session == Some(*key));
            if let Some(key) = keys.into_iter().find(is_odd) {
                self.report.add(
                    place,
                    format!("takes `{key}` as what it is not; refer in `sigv4.session`, and there alone, to the key of an `aws_assume_role`"),
                );
            }
        }
    }

    fn unused_keys(
        &mut self,
        raw: &RawTemplate,
        injections: &[(Injection, Place)],
        recipes: &[Recipe],
    ) {
        if injections.len() != raw.inject.len() || recipes.len() != raw.make.len() {
            return;
        }
        let used: BTreeSet<&str> = injections
            .iter()
            .flat_map(|(injection, _)| injection.inject.keys())
            .chain(recipes.iter().flat_map(Recipe::inputs))
            .collect();
        for (name, key) in self.keys {
            if key.value != KeyUse::NeverSent && !used.contains(name.as_str()) {
                self.report.add(
                    &key.place,
                    "is in no `[[inject]]` and no `[[make]]`; inject it or mark it \"never_sent\"",
                );
            }
        }
    }

    fn known_key(&mut self, key: &str, place: &Place) {
        check_key(key, place, self.keys, self.report);
    }

    fn travelling_key(&mut self, key: &str, place: &Place, what: &str) {
        self.known_key(key, place);
        if self
            .keys
            .get(key)
            .is_some_and(|at| at.value == KeyUse::NeverSent)
        {
            self.report.add(place, format!("names a key that is never sent and {what}; remove it or mark the key \"required\" or \"optional\""));
        }
    }
}

/// Whether two injections would set the same thing in one request. Paths do not part them: they are matched, not compared.
fn collide(a: &Injection, b: &Injection) -> bool {
    let same_hosts = a.hosts.is_empty()
        || b.hosts.is_empty()
        || a.hosts
            .iter()
            .any(|a| b.hosts.iter().any(|b| a.overlaps(b)));
    let same_slot = match (&a.inject, &b.inject) {
        (Inject::Query { name: a, .. }, Inject::Query { name: b, .. })
        | (Inject::Cookie { name: a, .. }, Inject::Cookie { name: b, .. })
        | (Inject::Form { name: a, .. }, Inject::Form { name: b, .. }) => a.eq_ignore_ascii_case(b),
        (Inject::Json { pointer: a, .. }, Inject::Json { pointer: b, .. }) => {
            a.names().starts_with(b.names()) || b.names().starts_with(a.names())
        }
        // Of several paths the first that is meant is filled.
        (Inject::Path(a), Inject::Path(b)) => a == b,
        (Inject::ClientCertificate(_), Inject::ClientCertificate(_)) => return true,
        (a, b) => a.headers().iter().any(|a| {
            b.headers()
                .iter()
                .any(|b| names::is_twin(a.as_str(), b.as_str()))
        }),
    };
    same_hosts && same_slot
}

fn check_key(key: &str, place: &Place, keys: &BTreeMap<String, At<KeyUse>>, report: &mut Report) {
    if !keys.contains_key(key) {
        let key: String = key.chars().take(60).flat_map(char::escape_debug).collect();
        report.add(
            place,
            format!("refers to `{key}`, which is not in `keys`; add it there or correct the name"),
        );
    }
}

fn parse_text(
    text: &At<String>,
    keys: &BTreeMap<String, At<KeyUse>>,
    report: &mut Report,
) -> Option<Text> {
    let count = report.mistakes.len();
    if text.value.len() > LONGEST_TEXT {
        report.add(
            &text.place,
            format!("is longer than {LONGEST_TEXT} bytes; shorten it"),
        );
    }
    // A line break would begin a new header: RFC 9110, section 5.5.
    if !text.value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        report.add(&text.place, "holds a line break, a control character or non-ASCII text; use visible ASCII and spaces");
    }
    if text.value.trim() != text.value {
        report.add(
            &text.place,
            "begins or ends with a space, which HTTP drops; remove it",
        );
    }
    let mut pieces = Vec::new();
    let mut rest = text.value.as_str();
    while let Some((before, after)) = rest.split_once("${") {
        let Some((key, after)) = after.split_once('}') else {
            report.add(&text.place, "holds `${` without `}`; write `${MY_KEY}`");
            return None;
        };
        check_key(key, &text.place, keys, report);
        if keys
            .get(key)
            .is_some_and(|at| at.value == KeyUse::NeverSent)
        {
            report.add(&text.place, format!("injects `{key}`, which is never sent; mark it \"required\" or \"optional\", or remove it here"));
        }
        if !before.is_empty() {
            pieces.push(Piece::Literal(before.to_owned()));
        }
        pieces.push(Piece::Key(key.to_owned()));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest.to_owned()));
    }
    (report.mistakes.len() == count).then_some(Text(pieces))
}

fn is_variable(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&name.len())
        && name.bytes().all(plain)
        && !name.as_bytes()[0].is_ascii_digit()
}

fn is_visible(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Variables that a template must not reach through `run`: they choose what is executed, trusted or dialled.
fn steers_programs(variable: &str) -> bool {
    let name = variable.to_ascii_uppercase();
    let exact = [
        "PATH",
        "HOME",
        "SHELL",
        "IFS",
        "ENV",
        "BASH_ENV",
        "NODE_OPTIONS",
        "PYTHONPATH",
        "JAVA_TOOL_OPTIONS",
        "CURL_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
    ];
    let prefixes = ["LD_", "DYLD_", "SSL_", "CLAVIGER_", "GIT_"];
    exact.contains(&name.as_str())
        || name.ends_with("_PROXY")
        || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// Hosts, keys, injections and segments of a path: far above what a provider needs.
pub(super) const MOST: usize = 64;
/// In bytes.
pub(super) const LONGEST_TEXT: usize = 512;
