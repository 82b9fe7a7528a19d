//! Opening a share: one answer to everybody for whom it does not open, whatever the reason; the trail has the reason.

use std::net::IpAddr;

use axum::response::Response;
use ipnet::IpNet;
use leases::id::SecretId;
use leases::policy::{Ask, Conditions, Permission, Rule, Ruling, decide};
use leases::secret_path::SecretPath;
use serde::Serialize;
use store::{Actor, OpenedRow, Recipient, Role, Share};
use utoipa::ToSchema;
use vault::{RowBinding, Secret};

use super::{Named, find};
use crate::AppState;
use crate::auth::{Caller, Principal};
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::plaintext::{self, Plaintext};
use crate::problem::Code;
use crate::routes::secrets::{GENERIC, check_may_open};
use crate::timestamp::Timestamp;
use crate::vault_access::{Standing, judge};

/// A shared value.
#[derive(Serialize, ToSchema)]
pub(crate) struct SharedValue {
    /// The share's id, also for whoever came by its link.
    #[schema(example = "shr_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    id: String,
    #[schema(value_type = String)]
    secret_id: SecretId,
    path: String,
    r#type: String,
    version: u64,
    #[schema(value_type = String)]
    value: Plaintext,
    /// With this one.
    access_count: u64,
    /// Null for any number of times.
    max_access_count: Option<u64>,
    expires_at: Timestamp,
}

/// Who opens a share, and what comes with the request.
pub(super) struct Opening<'a> {
    pub(super) state: &'a AppState,
    pub(super) context: &'a RequestContext,
    pub(super) caller: Option<&'a Caller>,
    pub(super) passphrase: Option<&'a Secret>,
}

/// Why a share does not open: the word in the trail.
type Reason = &'static str;

