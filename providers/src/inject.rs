//! From a template and opened secrets to the slots of a request, prepared once per version of a set.

mod basic;
mod cookie;
mod field;
mod header;
mod hmac;
mod misplaced;
pub(crate) mod names;
mod path;
mod query;
pub mod sample;
pub mod sigv4;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use time::OffsetDateTime;
use vault::Secret;
use zeroize::Zeroizing;

use crate::exchange::Session;
use crate::scrub::Scrubber;
use crate::template::{ClientCertificateKeys, Inject, KeyUse, SigV4Keys, Template};

pub use cookie::Cookies;
pub use field::{FieldRefusal, LONGEST_FILLED_BODY};
pub use hmac::HmacRequest;
pub use misplaced::{AgentHead, Misplaced};
pub use names::is_routing_header;
pub use sigv4::SigV4;

/// What one version of a secret set puts into requests. It holds secrets: its Debug shows names alone, and its
/// memory is zeroized when the last header made of it is dropped.
pub struct Plan {
    template: Arc<Template>,
    strip: Vec<HeaderName>,
    strip_query: Vec<String>,
    strip_cookies: Vec<String>,
    headers: Vec<Slot<(HeaderName, HeaderValue)>>,
    parameters: Vec<Slot<Zeroizing<String>>>,
    paths: Vec<Slot<Zeroizing<String>>>,
    cookies: Vec<Slot<Zeroizing<Vec<u8>>>>,
    fields: Vec<Slot<field::Field>>,
    certificate: Option<Slot<ClientCertificate>>,
    hmacs: Vec<Slot<hmac::Signer>>,
    placeholders: Option<misplaced::Finder>,
    sigv4: Option<SigV4>,
    scrubber: Arc<Scrubber>,
    keys: Arc<[String]>,
}

/// A certificate and its private key, both in PEM.
pub struct ClientCertificate {
    /// The certificate, and behind it the chain.
    pub certificate: Arc<Secret>,
    /// The private key.
    pub key: Arc<Secret>,
}

/// What is set, by which injection of the template.
struct Slot<T> {
    injection: usize,
    set: T,
}

/// Why a plan cannot be prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// A required key is not in the set.
    #[error("the set has no `{key}`, which `{template}` needs; add it with `claviger set put`")]
    MissingKey {
        /// The template.
        template: String,
        /// The key.
        key: String,
    },
    /// A required key is not among the keys that the grant allows.
    #[error(
        "the grant does not allow `{key}`, which `{template}` needs; ask for a grant that includes it"
    )]
    KeyNotAllowed {
        /// The template.
        template: String,
        /// The key.
        key: String,
    },
    /// A value cannot stand in its slot (a line break in a header, a colon in a Basic user).
    #[error("the value of `{key}` cannot stand in {slot}: {why}; store it again without that")]
    BadValue {
        /// The key.
        key: String,
        /// The slot.
        slot: String,
        /// What is wrong, never the value.
        why: &'static str,
    },
    /// A key that is made of the set's was not, and what it is made of must not be sent in its place.
    #[error("`{key}` was not made of the set's keys, which are not sent in its place; try again")]
    NotMade {
        /// The key.
        key: String,
    },
}

/// What the plan must know of a request's body before it can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyNeed {
    /// Nothing: the body streams.
    None,
    /// Its SHA-256, unless [`sigv4::AgentScope::needs_body`] says that the agent declared it. A longer body is refused.
    HashUpTo(usize),
    /// Itself: a field is set in it. A longer one is refused.
    FillUpTo(usize),
}

/// A query after the agent's credentials were taken out and ours put in.
#[derive(PartialEq, Eq)]
pub struct RewrittenQuery(Zeroizing<String>);

/// A path with the credential in its slot.
#[derive(PartialEq, Eq)]
pub struct FilledPath(Zeroizing<String>);

impl Plan {
    /// Prepares the slots of a template from the secrets of one set version.
    ///
    /// `allowed` says which keys the grant lets travel. A key that the template never sends is not taken in.
    ///
    /// # Errors
    /// [`PrepareError`]: a missing or disallowed required key, or a value that cannot stand in its slot.
    pub fn prepare(
        template: &Arc<Template>,
        allowed: impl Fn(&str) -> bool,
        secrets: BTreeMap<String, Arc<Secret>>,
    ) -> Result<Self, PrepareError> {
        Self::prepare_with(template, allowed, secrets, BTreeMap::new())
    }

