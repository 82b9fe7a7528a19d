//! `demo`: the whole story on a temporary directory, with a stand-in for the provider on this machine.

mod server;
mod stage;
mod stand_in;

use std::time::Duration;

use anyhow::Context as _;
use http::{Method, StatusCode};
use leases::clock::{Clock as _, SystemClock};
use leases::{HostPattern, Narrowing, PresentedToken, attenuate};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use self::server::Server;
use self::stage::Stage;
use self::stand_in::StandIn;
use super::Context;
use super::audit;
use crate::client::{Client, segment, text};
use crate::failure::Failure;
use crate::tunnel::{Answer, Call, Door, Place};

/// Show the whole story in under a minute: store, grant, lease, call, refusals, audit
///
/// Everything runs on this machine in a temporary directory, with a local stand-in for the provider; no account is needed and
/// nothing leaves the machine. Exits 0 only if every step did what it should.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  claviger demo")]
pub(crate) struct Args {}

const HOST: &str = "api.stripe.com";
const SET: &str = "stripe/demo/billing-bot";
const AGENT: &str = "billing-bot";
/// What an agent's SDK sends when it is given the placeholder.
const PLACEHOLDER: &str = "Bearer sk_test_claviger_placeholder";

/// One agent, its grant, and the way in.
struct Cast {
    client: Client,
    door: Door,
    agent: String,
    set: String,
    key: Zeroizing<String>,
}

pub(crate) async fn run(context: &Context, _: &Args) -> anyhow::Result<()> {
    let mut stage = Stage::new(context.output);
    stage.title("Claviger: an agent uses your key, and never holds it");
    let stand_in = StandIn::open(HOST)
        .await
        .context("the stand-in cannot listen")?;
    let server = Server::start(&stand_in).await?;
    stage.command("claviger serve");
    stage.check("both planes answer", true, server.api());
    let outcome = story(&mut stage, &server, &stand_in).await;
    let log = server.stop(&mut stage).await?;
    let key = outcome?;
    stage.check(
        "the key stands nowhere in the server's log",
        !log.contains(key.as_str()),
        "",
    );
    stage.end()
}

/// Everything between start and stop; returns the key, so that the log can be searched for it.
async fn story(
    stage: &mut Stage,
    server: &Server,
    stand_in: &StandIn,
) -> anyhow::Result<Zeroizing<String>> {
    stage.chapter("Your side: store a key, name an agent, grant it the use");
    let cast = prepare(stage, server).await?;
    // Minted early, so that its second is over when the story comes to it.
    let brief = mint(&cast, "request", 1).await?;
    let until_expired = tokio::time::sleep(Duration::from_millis(1_500));

    stage.chapter("The agent's side: one lease, one call through HTTPS_PROXY");
    let lease = call_once(stage, &cast, stand_in).await?;
    stage.chapter("A careless provider sends the key back");
    reflect(stage, &cast, stand_in).await?;
    stage.chapter("What an agent cannot do");
    let before = stand_in.seen().len();
    used_twice(stage, &cast, &lease).await?;
    wrong_host(stage, &cast).await?;
    forged(stage, &cast, &lease).await?;
    narrowed(stage, &cast).await?;
    revoked(stage, &cast).await?;
    exported(stage, &cast, server).await?;
    until_expired.await;
    expired(stage, &cast, &brief).await?;
    stage.check(
        "none of these reached the provider",
        stand_in.seen().len() == before,
        "",
    );
    stage.chapter("The audit trail");
    trail(stage, &cast).await?;
    Ok(cast.key)
}

async fn prepare(stage: &mut Stage, server: &Server) -> anyhow::Result<Cast> {
    let client = server.client().await?;
    let key = Zeroizing::new(format!("sk_test_{}", stand_in::random_hex(24)?));
    let entries = json!({ "STRIPE_SECRET_KEY": key.as_str() });
    let set = client
        .post("/v1/vault/secret-sets", &json!({ "provider": "stripe", "environment": "demo", "name": AGENT, "entries": entries }))
        .await?;
    stage.command(&format!("claviger set put {SET} STRIPE_SECRET_KEY=-"));
    stage.check(
        "the key is sealed in the vault; the answer holds names alone",
        !set.to_string().contains(key.as_str()),
        &stage::mask(&key),
    );

    let agent = client.post("/v1/agents", &json!({ "name": AGENT })).await?;
    let agent = text(&agent["agent"], "id").to_owned();
    stage.command(&format!("claviger agent create {AGENT}"));
    stage.check(
        "the agent exists and may do nothing yet",
        !agent.is_empty(),
        &agent,
    );

    let grant = json!({
        "agent_id": agent, "secret_set_id": text(&set, "id"), "allowed_actions": ["proxy_use", "mint_workflow_lease"],
        "constraints": { "hosts": [HOST], "methods": ["GET", "POST"], "paths": ["/v1/**"] },
    });
    let grant = client.post("/v1/vault/grants", &grant).await?;
    stage.command(&format!("claviger grant create --agent {AGENT} --set {SET} --actions proxy_use,mint_workflow_lease --host {HOST} --method GET,POST --path '/v1/**'"));
    stage.check(
        "a person grants it the use, within limits",
        !text(&grant, "id").is_empty(),
        text(&grant, "id"),
    );

    let set = text(&set, "id").to_owned();
    Ok(Cast {
        client,
        door: server.door()?,
        agent,
        set,
        key,
    })
}

