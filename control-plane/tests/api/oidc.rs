//! People whom an identity provider vouches for: which account they get into, and what gets nobody in.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use ::leases::clock::Clock as _;
use ::providers::address::AddressPolicy;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request};
use control_plane::{
    Issuer, Limits, OidcOptions, OidcSignUp, OutboundOptions, PeopleOptions, RedirectUrl,
};
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};
use zeroize::Zeroizing;

use crate::flaws::forgeries;
use crate::identity_provider::{CLIENT, CLIENT_SECRET, IdentityProvider, SigningKey, parameter};
use crate::support::{Answer, NOBODY, PASSWORD, Setup, Who, World, holder, request};

const TERMINAL: &str = "http://127.0.0.1:40123/callback";

/// What a test changes of the usual options.
type Change = fn(&mut OidcOptions);

/// This machine may be asked, where the provider is.
pub(crate) fn here() -> OutboundOptions {
    let network = "127.0.0.0/8".parse().unwrap();
    OutboundOptions {
        policy: AddressPolicy::new(vec![network], Vec::new()),
        ..OutboundOptions::default()
    }
}

/// As many refusals as a test makes.
pub(crate) fn patient() -> Limits {
    Limits {
        auth_failure_burst: NonZeroU32::new(10_000).unwrap(),
        ..Limits::default()
    }
}

async fn world_of(provider: &IdentityProvider, change: Change) -> World {
    let mut options = OidcOptions {
        issuer: Issuer::parse(&provider.issuer).unwrap(),
        client_id: CLIENT.to_owned(),
        client_secret: Some(Zeroizing::new(CLIENT_SECRET.to_owned())),
        redirect_url: None,
        allowed_domains: Vec::new(),
        allowed_emails: Vec::new(),
        sign_up: OidcSignUp::Invited,
    };
    change(&mut options);
    World::of(Setup {
        outbound: here(),
        limits: patient(),
        people: Some(PeopleOptions {
            sign_in_burst: 10_000.try_into().unwrap(),
            oidc: Some(options),
            ..PeopleOptions::default()
        }),
        ..Setup::default()
    })
    .await
}

async fn usual() -> (IdentityProvider, World) {
    let provider = IdentityProvider::start().await;
    let world = world_of(&provider, |_| {}).await;
    (provider, world)
}

async fn invite(world: &World, email: &str) {
    let body = json!({"email": email, "role": "member"});
    let owner = &world.home.admin;
    world.post("/v1/org/invitations", owner, body).await.ok(201);
}

/// A sign-in that has begun: the address at the provider, and what the terminal holds.
async fn begin(world: &World) -> (String, String) {
    let body = json!({"redirect_uri": TERMINAL});
    let begun = world.post("/v1/auth/oidc/start", &NOBODY, body).await;
    let begun = begun.ok(200);
    assert_eq!(begun["expires_in"], 600);
    let text = |name: &str| begun[name].as_str().unwrap().to_owned();
    (text("authorization_url"), text("flow"))
}

async fn finish(world: &World, flow: &str, code: &str, state: &str) -> Answer {
    let body = json!({"flow": flow, "code": code, "state": state});
    world.post("/v1/auth/oidc/callback", &NOBODY, body).await
}

/// The whole way, with a token of these claims once `change` was at them.
async fn sign_in(
    world: &World,
    provider: &IdentityProvider,
    subject: &str,
    change: impl FnOnce(&mut Value),
) -> Answer {
    let (url, flow) = begin(world).await;
    let mut claims = provider.claims(&url, world.clock.now(), subject);
    change(&mut claims);
    let (code, state) = provider.grants(&url, provider.key.sign(&claims));
    finish(world, &flow, &code, &state).await
}

fn session(answer: &Answer) -> Who {
    assert_eq!(answer.status, 200, "{}", answer.text);
    holder(answer.field("/access_token"))
}

async fn me(world: &World, who: &Who) -> Value {
    world.get("/v1/auth/me", who).await.ok(200)
}

fn masked(answer: &Answer) -> Value {
    let mut body = answer.json();
    body["instance"] = json!(null);
    body
}

