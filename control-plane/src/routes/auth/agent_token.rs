//! `POST /v1/auth/agent-token`

use std::time::Duration;

use axum::extract::State;
use leases::id::AgentId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Agent, AuthMethod};
use time::OffsetDateTime;
use utoipa::ToSchema;
use vault::Secret;

use crate::AppState;
use crate::api_key::{self, KeyHolder};
use crate::auth::{self, agent_by_key};
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::Json;
use crate::jwt::{AgentToken, Confirmation};
use crate::oidc;
use crate::people::address_rules;
use crate::problem::Problem;
use crate::proof::{self, Proof, ProofError, ProofKey};
use crate::routes::agents::token_lifetime;
use crate::sender::Sender;

/// An agent's key, or its id with a token of its own identity provider or over a connection with its certificate; further fields of
/// the seeds' clients are ignored.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct TokenRequest {
    /// `ocv_...`
    #[schema(value_type = Option<String>)]
    api_key: Option<Secret>,
    /// A JWT of the agent's own identity provider, for an agent whose `auth_method` is `oidc_client_credentials`.
    #[schema(value_type = Option<String>)]
    oidc_token: Option<Secret>,
    /// Must be the key's own agent. With a provider's token, or over TLS with a client certificate, the agent that it is for.
    agent_id: Option<String>,
    /// Binds the token to this public key, a JWK of P-256 or Ed25519 (RFC 9449): each request with the token then needs a
    /// proof by it in the header `DPoP`.
    #[schema(value_type = Option<Object>)]
    dpop_jwk: Option<Value>,
}

impl TokenRequest {
    /// One credential comes, or none where the connection is it.
    fn check(&self) -> Result<(), ApiError> {
        let rule = match (&self.api_key, &self.oidc_token, &self.agent_id) {
            (Some(_), Some(_), _) => "goes without oidc_token; send one of the two",
            (None, None, None) => {
                "is missing; send it, or the agent_id with an oidc_token or over TLS with a client certificate"
            }
            (Some(_), None, _) | (None, Some(_), _) | (None, None, Some(_)) => return Ok(()),
        };
        Err(ApiError::invalid("api_key", rule))
    }
}

/// A token.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenAnswer {
    /// A JWT, signed by Ed25519.
    access_token: String,
    /// `Bearer`, or `DPoP` for a token that is bound to a key.
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
    agent_id: String,
    /// The vaults that the agent is bound to; of an agent that is bound to none, those that it may find something in.
    vault_ids: Vec<String>,
}

impl Drop for TokenAnswer {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.access_token);
    }
}

/// Exchanges an agent's key, its provider's token or its client certificate for a token of 15 minutes or of the agent's own lifetime.
#[utoipa::path(post, path = "/v1/auth/agent-token", tag = "auth", operation_id = "agentToken", security(()), request_body = TokenRequest,
    params(("DPoP" = Option<String>, Header, description = "A proof by the key that the token is to be bound to")),
    responses((status = 200, body = TokenAnswer), (status = 400, body = Problem), (status = 401, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    sender: Sender,
    Json(body): Json<TokenRequest>,
) -> Result<axum::Json<TokenAnswer>, ApiError> {
    body.check()?;
    let now = state.clock.now();
    // Whatever the agent, so that a mistake in it says nothing of one.
    let possession = match Possession::check(&sender, body.dpop_jwk.as_ref(), now) {
        Ok(possession) => possession,
        Err(error) => return Err(auth::counted(&state, &context, error).await),
    };
    let agent = match find_agent(&state, &sender, &body, now).await? {
        Ok(agent) => agent,
        Err(why) => return Err(auth::refuse(&state, &context, why).await),
    };
    let org = &agent.org;
    address_rules::check(&state, org, context.client_ip).await?;
    let jkt = possession.take(&state, &agent.id).await?;
    let vault_ids = vaults(&state, &agent).await?;
    crate::events::agent_exchanged(&state, org, &agent.id, &context).await?;
    let token_type = if jkt.is_some() { "DPoP" } else { "Bearer" };
    let claims = AgentToken {
        org: org.clone(),
        agent: agent.id.clone(),
        epoch: agent.token_epoch,
        confirmation: bound_to(jkt, &agent),
    };
    let lifetime = lifetime(&agent, now);
    let jwt = &state.minting()?.jwt;
    let token = jwt.issue(&claims, vault_ids.clone(), lifetime, now).await?;
    Ok(axum::Json(TokenAnswer {
        access_token: token.to_string(),
        token_type,
        expires_in: lifetime.as_secs(),
        agent_id: claims.agent.to_string(),
        vault_ids,
    }))
}

/// The agent that a request shows to be, if it may act; the inner error is the reason for the record, and one answer to the caller.
async fn find_agent(
    state: &AppState,
    sender: &Sender,
    body: &TokenRequest,
    now: OffsetDateTime,
) -> Result<Result<Agent, &'static str>, ApiError> {
    let named = body.agent_id.as_deref();
    match (&body.api_key, &body.oidc_token) {
        (Some(key), _) => by_key(state, key, named).await,
        (None, Some(token)) => oidc::identify_agent(state, named, token).await,
        (None, None) => by_certificate(state, sender, named, now).await,
    }
}

