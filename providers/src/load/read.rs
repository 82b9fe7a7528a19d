//! TOML, or the spec of a `custom` set, to a [`RawTemplate`]: fields and types.

use super::check::{HMAC_FIELDS, MAKE_FIELDS as FIELDS};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    At, CustomSpec, Entry, Place, RawBasic, RawCertificate, RawInject, RawMake, RawSigV4,
    RawTemplate, RawTexts, Report,
};

/// Reads the fields of a template; `None` if the file is not TOML, or not a template's size.
pub(super) fn template(text: &str, report: &mut Report) -> Option<RawTemplate> {
    if text.len() > LONGEST_FILE {
        report.add(
            &Place::new(1, "file"),
            format!("is longer than {LONGEST_FILE} bytes; a template has about 20 lines"),
        );
        return None;
    }
    let lines = Lines(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let line = lines.of(error.span().map_or(0, |span| span.start));
        report.add(
            &Place::new(line, "file"),
            format!("is not TOML here: {}", error.message().trim_end()),
        );
    }
    let mut reader = Reader { lines, report };
    let raw = reader.template(document.get_ref());
    errors.is_empty().then_some(raw)
}

/// A `custom` set's spec as if it had been written in a file without lines.
pub(super) fn custom<'a>(
    spec: &CustomSpec,
    keys: impl IntoIterator<Item = &'a str>,
) -> RawTemplate {
    let at = |value: &str, field: String| At::new(value.to_owned(), Place::new(0, field));
    let list = |values: &[String], field: &str| -> Vec<At<String>> {
        values
            .iter()
            .enumerate()
            .map(|(n, value)| at(value, format!("{field}[{n}]")))
            .collect()
    };
    let inject = |(n, inject): (usize, &super::CustomInject)| {
        let field = |name: &str| format!("inject[{n}].{name}");
        let some =
            |value: &Option<String>, name: &str| value.as_ref().map(|value| at(value, field(name)));
        RawInject {
            header: some(&inject.header, "header"),
            value: some(&inject.value, "value"),
            basic: inject.basic.as_ref().map(|basic| {
                let user = Some(at(&basic.user, field("basic.user")));
                let password = Some(at(&basic.password, field("basic.password")));
                At::new(RawBasic { user, password }, Place::new(0, field("basic")))
            }),
            query: some(&inject.query, "query"),
            sigv4: inject.sigv4.as_ref().map(|sigv4| {
                let raw = RawSigV4 {
                    access_key_id: Some(at(&sigv4.access_key_id, field("sigv4.access_key_id"))),
                    secret_access_key: Some(at(
                        &sigv4.secret_access_key,
                        field("sigv4.secret_access_key"),
                    )),
                    session_token: some(&sigv4.session_token, "sigv4.session_token"),
                    session: some(&sigv4.session, "sigv4.session"),
                    region: None,
                    regions: list(&sigv4.regions, &field("sigv4.regions")),
                    services: list(&sigv4.services, &field("sigv4.services")),
                };
                At::new(raw, Place::new(0, field("sigv4")))
            }),
            path: some(&inject.path, "path"),
            cookie: some(&inject.cookie, "cookie"),
            form: some(&inject.form, "form"),
            json: some(&inject.json, "json"),
            client_certificate: inject.client_certificate.as_ref().map(|pair| {
                let raw = RawCertificate {
                    certificate: Some(at(
                        &pair.certificate,
                        field("client_certificate.certificate"),
                    )),
                    key: Some(at(&pair.key, field("client_certificate.key"))),
                };
                At::new(raw, Place::new(0, field("client_certificate")))
            }),
            hmac: inject.hmac.as_ref().map(|texts| {
                let texts = texts.iter().map(|(name, value)| {
                    let known = HMAC_FIELDS.iter().find(|known| *known == name);
                    let place = field(&format!("hmac.{name}"));
                    (known.copied().unwrap_or("unknown"), at(value, place))
                });
                RawTexts {
                    texts: texts.collect(),
                    place: Place::new(0, field("hmac")),
                }
            }),
            hosts: list(&inject.hosts, &field("hosts")),
            paths: list(&inject.paths, &field("paths")),
            place: Place::new(0, format!("inject[{n}]")),
        }
    };
    let inject: Vec<RawInject> = spec.inject.iter().enumerate().map(inject).collect();
    let make: Vec<RawMake> = spec.make.iter().enumerate().map(custom_make).collect();
    let referred: String = inject
        .iter()
        .flat_map(RawInject::texts)
        .chain(make.iter().flat_map(RawMake::all_texts))
        .map(|text| text.value.as_str())
        .collect();
    // A made key may be stored beside what it is made of.
    let is_made = |key: &&str| {
        make.iter()
            .any(|make| make.key().is_some_and(|made| made.value == **key))
    };
    let keys: Vec<&str> = keys.into_iter().filter(|key| !is_made(key)).collect();
    let keys = keys.into_iter().map(|key| {
        let is_sent = referred.contains(&format!("${{{key}}}"));
        let field = format!("keys.{key}");
        (
            at(key, field.clone()),
            at(if is_sent { "required" } else { "never_sent" }, field),
        )
    });
    let env = spec.env.iter().map(custom_env);
    let cookies = spec.cookies.as_ref();
    RawTemplate {
        name: Some(at("custom", "name".to_owned())),
        hosts: Some(At::new(list(&spec.hosts, "hosts"), Place::new(0, "hosts"))),
        keys: Some(At::new(keys.collect(), Place::new(0, "keys"))),
        env: env.collect(),
        cookies: cookies.map(|word| at(word, "cookies".to_owned())),
        make,
        inject,
        ..RawTemplate::default()
    }
}

