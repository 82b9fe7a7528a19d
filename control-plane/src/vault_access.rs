//! Who may do what to the secrets of a vault: people by their role, agents by policies alone.

use leases::id::PolicyId;
use leases::policy::{Ask, Permission, Rule, Ruling, decide};
use leases::secret_path::SecretPath;
use store::{NewEvent, Policy, Role, Vault};

use crate::AppState;
use crate::auth::{Caller, Principal};
use crate::error::ApiError;
use crate::events;
use crate::problem::Code;

/// What a principal is before any policy is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// May do nothing without a policy.
    Agent,
    /// A person who works with secrets: may do everything that no policy takes away.
    Member,
    /// A person who sees what there is, and never a value.
    Auditor,
}

impl Standing {
    pub(crate) fn of_role(role: Role) -> Self {
        if role == Role::Auditor {
            Self::Auditor
        } else {
            Self::Member
        }
    }

    fn of(principal: &Principal) -> Self {
        match principal {
            Principal::Person { role, .. } => Self::of_role(*role),
            Principal::Agent { .. } => Self::Agent,
        }
    }
}

/// What is decided, and by which of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// By the role, or by the rule of this index.
    Allow(Option<usize>),
    /// By the rule of this index, or because no rule allows it.
    Deny(Option<usize>),
    /// By the role, whatever the rules say.
    DenyRole,
}

impl Verdict {
    pub(crate) fn is_allowed(self) -> bool {
        matches!(self, Self::Allow(_))
    }

    pub(crate) fn rule(self) -> Option<usize> {
        match self {
            Self::Allow(rule) | Self::Deny(rule) => rule,
            Self::DenyRole => None,
        }
    }
}

/// Decides. For people a policy only takes away: an allowing one can do no more than make an exception from a denying one.
pub(crate) fn judge<'a>(
    standing: Standing,
    rules: impl IntoIterator<Item = &'a Rule>,
    ask: &Ask<'_>,
) -> Verdict {
    match (standing, decide(rules, ask)) {
        (Standing::Auditor, _) => Verdict::DenyRole,
        (Standing::Agent | Standing::Member, Ruling::Allow(rule)) => Verdict::Allow(Some(rule)),
        (Standing::Agent | Standing::Member, Ruling::Deny(rule)) => Verdict::Deny(Some(rule)),
        (Standing::Member, Ruling::Silent) => Verdict::Allow(None),
        (Standing::Agent, Ruling::Silent) => Verdict::Deny(None),
    }
}

/// A caller before a vault, with the policies that are in force at this request.
pub(crate) struct VaultAccess<'a> {
    state: &'a AppState,
    pub(crate) caller: &'a Caller,
    pub(crate) vault: Vault,
    policies: Vec<Policy>,
}

impl<'a> VaultAccess<'a> {
    /// Finds a vault by its id or name. To an agent without a policy on it there is none, and one that is bound to other vaults
    /// is refused before any policy is looked at.
    pub(crate) async fn find(
        state: &'a AppState,
        caller: &'a Caller,
        named: &str,
    ) -> Result<Self, ApiError> {
        let org = caller.org();
        let vault = state.store.vaults().get(org, named).await?;
        caller.check_vault(vault.as_ref().map(|vault| &vault.id))?;
        let vault = vault.ok_or_else(|| ApiError::not_found("vault", named))?;
        let policies = state.store.policies();
        let policies = policies
            .find_for(org, &vault.id, caller.principal.id())
            .await?;
        if caller.agent().is_some() && policies.is_empty() {
            return Err(ApiError::not_found("vault", named));
        }
        Ok(Self {
            state,
            caller,
            vault,
            policies,
        })
    }

    fn judge(&self, path: &SecretPath, permission: Permission) -> Verdict {
        let ask = Ask {
            path,
            permission,
            now: self.state.clock.now(),
            client_ip: self.caller.context.client_ip,
        };
        let rules = self.policies.iter().map(|policy| &policy.rule);
        judge(Standing::of(&self.caller.principal), rules, &ask)
    }