/// The agent of a key.
async fn by_key(
    state: &AppState,
    key: &Secret,
    named: Option<&str>,
) -> Result<Result<Agent, &'static str>, ApiError> {
    let found = match key.expose_str().and_then(api_key::presented) {
        Some((KeyHolder::Agent, hash)) => agent_by_key(state, &hash).await?,
        Some((KeyHolder::Person, _)) | None => None,
    };
    let found = found.filter(|agent| named.is_none_or(|id| id == agent.id.as_str()));
    Ok(found.ok_or("an agent's key was refused"))
}

/// The agent of this id, if it is the connection's certificate that is registered for it.
async fn by_certificate(
    state: &AppState,
    sender: &Sender,
    named: Option<&str>,
    now: OffsetDateTime,
) -> Result<Result<Agent, &'static str>, ApiError> {
    let held = sender.certificate().filter(|held| held.is_valid(now));
    let id = named.and_then(|id| AgentId::parse(id).ok());
    let Some((held, id)) = held.zip(id) else {
        return Ok(Err(NO_CERTIFICATE));
    };
    let found = state.store.agents().find_anywhere(&id).await?;
    let found = found.filter(|agent| {
        agent.is_live(now) && agent.settings.client_cert_fingerprint == Some(held.fingerprint)
    });
    Ok(found.ok_or(NO_CERTIFICATE))
}

/// What a token is to be bound to beside its agent: nothing, a key that was named, or one that was proven.
enum Possession {
    None,
    Named(String),
    Proven(Proof),
}

impl Possession {
    /// Reads key and proof. A key alone is taken, as the seeds' clients send it: whoever binds a token to a key that is not at
    /// hand gets one that is of no use.
    fn check(sender: &Sender, jwk: Option<&Value>, now: OffsetDateTime) -> Result<Self, ApiError> {
        let named = jwk.map(|jwk| ProofKey::parse(jwk).ok_or_else(no_jwk));
        let named = named.transpose()?;
        let named = named.map(|key| key.thumbprint().to_owned());
        if !proof::is_there(&sender.headers) {
            return Ok(named.map_or(Self::None, Self::Named));
        }
        let proof = Proof::verify(sender, None, now)?;
        if named.is_some_and(|named| named != proof.thumbprint) {
            return Err(ProofError::OtherKey.into());
        }
        Ok(Self::Proven(proof))
    }

    /// The thumbprint to bind to.
    async fn take(self, state: &AppState, agent: &AgentId) -> Result<Option<String>, ApiError> {
        match self {
            Self::None => Ok(None),
            Self::Named(thumbprint) => Ok(Some(thumbprint)),
            Self::Proven(proof) => {
                let thumbprint = proof.thumbprint.clone();
                proof.take(state, agent).await?;
                Ok(Some(thumbprint))
            }
        }
    }
}

fn no_jwk() -> ApiError {
    let rule = "must be a public key as a JWK, of kty EC and crv P-256 or of kty OKP and crv Ed25519, without its private half";
    ApiError::invalid("dpop_jwk", rule)
}

/// A token that was got by a certificate is bound to it.
fn bound_to(jkt: Option<String>, agent: &Agent) -> Option<Confirmation> {
    let settings = &agent.settings;
    let certificate = settings.client_cert_fingerprint.as_ref();
    let certificate = certificate.filter(|_| settings.auth_method == AuthMethod::Mtls);
    let bound = Confirmation {
        jkt,
        certificate: certificate.map(Confirmation::of_certificate),
    };
    (bound != Confirmation::default()).then_some(bound)
}

/// The agent's own lifetime of tokens, and never past its end.
fn lifetime(agent: &Agent, now: OffsetDateTime) -> Duration {
    let usual = token_lifetime(agent);
    let left = agent
        .settings
        .expires_at
        .map(|end| (end - now).unsigned_abs());
    left.map_or(usual, |left| left.min(usual))
}

/// The vaults that an agent is bound to, or else that where secret sets lie and those on which it holds a policy.
async fn vaults(state: &AppState, agent: &Agent) -> Result<Vec<String>, ApiError> {
    if let Some(bound) = &agent.settings.vault_ids {
        return Ok(bound.iter().map(ToString::to_string).collect());
    }
    let default = state.store.vaults().default_vault(&agent.org).await?;
    let policies = state.store.policies();
    let by_policy = policies.vaults_of(&agent.org, agent.id.as_str()).await?;
    let mut ids: Vec<String> = default.iter().map(|vault| vault.id.to_string()).collect();
    for id in by_policy.iter().map(ToString::to_string) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

const NO_CERTIFICATE: &str = "an agent's certificate was refused";
