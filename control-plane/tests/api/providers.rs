//! Provider templates: the built-in ones, and the operator's own over REST.

use serde_json::{Value, json};

use crate::support::World;

const OWN: &str = r#"
name = "acme"
docs = "https://docs.acme.example/auth"
hosts = ["api.acme.example"]
keys = { ACME_API_KEY = "required" }
env = { ACME_API_KEY = "ACME_API_KEY" }

[[inject]]
header = "x-api-key"
value = "${ACME_API_KEY}"
"#;

#[tokio::test]
async fn the_built_in_templates_are_listed() {
    let world = World::new().await;
    let listed = world.get("/v1/providers", &world.home.admin).await.ok(200);
    let names: Vec<&str> = listed["providers"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|provider| provider["name"].as_str())
        .collect();
    for name in ["openai", "anthropic", "stripe", "github", "aws"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let stripe = world
        .get("/v1/providers/stripe", &world.home.admin)
        .await
        .ok(200);
    assert_eq!(stripe["keys"]["STRIPE_SECRET_KEY"], "required");
    assert!(
        stripe["hosts"]
            .to_string()
            .contains("https://api.stripe.com:443"),
        "{stripe}"
    );
    world
        .get("/v1/providers/nobody", &world.home.admin)
        .await
        .refused(404, "not_found");
}

#[tokio::test]
async fn a_template_of_ones_own_is_added_and_used() {
    let world = World::new().await;
    let mut watching = world.catalog.subscribe();
    let made = world
        .post("/v1/providers", &world.home.admin, json!({"template": OWN}))
        .await
        .ok(201);
    assert_eq!(
        (&made["name"], &made["inject"]),
        (&json!("acme"), &json!(["header x-api-key"]))
    );
    assert!(watching.has_changed().unwrap() && watching.borrow_and_update().get("acme").is_some());
    let body = json!({"provider": "acme", "environment": "e", "name": "n", "entries": {"ACME_API_KEY": "0123456789abcdef"}});
    let set = world
        .post("/v1/vault/secret-sets", &world.home.admin, body)
        .await
        .ok(201);
    assert_eq!(set["warnings"], Value::Null);
    world
        .post("/v1/providers", &world.home.admin, json!({"template": OWN}))
        .await
        .refused(409, "name_taken");
}

#[tokio::test]
async fn a_template_with_mistakes_is_refused_with_lines_and_fields() {
    let world = World::new().await;
    let bad = OWN
        .replace("[\"api.acme.example\"]", "[\"*\"]")
        .replace("${ACME_API_KEY}", "${OTHER}");
    let detail = world
        .post("/v1/providers", &world.home.admin, json!({"template": bad}))
        .await
        .refused(422, "invalid_template");
    assert!(
        detail.contains(":4:") && detail.contains("hosts") && detail.contains("inject"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_built_in_name_and_custom_are_taken() {
    let world = World::new().await;
    for name in ["stripe", "custom"] {
        let answer = world
            .post(
                "/v1/providers",
                &world.home.admin,
                json!({"template": OWN.replace("\"acme\"", &format!("\"{name}\""))}),
            )
            .await;
        assert!(
            matches!(answer.status.as_u16(), 409 | 422),
            "{}",
            answer.text
        );
    }
}

#[tokio::test]
async fn another_organisation_adds_no_template() {
    let world = World::new().await;
    world
        .post(
            "/v1/providers",
            &world.other.admin,
            json!({"template": OWN}),
        )
        .await
        .refused(403, "forbidden");
}

#[tokio::test]
async fn a_template_of_ones_own_is_there_after_a_restart_and_on_record() {
    let world = World::new().await;
    world
        .post("/v1/providers", &world.home.admin, json!({"template": OWN}))
        .await
        .ok(201);
    let second = OWN.replace("\"acme\"", "\"beta\"");
    world
        .post(
            "/v1/providers",
            &world.home.admin,
            json!({"template": second}),
        )
        .await
        .ok(201);
    let chest = control_plane::KeyChest::of(&world.store, &world.vault, &world.home.org)
        .await
        .unwrap();
    let mut catalog = ::providers::Catalog::builtin();
    assert_eq!(
        control_plane::load_templates(&chest, &mut catalog)
            .await
            .unwrap(),
        2
    );
    assert!(catalog.get("acme").is_some() && catalog.get("beta").is_some());
    let events = world.events("?action=provider.create").await;
    assert_eq!((events.len(), &events[0]["path"]), (2, &json!("acme")));
}