async fn mint(cast: &Cast, kind: &str, ttl: u64) -> anyhow::Result<Value> {
    let body = json!({ "secret_set_id": cast.set, "agent_id": cast.agent, "kind": kind, "ttl_seconds": ttl });
    cast.client.post("/v1/vault/leases", &body).await
}

async fn call(
    cast: &Cast,
    token: &str,
    method: Method,
    host: &str,
    path: &str,
) -> anyhow::Result<Answer> {
    let door = Door {
        lease: token.to_owned(),
        ..cast.door.clone()
    };
    let headers = [
        ("authorization", PLACEHOLDER),
        ("accept", "application/json"),
    ];
    door.call(&Call {
        method,
        host,
        port: 443,
        path,
        headers: &headers,
        body: "",
    })
    .await
}

async fn call_once(stage: &mut Stage, cast: &Cast, stand_in: &StandIn) -> anyhow::Result<Value> {
    let lease = mint(cast, "request", 60).await?;
    let token = text(&lease, "token");
    stage.command(&format!(
        "LEASE=$(claviger lease mint --agent {AGENT} --set {SET})"
    ));
    stage.check(
        "a lease for one request, for one minute",
        token.starts_with("clv_"),
        &format!("{}…", token.chars().take(24).collect::<String>()),
    );
    stage.command(&format!(
        "HTTPS_PROXY=http://lease:$LEASE@{} curl https://{HOST}/v1/charges",
        cast.door.proxy.at
    ));
    let answer = call(cast, token, Method::GET, HOST, "/v1/charges").await?;
    let seen = stand_in.seen();
    let got = seen
        .last()
        .and_then(|request| request.header("authorization"))
        .unwrap_or_default();
    stage.beside(
        ("the agent sent", "the provider got"),
        &[
            (
                format!("GET https://{HOST}/v1/charges"),
                seen.last()
                    .map(|request| request.line.clone())
                    .unwrap_or_default(),
            ),
            (
                format!("authorization: {PLACEHOLDER}"),
                format!(
                    "authorization: {}",
                    got.replace(cast.key.as_str(), &stage::mask(&cast.key))
                ),
            ),
        ],
    );
    stage.check(
        "the provider got the real key",
        got == format!("Bearer {}", cast.key.as_str()),
        "",
    );
    let is_clean = seen
        .last()
        .is_some_and(|request| !request.all().contains("clv_"));
    stage.check("and nothing of the lease", is_clean, "");
    stage.check(
        "the agent got the provider's answer",
        answer.status == StatusCode::OK && answer.body.contains("ch_demo"),
        answer.status.as_str(),
    );
    Ok(lease)
}

async fn reflect(stage: &mut Stage, cast: &Cast, stand_in: &StandIn) -> anyhow::Result<()> {
    let lease = mint(cast, "request", 60).await?;
    let answer = call(
        cast,
        text(&lease, "token"),
        Method::GET,
        HOST,
        stand_in::ECHO,
    )
    .await?;
    let was_sent = stand_in
        .seen()
        .last()
        .and_then(|request| request.header("authorization"))
        .is_some_and(|sent| sent.contains(cast.key.as_str()));
    let came_back = answer.body.contains(cast.key.as_str())
        || format!("{:?}", answer.headers).contains(cast.key.as_str());
    stage.check(
        "the echo reaches the agent with the key blanked out",
        was_sent && answer.status == StatusCode::OK && !came_back,
        answer.body.trim(),
    );
    Ok(())
}

/// A refusal is right when its code is, wherever it was met.
fn refused(stage: &mut Stage, what: &str, answer: &Answer, wanted: &[&str]) {
    let code = answer.refusal().unwrap_or_default();
    let place = match answer.place {
        Place::Door => "at the door",
        Place::Inside => "in the tunnel",
    };
    stage.check(
        what,
        wanted.contains(&code.as_str()),
        &format!("{} {code}, {place}", answer.status.as_u16()),
    );
    stage.aside(&answer.detail().unwrap_or_default());
}

async fn used_twice(stage: &mut Stage, cast: &Cast, lease: &Value) -> anyhow::Result<()> {
    let answer = call(cast, text(lease, "token"), Method::GET, HOST, "/v1/charges").await?;
    refused(
        stage,
        "use the same lease twice",
        &answer,
        &["lease_consumed"],
    );
    Ok(())
}