    /// The same with the keys that were made of these secrets, by the template's recipes.
    ///
    /// # Errors
    /// As [`Plan::prepare`].
    pub fn prepare_with(
        template: &Arc<Template>,
        allowed: impl Fn(&str) -> bool,
        secrets: BTreeMap<String, Arc<Secret>>,
        made: BTreeMap<String, Arc<Secret>>,
    ) -> Result<Self, PrepareError> {
        let mut secrets = Secrets::select(template, allowed, secrets)?;
        secrets.0.extend(made);
        let mut plan = Self {
            strip: slots(template),
            strip_query: query_slots(template),
            strip_cookies: cookie_slots(template),
            headers: Vec::new(),
            parameters: Vec::new(),
            paths: Vec::new(),
            cookies: Vec::new(),
            fields: Vec::new(),
            certificate: None,
            hmacs: Vec::new(),
            placeholders: misplaced::Finder::of(template),
            sigv4: None,
            scrubber: Arc::new(Scrubber::new([])),
            keys: Arc::from([]),
            template: Arc::clone(template),
        };
        let mut reflected = Reflected::default();
        for (injection, one) in template.injections().iter().enumerate() {
            plan.add(injection, &one.inject, &secrets, &mut reflected)?;
        }
        // The provider may know what a token was made of, and show that, too.
        for recipe in template
            .recipes()
            .iter()
            .filter(|recipe| secrets.get(recipe.key()).is_some())
        {
            reflected.travelling.extend(recipe.travelling());
            reflected.used.remove(recipe.key());
            let inputs = recipe.inputs().into_iter();
            reflected
                .used
                .extend(inputs.filter(|key| secrets.get(key).is_some()));
        }
        plan.scrubber = Arc::new(Scrubber::new(reflected.values(template, &secrets)));
        plan.keys = reflected.used.iter().map(|&key| key.to_owned()).collect();
        Ok(plan)
    }

