//! Secret sets: values go in, names come out.

use serde_json::{Value, json};

use crate::support::{CANARY, World};

fn stripe(entries: impl Into<Value>) -> Value {
    json!({"provider": "stripe", "environment": "prod", "name": "billing", "entries": entries.into()})
}

fn custom(spec: impl Into<Value>) -> Value {
    json!({"provider": "custom", "environment": "prod", "name": "own", "entries": {"MY_KEY": CANARY}, "custom": spec.into()})
}

#[tokio::test]
async fn a_set_is_stored_and_shown_without_values() {
    let world = World::new().await;
    let made = world
        .post(
            "/v1/vault/secret-sets",
            &world.home.admin,
            stripe(json!({"STRIPE_SECRET_KEY": CANARY})),
        )
        .await;
    assert!(!made.text.contains(CANARY));
    let made = made.ok(201);
    assert_eq!(made["version"], 1);
    assert_eq!(made["keys"], json!(["STRIPE_SECRET_KEY"]));
    let shown = world
        .get(
            &format!("/v1/vault/secret-sets/{}", made["id"].as_str().unwrap()),
            &world.home.admin,
        )
        .await
        .ok(200);
    assert_eq!(
        (&shown["provider"], &shown["environment"], &shown["name"]),
        (&json!("stripe"), &json!("prod"), &json!("billing"))
    );
    let listed = world
        .get("/v1/vault/secret-sets", &world.home.admin)
        .await
        .ok(200);
    assert_eq!(listed["secret_sets"][0]["id"], made["id"]);
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused() {
    let world = World::new().await;
    world
        .post(
            "/v1/vault/secret-sets",
            &world.home.admin,
            stripe(json!({"STRIPE_SECRET_KEY": CANARY})),
        )
        .await
        .ok(201);
    let again = world
        .post(
            "/v1/vault/secret-sets",
            &world.home.admin,
            stripe(json!({"STRIPE_SECRET_KEY": CANARY})),
        )
        .await;
    let detail = again.refused(409, "name_taken");
    assert!(detail.contains("stripe/prod/billing"), "{detail}");
}

#[tokio::test]
async fn fields_of_the_seeds_clients_are_ignored() {
    let world = World::new().await;
    let mut body = stripe(json!({"STRIPE_SECRET_KEY": CANARY}));
    body["human_owner_id"] = json!("x");
    body["version"] = json!(7);
    assert_eq!(
        world
            .post("/v1/vault/secret-sets", &world.home.admin, body)
            .await
            .ok(201)["version"],
        1
    );
}

#[tokio::test]
async fn an_unknown_provider_is_refused_with_the_known_ones() {
    let world = World::new().await;
    let body =
        json!({"provider": "strype", "environment": "prod", "name": "x", "entries": {"A": CANARY}});
    let detail = world
        .post("/v1/vault/secret-sets", &world.home.admin, body)
        .await
        .refused(422, "unknown_provider");
    assert!(
        detail.contains("`strype`") && detail.contains("stripe") && detail.contains("custom"),
        "{detail}"
    );
}

#[tokio::test]
async fn names_that_are_no_names_are_refused() {
    let world = World::new().await;
    for (field, text) in [
        ("provider", "../stripe"),
        ("environment", "a/b"),
        ("name", ""),
        ("name", "a b"),
        ("environment", "%2e%2e"),
        ("name", "x\u{0}"),
    ] {
        let mut body = stripe(json!({"STRIPE_SECRET_KEY": CANARY}));
        body[field] = json!(text);
        let detail = world
            .post("/v1/vault/secret-sets", &world.home.admin, body)
            .await
            .refused(400, "invalid_request");
        assert!(detail.starts_with(&format!("{field}: ")), "{detail}");
    }
}

#[tokio::test]
async fn entries_that_are_no_entries_are_refused_without_an_echo() {
    let world = World::new().await;
    for entries in [
        json!({}),
        json!({"A": null}),
        json!({"A B": CANARY}),
        json!({"A": ""}),
        json!({"A": {"x": CANARY}}),
        json!([CANARY]),
        json!(CANARY),
        json!({"A": 1_234_567}),
    ] {
        let answer = world
            .post("/v1/vault/secret-sets", &world.home.admin, stripe(entries))
            .await;
        assert!(
            !answer.text.contains(CANARY) && !answer.text.contains("1234567"),
            "{}",
            answer.text
        );
        answer.refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_short_value_and_useless_keys_are_warned_about() {
    let world = World::new().await;
    let made = world
        .post(
            "/v1/vault/secret-sets",
            &world.home.admin,
            stripe(json!({"OTHER": "short"})),
        )
        .await
        .ok(201);
    let warnings = made["warnings"].to_string();
    for part in [
        "OTHER is shorter than 16",
        "stripe needs STRIPE_SECRET_KEY",
        "no use for OTHER",
    ] {
        assert!(warnings.contains(part), "{warnings}");
    }
    let good = world.stripe_set(&world.home.admin, "good").await;
    let shown = world
        .get(&format!("/v1/vault/secret-sets/{good}"), &world.home.admin)
        .await
        .ok(200);
    assert_eq!(shown["warnings"], Value::Null);
}

#[tokio::test]
async fn a_dotenv_text_is_imported() {
    let world = World::new().await;
    let body = json!({"provider": "stripe", "environment": "prod", "name": "imported", "dotenv": format!("# keys\nexport STRIPE_SECRET_KEY=\"{CANARY}\"\nSTRIPE_WEBHOOK_SECRET='whsec_0123456789abcdef'\n")});
    let made = world
        .post("/v1/vault/secret-sets/import", &world.home.admin, body)
        .await
        .ok(201);
    assert_eq!(
        made["keys"],
        json!(["STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"])
    );
    let bad = json!({"provider": "stripe", "environment": "prod", "name": "bad", "dotenv": format!("A=1\n{CANARY}")});
    let detail = world
        .post("/v1/vault/secret-sets/import", &world.home.admin, bad)
        .await
        .refused(400, "invalid_request");
    assert!(detail.contains("line 2"), "{detail}");
}

#[tokio::test]
async fn an_update_makes_the_next_version_and_null_drops_a_key() {
    let world = World::new().await;
    let id = world.stripe_set(&world.home.admin, "billing").await;
    let path = format!("/v1/vault/secret-sets/{id}");
    let changed = world
        .put(
            &path,
            &world.home.admin,
            json!({"entries": {"STRIPE_ACCOUNT_ID": "acct_0123456789abcdef"}}),
        )
        .await
        .ok(200);
    assert_eq!(
        (&changed["version"], &changed["keys"]),
        (
            &json!(2),
            &json!(["STRIPE_ACCOUNT_ID", "STRIPE_SECRET_KEY"])
        )
    );
    let changed = world
        .put(
            &path,
            &world.home.admin,
            json!({"entries": {"STRIPE_ACCOUNT_ID": null}}),
        )
        .await
        .ok(200);
    assert_eq!(
        (&changed["version"], &changed["keys"]),
        (&json!(3), &json!(["STRIPE_SECRET_KEY"]))
    );
}

#[tokio::test]
async fn an_update_that_changes_nothing_or_leaves_nothing_is_refused() {
    let world = World::new().await;
    let id = world.stripe_set(&world.home.admin, "billing").await;
    let path = format!("/v1/vault/secret-sets/{id}");
    for entries in [
        json!({}),
        json!({"STRIPE_SECRET_KEY": null}),
        json!({"NO_SUCH_KEY": null}),
    ] {
        world
            .put(&path, &world.home.admin, json!({"entries": entries}))
            .await
            .refused(400, "invalid_request");
    }
    assert_eq!(
        world.get(&path, &world.home.admin).await.ok(200)["version"],
        1
    );
}

#[tokio::test]
async fn a_rollback_takes_up_an_earlier_version_as_a_new_one() {
    let world = World::new().await;
    let id = world.stripe_set(&world.home.admin, "billing").await;
    let path = format!("/v1/vault/secret-sets/{id}");
    world
        .put(
            &path,
            &world.home.admin,
            json!({"entries": {"STRIPE_ACCOUNT_ID": "acct_0123456789abcdef"}}),
        )
        .await
        .ok(200);
    let rolled = world
        .post(
            &format!("{path}/rollback"),
            &world.home.admin,
            json!({"version": 1}),
        )
        .await
        .ok(200);
    assert_eq!(
        (&rolled["version"], &rolled["keys"]),
        (&json!(3), &json!(["STRIPE_SECRET_KEY"]))
    );
    let versions = world
        .get(&format!("{path}/versions"), &world.home.admin)
        .await
        .ok(200);
    assert_eq!(versions["versions"].as_array().unwrap().len(), 3);
    assert_eq!(versions["versions"][0]["rolled_back_to"], 1);
    world
        .post(
            &format!("{path}/rollback"),
            &world.home.admin,
            json!({"version": 9}),
        )
        .await
        .refused(404, "not_found");
    world
        .post(
            &format!("{path}/rollback"),
            &world.home.admin,
            json!({"version": 1, "force": true}),
        )
        .await
        .refused(400, "unknown_field");
}

#[tokio::test]
async fn a_deleted_set_is_gone_and_its_name_is_free() {
    let world = World::new().await;
    let id = world.stripe_set(&world.home.admin, "billing").await;
    let path = format!("/v1/vault/secret-sets/{id}");
    world.delete(&path, &world.home.admin).await.ok(204);
    world
        .get(&path, &world.home.admin)
        .await
        .refused(404, "not_found");
    world
        .put(&path, &world.home.admin, json!({"entries": {"A": CANARY}}))
        .await
        .refused(404, "not_found");
    world
        .get(&format!("{path}/versions"), &world.home.admin)
        .await
        .refused(404, "not_found");
    assert_ne!(world.stripe_set(&world.home.admin, "billing").await, id);
}

#[tokio::test]
async fn a_custom_set_carries_its_hosts_and_injections() {
    let world = World::new().await;
    let spec = json!({"hosts": ["api.example.com"], "inject": [{"header": "authorization", "value": "Bearer ${MY_KEY}"}]});
    let made = world
        .post(
            "/v1/vault/secret-sets",
            &world.home.admin,
            custom(spec.clone()),
        )
        .await
        .ok(201);
    assert_eq!(made["custom"], spec);
}

#[tokio::test]
async fn a_custom_set_with_mistakes_is_refused_with_their_fields() {
    let world = World::new().await;
    let refused = [
        (custom(Value::Null), "invalid_request", 400),
        (
            custom(
                json!({"hosts": ["*"], "inject": [{"header": "authorization", "value": "Bearer ${MY_KEY}"}]}),
            ),
            "invalid_template",
            422,
        ),
        (
            custom(
                json!({"hosts": ["api.example.com"], "inject": [{"header": "authorization", "value": "Bearer ${OTHER}"}]}),
            ),
            "invalid_template",
            422,
        ),
        (
            custom(json!({"hosts": ["api.example.com"], "inject": [], "extra": 1})),
            "unknown_field",
            400,
        ),
    ];
    for (body, code, status) in refused {
        world
            .post("/v1/vault/secret-sets", &world.home.admin, body)
            .await
            .refused(status, code);
    }
    let mut named = stripe(json!({"STRIPE_SECRET_KEY": CANARY}));
    named["custom"] = json!({"hosts": ["evil.example"], "inject": []});
    world
        .post("/v1/vault/secret-sets", &world.home.admin, named)
        .await
        .refused(400, "invalid_request");
}

#[tokio::test]
async fn two_writers_at_once_make_two_versions() {
    let world = World::new().await;
    let id = world.stripe_set(&world.home.admin, "billing").await;
    let path = format!("/v1/vault/secret-sets/{id}");
    let write = |value: &str| {
        world.put(
            &path,
            &world.home.admin,
            json!({"entries": {"STRIPE_SECRET_KEY": value}}),
        )
    };
    let (one, two) = tokio::join!(
        write("sk_live_0000000000000001"),
        write("sk_live_0000000000000002")
    );
    let mut versions = [
        one.ok(200)["version"].as_u64().unwrap(),
        two.ok(200)["version"].as_u64().unwrap(),
    ];
    versions.sort_unstable();
    assert_eq!(versions, [2, 3]);
}

#[tokio::test]
async fn a_value_that_no_header_carries_is_warned_of() {
    let world = World::new().await;
    for (number, (value, warned)) in [
        ("sk_test_0123456789abcdef", false),
        ("sk_test_0123456789abcdef\n", true),
        ("sk_test_0123456789abcdef ", true),
        ("sk_test_01234\r\n56789abcdef", true),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({"provider": "stripe", "environment": "dev", "name": format!("n{number}"), "entries": {"STRIPE_SECRET_KEY": value}});
        let made = world
            .post("/v1/vault/secret-sets", &world.home.admin, body)
            .await
            .ok(201);
        let text = made["warnings"].to_string();
        assert_eq!(
            text.contains("which no header carries"),
            warned,
            "{value:?}: {text}"
        );
        assert!(!text.contains("sk_test"), "{text}");
    }
}
