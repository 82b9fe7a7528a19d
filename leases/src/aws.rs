//! What a grant says of AWS beyond hosts and paths: services, regions, buckets, actions, and presigned URLs.
//!
//! The limits stand in the authority block as facts. What a request asks of AWS is read from its signature's scope and its
//! body, after the lease has permitted it, so they are tested natively on the permit and not by checks.

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::scope::Scope;

/// The limits of a grant on AWS, and the `aws` object of its constraints. An empty list is no limit.
///
/// JSON: `{services[], regions[], buckets[], actions[], presigned}`, each optional, no other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AwsScope {
    /// Services as signatures name them: `s3`, `dynamodb`, `monitoring`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "services")]
    pub services: Vec<String>,
    /// Regions: `eu-central-1`; `*` is what a signature for all regions asks for.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "regions")]
    pub regions: Vec<String>,
    /// Buckets of Amazon S3, by name or `prefix*`. With buckets and without services, S3 is the only service.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "buckets")]
    pub buckets: Vec<String>,
    /// Actions: `dynamodb:GetItem`, `s3:Get*`, `lambda:*`. One that hands out credentials has to be named here.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "actions")]
    pub actions: Vec<String>,
    /// Whether presigned URLs are taken, which are sent on signed by header.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub presigned: bool,
}

/// What a request asks of AWS.
#[derive(Debug, Clone, Copy)]
pub struct AwsCall<'a> {
    /// The service of its signature.
    pub service: &'a str,
    /// The regions of its signature: one, but for version 4A.
    pub regions: &'a [String],
    /// Whether the service keeps buckets.
    pub has_buckets: bool,
    /// The buckets that it names, if all of them can be told. Only asked for where [`AwsScope::buckets`] are.
    pub buckets: Option<&'a [String]>,
    /// The actions that it takes, if all can be told, without the service: `GetItem`.
    pub actions: Option<&'a [String]>,
}

/// Why a grant does not allow what a request asks of AWS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AwsDenial {
    /// A part that the grant does not list.
    #[error(
        "AWS {what} `{asked}` is outside the grant (allowed: {allowed}); ask for a grant that includes it"
    )]
    Outside {
        /// `service`, `region`, `bucket` or `action`.
        what: &'static str,
        /// What was asked for.
        asked: String,
        /// What the grant lists.
        allowed: String,
    },
    /// A part that the request does not tell, and that the grant is bound to.
    #[error(
        "the AWS {what} of the request cannot be told for sure, and the grant is bound to some ({allowed}); \
         ask for a grant on the whole service"
    )]
    Untold {
        /// `bucket` or `action`.
        what: &'static str,
        /// What the grant lists.
        allowed: String,
    },
}

impl AwsScope {
    /// Whether nothing is limited, and nothing more let through.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the grant names this action, by itself, by its beginning or by its service.
    pub fn names_action(&self, service: &str, action: &str) -> bool {
        self.actions.iter().any(|pattern| {
            pattern
                .split_once(':')
                .is_some_and(|(of, name)| of == service && matches(name, action))
        })
    }

    /// Decides on what a request asks of AWS.
    ///
    /// # Errors
    /// [`AwsDenial`].
    pub fn allows(&self, call: &AwsCall<'_>) -> Result<(), AwsDenial> {
        self.allows_service(call)?;
        for region in call.regions {
            if !self.regions.is_empty() && !self.regions.contains(region) {
                return Err(outside("region", region, &self.regions));
            }
        }
        if !self.buckets.is_empty() && call.has_buckets {
            let buckets = call.buckets.filter(|named| !named.is_empty());
            let buckets = buckets.ok_or_else(|| untold("bucket", &self.buckets))?;
            let is_outside =
                |name: &&String| !self.buckets.iter().any(|pattern| matches(pattern, name));
            if let Some(bucket) = buckets.iter().find(is_outside) {
                return Err(outside("bucket", bucket, &self.buckets));
            }
        }
        self.allows_actions(call)
    }

    fn allows_service(&self, call: &AwsCall<'_>) -> Result<(), AwsDenial> {
        let of_buckets = ["the services of S3".to_owned()];
        match (self.services.as_slice(), self.buckets.is_empty()) {
            ([], false) if !call.has_buckets => Err(outside("service", call.service, &of_buckets)),
            ([], _) => Ok(()),
            (services, _) if services.iter().any(|name| name == call.service) => Ok(()),
            (services, _) => Err(outside("service", call.service, services)),
        }
    }