    /// Fills one slot, unless a key of it is optional and not at hand.
    fn add<'t>(
        &mut self,
        injection: usize,
        inject: &'t Inject,
        secrets: &Secrets,
        reflected: &mut Reflected<'t>,
    ) -> Result<(), PrepareError> {
        match inject {
            Inject::Header { name, value } => {
                let check = header::why_not_a_field_value;
                let Some(value) =
                    header::render(value, &format!("the header `{name}`"), secrets, check)?
                else {
                    return Ok(());
                };
                // Where the key itself is too short to look for, its whole slot may be long enough.
                if inject.keys().iter().any(|key| is_short(secrets, key)) {
                    reflected.derived.push(Zeroizing::new(value.to_vec()));
                }
                self.headers.push(Slot {
                    injection,
                    set: (name.clone(), header::sensitive(value)),
                });
                reflected.travels(inject);
            }
            Inject::Basic { user, password } => {
                let Some(encoded) = basic::render(user, password, secrets)? else {
                    return Ok(());
                };
                let value = header::sensitive(basic::field_value(&encoded));
                self.headers.push(Slot {
                    injection,
                    set: (AUTHORIZATION, value),
                });
                reflected.derived.push(encoded);
                reflected.travels(inject);
            }
            Inject::Query { name, value } => {
                let slot = format!("the query parameter `{name}`");
                let not_empty = |value: &[u8]| value.is_empty().then_some("it is empty");
                let Some(value) = header::render(value, &slot, secrets, not_empty)? else {
                    return Ok(());
                };
                self.parameters.push(Slot {
                    injection,
                    set: query::pair(name, &value),
                });
                reflected.travels(inject);
            }
            Inject::SigV4(keys) => {
                self.check_session(keys, secrets)?;
                self.sigv4 = Some(SigV4::prepare(keys, secrets)?);
                // The secret key signs and stays here, so no response can hold it. The key id is public.
                reflected.travelling.extend(keys.session_token.as_deref());
                let session = keys.session.as_ref().and_then(|key| secrets.get(key));
                if let Some(session) = session.and_then(Session::read) {
                    // The agent does not know of the session at all.
                    for part in [session.token, session.access_key_id] {
                        let part = Zeroizing::new(part.as_bytes().to_vec());
                        reflected.derived.push(part);
                    }
                }
                reflected.used.extend(
                    inject
                        .keys()
                        .into_iter()
                        .filter(|key| secrets.get(key).is_some()),
                );
            }
            Inject::Path(_)
            | Inject::Cookie { .. }
            | Inject::Form { .. }
            | Inject::Json { .. }
            | Inject::ClientCertificate(_)
            | Inject::Hmac(_) => {
                self.carry(injection, inject, secrets, reflected)?;
            }
        }
        Ok(())
    }

    /// Refuses a set that says a role whose session is not there: its own key may do more than the role.
    fn check_session(&self, keys: &SigV4Keys, secrets: &Secrets) -> Result<(), PrepareError> {
        let Some(session) = &keys.session else {
            return Ok(());
        };
        let mut recipes = self.template.recipes().iter();
        let recipe = recipes.find(|recipe| recipe.key() == session);
        let is_due = recipe.is_some_and(|recipe| recipe.lacks(&secrets.0).is_none());
        if is_due && secrets.get(session).is_none() {
            return Err(PrepareError::NotMade {
                key: session.clone(),
            });
        }
        Ok(())
    }

    /// The places of a credential beyond the header fields and the query.
    fn carry<'t>(
        &mut self,
        injection: usize,
        inject: &'t Inject,
        secrets: &Secrets,
        reflected: &mut Reflected<'t>,
    ) -> Result<(), PrepareError> {
        let render = |value, check| header::render(value, &inject.slot(), secrets, check);
        match inject {
            Inject::Path(slot) => {
                let Some(set) = path::render(slot, secrets)? else {
                    return Ok(());
                };
                self.paths.push(Slot { injection, set });
            }
            Inject::Cookie { name, value } => {
                let Some(value) = render(value, cookie::why_not_a_cookie_value)? else {
                    return Ok(());
                };
                let set = Zeroizing::new([name.as_bytes(), b"=", &value].concat());
                self.cookies.push(Slot { injection, set });
            }
            Inject::Form { name, value } => {
                let Some(value) = render(value, field::why_not_a_field_value)? else {
                    return Ok(());
                };
                let set = field::Field::form(name, &value);
                self.fields.push(Slot { injection, set });
            }
            Inject::Json { pointer, value } => {
                let Some(value) = render(value, field::why_not_a_field_value)? else {
                    return Ok(());
                };
                let set = field::Field::json(pointer, &value);
                self.fields.push(Slot { injection, set });
            }
            Inject::ClientCertificate(keys) => {
                let Some(set) = ClientCertificate::of(keys, secrets) else {
                    return Ok(());
                };
                self.certificate = Some(Slot { injection, set });
                // The certificate is public, and the private key signs and stays here.
                reflected.used.extend(inject.keys());
                return Ok(());
            }
            Inject::Hmac(signature) => {
                let Some(set) = hmac::Signer::of(signature, secrets) else {
                    return Ok(());
                };
                self.hmacs.push(Slot { injection, set });
                // The key signs and stays here.
                reflected.used.extend(inject.keys());
                return Ok(());
            }
            Inject::Header { .. }
            | Inject::Basic { .. }
            | Inject::Query { .. }
            | Inject::SigV4(_) => {
                return Ok(());
            }
        }
        reflected.travels(inject);
        Ok(())
    }

    /// The template that it was prepared from.
    pub fn template(&self) -> &Arc<Template> {
        &self.template
    }

    /// The header slots: what the agent brought in them is removed first. See [`Plan::is_slot`] for their twins.
    pub fn strip(&self) -> &[HeaderName] {
        &self.strip
    }

    /// Whether a header's name is a slot or a twin of one: case, and `_` for `-`, and such at the ends, do not count.
    pub fn is_slot(&self, header_name: &str) -> bool {
        is_slot(&self.strip, header_name)
    }

    /// The headers that are set on this host and path, each once, marked sensitive.
    ///
    /// `host` is canonical; `path` has no query.
    pub fn headers<'a>(
        &'a self,
        host: &'a str,
        path: &'a str,
    ) -> impl Iterator<Item = &'a (HeaderName, HeaderValue)> + 'a {
        self.headers
            .iter()
            .filter(move |slot| self.applies(slot, host, path))
            .map(|slot| &slot.set)
    }

    /// The query as it must be sent: the agent's credentials removed, ours added. `None` if it stays as it is,
    /// byte by byte. `query` has no question mark.
    pub fn rewrite_query(
        &self,
        host: &str,
        path: &str,
        query: Option<&str>,
    ) -> Option<RewrittenQuery> {
        let add = self
            .parameters
            .iter()
            .filter(|slot| self.applies(slot, host, path))
            .map(|slot| slot.set.as_str());
        query::rewrite(query, &self.strip_query, add).map(RewrittenQuery)
    }

    /// Whether the URL may hold a credential; then no Referer is sent, and nothing logs it.
    pub fn has_url_credential(&self) -> bool {
        !self.parameters.is_empty() || !self.paths.is_empty()
    }

    /// The path as it must be sent, if a credential stands in it. `path` is what the agent wrote, without the query.
    pub fn fill_path(&self, host: &str, path: &str) -> Option<FilledPath> {
        self.paths.iter().find_map(|slot| {
            let injection = &self.template.injections()[slot.injection];
            let Inject::Path(place) = &injection.inject else {
                return None;
            };
            let filled = injection
                .applies(host, path)
                .then(|| place.fill(path, &slot.set))
                .flatten();
            filled.map(|filled| FilledPath(Zeroizing::new(filled)))
        })
    }

    /// Whether a header's name is Cookie, or a twin of it, and the agent's cookies stay here.
    pub fn drops_cookie(&self, header_name: &str) -> bool {
        let is = |cookie: &str| names::is_twin(header_name, cookie);
        !self.template.passes_cookies() && (is("cookie") || is("cookie2"))
    }

    /// Whether a Set-Cookie of the provider is kept from the agent: every one where cookies do not pass, and everywhere one
    /// that is set in our own slot.
    pub fn drops_set_cookie(&self, field: &[u8]) -> bool {
        !self.template.passes_cookies() || cookie::is_one_of(field, &self.strip_cookies)
    }

    /// The cookies as they must be sent: the agent's own in our slots removed, ours added.
    pub fn rewrite_cookies<'a>(
        &'a self,
        host: &str,
        path: &str,
        fields: impl Iterator<Item = &'a [u8]>,
    ) -> Cookies {
        let add = self
            .cookies
            .iter()
            .filter(|slot| self.applies(slot, host, path))
            .map(|slot| slot.set.as_slice());
        if self.strip_cookies.is_empty() {
            return Cookies::Unchanged;
        }
        cookie::rewrite(fields, &self.strip_cookies, add)
    }

    /// Whether a field of the body is set on this host and path, or the body signed.
    pub fn takes_body(&self, host: &str, path: &str) -> bool {
        let fills = |slot: &Slot<_>| self.applies(slot, host, path);
        let signs =
            |slot: &Slot<hmac::Signer>| slot.set.reads_body() && self.applies(slot, host, path);
        self.fields.iter().any(fills) || self.hmacs.iter().any(signs)
    }

    /// Whether some request is signed by a keyed hash.
    pub fn has_hmacs(&self) -> bool {
        !self.hmacs.is_empty()
    }

    /// The headers that sign the request as it is about to leave, each marked sensitive but for its time.
    /// `host` is canonical, without a port.
    pub fn hmacs(
        &self,
        host: &str,
        path: &str,
        request: &HmacRequest<'_>,
        now: OffsetDateTime,
    ) -> Vec<(HeaderName, HeaderValue)> {
        self.hmacs
            .iter()
            .filter(|slot| self.applies(slot, host, path))
            .flat_map(|slot| slot.set.sign(request, now))
            .collect()
    }

    /// Whether a body of this Content-Type takes every field that is set on this host and path. `None` is no one field of
    /// that name, or a body that is compressed.
    ///
    /// # Errors
    /// [`FieldRefusal::ContentType`].
    pub fn check_body_kind(
        &self,
        host: &str,
        path: &str,
        content_type: Option<&str>,
    ) -> Result<(), FieldRefusal> {
        let mut fields = self.body_fields(host, path);
        match fields.find(|field| !content_type.is_some_and(|kind| field.takes(kind))) {
            None => Ok(()),
            Some(field) => Err(FieldRefusal::ContentType {
                slot: field.to_string(),
                wanted: field.media_type(),
            }),
        }
    }

    /// The body with every field set that belongs into it.
    ///
    /// # Errors
    /// [`FieldRefusal`]: another kind of body, or one in which the place is not found.
    pub fn fill_body(
        &self,
        host: &str,
        path: &str,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, FieldRefusal> {
        self.check_body_kind(host, path, content_type)?;
        let mut filled = Zeroizing::new(body.to_vec());
        for field in self.body_fields(host, path) {
            filled = field.fill(&filled)?;
        }
        Ok(filled)
    }

    fn body_fields<'a>(
        &'a self,
        host: &'a str,
        path: &'a str,
    ) -> impl Iterator<Item = &'a field::Field> + 'a {
        self.fields
            .iter()
            .filter(move |slot| self.applies(slot, host, path))
            .map(|slot| &slot.set)
    }

    /// The certificate by which we authenticate in the TLS handshake.
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.certificate.as_ref().map(|slot| &slot.set)
    }

    /// Whether this host is shown the certificate.
    pub fn presents_certificate(&self, host: &str) -> bool {
        self.certificate.as_ref().is_some_and(|slot| {
            let hosts = &self.template.injections()[slot.injection].hosts;
            hosts.is_empty() || hosts.iter().any(|rule| rule.matches_name(host))
        })
    }

    /// The signer, for templates that sign; then [`Plan::headers`] is empty.
    pub fn sigv4(&self) -> Option<&SigV4> {
        self.sigv4.as_ref()
    }

    /// Takes the injected secrets out of responses.
    pub fn scrubber(&self) -> &Arc<Scrubber> {
        &self.scrubber
    }

    /// What must be known of the body before the head can be sent.
    pub fn reads_body(&self) -> BodyNeed {
        if self.sigv4.is_some() {
            BodyNeed::HashUpTo(sigv4::LONGEST_HASHED_BODY)
        } else if !self.fields.is_empty() || self.hmacs.iter().any(|slot| slot.set.reads_body()) {
            BodyNeed::FillUpTo(LONGEST_FILLED_BODY)
        } else {
            BodyNeed::None
        }
    }

    /// The names of the keys that fill slots or sign, for the audit.
    pub fn keys(&self) -> &Arc<[String]> {
        &self.keys
    }

    fn applies<T>(&self, slot: &Slot<T>, host: &str, path: &str) -> bool {
        self.template.injections()[slot.injection].applies(host, path)
    }
}