    /// Whether the caller sees that there is a secret: an agent sees those that it may read.
    pub(crate) fn sees(&self, path: &str) -> bool {
        if self.caller.agent().is_none() {
            return true;
        }
        let path = SecretPath::parse(path);
        path.is_ok_and(|path| self.judge(&path, Permission::Read).is_allowed())
    }

    /// Lets the caller see what is known of a secret beside its value.
    pub(crate) async fn permit_view(&self, path: &SecretPath) -> Result<(), ApiError> {
        if self.caller.agent().is_none() {
            return Ok(());
        }
        self.permit(path, Permission::Read).await.map(|_| ())
    }

    /// Lets the caller do something to a secret, and says by which policy. A denial is on record.
    pub(crate) async fn permit(
        &self,
        path: &SecretPath,
        permission: Permission,
    ) -> Result<Option<PolicyId>, ApiError> {
        let verdict = self.judge(path, permission);
        let policy = verdict.rule().and_then(|rule| self.policies.get(rule));
        let policy = policy.map(|policy| policy.id.clone());
        if verdict.is_allowed() {
            return Ok(policy);
        }
        let denied = NewEvent {
            action: action_of(permission),
            vault_id: Some(self.vault.id.clone()),
            policy_id: policy.clone(),
            keys: vec![path.to_string()],
            ..NewEvent::default()
        };
        events::secret_denied(self.state, self.caller, denied).await?;
        Err(self.refusal(verdict, policy.as_ref(), path, permission))
    }

    fn refusal(
        &self,
        verdict: Verdict,
        policy: Option<&PolicyId>,
        path: &SecretPath,
        permission: Permission,
    ) -> ApiError {
        if verdict == Verdict::DenyRole {
            let detail = "an auditor sees which secrets there are and never a value; ask an admin or a member";
            return ApiError::new(Code::Forbidden, detail);
        }
        let who = self.caller.principal.id();
        let why = match policy {
            Some(policy) => format!("policy {policy} denies {who} to {permission} {path}"),
            None => format!("no policy lets {who} {permission} {path}"),
        };
        let vault = &self.vault.id;
        let detail = format!(
            "{why} in vault {vault}; a person grants it with POST /v1/vaults/{vault}/policies, and POST /v1/policies/explain says what decides"
        );
        ApiError::new(Code::PolicyDenied, detail)
    }
}

fn action_of(permission: Permission) -> &'static str {
    match permission {
        Permission::Read => "secret.read",
        Permission::Write => "secret.write",
        Permission::Delete => "secret.delete",
        Permission::Rotate => "secret.rotate",
    }
}

#[cfg(test)]
mod tests {
    use leases::policy::{Conditions, Effect, PathPattern};
    use time::macros::datetime;

    use super::*;

    fn rule(effect: Effect) -> Rule {
        Rule {
            pattern: PathPattern::default(),
            permissions: vec![Permission::Read],
            effect,
            priority: 0,
            conditions: Conditions::default(),
            environments: Vec::new(),
            expires_at: None,
        }
    }

    #[test]
    fn a_policy_gives_to_agents_takes_from_people_and_moves_no_auditor() {
        let path = SecretPath::parse("a/b").unwrap();
        let ask = Ask {
            path: &path,
            permission: Permission::Read,
            now: datetime!(2026-11-22 07:00 UTC),
            client_ip: None,
        };
        let (allow, deny) = (rule(Effect::Allow), rule(Effect::Deny));
        for (standing, rules, expected) in [
            (Standing::Agent, vec![], Verdict::Deny(None)),
            (Standing::Agent, vec![&allow], Verdict::Allow(Some(0))),
            (Standing::Agent, vec![&allow, &deny], Verdict::Deny(Some(1))),
            (Standing::Member, vec![], Verdict::Allow(None)),
            (Standing::Member, vec![&deny], Verdict::Deny(Some(0))),
            (Standing::Auditor, vec![], Verdict::DenyRole),
            (Standing::Auditor, vec![&allow], Verdict::DenyRole),
        ] {
            assert_eq!(judge(standing, rules, &ask), expected, "{standing:?}");
        }
    }
}
