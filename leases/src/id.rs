//! Identifiers: a prefix that names the kind of thing, then a ULID.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::OffsetDateTime;
use ulid::Ulid;

/// Why a text is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this kind: expected `{prefix}` and 26 characters of Crockford's base32")]
pub struct IdError {
    prefix: &'static str,
}

/// The letters of Crockford's base32, as ULIDs are written.
const CROCKFORD: &[u8] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of a ULID.
const ULID_LENGTH: usize = 26;

fn check(text: &str, prefix: &'static str) -> Result<(), IdError> {
    let is_valid = text.strip_prefix(prefix).is_some_and(|ulid| {
        // 26 characters hold 130 bits: the first one may carry only three of its five.
        ulid.len() == ULID_LENGTH
            && ulid.bytes().all(|byte| CROCKFORD.contains(&byte))
            && ulid.as_bytes()[0] <= b'7'
    });
    if is_valid {
        Ok(())
    } else {
        Err(IdError { prefix })
    }
}

fn generate(prefix: &str, now: OffsetDateTime) -> Arc<str> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the operating system has a source of random bytes");
    let milliseconds = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    let ulid = Ulid::from_parts(milliseconds, u128::from_be_bytes(random));
    format!("{prefix}{ulid}").into()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $prefix:literal;)*) => {$(
        $(#[$doc])*
        ///
        #[doc = concat!("Shape: `", $prefix, "` and a ULID (26 characters, upper case). A clone costs a reference count.")]
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The prefix of every id of this kind.
            pub const PREFIX: &'static str = $prefix;

            /// Makes a fresh id: the time in milliseconds, then 80 random bits.
            ///
            /// # Panics
            /// If the operating system has no source of random bytes.
            pub fn new(now: OffsetDateTime) -> Self {
                Self(generate($prefix, now))
            }

            /// Reads an id.
            ///
            /// # Errors
            /// [`IdError`] if the prefix is another or the rest is not a ULID in its one spelling.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check(text, $prefix).map(|()| Self(text.into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id as text, shared with this one.
            pub fn to_shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// An organisation: the isolation boundary.
    OrgId, "org_";
    /// An agent.
    AgentId, "agt_";
    /// A person.
    UserId, "usr_";
    /// A vault.
    VaultId, "vlt_";
    /// One version of a secret.
    SecretId, "sec_";
    /// A policy: who may do what under a path pattern of a vault.
    PolicyId, "pol_";
    /// A secret set.
    SetId, "set_";
    /// A grant.
    GrantId, "grt_";
    /// A lease. Every block that narrows it, and every encoding of it, carries the same one.
    LeaseId, "lse_";
    /// One recorded use of a lease.
    UseId, "use_";
    /// An audit event.
    EventId, "evt_";
    /// A person's approval of one request.
    ApprovalId, "apr_";
    /// A person's key.
    KeyId, "key_";
    /// An invitation to an organisation.
    InvitationId, "inv_";
    /// A rule on where callers come from.
    IpRuleId, "ipr_";
    /// An agent that asked for itself.
    EnrolmentId, "enr_";
    /// A webhook: where the audit trail is told to.
    WebhookId, "whk_";
    /// A value shared with somebody.
    ShareId, "shr_";
    /// A name by which an agent sends requests to one API.
    BindingId, "bnd_";
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_fresh_id_is_read_back() {
        let id = LeaseId::new(datetime!(2026-11-22 07:00 UTC));
        assert_eq!(LeaseId::parse(id.as_str()).unwrap(), id);
        assert!(id.as_str().starts_with("lse_01"));
    }

    #[test]
    fn ids_sort_by_the_time_they_were_made() {
        let early = UseId::new(datetime!(2026-11-22 07:00 UTC));
        let late = UseId::new(datetime!(2026-11-22 07:01 UTC));
        assert!(early < late);
    }

    #[test]
    fn two_ids_of_one_instant_differ() {
        let now = datetime!(2026-11-22 07:00 UTC);
        assert_ne!(SetId::new(now), SetId::new(now));
    }

    #[test]
    fn an_id_in_another_shape_is_refused() {
        let long = "lse_01ARZ3NDEKTSV4RRFFQ69G5FAVX";
        for text in [
            "",
            "lse_",
            "agt_01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "lse_01arz3ndektsv4rrffq69g5fav",
            "lse_81ARZ3NDEKTSV4RRFFQ69G5FAV",
            "lse_01ARZ3NDEKTSV4RRFFQ69G5FAU",
            "lse_01ARZ3NDEKTSV4RRFFQ69G5FA\u{0}",
            " lse_01ARZ3NDEKTSV4RRFFQ69G5FAV",
            long,
        ] {
            assert!(LeaseId::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn json_holds_the_text_and_refuses_another_kind() {
        let id: AgentId = serde_json::from_str("\"agt_01ARZ3NDEKTSV4RRFFQ69G5FAV\"").unwrap();
        assert_eq!(
            serde_json::to_string(&id).unwrap(),
            "\"agt_01ARZ3NDEKTSV4RRFFQ69G5FAV\""
        );
        assert!(serde_json::from_str::<OrgId>("\"agt_01ARZ3NDEKTSV4RRFFQ69G5FAV\"").is_err());
    }
}