#[tokio::test]
async fn an_invited_person_signs_in_by_the_provider_and_stays_the_same_person() {
    let (provider, world) = usual().await;
    invite(&world, "ada@example.org").await;
    let first = sign_in(&world, &provider, "ada", |claims| {
        claims["email"] = json!("Ada@Example.org");
    })
    .await;
    let ada = me(&world, &session(&first)).await;
    assert_eq!(ada["email"], "ada@example.org");
    assert_eq!(ada["email_verified"], true);
    assert_eq!(ada["role"], "member");
    assert_eq!(ada["auth_method"], "oidc");
    assert_eq!(ada["display_name"], "Somebody");
    assert_eq!(ada["identities"][0]["subject"], "ada");
    // Bound to issuer and subject: whatever the email is from now on, and whether it is vouched for.
    let again = sign_in(&world, &provider, "ada", |claims| {
        claims["email"] = json!("elsewhere@example.org");
        claims["email_verified"] = json!(false);
    })
    .await;
    let again = me(&world, &session(&again)).await;
    assert_eq!(again["id"], ada["id"]);
    assert_eq!(again["email_verified"], false);
    let events = world.events("").await;
    let of_ada = |action: &str| {
        let found = events.iter().filter(|event| event["action"] == action);
        found.filter(|event| event["actor_id"] == ada["id"]).count()
    };
    assert_eq!(of_ada("invitation.accept"), 1);
    // The sign-ins, and the first use of what they gave.
    assert_eq!(of_ada("auth.success"), 3);
    // Removed, the identity is nobody's, and needs an invitation anew.
    let path = format!("/v1/org/members/{}", ada["id"].as_str().unwrap());
    world.delete(&path, &world.home.admin).await.ok(204);
    let refused = sign_in(&world, &provider, "ada", |_| {}).await;
    refused.refused(403, "identity_not_admitted");
    // Nothing of the secrets is in an answer.
    let seen = world.seen.lock().unwrap().join("\n");
    assert!(!seen.contains(CLIENT_SECRET));
}

#[tokio::test]
async fn without_an_invitation_or_a_verified_email_nobody_gets_in() {
    let (provider, world) = usual().await;
    invite(&world, "ada@example.org").await;
    let refused = sign_in(&world, &provider, "eve", |_| {}).await;
    let detail = refused.refused(403, "identity_not_admitted");
    assert!(detail.contains("invitation"), "{detail}");
    for unverified in [
        json!(false),
        json!("false"),
        json!(null),
        json!(1),
        json!("TRUE"),
    ] {
        let refused = sign_in(&world, &provider, "ada", |claims| {
            claims["email_verified"] = unverified.clone();
        })
        .await;
        assert!(
            refused.status == 403 || refused.status == 401,
            "{unverified}: {}",
            refused.text
        );
    }
    for strange in ["ada@example.org\u{200b}", "no email", ""] {
        let refused = sign_in(&world, &provider, "ada", |claims| {
            claims["email"] = json!(strange);
        });
        refused.await.refused(403, "identity_not_admitted");
    }
    let open = world
        .get("/v1/org/invitations", &world.home.admin)
        .await
        .ok(200);
    assert_eq!(open["invitations"].as_array().unwrap().len(), 1);
    let accepted = sign_in(&world, &provider, "ada", |claims| {
        claims["email_verified"] = json!("true");
    });
    session(&accepted.await);
}