/// A variable of a `custom` set.
fn custom_env((variable, key): (&String, &String)) -> Entry {
    let place = || Place::new(0, format!("env.{variable}"));
    (
        At::new(variable.clone(), place()),
        At::new(key.clone(), place()),
    )
}

/// A recipe of a `custom` set. A field that no recipe has is kept as one that is too much, so that it is reported.
fn custom_make((n, make): (usize, &super::CustomMake)) -> RawMake {
    let place = |field: &str| Place::new(0, format!("make[{n}].{field}"));
    let texts = make.fields.iter().map(|(name, value)| {
        let known = FIELDS.iter().find(|known| *known == name);
        let name: &'static str = known.copied().unwrap_or("unknown");
        (name, At::new(value.clone(), place(name)))
    });
    let parameters = make.parameters.iter().map(|(name, value)| {
        let place = place(&format!("parameters.{name}"));
        (
            At::new(name.clone(), place.clone()),
            At::new(value.clone(), place),
        )
    });
    RawMake {
        texts: texts.collect(),
        parameters: parameters.collect(),
        place: Place::new(0, format!("make[{n}]")),
    }
}

impl RawMake {
    /// Every text in which a `${KEY}` may stand.
    fn all_texts(&self) -> impl Iterator<Item = &At<String>> {
        let parameters = self.parameters.iter().map(|(_, value)| value);
        self.texts.iter().map(|(_, value)| value).chain(parameters)
    }
}

impl RawInject {
    /// Every text in which a `${KEY}` may stand.
    pub(super) fn texts(&self) -> impl Iterator<Item = &At<String>> {
        let basic = self
            .basic
            .iter()
            .flat_map(|b| b.value.user.iter().chain(&b.value.password));
        let sigv4 = self.sigv4.iter().flat_map(|s| {
            let s = &s.value;
            s.access_key_id
                .iter()
                .chain(&s.secret_access_key)
                .chain(&s.session_token)
                .chain(&s.session)
                .chain(&s.region)
        });
        let certificate = self
            .client_certificate
            .iter()
            .flat_map(|c| c.value.certificate.iter().chain(&c.value.key));
        let hmac = self.hmac.iter().filter_map(|hmac| hmac.get("key"));
        let single = self.value.iter().chain(&self.path).chain(hmac);
        single.chain(basic).chain(sigv4).chain(certificate)
    }
}

/// Turns offsets into line numbers.
struct Lines<'t>(&'t str);

impl Lines<'_> {
    fn of(&self, offset: usize) -> usize {
        1 + self
            .0
            .bytes()
            .take(offset)
            .filter(|&byte| byte == b'\n')
            .count()
    }
}

pub(super) struct Reader<'t, 'r> {
    lines: Lines<'t>,
    report: &'r mut Report,
}

impl Reader<'_, '_> {
    fn template(&mut self, table: &DeTable<'_>) -> RawTemplate {
        let mut raw = RawTemplate {
            place: Place::new(1, "file"),
            ..RawTemplate::default()
        };
        for (name, value) in table {
            let place = self.place(name, "");
            match name.get_ref().as_ref() {
                "name" => raw.name = self.string(value, place),
                "docs" => raw.docs = self.string(value, place),
                "hosts" => raw.hosts = self.strings(value, place),
                "keys" => raw.keys = Some(self.entries(value, place)),
                "identifiers" => raw.identifiers = self.list(value, place),
                "env" => raw.env = self.entries(value, place).value,
                "placeholders" => raw.placeholders = self.entries(value, place).value,
                "strip" => raw.strip = self.list(value, place),
                "strip_query" => raw.strip_query = self.list(value, place),
                "encoded_slash" => raw.encoded_slash = self.flag(value, &place),
                "cookies" => raw.cookies = self.string(value, place),
                "make" => raw.make = self.makes(value, &place),
                "inject" => raw.inject = self.injections(value, &place),
                "deny" => raw.deny = self.denials(value, &place),
                "presets" => raw.presets = self.presets(value, &place),
                "usage" => raw.usage = self.string(value, place),
                _ => self.unknown(&place, TEMPLATE_FIELDS),
            }
        }
        raw
    }

