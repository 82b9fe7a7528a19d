//! `POST /v1/secrets/{secret_id}/share`

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use leases::id::{AgentId, SecretId, ShareId, UserId};
use leases::policy::{Conditions, Permission};
use leases::scope::parse_cidr;
use leases::secret_path::SecretPath;
use serde::{Deserialize, Serialize};
use store::{NewShare, Recipient, SecretVersion};
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;
use vault::Secret;
use zeroize::Zeroize;

use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Id, Json};
use crate::people::email;
use crate::people::one_time::{OneTime, Purpose};
use crate::problem::{Code, Problem};
use crate::timestamp::Timestamp;
use crate::vault_access::VaultAccess;

/// With whom a version of a secret is shared, how often and how long. An unknown field is refused: a mistyped limit would widen
/// access.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateShare {
    /// `user`, `agent`, `external_email`, `anyone_with_link`, or for agents `creator`: the person who made the agent.
    recipient_type: String,
    /// Of a user or an agent.
    recipient_id: Option<String>,
    /// Of an `external_email`.
    #[serde(alias = "recipient_email")]
    email: Option<String>,
    /// At most 90 days ahead.
    expires_at: Timestamp,
    /// How often it opens; absent or 0 for any number of times.
    max_access_count: Option<u64>,
    /// 8 to 128 characters, to be told by another way than the link.
    #[schema(value_type = Option<String>)]
    passphrase: Option<Secret>,
    /// Networks or addresses from which it opens, at most 64; absent or empty for all.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    ip_allowlist: Vec<String>,
    /// `read`, and `export_plaintext` where the value goes to an agent or out of a secret set: without it such a share is refused.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    permissions: Vec<String>,
}

/// A share. Of one with a link this is the only time that the link is shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedShare {
    /// What opens it: what the link says, for `anyone_with_link`, and else the share's id.
    #[schema(example = "share_9k2Xl0c1Zb5cI3qvG3mJ8e3y6Hn1m0Qw4s7d2f5g8hA")]
    id: String,
    /// The share's id, by which it is listed, shown and revoked.
    #[schema(value_type = String, example = "shr_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    share_id: ShareId,
    /// The path on this server that opens it. One for an email has its link in it.
    share_url: String,
    recipient_type: &'static str,
    recipient_id: Option<String>,
    recipient_email: Option<String>,
    expires_at: Timestamp,
    max_access_count: Option<u64>,
    /// Always true: whoever opens it holds the value.
    export: bool,
}

impl Drop for CreatedShare {
    fn drop(&mut self) {
        self.id.zeroize();
        self.share_url.zeroize();
    }
}