impl RewrittenQuery {
    /// The query without its question mark, or nothing if no query is left.
    pub fn as_str(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|query| !query.is_empty())
    }
}

impl FilledPath {
    /// The path, which is a secret.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ClientCertificate {
    fn of(keys: &ClientCertificateKeys, secrets: &Secrets) -> Option<Self> {
        Some(Self {
            certificate: Arc::clone(secrets.0.get(&keys.certificate)?),
            key: Arc::clone(secrets.0.get(&keys.key)?),
        })
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("template", &self.template.name())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FilledPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FilledPath(..)")
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate(..)")
    }
}

impl fmt::Debug for RewrittenQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RewrittenQuery(..)")
    }
}

/// The opened secrets that a plan may use.
pub(crate) struct Secrets(BTreeMap<String, Arc<Secret>>);

impl Secrets {
    /// Leaves out what the template never sends and what the grant does not allow.
    fn select(
        template: &Template,
        allowed: impl Fn(&str) -> bool,
        mut secrets: BTreeMap<String, Arc<Secret>>,
    ) -> Result<Self, PrepareError> {
        for (key, _) in template
            .keys()
            .iter()
            .filter(|(_, key_use)| **key_use == KeyUse::Required)
        {
            let (template, key) = (template.name().to_owned(), key.clone());
            if !allowed(&key) {
                return Err(PrepareError::KeyNotAllowed { template, key });
            }
            if !secrets.contains_key(&key) {
                return Err(PrepareError::MissingKey { template, key });
            }
        }
        let travels = |key: &String| {
            template
                .keys()
                .get(key)
                .is_some_and(|key_use| *key_use != KeyUse::NeverSent)
        };
        secrets.retain(|key, _| travels(key) && allowed(key));
        Ok(Self(secrets))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key).map(|secret| secret.expose())
    }
}

