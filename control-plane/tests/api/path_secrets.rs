//! Secrets by their paths: versions, limits, deletion, and the tricks that paths and bodies are good for.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, header};
use serde_json::{Value, json};

use crate::support::{Base, CANARY, Setup, World, request};

async fn with_vault() -> (World, String) {
    let world = World::new().await;
    let vault = world
        .post("/v1/vaults", &world.home.admin, json!({"name": "v"}))
        .await
        .field("/id");
    (world, format!("/v1/vaults/{vault}"))
}

#[tokio::test]
async fn a_secret_goes_in_is_read_and_gets_versions() {
    let (world, vault) = with_vault().await;
    let admin = &world.home.admin;
    let path = format!("{vault}/secrets/payments/api-key");
    let body = json!({"type": "api_key", "value": CANARY, "metadata": {"team": "x"}, "rotation_policy": {"days": 30}});
    let first = world.put(&path, admin, body).await;
    assert!(!first.text.contains(CANARY));
    let first = first.ok(201);
    assert_eq!(first["path"], "payments/api-key");
    assert_eq!(first["type"], "api_key");
    assert_eq!(first["version"], 1);
    assert!(first.get("value").is_none());
    let read = world.get(&path, admin).await;
    assert_eq!(read.headers[header::CACHE_CONTROL], "no-store");
    let read = read.ok(200);
    assert_eq!(read["value"], CANARY);
    assert_eq!(read["metadata"], json!({"team": "x"}));
    assert_eq!(read["rotation_policy"], json!({"days": 30}));
    assert_eq!(read["access_count"], 1);
    assert_eq!(read["id"], first["id"]);
    let second = world.put(&path, admin, json!({"value": "second"})).await;
    let second = second.ok(201);
    assert_eq!(
        (&second["version"], &second["type"]),
        (&json!(2), &json!("generic"))
    );
    assert_eq!(second["metadata"], json!({}));
    assert_ne!(second["id"], first["id"]);
    assert_eq!(world.get(&path, admin).await.ok(200)["value"], "second");
    let old = format!("{vault}/secret-version/payments/api-key/1");
    assert_eq!(world.get(&old, admin).await.ok(200)["value"], CANARY);
    let versions = format!("{vault}/secret-versions/payments/api-key");
    let versions = world.get(&versions, admin).await;
    assert!(!versions.text.contains(CANARY));
    let versions = versions.ok(200);
    let numbers: Vec<&Value> = versions["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| &version["version"])
        .collect();
    assert_eq!(numbers, [2, 1]);
    let list = world
        .get(&format!("{vault}/secrets?prefix=pay"), admin)
        .await;
    assert!(!list.text.contains("second"));
    assert_eq!(list.ok(200)["secrets"][0]["version"], 2);
    let other = world
        .get(&format!("{vault}/secrets?prefix=other"), admin)
        .await;
    assert_eq!(other.ok(200)["secrets"], json!([]));
}

#[tokio::test]
async fn asking_for_the_head_of_a_value_reads_nothing() {
    let (world, vault) = with_vault().await;
    let admin = &world.home.admin;
    let path = format!("{vault}/secrets/a");
    let body = json!({"value": CANARY, "max_access_count": 1});
    world.put(&path, admin, body).await.ok(201);
    for place in [&path, &format!("{vault}/secret-version/a/1")] {
        let answer = world.send(request(Method::HEAD, place, admin, None)).await;
        assert_eq!(answer.status, 405);
        assert!(!answer.text.contains(CANARY));
    }
    assert_eq!(world.get(&path, admin).await.ok(200)["access_count"], 1);
    world.get(&path, admin).await.refused(410, "secret_gone");
}

#[tokio::test]
async fn the_newest_version_that_is_not_disabled_is_read() {
    let (world, vault) = with_vault().await;
    let admin = &world.home.admin;
    let path = format!("{vault}/secrets/a");
    for value in ["one", "two", "three"] {
        world
            .put(&path, admin, json!({"value": value}))
            .await
            .ok(201);
    }
    for disable in [
        format!("{vault}/secret-version-disable/a/3"),
        format!("{vault}/secret-version/a/2/disable"),
        format!("{vault}/secret-version/a/2/disable"),
    ] {
        let answer = world
            .send(request(Method::POST, &disable, admin, None))
            .await;
        answer.ok(204);
    }
    assert_eq!(world.get(&path, admin).await.ok(200)["value"], "one");
    world
        .get(&format!("{vault}/secret-version/a/3"), admin)
        .await
        .refused(410, "secret_gone");
    let versions = world
        .get(&format!("{vault}/secret-versions/a"), admin)
        .await;
    let versions = versions.ok(200);
    let disabled: Vec<&Value> = versions["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| &version["is_disabled"])
        .collect();
    assert_eq!(disabled, [true, true, false]);
    let last = format!("{vault}/secret-version-disable/a/1");
    world.post(&last, admin, json!({})).await.ok(204);
    let detail = world.get(&path, admin).await.refused(410, "secret_gone");
    assert!(detail.contains("disabled"), "{detail}");
    for missing in ["a/9", "b/1"] {
        world
            .post(
                &format!("{vault}/secret-version-disable/{missing}"),
                admin,
                json!({}),
            )
            .await
            .refused(404, "not_found");
    }
    world
        .post(&format!("{vault}/secret-version/a/1"), admin, json!({}))
        .await
        .refused(404, "not_found");
}

#[tokio::test]
async fn what_is_deleted_expired_or_used_up_is_gone_and_what_never_was_is_missing() {
    let (world, vault) = with_vault().await;
    let admin = &world.home.admin;
    let at = |name: &str| format!("{vault}/secrets/{name}");
    let end = "2026-11-22T07:01:00Z";
    world
        .put(
            &at("short"),
            admin,
            json!({"value": "x", "expires_at": end}),
        )
        .await
        .ok(201);
    world
        .put(
            &at("once"),
            admin,
            json!({"value": "x", "max_access_count": 1}),
        )
        .await
        .ok(201);
    world
        .put(
            &at("many"),
            admin,
            json!({"value": "x", "max_access_count": 0}),
        )
        .await
        .ok(201);
    world
        .put(
            &at("late"),
            admin,
            json!({"value": "x", "expires_at": "2026-11-22T06:59:59Z"}),
        )
        .await
        .refused(400, "invalid_request");
    world
        .get(&at("none"), admin)
        .await
        .refused(404, "not_found");
    world.get(&at("once"), admin).await.ok(200);
    let detail = world
        .get(&at("once"), admin)
        .await
        .refused(410, "secret_gone");
    assert!(detail.contains("max_access_count"), "{detail}");
    for _ in 0..5 {
        world.get(&at("many"), admin).await.ok(200);
    }
    // A list is no read.
    world.get(&at("short"), admin).await.ok(200);
    world.clock.advance(Duration::from_mins(1));
    let detail = world
        .get(&at("short"), admin)
        .await
        .refused(410, "secret_gone");
    assert!(detail.contains("expired"), "{detail}");
    world.delete(&at("many"), admin).await.ok(204);
    let detail = world
        .get(&at("many"), admin)
        .await
        .refused(410, "secret_gone");
    assert!(detail.contains("deleted"), "{detail}");
    world
        .delete(&at("many"), admin)
        .await
        .refused(404, "not_found");
    let listed = world.get(&format!("{vault}/secrets"), admin).await.ok(200);
    assert_eq!(listed["secrets"].as_array().unwrap().len(), 2);
    let restore = format!("{vault}/secret-restore/many");
    world.post(&restore, admin, json!({})).await.ok(200);
    world.get(&at("many"), admin).await.ok(200);
    world
        .post(&format!("{vault}/secret-restore/none"), admin, json!({}))
        .await
        .refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_reads_at_once_exactly_as_many_as_allowed_show_the_value() {
    for base in [Base::File, Base::Postgres] {
        let world = World::of(Setup {
            base,
            ..Setup::default()
        })
        .await;
        let vault = world
            .post("/v1/vaults", &world.home.admin, json!({"name": "v"}))
            .await
            .field("/id");
        let path = format!("/v1/vaults/{vault}/secrets/few");
        let body = json!({"value": CANARY, "max_access_count": 5});
        world.put(&path, &world.home.admin, body).await.ok(201);
        let world = Arc::new(world);
        let readers = (0..64).map(|_| {
            let (world, path) = (Arc::clone(&world), path.clone());
            tokio::spawn(async move {
                let answer = world.get(&path, &world.home.admin).await;
                (answer.status.as_u16(), answer.text.contains(CANARY))
            })
        });
        let answers = futures::future::join_all(readers).await;
        let answers: Vec<(u16, bool)> = answers.into_iter().map(Result::unwrap).collect();
        let shown = answers.iter().filter(|answer| **answer == (200, true));
        assert_eq!(shown.count(), 5, "{answers:?}");
        let gone = answers.iter().filter(|answer| **answer == (410, false));
        assert_eq!(gone.count(), 59, "{answers:?}");
        let read = world.events("?action=secret.read").await;
        assert_eq!(read.len(), 5);
    }
}

#[tokio::test]
async fn the_server_makes_a_value_and_shows_it_to_nobody() {
    let (world, vault) = with_vault().await;
    let admin = &world.home.admin;
    let path = format!("{vault}/secrets/db/password");
    let body =
        json!({"value": "first", "type": "password", "metadata": {"a": 1}, "max_access_count": 3});
    world.put(&path, admin, body).await.ok(201);
    let rotate = format!("{vault}/secret-rotate/db/password");
    let made = world
        .post(
            &rotate,
            admin,
            json!({"length": 40, "charset": "alphanumeric"}),
        )
        .await;
    let answer = made.text.clone();
    let made = made.ok(201);
    assert_eq!(
        (&made["version"], &made["type"]),
        (&json!(2), &json!("password"))
    );
    assert_eq!(
        (&made["max_access_count"], &made["access_count"]),
        (&json!(3), &json!(0))
    );
    assert_eq!(made["metadata"], json!({"a": 1}));
    assert!(made.get("value").is_none());
    let value = world.get(&path, admin).await.field("/value");
    assert_eq!(value.len(), 40);
    assert!(value.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert!(!answer.contains(&value));
    let empty = request(Method::POST, &rotate, admin, None);
    world.send(empty).await.ok(201);
    let value = world.get(&path, admin).await.field("/value");
    assert!(value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit()));
    for bad in [
        json!({"length": 7}),
        json!({"length": 1025}),
        json!({"length": -1}),
        json!({"charset": "emoji"}),
        json!({"type": "unknown"}),
        json!({"value": "mine"}),
    ] {
        let answer = world.post(&rotate, admin, bad.clone()).await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    world
        .post(&format!("{vault}/secret-rotate/none"), admin, json!({}))
        .await
        .refused(404, "not_found");
    world.delete(&path, admin).await.ok(204);
    world
        .post(&rotate, admin, json!({}))
        .await
        .refused(410, "secret_gone");
}

#[tokio::test]
async fn a_path_has_one_spelling_and_an_encoded_slash_is_a_slash() {
    let (world, vault) = with_vault().await;
    let admin = &world.home.admin;
    let put = async |path: &str, value: &str| {
        let target = format!("{vault}/secrets/{path}");
        world.put(&target, admin, json!({"value": value})).await
    };
    let made = put("a%2Fb", CANARY).await.ok(201);
    assert_eq!(made["path"], "a/b");
    for same in ["a/b", "a%2fb", "a%2Fb", "%61/b"] {
        let read = world.get(&format!("{vault}/secrets/{same}"), admin).await;
        assert_eq!(read.ok(200)["value"], CANARY, "{same}");
    }
    for other in ["A/b", "a/B", "a/b/c", "a"] {
        world
            .get(&format!("{vault}/secrets/{other}"), admin)
            .await
            .refused(404, "not_found");
    }
    for bad in [
        "a//b",
        "/a",
        "a/",
        "a%2F%2Fb",
        "%2Fa",
        "a%2F",
        "a/../b",
        "..",
        "a/..",
        "%2e%2e",
        "a/%2e%2e/b",
        "a.b",
        "a.",
        "a%00b",
        "a%0ab",
        "a%252Fb",
        "a%5Cb",
        "a;b",
        "a*",
        "**",
        "_a",
        "a-",
        "a%20b",
        "%C3%A4",
        "__keys/jwt",
    ] {
        for answer in [
            put(bad, "x").await,
            world.get(&format!("{vault}/secrets/{bad}"), admin).await,
            world.delete(&format!("{vault}/secrets/{bad}"), admin).await,
            world
                .get(&format!("{vault}/secret-versions/{bad}"), admin)
                .await,
            world
                .post(&format!("{vault}/secret-restore/{bad}"), admin, json!({}))
                .await,
            world
                .post(&format!("{vault}/secret-rotate/{bad}"), admin, json!({}))
                .await,
            world
                .get(&format!("{vault}/secret-version/{bad}/1"), admin)
                .await,
        ] {
            assert!(
                matches!(answer.status.as_u16(), 400 | 404),
                "{bad}: {}",
                answer.text
            );
        }
    }
    let not_utf8 = world.get(&format!("{vault}/secrets/a%FFb"), admin).await;
    not_utf8.refused(400, "invalid_request");
    let listed = world.get(&format!("{vault}/secrets"), admin).await.ok(200);
    assert_eq!(listed["secrets"].as_array().unwrap().len(), 1);
    for bad in ["%25", "a'", "a%00", "_%25", "..%2f.."] {
        let answer = world
            .get(&format!("{vault}/secrets?prefix={bad}"), admin)
            .await;
        if bad != "_%25" {
            answer.refused(400, "invalid_request");
        }
    }
    // `_` is a letter, and no wildcard.
    let listed = world.get(&format!("{vault}/secrets?prefix=_"), admin).await;
    assert_eq!(listed.ok(200)["secrets"], json!([]));
    world
        .get(&format!("{vault}/secrets?cursor=a%27--"), admin)
        .await
        .refused(400, "invalid_request");
    world
        .get(&format!("{vault}/secrets?limit=0"), admin)
        .await
        .refused(400, "invalid_request");
    world
        .get(&format!("{vault}/secrets?limit=1000000000"), admin)
        .await
        .ok(200);
}

#[tokio::test]
async fn a_body_that_says_too_much_or_too_little_is_refused_and_never_repeated() {
    let (world, vault) = with_vault().await;
    let admin = &world.home.admin;
    let path = format!("{vault}/secrets/a");
    let too_long = "x".repeat((1 << 20) + 1);
    for (body, code) in [
        (json!({}), "invalid_request"),
        (json!({"value": ""}), "invalid_request"),
        (json!({"value": too_long}), "invalid_request"),
        (json!({"value": {"deep": CANARY}}), "invalid_request"),
        (json!({"value": 4711}), "invalid_request"),
        (
            json!({"value": CANARY, "type": "nothing"}),
            "invalid_request",
        ),
        (json!({"value": CANARY, "type": 1}), "invalid_request"),
        (json!({"value": CANARY, "metadata": []}), "invalid_request"),
        (
            json!({"value": CANARY, "metadata": {"a": "x".repeat(17_000)}}),
            "invalid_request",
        ),
        (
            json!({"value": CANARY, "rotation_policy": "daily"}),
            "invalid_request",
        ),
        (
            json!({"value": CANARY, "max_access_count": -1}),
            "invalid_request",
        ),
        (
            json!({"value": CANARY, "max_access_count": 1.5}),
            "invalid_request",
        ),
        (
            json!({"value": CANARY, "max_access_count": "1"}),
            "invalid_request",
        ),
        (
            json!({"value": CANARY, "expires_at": "tomorrow"}),
            "invalid_request",
        ),
        (
            json!({"value": CANARY, "expires": "2027-01-01T00:00:00Z"}),
            "unknown_field",
        ),
        (json!({"value": CANARY, "version": 9}), "unknown_field"),
        (json!({"value": CANARY, "org_id": "org_x"}), "unknown_field"),
        (
            json!({"value": CANARY, "created_by": "me"}),
            "unknown_field",
        ),
        (json!([CANARY]), "invalid_request"),
    ] {
        let answer = world.put(&path, admin, body).await;
        assert!(!answer.text.contains(CANARY), "{}", answer.text);
        answer.refused(400, code);
    }
    for raw in [
        format!("{{\"value\": \"{CANARY}\", \"value\": \"x\"}}"),
        format!("{{\"value\": \"{CANARY}\"}} {{}}"),
        "{\"value\": \"\\ud800\"}".to_owned(),
        format!(
            "{{\"metadata\": {}1{}, \"value\": \"{CANARY}\"}}",
            "[".repeat(10_000),
            "]".repeat(10_000)
        ),
    ] {
        let mut request = request(Method::PUT, &path, admin, Some(json!({})));
        *request.body_mut() = Body::from(raw);
        let answer = world.send(request).await;
        assert!(!answer.text.contains(CANARY), "{}", answer.text);
        answer.refused(400, "invalid_json");
    }
    let form = Request::put(&path)
        .header(
            header::AUTHORIZATION,
            format!("Bearer {}", admin.0.clone().unwrap()),
        )
        .header(header::CONTENT_TYPE, "text/plain")
        .body(Body::from("{}"))
        .unwrap();
    world
        .send(form)
        .await
        .refused(415, "unsupported_media_type");
    world.get(&path, admin).await.refused(404, "not_found");
}

#[tokio::test]
async fn every_type_of_the_seeds_is_taken() {
    let (world, vault) = with_vault().await;
    for kind in [
        "generic",
        "password",
        "api_key",
        "certificate",
        "private_key",
        "ssh_key",
        "env",
        "file",
        "note",
        "env_bundle",
    ] {
        let path = format!("{vault}/secrets/{}", kind.replace('_', "-"));
        let made = world
            .put(
                &path,
                &world.home.admin,
                json!({"value": "A=1\nB=2", "type": kind}),
            )
            .await;
        assert_eq!(made.ok(201)["type"], kind);
    }
}

#[tokio::test]
async fn entries_of_secret_sets_are_seen_by_their_paths_and_neither_read_nor_changed() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let set = world.stripe_set(admin, "bot").await;
    let entry = "stripe/prod/bot/STRIPE_SECRET_KEY";
    let listed = world.get("/v1/vaults/default/secrets?prefix=stripe/", admin);
    let listed = listed.await.ok(200);
    assert_eq!(listed["secrets"][0]["path"], entry);
    assert_eq!(listed["secrets"][0]["secret_set"], "stripe/prod/bot");
    let at = |operation: &str, rest: &str| format!("/v1/vaults/default/{operation}/{entry}{rest}");
    for read in [at("secrets", ""), at("secret-version", "/1")] {
        let answer = world.get(&read, admin).await;
        assert!(!answer.text.contains(CANARY));
        answer.refused(403, "export_denied");
    }
    let put = world
        .put(&at("secrets", ""), admin, json!({"value": "x"}))
        .await;
    let detail = put.refused(409, "secret_set_entry");
    assert!(detail.contains("set put stripe/prod/bot"), "{detail}");
    let beside = "/v1/vaults/default/secrets/stripe/prod/bot/NEW";
    world
        .put(beside, admin, json!({"value": "x"}))
        .await
        .refused(409, "secret_set_entry");
    world
        .delete(&at("secrets", ""), admin)
        .await
        .refused(409, "secret_set_entry");
    for operation in [
        at("secret-restore", ""),
        at("secret-rotate", ""),
        at("secret-version-disable", "/1"),
    ] {
        world
            .post(&operation, admin, json!({}))
            .await
            .refused(409, "secret_set_entry");
    }
    // Nor when the set is gone.
    world
        .delete(&format!("/v1/vault/secret-sets/{set}"), admin)
        .await
        .ok(204);
    world
        .get(&at("secrets", ""), admin)
        .await
        .refused(410, "secret_gone");
    world
        .post(&at("secret-restore", ""), admin, json!({}))
        .await
        .refused(409, "secret_set_entry");
    // The other way round: a set takes over no secret.
    world
        .put(beside, admin, json!({"value": "mine"}))
        .await
        .ok(201);
    let body = json!({"provider": "stripe", "environment": "prod", "name": "bot", "entries": {"STRIPE_SECRET_KEY": CANARY}});
    let refused = world
        .post("/v1/vault/secret-sets", admin, body.clone())
        .await;
    let detail = refused.refused(409, "name_taken");
    assert!(detail.contains("stripe/prod/bot/"), "{detail}");
    world.delete(beside, admin).await.ok(204);
    world
        .post("/v1/vault/secret-sets", admin, body)
        .await
        .ok(201);
}

#[tokio::test]
async fn a_seal_opens_only_where_it_was_made() {
    let (world, vault) = with_vault().await;
    let admin = &world.home.admin;
    for (path, value) in [("a", "one"), ("a", "two"), ("b", CANARY)] {
        let path = format!("{vault}/secrets/{path}");
        world
            .put(&path, admin, json!({"value": value}))
            .await
            .ok(201);
    }
    let database = rusqlite::Connection::open(world.dir.path().join("claviger.db")).unwrap();
    let swap = |to: &str, from: &str| {
        let sql = format!(
            "UPDATE secret_versions SET sealed = (SELECT sealed FROM secret_versions WHERE {from}) WHERE {to}"
        );
        assert_eq!(database.execute(&sql, []).unwrap(), 1);
    };
    // The seal of another secret, and that of an earlier version.
    swap("path = 'a' AND version = 2", "path = 'b'");
    let answer = world.get(&format!("{vault}/secrets/a"), admin).await;
    assert!(!answer.text.contains(CANARY));
    answer.refused(503, "key_unavailable");
    swap("path = 'a' AND version = 2", "path = 'a' AND version = 1");
    world
        .get(&format!("{vault}/secrets/a"), admin)
        .await
        .refused(503, "key_unavailable");
}

/// The seeds' clients send no cursor, so what fits comes at once.
#[tokio::test]
async fn a_list_without_a_limit_is_as_long_as_lists_get() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let vault = world
        .post("/v1/vaults", admin, json!({"name": "many"}))
        .await
        .ok(201);
    assert_eq!(vault["cmek_enabled"], false);
    assert_eq!(vault["cmek_fingerprint"], json!(null));
    let path = format!("/v1/vaults/{}/secrets", vault["id"].as_str().unwrap());
    for number in 0..60 {
        let body = json!({"type": "generic", "value": "v"});
        world
            .put(&format!("{path}/a/{number}"), admin, body)
            .await
            .ok(201);
    }
    let listed = world.get(&path, admin).await.ok(200);
    assert_eq!(listed["secrets"].as_array().unwrap().len(), 60);
    assert_eq!(listed["secrets"][0]["cmek_encrypted"], false);
    assert_eq!(listed["next_cursor"], json!(null));
    let listed = world.get(&format!("{path}?limit=50"), admin).await.ok(200);
    assert_eq!(listed["secrets"].as_array().unwrap().len(), 50);
}