/// Shares one version of a secret, named by its id. Whoever opens the share holds the value: it is an export.
///
/// People share what they may read. An agent shares what a policy lets it read, with the person who made it and with nobody else.
/// An organisation makes at most 10 shares a minute.
#[utoipa::path(post, path = "/v1/secrets/{secret_id}/share", tag = "shares", operation_id = "createShare", request_body = CreateShare,
    params(("secret_id" = String, Path, description = "The id of any version"), ("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 201, body = CreatedShare), (status = 403, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    id: Id,
    Json(body): Json<CreateShare>,
) -> Result<(StatusCode, Answer<CreatedShare>), ApiError> {
    let secret: SecretId = id.parse("secret")?;
    let secret = state.store.secrets().by_id(caller.org(), &secret).await?;
    let secret = secret.ok_or_else(|| ApiError::not_found("secret", &id.0))?;
    let recipient = body.recipient(&state, &caller).await?;
    check_right(&state, &caller, &secret).await?;
    body.check_export(&caller, &recipient, &secret)?;
    let link = match recipient {
        Recipient::Anyone | Recipient::Email(_) => Some(OneTime::generate(Purpose::Share)),
        Recipient::User(_) | Recipient::Agent(_) | Recipient::Creator(_) => None,
    };
    let new = NewShare {
        secret: secret.id,
        recipient,
        link_hash: link.as_ref().map(OneTime::hash),
        networks: body.networks()?,
        max_accesses: body.max_access_count.filter(|most| *most > 0),
        expires_at: body.end(state.clock.now())?,
        passphrase: match &body.passphrase {
            Some(passphrase) => {
                check_passphrase(passphrase)?;
                Some(state.people.hasher.hash(passphrase).await?)
            }
            None => None,
        },
    };
    let shares = state.store.shares();
    let share = shares.create(caller.org(), new, &caller.actor()).await?;
    let opened_by = link.as_ref().map_or(share.id.as_str(), OneTime::reveal);
    let is_linked = share.recipient == Recipient::Anyone;
    let created = CreatedShare {
        id: if is_linked {
            opened_by
        } else {
            share.id.as_str()
        }
        .to_owned(),
        share_url: format!("/v1/share/{opened_by}"),
        recipient_type: share.recipient.kind(),
        recipient_id: share.recipient.id().map(str::to_owned),
        recipient_email: share.recipient.email().map(str::to_owned),
        expires_at: share.expires_at.into(),
        max_access_count: share.max_accesses,
        export: true,
        share_id: share.id,
    };
    Ok((StatusCode::CREATED, Answer(created)))
}

/// Lets those share who may read: people by their role, agents by a policy. To an agent that may not, there is no secret of this id.
async fn check_right(
    state: &AppState,
    caller: &Caller,
    secret: &SecretVersion,
) -> Result<(), ApiError> {
    let unknown = || ApiError::not_found("secret", secret.id.as_str());
    let path = SecretPath::parse(&secret.path).map_err(|_| {
        let detail = "this entry's name makes no path that policies can speak of; share it under another name";
        ApiError::new(Code::ExportDenied, detail)
    })?;
    let access = match VaultAccess::find(state, caller, secret.vault.as_str()).await {
        Err(error) if error.code() == Code::NotFound => return Err(unknown()),
        found => found?,
    };
    if !access.sees(&secret.path) {
        return Err(unknown());
    }
    access.permit(&path, Permission::Read).await.map(|_| ())
}

impl CreateShare {
    /// For whom, if this caller may share with them.
    async fn recipient(&self, state: &AppState, caller: &Caller) -> Result<Recipient, ApiError> {
        let kind = self.recipient_type.as_str();
        if let Some(agent) = caller.agent() {
            if kind != "creator" {
                let detail = format!(
                    "agent {agent} shares with the person who made it alone: send recipient_type creator, or ask a person"
                );
                return Err(ApiError::new(Code::Forbidden, detail));
            }
            self.takes(&[])?;
            let creator = state.store.agents().creator(caller.org(), agent).await?;
            let creator = creator.ok_or_else(|| {
                let detail =
                    format!("nobody is known to have made agent {agent}; ask a person to share it");
                ApiError::new(Code::Forbidden, detail)
            })?;
            return Ok(Recipient::Creator(creator));
        }
        match kind {
            "user" => {
                self.takes(&["recipient_id"])?;
                let id = self.recipient_id.as_deref().unwrap_or_default();
                let id = UserId::parse(id).map_err(|_| ApiError::not_found("member", id))?;
                Ok(Recipient::User(id))
            }
            "agent" => {
                self.takes(&["recipient_id"])?;
                let id = self.recipient_id.as_deref().unwrap_or_default();
                let id = AgentId::parse(id).map_err(|_| ApiError::not_found("agent", id))?;
                Ok(Recipient::Agent(id))
            }
            "external_email" => {
                self.takes(&["email"])?;
                let email = self.email.as_deref().unwrap_or_default();
                email::required(email).map(Recipient::Email)
            }
            "anyone_with_link" => {
                self.takes(&[])?;
                Ok(Recipient::Anyone)
            }
            "creator" => Err(ApiError::invalid(
                "recipient_type",
                "creator is the person who made the agent that shares, and you are no agent; name a user",
            )),
            _ => Err(ApiError::invalid(
                "recipient_type",
                "must be user, agent, external_email, anyone_with_link or creator",
            )),
        }
    }

    /// Refuses a recipient that is named twice over, or not at all.
    fn takes(&self, wanted: &[&str]) -> Result<(), ApiError> {
        let given = [
            ("recipient_id", self.recipient_id.is_some()),
            ("email", self.email.is_some()),
        ];
        for (field, is_given) in given {
            let kind = crate::text::excerpt(&self.recipient_type);
            match (wanted.contains(&field), is_given) {
                (true, false) => {
                    let rule = format_args!("is missing; {kind} needs it");
                    return Err(ApiError::invalid(field, rule));
                }
                (false, true) => {
                    let rule = format_args!("does not go with {kind}; leave it out");
                    return Err(ApiError::invalid(field, rule));
                }
                (true, true) | (false, false) => {}
            }
        }
        Ok(())
    }

    /// What agents and secret sets keep from being read takes a word more: whoever shares says that it is to be exported.
    fn check_export(
        &self,
        caller: &Caller,
        recipient: &Recipient,
        secret: &SecretVersion,
    ) -> Result<(), ApiError> {
        for permission in &self.permissions {
            if !["read", EXPORT].contains(&permission.as_str()) {
                let rule = "takes read and export_plaintext alone";
                return Err(ApiError::invalid("permissions", rule));
            }
        }
        let set = secret.set_name();
        if let (Some(set), Some(agent)) = (set, caller.agent()) {
            let detail = format!(
                "agent {agent} shares no entry of a secret set ({set}); it exports one under a lease whose action is export_plaintext"
            );
            return Err(ApiError::new(Code::ExportDenied, detail));
        }
        let why = match (recipient, set) {
            (Recipient::Agent(agent), _) => format!("it gives the plaintext to agent {agent}"),
            (_, Some(set)) => format!("it takes an entry out of the secret set {set}"),
            _ => return Ok(()),
        };
        if self
            .permissions
            .iter()
            .any(|permission| permission == EXPORT)
        {
            return Ok(());
        }
        let detail = format!(
            "this share is an export: {why}; send permissions [\"read\", \"{EXPORT}\"] if that is what you want"
        );
        Err(ApiError::new(Code::ExportDenied, detail))
    }

    fn end(&self, now: OffsetDateTime) -> Result<OffsetDateTime, ApiError> {
        let end = self.expires_at.0;
        if end <= now || end > now + MAX_LIFETIME {
            let days = MAX_LIFETIME.whole_days();
            let rule = format_args!("must be in the future and at most {days} days ahead");
            return Err(ApiError::invalid("expires_at", rule));
        }
        Ok(end)
    }

    fn networks(&self) -> Result<Vec<String>, ApiError> {
        let most = Conditions::MAX_NETWORKS;
        if self.ip_allowlist.len() > most {
            let rule = format_args!("has more than {most} networks");
            return Err(ApiError::invalid("ip_allowlist", rule));
        }
        let read = |text: &String| match parse_cidr(text) {
            Ok(network) => Ok(network.to_string()),
            Err(problem) => Err(ApiError::invalid("ip_allowlist", problem)),
        };
        self.ip_allowlist.iter().map(read).collect()
    }
}

fn check_passphrase(passphrase: &Secret) -> Result<(), ApiError> {
    let count = passphrase.expose_str().map(|text| text.chars().count());
    match count {
        Some(MIN_PASSPHRASE..=MAX_PASSPHRASE) => Ok(()),
        _ => Err(ApiError::invalid(
            "passphrase",
            format_args!("must have {MIN_PASSPHRASE} to {MAX_PASSPHRASE} characters"),
        )),
    }
}

const EXPORT: &str = "export_plaintext";
const MAX_LIFETIME: Duration = Duration::days(90);
/// It is tried ten times at most.
const MIN_PASSPHRASE: usize = 8;
const MAX_PASSPHRASE: usize = 128;