/// What a response could give back.
#[derive(Default)]
struct Reflected<'t> {
    used: BTreeSet<&'t str>,
    travelling: BTreeSet<&'t str>,
    derived: Vec<Zeroizing<Vec<u8>>>,
}

impl<'t> Reflected<'t> {
    fn travels(&mut self, inject: &'t Inject) {
        self.used.extend(inject.keys());
        self.travelling.extend(inject.keys());
    }

    fn values<'a>(
        &'a self,
        template: &'a Template,
        secrets: &'a Secrets,
    ) -> impl Iterator<Item = &'a [u8]> {
        let is_secret = |key: &&&str| !template.identifiers().iter().any(|name| name == **key);
        let keys = self.travelling.iter().filter(is_secret);
        keys.filter_map(|key| secrets.get(key))
            .chain(self.derived.iter().map(|value| value.as_slice()))
    }
}

fn is_short(secrets: &Secrets, key: &str) -> bool {
    secrets
        .get(key)
        .is_some_and(|value| value.len() < crate::scrub::SHORTEST)
}

impl Inject {
    /// The keys that it needs, all of them.
    pub(crate) fn keys(&self) -> Vec<&str> {
        match self {
            Self::Header { value, .. }
            | Self::Query { value, .. }
            | Self::Cookie { value, .. }
            | Self::Form { value, .. }
            | Self::Json { value, .. } => value.keys().collect(),
            Self::Path(slot) => vec![&slot.key],
            Self::ClientCertificate(keys) => vec![&keys.certificate, &keys.key],
            Self::Hmac(signature) => vec![&signature.key],
            Self::Basic { user, password } => user.keys().chain(password.keys()).collect(),
            Self::SigV4(keys) => {
                let optional = [&keys.session_token, &keys.session, &keys.region];
                let optional = optional.into_iter().flatten();
                [&keys.access_key_id, &keys.secret_access_key]
                    .into_iter()
                    .chain(optional)
                    .map(String::as_str)
                    .collect()
            }
        }
    }