#[tokio::test]
async fn an_account_with_the_same_email_is_not_taken_over_until_its_owner_links_it() {
    let (provider, world) = usual().await;
    let (id, ada) = world.person("ada@example.org", "member").await;
    // Somebody whose email nobody has verified, and who has no password.
    let owner = &world.home.admin;
    let body = json!({"email": "owner@example.org"});
    world.patch("/v1/auth/me", owner, body).await.ok(200);
    for subject in ["ada", "owner"] {
        let refused = sign_in(&world, &provider, subject, |_| {}).await;
        let detail = refused.refused(409, "identity_not_linked");
        assert!(detail.contains("account link"), "{detail}");
    }
    let link = async |who: &Who, body: Value| world.post("/v1/auth/oidc/link", who, body).await;
    let without = json!({"redirect_uri": TERMINAL});
    link(&ada, without.clone())
        .await
        .refused(400, "invalid_request");
    let wrong = json!({"redirect_uri": TERMINAL, "current_password": "Wrong-horse7battery"});
    link(&ada, wrong).await.refused(401, "unauthenticated");
    link(&NOBODY, without).await.refused(401, "unauthenticated");
    let right = json!({"redirect_uri": TERMINAL, "current_password": PASSWORD});
    let begun = link(&ada, right.clone()).await;
    let (url, flow) = (begun.field("/authorization_url"), begun.field("/flow"));
    // The provider's email need not be the account's: its owner has said whose it is.
    let claims = provider.claims(&url, world.clock.now(), "lovelace");
    let (code, state) = provider.grants(&url, provider.key.sign(&claims));
    let linked = session(&finish(&world, &flow, &code, &state).await);
    assert_eq!(me(&world, &linked).await["id"], id);
    assert_eq!(me(&world, &linked).await["auth_method"], "password");
    let again = sign_in(&world, &provider, "lovelace", |_| {}).await;
    assert_eq!(me(&world, &session(&again)).await["id"], id);
    // Another person cannot have it as well.
    let body = json!({"redirect_uri": TERMINAL});
    let begun = link(owner, body).await;
    let (url, flow) = (begun.field("/authorization_url"), begun.field("/flow"));
    let claims = provider.claims(&url, world.clock.now(), "lovelace");
    let (code, state) = provider.grants(&url, provider.key.sign(&claims));
    let refused = finish(&world, &flow, &code, &state).await;
    refused.refused(409, "identity_taken");
    // A change of the password ends what a session began.
    let begun = link(&ada, right).await;
    let (url, flow) = (begun.field("/authorization_url"), begun.field("/flow"));
    let body = json!({"current_password": PASSWORD, "new_password": "Another-horse8battery"});
    let changed = world.post("/v1/auth/change-password", &ada, body).await;
    let claims = provider.claims(&url, world.clock.now(), "eve");
    let (code, state) = provider.grants(&url, provider.key.sign(&claims));
    let refused = finish(&world, &flow, &code, &state).await;
    refused.refused(401, "unauthenticated");
    // Unlinked, the provider's word is worth nothing again.
    let ada = session(&changed);
    let by_provider = session(&sign_in(&world, &provider, "lovelace", |_| {}).await);
    me(&world, &by_provider).await;
    let key = world
        .post("/v1/auth/api-keys", &ada, json!({"name": "laptop"}))
        .await;
    let key = holder(key.field("/api_key"));
    world.delete("/v1/auth/oidc/link", &ada).await.ok(204);
    // Sessions end with it, whoever began them, and keys that people made stay.
    for ended in [&by_provider, &ada] {
        let refused = world.get("/v1/auth/me", ended).await;
        refused.refused(401, "unauthenticated");
    }
    let gone = world.delete("/v1/auth/oidc/link", &key).await;
    gone.refused(404, "not_found");
    let refused = sign_in(&world, &provider, "lovelace", |claims| {
        claims["email"] = json!("ada@example.org");
    });
    refused.await.refused(409, "identity_not_linked");
    let events = world.events("").await;
    for action in ["user.link_identity", "user.unlink_identities"] {
        let found = events.iter().filter(|event| event["action"] == action);
        assert_eq!(found.count(), 1, "{action}");
    }
}

#[tokio::test]
async fn who_has_nothing_else_to_sign_in_with_is_not_unlinked() {
    let (provider, world) = usual().await;
    invite(&world, "ada@example.org").await;
    let ada = session(&sign_in(&world, &provider, "ada", |_| {}).await);
    let refused = world.delete("/v1/auth/oidc/link", &ada).await;
    refused.refused(409, "would_shut_out");
    session(&sign_in(&world, &provider, "ada", |_| {}).await);
}