    fn allows_actions(&self, call: &AwsCall<'_>) -> Result<(), AwsDenial> {
        // With all of a service's actions allowed, which one it is does not matter.
        if self.actions.is_empty() || self.names_service(call.service) {
            return Ok(());
        }
        let actions = call.actions.filter(|told| !told.is_empty());
        let actions = actions.ok_or_else(|| untold("action", &self.actions))?;
        let is_outside = |action: &&String| !self.names_action(call.service, action);
        match actions.iter().find(is_outside) {
            Some(action) => {
                let asked = format!("{}:{action}", call.service);
                Err(outside("action", &asked, &self.actions))
            }
            None => Ok(()),
        }
    }

    fn names_service(&self, service: &str) -> bool {
        let all_of = |pattern: &String| pattern.strip_suffix(":*") == Some(service);
        self.actions.iter().any(all_of)
    }

    /// Whether all that this scope allows is allowed by `parent`, by the look of the patterns.
    pub(crate) fn narrows(&self, parent: &Self) -> bool {
        let equal = |parent: &String, child: &String| parent == child;
        let covers = |parent: &String, child: &String| {
            parent == child
                || (parent.ends_with('*') && matches(parent, child.trim_end_matches('*')))
        };
        within(&self.services, &parent.services, equal)
            && within(&self.regions, &parent.regions, equal)
            && within(&self.buckets, &parent.buckets, covers)
            && within(&self.actions, &parent.actions, covers)
            && (parent.presigned || !self.presigned)
    }

    /// The lists by the name that they have in tokens.
    pub(crate) fn lists(&self) -> [(&'static str, &Vec<String>); 4] {
        [
            ("service", &self.services),
            ("region", &self.regions),
            ("bucket", &self.buckets),
            ("action", &self.actions),
        ]
    }

    /// The list of that name, for a reader of tokens.
    pub(crate) fn list_mut(&mut self, name: &str) -> Option<&mut Vec<String>> {
        match name {
            "service" => Some(&mut self.services),
            "region" => Some(&mut self.regions),
            "bucket" => Some(&mut self.buckets),
            "action" => Some(&mut self.actions),
            _ => None,
        }
    }
}

fn within(
    children: &[String],
    parents: &[String],
    covers: impl Fn(&String, &String) -> bool,
) -> bool {
    let is_covered = |child| parents.iter().any(|parent| covers(parent, child));
    parents.is_empty() || (!children.is_empty() && children.iter().all(is_covered))
}

/// Whether a name is the pattern, or begins with it up to a final star.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

fn outside(what: &'static str, asked: &str, allowed: &[String]) -> AwsDenial {
    AwsDenial::Outside {
        what,
        asked: asked.to_owned(),
        allowed: allowed.join(", "),
    }
}

fn untold(what: &'static str, allowed: &[String]) -> AwsDenial {
    AwsDenial::Untold {
        what,
        allowed: allowed.join(", "),
    }
}

/// Reads a list of texts, and says the field and the entry of the first mistake.
fn list<'de, D: Deserializer<'de>>(
    deserializer: D,
    field: &'static str,
    why_not: impl Fn(&str) -> Option<&'static str>,
) -> Result<Vec<String>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)
        .map_err(|error| de::Error::custom(format_args!("aws.{field}: {error}")))?;
    if texts.len() > Scope::MAX_ENTRIES {
        return Err(de::Error::custom(format_args!(
            "aws.{field}: at most {} entries",
            Scope::MAX_ENTRIES
        )));
    }
    match texts
        .iter()
        .enumerate()
        .find_map(|(at, text)| Some((at, text, why_not(text)?)))
    {
        Some((at, text, why)) => Err(de::Error::custom(format_args!(
            "aws.{field}[{at}]: `{text}` {why}"
        ))),
        None => Ok(texts),
    }
}

fn is_word(text: &str, more: &[u8]) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

fn services<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    list(deserializer, "services", |text| {
        (!is_word(text, b"-_."))
            .then_some("is no service; write it as signatures do, like dynamodb")
    })
}

fn regions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    list(deserializer, "regions", |text| {
        (text != "*" && !is_word(text, b"-")).then_some("is no region; write it like eu-central-1")
    })
}

fn buckets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    list(deserializer, "buckets", |text| {
        let name = text.strip_suffix('*').unwrap_or(text);
        (!is_word(name, b"-_."))
            .then_some("is no bucket; write a name, or its beginning and a final *")
    })
}

fn actions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    list(deserializer, "actions", |text| {
        let is_action = text.split_once(':').is_some_and(|(service, name)| {
            let start = name.strip_suffix('*').unwrap_or(name);
            is_word(service, b"-_.") && (name == "*" || is_word(start, b""))
        });
        (!is_action).then_some("is no action; write it like s3:GetObject, s3:Get* or s3:*")
    })
}

#[cfg(test)]
mod tests;