    /// The headers that it fills.
    pub(crate) fn headers(&self) -> Vec<HeaderName> {
        match self {
            Self::Header { name, .. } => vec![name.clone()],
            Self::Basic { .. } => vec![AUTHORIZATION],
            Self::Query { .. }
            | Self::Path(_)
            | Self::Cookie { .. }
            | Self::Form { .. }
            | Self::Json { .. }
            | Self::ClientCertificate(_) => Vec::new(),
            Self::Hmac(signature) => {
                let time = signature.time_header.iter().cloned();
                time.chain([signature.header.clone()]).collect()
            }
            Self::SigV4(_) => sigv4::SLOTS.map(HeaderName::from_static).to_vec(),
        }
    }
}

impl Inject {
    /// The slot in words: ``the header `authorization` ``.
    pub fn slot(&self) -> String {
        match self {
            Self::Header { name, .. } => format!("the header `{name}`"),
            Self::Basic { .. } => "HTTP Basic in the header `authorization`".to_owned(),
            Self::Query { name, .. } => format!("the query parameter `{name}`"),
            Self::SigV4(_) => "the AWS signature in the header `authorization`".to_owned(),
            Self::Path(slot) => format!("the path `{slot}`"),
            Self::Cookie { name, .. } => format!("the cookie `{name}`"),
            Self::Form { name, .. } => format!("the form field `{name}`"),
            Self::Json { pointer, .. } => format!("the JSON field `{pointer}`"),
            Self::ClientCertificate(_) => "the TLS handshake".to_owned(),
            Self::Hmac(signature) => format!("the signature in the header `{}`", signature.header),
        }
    }
}

pub(crate) fn slots(template: &Template) -> Vec<HeaderName> {
    let mut slots: Vec<HeaderName> = Vec::new();
    let filled = template
        .injections
        .iter()
        .flat_map(|injection| injection.inject.headers());
    for slot in filled.chain(template.strip.iter().cloned()) {
        if !slots.contains(&slot) {
            slots.push(slot);
        }
    }
    slots
}

pub(crate) fn is_slot(slots: &[HeaderName], header_name: &str) -> bool {
    let mut slots = slots.iter();
    slots.any(|slot| names::is_twin(header_name, slot.as_str()))
}

fn query_slots(template: &Template) -> Vec<String> {
    let filled = template
        .injections
        .iter()
        .filter_map(|injection| match &injection.inject {
            Inject::Query { name, .. } => Some(name),
            _ => None,
        });
    filled.chain(&template.strip_query).cloned().collect()
}

fn cookie_slots(template: &Template) -> Vec<String> {
    let filled = template
        .injections
        .iter()
        .filter_map(|injection| match &injection.inject {
            Inject::Cookie { name, .. } => Some(name),
            _ => None,
        });
    filled.cloned().collect()
}

#[cfg(test)]
mod tests;