async fn wrong_host(stage: &mut Stage, cast: &Cast) -> anyhow::Result<()> {
    let lease = mint(cast, "request", 60).await?;
    let answer = call(
        cast,
        text(&lease, "token"),
        Method::GET,
        "attacker.example",
        "/collect",
    )
    .await?;
    refused(
        stage,
        "carry the key to another host",
        &answer,
        &["grant_denied", "lease_scope"],
    );
    Ok(())
}

async fn forged(stage: &mut Stage, cast: &Cast, lease: &Value) -> anyhow::Result<()> {
    let mut token = text(lease, "token").to_owned();
    // One character in the middle: the shape stays, the signature does not hold.
    let at = token.len() / 2;
    let other = if token.as_bytes()[at] == b'A' {
        "B"
    } else {
        "A"
    };
    token.replace_range(at..=at, other);
    let answer = call(cast, &token, Method::GET, HOST, "/v1/charges").await?;
    refused(stage, "alter a lease", &answer, &["lease_invalid"]);
    Ok(())
}

async fn narrowed(stage: &mut Stage, cast: &Cast) -> anyhow::Result<()> {
    let lease = mint(cast, "workflow", 60).await?;
    let narrowing = Narrowing {
        hosts: vec![HostPattern::parse(HOST)?],
        methods: vec!["GET".to_owned()],
        ..Narrowing::default()
    };
    let child = attenuate(
        &PresentedToken::parse(text(&lease, "token"))?,
        &narrowing,
        SystemClock.now(),
    )?;
    stage.command(
        "echo \"$LEASE\" | claviger lease narrow --method GET     # offline, for a sub-agent",
    );
    let answer = call(cast, child.as_str(), Method::POST, HOST, "/v1/charges").await?;
    refused(
        stage,
        "widen a lease that was narrowed to GET",
        &answer,
        &["lease_scope"],
    );
    Ok(())
}

async fn revoked(stage: &mut Stage, cast: &Cast) -> anyhow::Result<()> {
    let lease = mint(cast, "workflow", 60).await?;
    cast.client
        .delete(&format!(
            "/v1/vault/leases/{}",
            segment(text(&lease, "lease_id"))
        ))
        .await?;
    stage.command(&format!(
        "claviger lease revoke {}",
        text(&lease, "lease_id")
    ));
    let answer = call(
        cast,
        text(&lease, "token"),
        Method::GET,
        HOST,
        "/v1/charges",
    )
    .await?;
    refused(
        stage,
        "go on after its lease was revoked",
        &answer,
        &["lease_revoked"],
    );
    Ok(())
}

async fn exported(stage: &mut Stage, cast: &Cast, server: &Server) -> anyhow::Result<()> {
    let lease = mint(cast, "request", 60).await?;
    let token = Zeroizing::new(text(&lease, "token").to_owned());
    let agent = Client::new(server.api().to_owned(), token, None).await?;
    let answer = agent
        .post(
            "/v1/vault/export",
            &json!({ "keys": ["STRIPE_SECRET_KEY"] }),
        )
        .await;
    let refusal = answer
        .err()
        .and_then(|error| error.downcast::<Failure>().ok());
    let code = refusal
        .as_ref()
        .and_then(Failure::error_code)
        .unwrap_or_default()
        .to_owned();
    let is_refused = matches!(code.as_str(), "export_denied" | "grant_denied");
    stage.check("ask for the key itself", is_refused, &code);
    stage.aside(refusal.as_ref().map(Failure::reason).unwrap_or_default());
    Ok(())
}

async fn expired(stage: &mut Stage, cast: &Cast, lease: &Value) -> anyhow::Result<()> {
    let answer = call(cast, text(lease, "token"), Method::GET, HOST, "/v1/charges").await?;
    refused(
        stage,
        "use a lease past its time",
        &answer,
        &["lease_expired"],
    );
    Ok(())
}

async fn trail(stage: &mut Stage, cast: &Cast) -> anyhow::Result<()> {
    stage.command("claviger audit list");
    let events = cast.client.all("/v1/audit/events", "events").await?;
    for event in events.iter().rev().filter(|event| {
        text(event, "action").starts_with("lease.") && text(event, "action") != "lease.mint"
    }) {
        stage.line(&format!("      {}", audit::sentence(stage.output(), event)));
    }
    let uses = events
        .iter()
        .filter(|event| text(event, "action") == "lease.use")
        .count();
    stage.check(
        "every use was written down before it was sent",
        uses == 2,
        &format!("{uses} uses"),
    );
    let everything = Value::Array(events).to_string();
    stage.check(
        "and the trail holds no key and no lease",
        !everything.contains(cast.key.as_str()) && !everything.contains("clv_"),
        "",
    );
    let report = cast.client.get("/v1/audit/verify").await?;
    stage.command("claviger audit verify");
    stage.check(
        "the chain is whole",
        report.get("first_bad").is_none_or(Value::is_null),
        "",
    );
    Ok(())
}
