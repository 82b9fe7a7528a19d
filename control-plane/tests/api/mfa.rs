//! Second factors and devices: each code is good once, and tries are few.

use std::time::Duration;

use ::leases::clock::Clock as _;
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};

use crate::support::{Answer, Base, NOBODY, PASSWORD, Setup, Who, World, holder};

/// The code of an authenticator so many seconds from now.
fn code(world: &World, secret: &str, seconds: i64) -> String {
    let secret = Secret::try_from_base32(secret).unwrap();
    let totp = Builder::new().with_secret(secret).build().unwrap();
    let at = world.clock.now().unix_timestamp() + seconds;
    totp.generate(u64::try_from(at).unwrap()).to_string()
}

struct Enrolled {
    session: Who,
    secret: String,
    recovery: Vec<String>,
}

async fn enrolled(world: &World) -> Enrolled {
    let (_, session) = world.person("ada@example.org", "auditor").await;
    let setup = world
        .post("/v1/auth/mfa/totp/setup", &session, json!({}))
        .await;
    let setup = setup.ok(200);
    let secret = setup["secret"].as_str().unwrap().to_owned();
    let url = setup["otpauth_url"].as_str().unwrap();
    assert!(url.starts_with("otpauth://totp/Claviger:ada%40example%2Eorg?secret="));
    // Nothing is asked for until a first code was shown.
    let free = first_step(world).await.ok(200);
    assert!(free.get("mfa_required").is_none());
    let body = json!({"code": code(world, &secret, 0)});
    let enabled = world.post("/v1/auth/mfa/totp/enable", &session, body).await;
    let enabled = enabled.ok(200);
    let codes = enabled["recovery_codes"].as_array().unwrap().iter();
    let recovery: Vec<String> = codes
        .map(|code| code.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(recovery.len(), 8);
    Enrolled {
        session,
        secret,
        recovery,
    }
}

async fn first_step(world: &World) -> Answer {
    let body = json!({"email": "ada@example.org", "password": PASSWORD});
    world.post("/v1/auth/token", &NOBODY, body).await
}

async fn ticket(world: &World) -> String {
    let answer = first_step(world).await.ok(200);
    assert_eq!(answer["mfa_required"], true);
    assert_eq!(answer["access_token"], "");
    assert_eq!(answer["expires_in"], 300);
    answer["mfa_token"].as_str().unwrap().to_owned()
}

async fn verify(world: &World, ticket: &str, code: &str) -> Answer {
    let body = json!({"mfa_token": ticket, "code": code});
    world.post("/v1/auth/mfa/verify", &NOBODY, body).await
}

async fn a_code_signs_in_once(world: World) {
    let ada = enrolled(&world).await;
    let me = world.get("/v1/auth/me", &ada.session).await.ok(200);
    assert_eq!(me["totp_enabled"], true);
    let first = ticket(&world).await;
    let refused = world.get("/v1/auth/me", &holder(&*first)).await;
    refused.refused(401, "unauthenticated");
    // The code that enabled it was taken.
    let used = code(&world, &ada.secret, 0);
    verify(&world, &first, &used)
        .await
        .refused(401, "unauthenticated");
    world.clock.advance(Duration::from_secs(30));
    let next = code(&world, &ada.secret, 0);
    let signed_in = verify(&world, &first, &next).await;
    let session = holder(signed_in.field("/access_token"));
    world.get("/v1/auth/me", &session).await.ok(200);
    verify(&world, &first, &next)
        .await
        .refused(401, "unauthenticated");
    // One step early is good, two are not.
    let early = code(&world, &ada.secret, 60);
    verify(&world, &first, &early)
        .await
        .refused(401, "unauthenticated");
    let near = code(&world, &ada.secret, 30);
    let second = ticket(&world).await;
    verify(&world, &second, &near).await.ok(200);
    world.clock.advance(Duration::from_mins(5));
    let late = code(&world, &ada.secret, 0);
    verify(&world, &first, &late)
        .await
        .refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_code_signs_in_once_on_sqlite() {
    a_code_signs_in_once(World::new().await).await;
}

#[tokio::test]
async fn a_code_signs_in_once_on_postgres() {
    let world = World::of(Setup {
        base: Base::Postgres,
        ..Setup::default()
    });
    a_code_signs_in_once(world.await).await;
}

#[tokio::test]
async fn one_right_password_is_one_sign_in() {
    let world = World::new().await;
    let ada = enrolled(&world).await;
    let first = ticket(&world).await;
    verify(&world, &first, &ada.recovery[0]).await.ok(200);
    verify(&world, &first, &ada.recovery[1])
        .await
        .refused(401, "unauthenticated");
    let second = ticket(&world).await;
    verify(&world, &second, &ada.recovery[2]).await.ok(200);
}

#[tokio::test]
async fn of_two_who_use_one_code_at_once_one_is_let_in() {
    let world = World::new().await;
    let ada = enrolled(&world).await;
    let ticket = ticket(&world).await;
    world.clock.advance(Duration::from_secs(30));
    let code = code(&world, &ada.secret, 0);
    let tries = (0..4).map(|_| verify(&world, &ticket, &code));
    let answers = futures::future::join_all(tries).await;
    let good = answers.iter().filter(|answer| answer.status == 200);
    assert_eq!(good.count(), 1);
}

#[tokio::test]
async fn after_five_tries_even_the_right_code_waits() {
    let world = World::new().await;
    let ada = enrolled(&world).await;
    let ticket_one = ticket(&world).await;
    world.clock.advance(Duration::from_secs(30));
    let right = code(&world, &ada.secret, 0);
    let wrong = if right == "000000" {
        "000001"
    } else {
        "000000"
    };
    for _ in 0..5 {
        verify(&world, &ticket_one, wrong)
            .await
            .refused(401, "unauthenticated");
    }
    let refused = verify(&world, &ticket_one, &right).await;
    let wait: u64 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((600..=900).contains(&wait), "{wait}");
    refused.refused(429, "rate_limited");
    // A new sign-in brings no new tries, and neither do recovery codes.
    let ticket_two = ticket(&world).await;
    let refused = verify(&world, &ticket_two, &ada.recovery[0]).await;
    refused.refused(429, "rate_limited");
    world.clock.advance(Duration::from_mins(15));
    let ticket_three = ticket(&world).await;
    let right = code(&world, &ada.secret, 0);
    verify(&world, &ticket_three, &right).await.ok(200);
}

#[tokio::test]
async fn a_recovery_code_is_good_once() {
    let world = World::new().await;
    let ada = enrolled(&world).await;
    let first = ticket(&world).await;
    let spelled = ada.recovery[0].to_uppercase().replace('-', " ");
    verify(&world, &first, &spelled).await.ok(200);
    let second = ticket(&world).await;
    let again = verify(&world, &second, &ada.recovery[0]).await;
    again.refused(401, "unauthenticated");
    verify(&world, &second, &ada.recovery[1]).await.ok(200);
}

#[tokio::test]
async fn it_is_disabled_by_a_code_alone_and_a_password_change_ends_a_half_sign_in() {
    let world = World::new().await;
    let ada = enrolled(&world).await;
    let again = world
        .post("/v1/auth/mfa/totp/setup", &ada.session, json!({}))
        .await;
    again.refused(409, "conflict");
    let disable = |body: Value| world.post("/v1/auth/mfa/totp/disable", &ada.session, body);
    let wrong = disable(json!({"code": "00000"})).await;
    wrong.refused(400, "invalid_code");
    let half = ticket(&world).await;
    let body = json!({"current_password": PASSWORD, "new_password": "Another-horse8battery"});
    let changed = world
        .post("/v1/auth/change-password", &ada.session, body)
        .await;
    let session = holder(changed.field("/access_token"));
    let refused = verify(&world, &half, &ada.recovery[0]).await;
    refused.refused(401, "unauthenticated");
    let body = json!({"code": ada.recovery[0]});
    world
        .post("/v1/auth/mfa/totp/disable", &session, body)
        .await
        .ok(200);
    let body = json!({"email": "ada@example.org", "password": "Another-horse8battery"});
    let free = world.post("/v1/auth/token", &NOBODY, body).await.ok(200);
    assert!(free.get("mfa_required").is_none());
    let none = world.post(
        "/v1/auth/mfa/totp/enable",
        &session,
        json!({"code": "000000"}),
    );
    none.await.refused(409, "conflict");
}

async fn device(world: &World) -> (String, String) {
    let begun = world.post("/v1/auth/device/code", &NOBODY, json!({})).await;
    let begun = begun.ok(200);
    assert_eq!(begun["expires_in"], 600);
    assert_eq!(begun["interval"], 5);
    let text = |name: &str| begun[name].as_str().unwrap().to_owned();
    (text("device_code"), text("user_code"))
}

async fn poll(world: &World, device: &str) -> Answer {
    let body = json!({"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": device, "client_id": "x"});
    world.post("/v1/auth/device/token", &NOBODY, body).await
}

async fn a_device_is_let_in_by_a_person(world: World) {
    let (_, ada) = world.person("ada@example.org", "member").await;
    let (device_code, user_code) = device(&world).await;
    poll(&world, &device_code).await.refused(400, "slow_down");
    world.clock.advance(Duration::from_secs(5));
    // Ten seconds by now, for it came too early.
    poll(&world, &device_code).await.refused(400, "slow_down");
    world.clock.advance(Duration::from_secs(15));
    let pending = poll(&world, &device_code).await;
    pending.refused(400, "authorization_pending");
    let body = json!({"user_code": user_code.to_lowercase().replace('-', "")});
    let approved = world
        .post("/v1/auth/device/approve", &ada, body.clone())
        .await;
    assert_eq!(approved.ok(200), json!({"approved": true}));
    let again = world.post("/v1/auth/device/approve", &ada, body).await;
    again.refused(404, "not_found");
    let let_in = poll(&world, &device_code).await.ok(200);
    assert_eq!(let_in["expires_in"], 86_400);
    poll(&world, &device_code)
        .await
        .refused(400, "expired_token");
    let key = holder(let_in["access_token"].as_str().unwrap());
    let me = world.get("/v1/auth/me", &key).await.ok(200);
    assert_eq!(me["email"], "ada@example.org");
    // It is a session: signing out ends it, and so does the next password.
    let (device_code, user_code) = device(&world).await;
    let body = json!({"user_code": user_code});
    world
        .post("/v1/auth/device/approve", &ada, body)
        .await
        .ok(200);
    let second = holder(poll(&world, &device_code).await.field("/access_token"));
    let out = world.delete("/v1/auth/token", &second).await.ok(200);
    assert_eq!(out, json!({"revoked": true}));
    let refused = world.get("/v1/auth/me", &second).await;
    refused.refused(401, "unauthenticated");
    let body = json!({"current_password": PASSWORD, "new_password": "Another-horse8battery"});
    world
        .post("/v1/auth/change-password", &ada, body)
        .await
        .ok(200);
    let refused = world.get("/v1/auth/me", &key).await;
    refused.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_device_is_let_in_by_a_person_on_sqlite() {
    a_device_is_let_in_by_a_person(World::new().await).await;
}

#[tokio::test]
async fn a_device_is_let_in_by_a_person_on_postgres() {
    let world = World::of(Setup {
        base: Base::Postgres,
        ..Setup::default()
    });
    a_device_is_let_in_by_a_person(world.await).await;
}

#[tokio::test]
async fn a_device_is_denied_and_forgotten() {
    let world = World::new().await;
    let (_, ada) = world.person("ada@example.org", "member").await;
    let (_, agent) = world.agent(&world.home.admin, "bot").await;
    let (device_code, user_code) = device(&world).await;
    let by_agent = world.post(
        "/v1/auth/device/approve",
        &agent,
        json!({"user_code": user_code}),
    );
    by_agent.await.refused(403, "forbidden");
    let body = json!({"user_code": user_code, "approve": false});
    world
        .post("/v1/auth/device/approve", &ada, body)
        .await
        .ok(200);
    poll(&world, &device_code)
        .await
        .refused(400, "access_denied");
    let (device_code, user_code) = device(&world).await;
    world.clock.advance(Duration::from_mins(10));
    poll(&world, &device_code)
        .await
        .refused(400, "expired_token");
    let late = world.post(
        "/v1/auth/device/approve",
        &ada,
        json!({"user_code": user_code}),
    );
    late.await.refused(404, "not_found");
    let unknown = format!("device_{}", "A".repeat(43));
    poll(&world, &unknown).await.refused(400, "expired_token");
    poll(&world, "x").await.refused(400, "expired_token");
}