    fn makes(&mut self, value: &Spanned<DeValue<'_>>, place: &Place) -> Vec<RawMake> {
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, place, "a table `[[make]]`");
            return Vec::new();
        };
        let tables = array.iter().enumerate().map(|(n, value)| {
            let place = Place::new(self.line(value), format!("make[{n}]"));
            self.make(value, place)
        });
        tables.collect()
    }

    fn make(&mut self, value: &Spanned<DeValue<'_>>, place: Place) -> RawMake {
        let fields = self.table(value, &place);
        let mut raw = RawMake {
            place,
            ..RawMake::default()
        };
        for (name, value) in fields {
            let place = self.place(name, &raw.place.field);
            let found = name.get_ref().as_ref();
            match FIELDS.iter().find(|known| **known == found) {
                Some(known) => {
                    let text = self.string(value, place);
                    raw.texts.extend(text.map(|text| (*known, text)));
                }
                None if found == "parameters" => raw.parameters = self.entries(value, place).value,
                None => self.unknown(&place, &format!("{}, parameters", FIELDS.join(", "))),
            }
        }
        raw
    }

    fn injections(&mut self, value: &Spanned<DeValue<'_>>, place: &Place) -> Vec<RawInject> {
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, place, "a table `[[inject]]`");
            return Vec::new();
        };
        let tables = array.iter().enumerate().map(|(n, value)| {
            let place = Place::new(self.line(value), format!("inject[{n}]"));
            self.injection(value, place)
        });
        tables.collect()
    }

    fn injection(&mut self, value: &Spanned<DeValue<'_>>, place: Place) -> RawInject {
        let fields = self.table(value, &place);
        let mut raw = RawInject {
            place,
            ..RawInject::default()
        };
        for (name, value) in fields {
            let place = self.place(name, &raw.place.field);
            match name.get_ref().as_ref() {
                "header" => raw.header = self.string(value, place),
                "value" => raw.value = self.string(value, place),
                "basic" => raw.basic = Some(self.basic(value, place)),
                "query" => raw.query = self.string(value, place),
                "sigv4" => raw.sigv4 = Some(self.sigv4(value, place)),
                "path" => raw.path = self.string(value, place),
                "cookie" => raw.cookie = self.string(value, place),
                "form" => raw.form = self.string(value, place),
                "json" => raw.json = self.string(value, place),
                "hmac" => raw.hmac = Some(self.hmac(value, place)),
                "client_certificate" => {
                    raw.client_certificate = Some(self.certificate(value, place));
                }
                "hosts" => raw.hosts = self.list(value, place),
                "paths" => raw.paths = self.list(value, place),
                _ => self.unknown(&place, INJECT_FIELDS),
            }
        }
        raw
    }

    fn basic(&mut self, value: &Spanned<DeValue<'_>>, place: Place) -> At<RawBasic> {
        let mut raw = RawBasic::default();
        for (name, value) in self.table(value, &place) {
            let place = self.place(name, &place.field);
            match name.get_ref().as_ref() {
                "user" => raw.user = self.string(value, place),
                "password" => raw.password = self.string(value, place),
                _ => self.unknown(&place, "user, password"),
            }
        }
        At::new(raw, place)
    }

    fn hmac(&mut self, value: &Spanned<DeValue<'_>>, place: Place) -> RawTexts {
        let mut texts = Vec::new();
        for (name, value) in self.table(value, &place) {
            let place = self.place(name, &place.field);
            let found = name.get_ref().as_ref();
            match HMAC_FIELDS.iter().find(|known| **known == found) {
                Some(known) => {
                    let text = self.string(value, place);
                    texts.extend(text.map(|text| (*known, text)));
                }
                None => self.unknown(&place, &HMAC_FIELDS.join(", ")),
            }
        }
        RawTexts { texts, place }
    }

    fn certificate(&mut self, value: &Spanned<DeValue<'_>>, place: Place) -> At<RawCertificate> {
        let mut raw = RawCertificate::default();
        for (name, value) in self.table(value, &place) {
            let place = self.place(name, &place.field);
            match name.get_ref().as_ref() {
                "certificate" => raw.certificate = self.string(value, place),
                "key" => raw.key = self.string(value, place),
                _ => self.unknown(&place, "certificate, key"),
            }
        }
        At::new(raw, place)
    }

    fn sigv4(&mut self, value: &Spanned<DeValue<'_>>, place: Place) -> At<RawSigV4> {
        let mut raw = RawSigV4::default();
        for (name, value) in self.table(value, &place) {
            let place = self.place(name, &place.field);
            match name.get_ref().as_ref() {
                "access_key_id" => raw.access_key_id = self.string(value, place),
                "secret_access_key" => raw.secret_access_key = self.string(value, place),
                "session_token" => raw.session_token = self.string(value, place),
                "session" => raw.session = self.string(value, place),
                "region" => raw.region = self.string(value, place),
                "regions" => raw.regions = self.list(value, place),
                "services" => raw.services = self.list(value, place),
                _ => self.unknown(
                    &place,
                    "access_key_id, secret_access_key, session_token, session, region, regions, services",
                ),
            }
        }
        At::new(raw, place)
    }

    pub(super) fn string(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        place: Place,
    ) -> Option<At<String>> {
        let text = value.get_ref().as_str().map(str::to_owned);
        if text.is_none() {
            self.wrong_type(value, &place, "a string");
        }
        text.map(|text| At::new(text, place))
    }

    pub(super) fn flag(&mut self, value: &Spanned<DeValue<'_>>, place: &Place) -> bool {
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_type(value, place, "true or false");
        }
        flag.unwrap_or(false)
    }

    fn strings(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        place: Place,
    ) -> Option<At<Vec<At<String>>>> {
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, &place, "a list of strings");
            return None;
        };
        let mut strings = Vec::new();
        for (n, value) in array.iter().enumerate() {
            let place = Place::new(self.line(value), format!("{}[{n}]", place.field));
            strings.extend(self.string(value, place));
        }
        Some(At::new(strings, place))
    }

    pub(super) fn list(&mut self, value: &Spanned<DeValue<'_>>, place: Place) -> Vec<At<String>> {
        self.strings(value, place)
            .map_or_else(Vec::new, |strings| strings.value)
    }

    fn entries(&mut self, value: &Spanned<DeValue<'_>>, place: Place) -> At<Vec<Entry>> {
        let mut entries = Vec::new();
        for (name, value) in self.table(value, &place) {
            let place = self.place(name, &place.field);
            let name = At::new(name.get_ref().clone().into_owned(), place.clone());
            entries.extend(self.string(value, place).map(|value| (name, value)));
        }
        At::new(entries, place)
    }

    pub(super) fn table<'v, 'i>(
        &mut self,
        value: &'v Spanned<DeValue<'i>>,
        place: &Place,
    ) -> impl Iterator<
        Item = (
            &'v Spanned<toml::de::DeString<'i>>,
            &'v Spanned<DeValue<'i>>,
        ),
    > + use<'v, 'i> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(value, place, "a table");
        }
        table.into_iter().flatten()
    }

    pub(super) fn unknown(&mut self, place: &Place, known: &str) {
        self.report
            .add(place, format!("is not a known field; use one of {known}"));
    }

    pub(super) fn wrong_type(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        place: &Place,
        expected: &str,
    ) {
        self.report.add(
            place,
            format!("is {}; write {expected}", value.get_ref().type_str()),
        );
    }

    pub(super) fn place(&self, name: &Spanned<toml::de::DeString<'_>>, parent: &str) -> Place {
        // A name may be empty, and a place without one cannot be found.
        let name_or_none = match name.get_ref().as_ref() {
            "" => "\"\"",
            name => name,
        };
        let field = match parent {
            "" => name_or_none.to_owned(),
            parent => format!("{parent}.{name_or_none}"),
        };
        Place::new(
            self.lines.of(name.span().start),
            field
                .chars()
                .take(200)
                .flat_map(char::escape_debug)
                .collect::<String>(),
        )
    }

    pub(super) fn line(&self, value: &Spanned<DeValue<'_>>) -> usize {
        self.lines.of(value.span().start)
    }
}

/// In bytes.
const LONGEST_FILE: usize = 64 * 1024;
const TEMPLATE_FIELDS: &str = "name, docs, hosts, keys, identifiers, env, placeholders, strip, strip_query, encoded_slash, cookies, make, inject, deny, presets, usage";
const INJECT_FIELDS: &str = "header, query, cookie, form, json (each with value), basic, path, client_certificate, hmac, sigv4, hosts, paths";