#[tokio::test]
async fn an_answer_is_taken_once_in_time_and_from_whoever_began() {
    let (provider, world) = usual().await;
    invite(&world, "ada@example.org").await;
    let granted = |url: &str| {
        let claims = provider.claims(url, world.clock.now(), "ada");
        provider.grants(url, provider.key.sign(&claims))
    };
    let mut refusals = Vec::new();
    let (url, flow) = begin(&world).await;
    let (other_url, other_flow) = begin(&world).await;
    let (code, state) = granted(&url);
    // Somebody else's code, brought by a victim's terminal, and the other way round (login CSRF).
    refusals.push(finish(&world, &other_flow, &code, &state).await);
    refusals.push(finish(&world, "signin_x", &code, &state).await);
    refusals.push(finish(&world, "", &code, &state).await);
    refusals.push(finish(&world, &flow, &code, "").await);
    refusals.push(finish(&world, &flow, &code, &parameter(&other_url, "state")).await);
    // A code that was asked for by another terminal does not fit this one's verifier.
    let (theirs, _) = granted(&other_url);
    let own_state = parameter(&url, "state");
    refusals.push(finish(&world, &flow, &theirs, &own_state).await);
    // Even a wrong code was the one try.
    refusals.push(finish(&world, &flow, &code, &state).await);
    let (url, flow) = begin(&world).await;
    let (code, state) = granted(&url);
    session(&finish(&world, &flow, &code, &state).await);
    refusals.push(finish(&world, &flow, &code, &state).await);
    let (url, flow) = begin(&world).await;
    let (code, state) = granted(&url);
    world.clock.advance(Duration::from_mins(10));
    refusals.push(finish(&world, &flow, &code, &state).await);
    let first = masked(&refusals[0]);
    for refused in refusals {
        assert_eq!(masked(&refused), first);
        refused.refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn of_two_who_bring_one_answer_at_once_one_is_let_in() {
    let (provider, world) = usual().await;
    invite(&world, "ada@example.org").await;
    let (url, flow) = begin(&world).await;
    let claims = provider.claims(&url, world.clock.now(), "ada");
    let (code, state) = provider.grants(&url, provider.key.sign(&claims));
    let tries = (0..4).map(|_| finish(&world, &flow, &code, &state));
    let answers = futures::future::join_all(tries).await;
    let let_in = answers.iter().filter(|answer| answer.status == 200);
    assert_eq!(let_in.count(), 1);
}

#[tokio::test]
async fn forged_and_foreign_tokens_are_refused_alike_and_nobody_else_is_asked() {
    let (provider, world) = usual().await;
    let elsewhere = IdentityProvider::start().await;
    invite(&world, "ada@example.org").await;
    let mut answers = Vec::new();
    let (url, _) = begin(&world).await;
    let good = provider.claims(&url, world.clock.now(), "ada");
    let count = forgeries(&provider.key, &good, &elsewhere.issuer).len();
    for index in 0..count {
        let (url, flow) = begin(&world).await;
        let good = provider.claims(&url, world.clock.now(), "ada");
        let (name, token) = forgeries(&provider.key, &good, &elsewhere.issuer).swap_remove(index);
        let (code, state) = provider.grants(&url, token);
        let refused = finish(&world, &flow, &code, &state).await;
        assert_eq!(refused.status, 401, "{name}: {}", refused.text);
        answers.push(masked(&refused));
    }
    for nonce in [json!(null), json!(""), json!("another")] {
        let refused = sign_in(&world, &provider, "ada", |claims| claims["nonce"] = nonce);
        answers.push(masked(&refused.await));
    }
    // For us and others, and nobody says to whom it was given.
    let shared = sign_in(&world, &provider, "ada", |claims| {
        claims["aud"] = json!([CLIENT, "somebody-else"]);
    });
    answers.push(masked(&shared.await));
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:#?}");
    assert_eq!(elsewhere.asked(), Vec::<String>::new());
    let said = sign_in(&world, &provider, "ada", |claims| {
        claims["aud"] = json!([CLIENT, "somebody-else"]);
        claims["azp"] = json!(CLIENT);
    });
    session(&said.await);
    // The trail says what was wrong.
    let events = world.events("?action=auth.failure").await;
    let says = |text: &str| {
        let errors = events.iter().filter_map(|event| event["error"].as_str());
        errors.into_iter().any(|error| error.contains(text))
    };
    assert!(says("it is no JWT"), "{events:?}");
}

#[tokio::test]
async fn keys_of_rsa_are_taken_and_a_key_serves_its_own_algorithm_alone() {
    let (provider, world) = usual().await;
    invite(&world, "ada@example.org").await;
    let rsa = SigningKey::rsa("rsa");
    provider.publishes(&[&provider.key.jwk, &rsa.jwk]);
    let by = async |key: &SigningKey| {
        let (url, flow) = begin(&world).await;
        let claims = provider.claims(&url, world.clock.now(), "ada");
        let (code, state) = provider.grants(&url, key.sign(&claims));
        finish(&world, &flow, &code, &state).await
    };
    session(&by(&rsa).await);
    // The same key, which its publisher means for another algorithm.
    let mut pss = rsa.clone();
    pss.algorithm = jsonwebtoken::Algorithm::PS256;
    by(&pss).await.refused(401, "unauthenticated");
    // Symmetric keys, keys for sealing and keys that are too short are no keys, whatever signs with them.
    let mut oct = rsa.clone();
    oct.kid = "oct".to_owned();
    oct.algorithm = jsonwebtoken::Algorithm::HS256;
    oct.key = jsonwebtoken::EncodingKey::from_secret(b"secret");
    oct.jwk = json!({"kty": "oct", "kid": "oct", "k": "c2VjcmV0", "alg": "HS256"});
    let mut sealing = SigningKey::new("sealing");
    sealing.jwk["use"] = json!("enc");
    for key in [&oct, &sealing] {
        provider.publishes(&[&key.jwk]);
        world.clock.advance(Duration::from_mins(11));
        by(key).await.refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn a_new_key_of_the_provider_is_found_and_an_invented_one_is_not_sought_again_and_again() {
    let (provider, world) = usual().await;
    invite(&world, "ada@example.org").await;
    session(&sign_in(&world, &provider, "ada", |_| {}).await);
    let asked = |path: &str| {
        provider
            .asked()
            .iter()
            .filter(|asked| *asked == path)
            .count()
    };
    assert_eq!(
        (asked("/.well-known/openid-configuration"), asked("/keys")),
        (1, 1)
    );
    let next = SigningKey::new("two");
    let by = async |key: &SigningKey| {
        let (url, flow) = begin(&world).await;
        let claims = provider.claims(&url, world.clock.now(), "ada");
        let (code, state) = provider.grants(&url, key.sign(&claims));
        finish(&world, &flow, &code, &state).await
    };
    provider.publishes(&[&provider.key.jwk, &next.jwk]);
    // Just asked: it is left alone for half a minute.
    by(&next).await.refused(401, "unauthenticated");
    assert_eq!(asked("/keys"), 1);
    world.clock.advance(Duration::from_secs(30));
    session(&by(&next).await);
    assert_eq!(asked("/keys"), 2);
    for index in 0..5 {
        let invented = SigningKey::new(&format!("invented-{index}"));
        by(&invented).await.refused(401, "unauthenticated");
    }
    assert_eq!(asked("/keys"), 2);
    // A key that is withdrawn is good for ten minutes at most.
    provider.publishes(&[&next.jwk]);
    world.clock.advance(Duration::from_mins(10));
    by(&provider.key).await.refused(401, "unauthenticated");
    session(&by(&next).await);
}

#[tokio::test]
async fn a_provider_that_fails_is_a_503_and_is_left_alone_for_a_while() {
    let (provider, world) = usual().await;
    provider.is_down(true);
    let body = json!({"redirect_uri": TERMINAL});
    let start = async || {
        world
            .post("/v1/auth/oidc/start", &NOBODY, body.clone())
            .await
    };
    for _ in 0..3 {
        let refused = start().await;
        let detail = refused.refused(503, "identity_provider_unavailable");
        assert!(!detail.contains(&provider.issuer), "{detail}");
    }
    assert_eq!(provider.asked().len(), 1);
    provider.is_down(false);
    start().await.refused(503, "identity_provider_unavailable");
    world.clock.advance(Duration::from_secs(30));
    start().await.ok(200);
    // What was known stays good for an hour while it is silent.
    provider.is_down(true);
    world.clock.advance(Duration::from_mins(59));
    start().await.ok(200);
    world.clock.advance(Duration::from_mins(1));
    start().await.refused(503, "identity_provider_unavailable");
    provider.is_down(false);
    for wrong in [
        json!({"issuer": "https://id.example.org"}),
        json!({"jwks_uri": "file:///etc/passwd"}),
        json!({"jwks_uri": "http://169.254.169.254/latest/meta-data/"}),
        json!({"jwks_uri": "http://10.0.0.1/keys"}),
        json!({"jwks_uri": format!("{}/nothing", provider.issuer)}),
        json!({"jwks_uri": null}),
        json!({"authorization_endpoint": "javascript:alert(1)"}),
        json!({"authorization_endpoint": null}),
    ] {
        provider.says(wrong.clone());
        world.clock.advance(Duration::from_hours(2));
        let refused = start().await;
        assert_eq!(refused.status, 503, "{wrong}: {}", refused.text);
    }
    // The token endpoint may not be elsewhere either.
    provider.says(json!({"token_endpoint": "http://169.254.169.254/token"}));
    world.clock.advance(Duration::from_hours(2));
    let refused = sign_in(&world, &provider, "ada", |_| {}).await;
    refused.refused(503, "identity_provider_unavailable");
}

#[tokio::test]
async fn a_secret_goes_the_way_that_the_provider_takes_and_a_wrong_one_is_the_operators() {
    let provider = IdentityProvider::start().await;
    provider.says(json!({"token_endpoint_auth_methods_supported": ["client_secret_post"]}));
    let world = world_of(&provider, |_| {}).await;
    invite(&world, "ada@example.org").await;
    session(&sign_in(&world, &provider, "ada", |_| {}).await);
    let world = world_of(&provider, |options| {
        options.client_secret = Some(Zeroizing::new("another".to_owned()));
    })
    .await;
    let refused = sign_in(&world, &provider, "ada", |_| {}).await;
    refused.refused(503, "identity_provider_unavailable");
}

#[tokio::test]
async fn an_answer_that_names_another_provider_is_refused() {
    let provider = IdentityProvider::start().await;
    provider.says(json!({"authorization_response_iss_parameter_supported": true}));
    let world = world_of(&provider, |_| {}).await;
    invite(&world, "ada@example.org").await;
    for (iss, status) in [
        (json!(null), 401),
        (json!("https://id.example.org"), 401),
        (json!(provider.issuer), 200),
    ] {
        let (url, flow) = begin(&world).await;
        let claims = provider.claims(&url, world.clock.now(), "ada");
        let (code, state) = provider.grants(&url, provider.key.sign(&claims));
        let body = json!({"flow": flow, "code": code, "state": state, "iss": iss});
        let answer = world.post("/v1/auth/oidc/callback", &NOBODY, body).await;
        assert_eq!(answer.status, status, "{iss}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_second_factor_is_asked_for_as_after_a_password() {
    let (provider, world) = usual().await;
    invite(&world, "ada@example.org").await;
    let ada = session(&sign_in(&world, &provider, "ada", |_| {}).await);
    let setup = world.post("/v1/auth/mfa/totp/setup", &ada, json!({})).await;
    let secret = Secret::try_from_base32(setup.field("/secret")).unwrap();
    let totp = Builder::new().with_secret(secret).build().unwrap();
    let code = || {
        let at = world.clock.now().unix_timestamp();
        totp.generate(at.cast_unsigned()).to_string()
    };
    let body = json!({"code": code()});
    world
        .post("/v1/auth/mfa/totp/enable", &ada, body)
        .await
        .ok(200);
    world.clock.advance(Duration::from_secs(30));
    let half = sign_in(&world, &provider, "ada", |_| {}).await.ok(200);
    assert_eq!(half["mfa_required"], true);
    assert_eq!(half["access_token"], "");
    let body = json!({"mfa_token": half["mfa_token"], "code": code()});
    let whole = world.post("/v1/auth/mfa/verify", &NOBODY, body).await;
    me(&world, &session(&whole)).await;
}

#[tokio::test]
async fn only_whom_the_operator_allows_gets_in_and_a_bound_account_too() {
    let provider = IdentityProvider::start().await;
    let world = world_of(&provider, |options| {
        options.allowed_domains = vec!["example.org".to_owned()];
        options.allowed_emails = vec!["grace@else.example".to_owned()];
    })
    .await;
    for email in ["ada@example.org", "eve@else.example", "grace@else.example"] {
        invite(&world, email).await;
    }
    let by = async |subject: &str, email: &str, verified: bool| {
        let answer = sign_in(&world, &provider, subject, |claims| {
            claims["email"] = json!(email);
            claims["email_verified"] = json!(verified);
        });
        answer.await
    };
    by("eve", "eve@else.example", true)
        .await
        .refused(403, "identity_not_admitted");
    session(&by("grace", "grace@else.example", true).await);
    session(&by("ada", "ada@example.org", true).await);
    for (email, verified) in [("ada@else.example", true), ("ada@example.org", false)] {
        let refused = by("ada", email, verified).await;
        refused.refused(403, "identity_not_admitted");
    }
}

#[tokio::test]
async fn where_everybody_may_have_an_account_one_gets_an_organisation_of_their_own() {
    let provider = IdentityProvider::start().await;
    let world = world_of(&provider, |options| options.sign_up = OidcSignUp::Open).await;
    let eve = session(&sign_in(&world, &provider, "eve", |_| {}).await);
    let eve = me(&world, &eve).await;
    assert_eq!(eve["role"], "owner");
    assert_ne!(eve["org_id"], world.home.org.as_str());
    let again = session(&sign_in(&world, &provider, "eve", |_| {}).await);
    assert_eq!(me(&world, &again).await["id"], eve["id"]);
    // She cannot lure anybody into it: an invitation of hers needs its token.
    let body = json!({"email": "ada@example.org", "role": "member"});
    world
        .post("/v1/org/invitations", &again, body)
        .await
        .ok(201);
    let ada = session(&sign_in(&world, &provider, "ada", |_| {}).await);
    assert_ne!(me(&world, &ada).await["org_id"], eve["org_id"]);
    let refused = sign_in(&world, &provider, "anonymous", |claims| {
        claims["email_verified"] = json!(false);
    });
    refused.await.refused(403, "identity_not_admitted");
}

#[tokio::test]
async fn from_a_denied_address_a_good_identity_is_answered_like_a_bad_one() {
    let (provider, world) = usual().await;
    invite(&world, "ada@example.org").await;
    session(&sign_in(&world, &provider, "ada", |_| {}).await);
    let body = json!({"rule_type": "allow", "cidr": "192.0.2.0/24"});
    let owner = &world.home.admin;
    world
        .post("/v1/security/ip-rules", owner, body)
        .await
        .ok(201);
    let from = |mut request: Request<Body>| {
        let peer = SocketAddr::from(([198, 51, 100, 1], 4711));
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    };
    let mut answers = Vec::new();
    for nonce in [None, Some("another")] {
        let (url, flow) = begin(&world).await;
        let mut claims = provider.claims(&url, world.clock.now(), "ada");
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        let (code, state) = provider.grants(&url, provider.key.sign(&claims));
        let body = json!({"flow": flow, "code": code, "state": state});
        let asked = request(Method::POST, "/v1/auth/oidc/callback", &NOBODY, Some(body));
        let refused = world.send(from(asked)).await;
        answers.push(masked(&refused));
        refused.refused(401, "unauthenticated");
    }
    assert_eq!(answers[0], answers[1]);
    let events = world.events("?action=auth.failure").await;
    let denied = |event: &&Value| event["error"] == "address_denied";
    assert!(events.iter().any(|event| denied(&event)), "{events:?}");
}

#[tokio::test]
async fn a_browser_is_sent_to_the_provider_and_comes_back_with_its_cookie() {
    let provider = IdentityProvider::start().await;
    let world = world_of(&provider, |options| {
        let url = "https://keys.example.org/v1/auth/oidc/callback";
        options.redirect_url = Some(RedirectUrl::parse(url).unwrap());
    })
    .await;
    invite(&world, "ada@example.org").await;
    let sent = world.get("/v1/auth/oidc/start", &NOBODY).await;
    assert_eq!(sent.status, 303);
    let url = sent.headers["location"].to_str().unwrap();
    let held = sent.headers["set-cookie"].to_str().unwrap();
    for part in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/v1/auth/oidc"] {
        assert!(held.contains(part), "{held}");
    }
    let cookie = held.split(';').next().unwrap();
    let claims = provider.claims(url, world.clock.now(), "ada");
    let (code, state) = provider.grants(url, provider.key.sign(&claims));
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("code", &*code), ("state", &*state), ("session_state", "x")])
        .finish();
    let path = format!("/v1/auth/oidc/callback?{query}");
    let back = async |cookie: Option<&str>, path: &str| {
        let mut asked = request(Method::GET, path, &NOBODY, None);
        if let Some(cookie) = cookie {
            asked
                .headers_mut()
                .insert("cookie", cookie.parse().unwrap());
        }
        world.send(asked).await
    };
    // Another browser, and one that was told no.
    back(None, &path).await.refused(401, "unauthenticated");
    let theirs = world.get("/v1/auth/oidc/start", &NOBODY).await;
    let theirs = theirs.headers["set-cookie"].to_str().unwrap().to_owned();
    let theirs = theirs.split(';').next();
    back(theirs, &path).await.refused(401, "unauthenticated");
    let denied = "/v1/auth/oidc/callback?error=access_denied";
    back(Some(cookie), denied)
        .await
        .refused(401, "unauthenticated");
    let came = back(Some(cookie), &path).await;
    me(&world, &session(&came)).await;
    let ended = came.headers["set-cookie"].to_str().unwrap();
    assert!(
        ended.contains("claviger_signin=;") && ended.contains("Max-Age=0"),
        "{ended}"
    );
    back(Some(cookie), &path)
        .await
        .refused(401, "unauthenticated");
}

#[tokio::test]
async fn an_answer_goes_to_the_terminal_or_to_the_operators_page_alone() {
    let (_provider, world) = usual().await;
    for elsewhere in [
        "https://evil.example/callback",
        "http://localhost:40123/callback",
        "http://127.0.0.1@evil.example/",
        "https://keys.example.org/v1/auth/oidc/callback",
        "",
    ] {
        let body = json!({"redirect_uri": elsewhere});
        let refused = world.post("/v1/auth/oidc/start", &NOBODY, body).await;
        refused.refused(400, "invalid_request");
    }
    // Without a page of the operator's there is nothing for browsers.
    let refused = world.post("/v1/auth/oidc/start", &NOBODY, json!({})).await;
    refused.refused(404, "oidc_not_configured");
    let refused = world.get("/v1/auth/oidc/start", &NOBODY).await;
    refused.refused(404, "oidc_not_configured");
    let body = json!({"redirect_uri": TERMINAL, "prompt": "none"});
    let refused = world.post("/v1/auth/oidc/start", &NOBODY, body).await;
    refused.refused(400, "unknown_field");
}

#[tokio::test]
async fn without_a_provider_there_is_none_of_it() {
    let world = World::new().await;
    let body = json!({"redirect_uri": TERMINAL});
    for path in ["/v1/auth/oidc/start", "/v1/auth/oidc/link"] {
        let refused = world.post(path, &world.home.admin, body.clone()).await;
        refused.refused(404, "oidc_not_configured");
    }
    let refused = finish(&world, "signin_x", "code", "state").await;
    refused.refused(404, "oidc_not_configured");
    let google = json!({"id_token": "a.b.c"});
    let refused = world.post("/v1/auth/google", &NOBODY, google.clone()).await;
    refused.refused(404, "oidc_not_configured");
    // Nor of Google where another one is configured.
    let (_provider, world) = usual().await;
    let refused = world.post("/v1/auth/google", &NOBODY, google).await;
    let detail = refused.refused(404, "oidc_not_configured");
    assert!(detail.contains("google"), "{detail}");
}

#[tokio::test]
async fn sign_ins_that_begin_are_limited_by_address() {
    let provider = IdentityProvider::start().await;
    let world = World::of(Setup {
        outbound: here(),
        people: Some(PeopleOptions {
            oidc: Some(OidcOptions {
                issuer: Issuer::parse(&provider.issuer).unwrap(),
                client_id: CLIENT.to_owned(),
                client_secret: None,
                redirect_url: None,
                allowed_domains: Vec::new(),
                allowed_emails: Vec::new(),
                sign_up: OidcSignUp::Invited,
            }),
            ..PeopleOptions::default()
        }),
        ..Setup::default()
    })
    .await;
    for _ in 0..5 {
        begin(&world).await;
    }
    let body = json!({"redirect_uri": TERMINAL});
    let refused = world.post("/v1/auth/oidc/start", &NOBODY, body).await;
    refused.refused(429, "rate_limited");
}