impl Opening<'_> {
    /// Gives out the value of a share, if it opens for this caller. The opening is counted and on record before anything is opened.
    pub(super) async fn open(&self, id: &str) -> Result<Response, ApiError> {
        check_may_open(self.state).await?;
        if let Some(Caller {
            principal:
                Principal::Person {
                    role: Role::Auditor,
                    ..
                },
            ..
        }) = self.caller
        {
            let detail =
                "an auditor opens no share, for a value is in it; ask an admin or a member";
            return Err(ApiError::new(Code::Forbidden, detail));
        }
        let named = find(self.state, id, self.caller).await?;
        let checked = match &named {
            Some(named) => self.check(named).await?,
            None => Err("share_unknown"),
        };
        let good = named.as_ref().filter(|_| checked.is_ok());
        let is_right = self
            .check_passphrase(good.map(|named| &named.share))
            .await?;
        let (Some(Named { share, .. }), Ok(())) = (&named, checked) else {
            return Err(self.refuse(named.as_ref(), checked).await?);
        };
        if !is_right {
            return Err(self.refuse(named.as_ref(), Err("share_passphrase")).await?);
        }
        let agent = self.caller.and_then(Caller::agent);
        let shares = self.state.store.shares();
        match shares.open(share, agent, &self.actor()).await? {
            Some((accesses, opened)) => self.give(share, accesses, opened).await,
            None => Err(self.refuse(named.as_ref(), Err("share_ended")).await?),
        }
    }

    /// What can be known before the passphrase. How often it opens is decided where it is counted.
    async fn check(&self, named: &Named) -> Result<Result<(), Reason>, ApiError> {
        let share = &named.share;
        let now = self.state.clock.now();
        let is_mine = match &share.recipient {
            Recipient::Anyone => named.is_by_link,
            Recipient::User(_)
            | Recipient::Agent(_)
            | Recipient::Email(_)
            | Recipient::Creator(_) => self
                .caller
                .is_some_and(|caller| share.is_for(caller.principal.id())),
        };
        let is_linked = share.recipient == Recipient::Anyone;
        let is_exhausted = share
            .max_accesses
            .is_some_and(|most| share.accesses >= most);
        let simple = [
            (is_mine, "share_recipient"),
            (share.revoked_at.is_none(), "share_revoked"),
            (share.declined_at.is_none(), "share_declined"),
            (share.expires_at > now, "share_expired"),
            (!is_exhausted, "share_exhausted"),
            (
                is_linked || share.accepted_at.is_some(),
                "share_not_accepted",
            ),
            (
                holds(&share.networks, self.context.client_ip),
                "share_address",
            ),
        ];
        if let Some((_, reason)) = simple.into_iter().find(|(is_so, _)| !is_so) {
            return Ok(Err(reason));
        }
        self.check_policies(share).await
    }

    /// A policy that ends its maker's right to read ends what was shared by it, and one that denies the recipient holds here too.
    async fn check_policies(&self, share: &Share) -> Result<Result<(), Reason>, ApiError> {
        let Ok(path) = SecretPath::parse(&share.path) else {
            return Ok(Err("share_maker"));
        };
        let ask = Ask {
            path: &path,
            permission: Permission::Read,
            now: self.state.clock.now(),
            client_ip: self.context.client_ip,
        };
        let of_maker = self.rules(share, &share.created_by).await?;
        let standing = if share.is_by_agent {
            Standing::Agent
        } else {
            Standing::Member
        };
        // The maker is not here: what a rule asks of time and address is taken as met.
        let of_maker: Vec<Rule> = of_maker
            .into_iter()
            .map(|rule| Rule {
                conditions: Conditions::default(),
                ..rule
            })
            .collect();
        if !judge(standing, &of_maker, &ask).is_allowed() {
            return Ok(Err("share_maker"));
        }
        let of_recipient = match self.caller {
            Some(caller) if caller.org() == &share.org => {
                self.rules(share, caller.principal.id()).await?
            }
            Some(_) | None => Vec::new(),
        };
        Ok(match decide(&of_recipient, &ask) {
            Ruling::Deny(_) => Err("policy_denied"),
            Ruling::Allow(_) | Ruling::Silent => Ok(()),
        })
    }

    async fn rules(&self, share: &Share, principal: &str) -> Result<Vec<Rule>, ApiError> {
        let policies = self.state.store.policies();
        let found = policies
            .find_for(&share.org, &share.vault, principal)
            .await?;
        Ok(found.into_iter().map(|policy| policy.rule).collect())
    }

    /// Whether the passphrase is right, if the share has one. What was given costs the same work and time whatever it is given for,
    /// and is counted before it is compared.
    async fn check_passphrase(&self, share: Option<&Share>) -> Result<bool, ApiError> {
        let digest = share.and_then(|share| share.passphrase.as_ref());
        let Some(given) = self.passphrase else {
            return Ok(digest.is_none());
        };
        let may_try = match share.filter(|share| share.passphrase.is_some()) {
            Some(share) => self.state.store.shares().count_try(share).await?,
            None => false,
        };
        let hasher = &self.state.people.hasher;
        let is_it = hasher.verify(given, digest.filter(|_| may_try)).await?;
        Ok(is_it || digest.is_none())
    }

    async fn give(
        &self,
        share: &Share,
        access_count: u64,
        opened: OpenedRow,
    ) -> Result<Response, ApiError> {
        let row = RowBinding {
            org: share.org.as_str(),
            vault: share.vault.as_str(),
            path: &share.path,
            version: share.version,
        };
        let value = Plaintext(self.state.vault.open(&opened.sealed, &row).await?);
        let capacity = 4096 + value.json_len();
        let shared = SharedValue {
            id: share.id.to_string(),
            secret_id: share.secret.clone(),
            path: share.path.clone(),
            r#type: opened.version.kind.unwrap_or_else(|| GENERIC.to_owned()),
            version: share.version,
            value,
            access_count,
            max_access_count: share.max_accesses,
            expires_at: share.expires_at.into(),
        };
        plaintext::respond(&shared, capacity)
    }

    fn actor(&self) -> Actor {
        match self.caller {
            Some(caller) => caller.actor(),
            None => Actor {
                client_ip: self.context.client_ip,
                request_id: Some(self.context.id.clone()),
                ..Actor::system("share-link")
            },
        }
    }

    /// The one answer, and the record for the maker. Only these answers count for the address that they go to, so nobody who may
    /// open a share is held back by somebody who may not.
    async fn refuse(
        &self,
        named: Option<&Named>,
        checked: Result<(), Reason>,
    ) -> Result<ApiError, ApiError> {
        if let (Some(named), Err(why)) = (named, checked) {
            crate::events::share_denied(self.state, &named.share, why, &self.actor()).await?;
        }
        if let Err(wait) = self.state.auth_limits.failed(self.context.client_ip) {
            let detail =
                "too many shares from this address did not open; wait as long as Retry-After says";
            return Ok(ApiError::new(Code::RateLimited, detail).retry_after(wait));
        }
        Ok(ApiError::new(Code::NotFound, CLOSED))
    }
}

/// Whether an address is in one of the networks; in an empty list everybody is. A network that cannot be read holds nobody.
fn holds(networks: &[String], client_ip: Option<IpAddr>) -> bool {
    let has = |address: IpAddr| {
        networks
            .iter()
            .filter_map(|network| network.parse::<IpNet>().ok())
            .any(|network| network.contains(&address))
    };
    networks.is_empty() || client_ip.is_some_and(has)
}

/// Names every reason, so that it tells none.
const CLOSED: &str = "no share opens here: there is none, it was revoked or declined, has ended, was opened as often as it may be, is not \
    for this caller or address, has to be accepted first, or takes a passphrase (POST /v1/shares/{id}/access); ask whoever shared it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_held_by_its_networks_alone() {
        let networks = ["192.0.2.0/24".to_owned(), "2001:db8::/32".to_owned()];
        let at = |text: &str| Some(text.parse().unwrap());
        assert!(holds(&networks, at("192.0.2.7")));
        assert!(holds(&networks, at("2001:db8::1")));
        assert!(!holds(&networks, at("198.51.100.1")));
        assert!(!holds(&networks, None));
        assert!(!holds(&["x".to_owned()], at("192.0.2.7")));
        assert!(holds(&[], None));
    }
}
