//! The audit trail: what is on record, by filter, in pages, as a stream, verified.

use serde_json::json;
use store::{Actor, PageRequest, Role};

use crate::support::{World, person};

#[tokio::test]
async fn every_change_is_on_record_with_who_did_it() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let path = format!("/v1/vault/secret-sets/{}", granted.set_id);
    world
        .put(
            &path,
            &world.home.admin,
            json!({"entries": {"STRIPE_ACCOUNT_ID": "acct_0123456789abcdef"}}),
        )
        .await
        .ok(200);
    world
        .post(
            &format!("{path}/rollback"),
            &world.home.admin,
            json!({"version": 1}),
        )
        .await
        .ok(200);
    let (lease, _) = world
        .lease(&granted.agent, json!({"secret_set_id": granted.set_id}))
        .await;
    world
        .delete(&format!("/v1/vault/leases/{lease}"), &granted.agent)
        .await
        .ok(204);
    world
        .delete(
            &format!("/v1/vault/grants/{}", granted.grant_id),
            &world.home.admin,
        )
        .await
        .ok(204);
    world.delete(&path, &world.home.admin).await.ok(204);
    let events = world.events("").await;
    let actions: Vec<&str> = events
        .iter()
        .filter_map(|event| event["action"].as_str())
        .collect();
    for action in [
        "agent.create",
        "secret_set.create",
        "grant.create",
        "secret_set.update",
        "secret_set.rollback",
        "lease.mint",
        "lease.revoke",
        "grant.revoke",
        "secret_set.delete",
    ] {
        assert!(actions.contains(&action), "{action} in {actions:?}");
    }
    let minted = events
        .iter()
        .find(|event| event["action"] == "lease.mint")
        .unwrap();
    assert_eq!(minted["actor_type"], "agent");
    assert_eq!(minted["actor_id"], granted.agent_id.as_str());
    assert_eq!(minted["client_ip"], "192.0.2.7");
    assert_eq!(minted["request_id"].as_str().unwrap().len(), 36);
}

#[tokio::test]
async fn events_are_found_by_filter_under_both_names() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let (lease, _) = world
        .lease(&granted.agent, json!({"secret_set_id": granted.set_id}))
        .await;
    for name in ["/v1/audit/events", "/v1/vault/audit"] {
        let found = world
            .get(&format!("{name}?lease_id={lease}"), &world.home.admin)
            .await
            .ok(200);
        assert_eq!(found["events"][0]["action"], "lease.mint");
        let found = world
            .get(
                &format!(
                    "{name}?action=grant.create&secret_set_id={}&agent_id={}",
                    granted.set_id, granted.agent_id
                ),
                &world.home.admin,
            )
            .await
            .ok(200);
        assert_eq!(found["events"].as_array().unwrap().len(), 1);
        let found = world
            .get(
                &format!("{name}?from=2026-11-22T07:00:01Z"),
                &world.home.admin,
            )
            .await
            .ok(200);
        assert_eq!(found["events"], json!([]));
        let found = world
            .get(
                &format!("{name}?to=2026-11-22T06:59:59Z"),
                &world.home.admin,
            )
            .await
            .ok(200);
        assert_eq!(found["events"], json!([]));
    }
}

#[tokio::test]
async fn a_filter_that_does_not_exist_or_makes_no_sense_is_refused() {
    let world = World::new().await;
    world
        .get("/v1/audit/events?agentid=x", &world.home.admin)
        .await
        .refused(400, "unknown_field");
    for query in [
        "agent_id=x",
        "lease_id=%27",
        "from=yesterday",
        "limit=0",
        "limit=x",
        "cursor=../x",
    ] {
        world
            .get(&format!("/v1/audit/events?{query}"), &world.home.admin)
            .await
            .refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn events_come_in_pages_without_gap_or_repetition() {
    let world = World::new().await;
    for number in 0..7 {
        world
            .agent(&world.home.admin, &format!("bot-{number}"))
            .await;
    }
    let mut ids = std::collections::BTreeSet::new();
    let mut path = "/v1/audit/events?limit=3&action=agent.create".to_owned();
    loop {
        let page = world.get(&path, &world.home.admin).await.ok(200);
        for event in page["events"].as_array().unwrap() {
            assert!(ids.insert(event["id"].as_str().unwrap().to_owned()));
        }
        match page["next_cursor"].as_str() {
            Some(cursor) => {
                path = format!("/v1/audit/events?limit=3&action=agent.create&cursor={cursor}");
            }
            None => break,
        }
    }
    assert_eq!(ids.len(), 7);
}

#[tokio::test]
async fn another_organisation_sees_nothing_of_it() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let found = world
        .get(
            &format!("/v1/audit/events?agent_id={}", granted.agent_id),
            &world.other.admin,
        )
        .await
        .ok(200);
    assert_eq!(found["events"], json!([]));
    let all = world.get("/v1/audit/export", &world.other.admin).await;
    assert!(!all.text.contains(world.home.org.as_str()), "{}", all.text);
}

#[tokio::test]
async fn the_export_is_ndjson_and_the_chain_is_intact() {
    let world = World::new().await;
    world.granted(json!({})).await;
    let answer = world.get("/v1/audit/export", &world.home.admin).await;
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    assert!(answer.text.lines().count() >= 3 && answer.text.ends_with('\n'));
    let report = world
        .get("/v1/audit/verify", &world.home.admin)
        .await
        .ok(200);
    assert_eq!(report["intact"], true);
    assert_eq!(report["first_bad"], json!(null));
    assert!(
        report["streams"].to_string().contains("local/control"),
        "{report}"
    );
}

#[tokio::test]
async fn the_export_comes_as_csv_with_a_line_of_names() {
    let world = World::new().await;
    world.granted(json!({})).await;
    let answer = world
        .get("/v1/audit/export?format=csv", &world.home.admin)
        .await;
    assert!(
        answer.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/csv")
    );
    let mut lines = answer.text.split("\r\n");
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let at = names.iter().position(|name| *name == "action").unwrap();
    let actions: Vec<&str> = lines.filter_map(|line| line.split(',').nth(at)).collect();
    assert!(actions.contains(&"grant.create"), "{actions:?}");
    let known = world.events("").await;
    for field in known
        .iter()
        .flat_map(|event| event.as_object().unwrap().keys())
    {
        assert!(names.contains(&field.as_str()), "{field} has no column");
    }
    world
        .get("/v1/audit/export?format=xml", &world.home.admin)
        .await
        .refused(400, "invalid_request");
}

#[tokio::test]
async fn the_trail_is_followed_from_where_a_reader_was() {
    let world = World::new().await;
    let path = "/v1/audit/tail?action=agent.create";
    let mut feed = world.feed(path, &world.home.admin, None).await;
    let begun = feed.next().await.unwrap();
    assert!(begun.data.is_empty() && !begun.id.is_empty(), "{begun:?}");
    let (one, _) = world.agent(&world.home.admin, "first").await;
    let first = feed.event().await;
    assert_eq!(first.json()["agent_id"], one.as_str());
    drop(feed);
    let (two, _) = world.agent(&world.home.admin, "second").await;
    world.agent(&world.other.admin, "elsewhere").await;
    let mut feed = world.feed(path, &world.home.admin, Some(&first.id)).await;
    assert_eq!(feed.event().await.json()["agent_id"], two.as_str());
    let (three, _) = world.agent(&world.home.admin, "third").await;
    let next = feed.event().await.json();
    assert_eq!(
        next["agent_id"],
        three.as_str(),
        "nothing of another organisation"
    );
}

#[tokio::test]
async fn a_feed_is_filtered_and_ends_with_the_key_that_opened_it() {
    let world = World::new().await;
    let auditor = person(&world.store, &world.home.org, "auditor", Role::Auditor).await;
    let mut feed = world
        .feed("/v1/audit/tail?action=grant.create", &auditor, None)
        .await;
    world.granted(json!({})).await;
    assert_eq!(feed.event().await.json()["action"], "grant.create");
    let people = world
        .store
        .users()
        .list(&world.home.org, &PageRequest::default())
        .await
        .unwrap();
    let auditor = people
        .items
        .iter()
        .find(|user| user.name == "auditor")
        .unwrap();
    let (users, system) = (world.store.users(), Actor::system("test"));
    let revoked = users.revoke_keys(&world.home.org, &auditor.id, &system);
    assert!(revoked.await.unwrap());
    assert!(feed.next().await.is_none());
}

#[tokio::test]
async fn a_feed_from_nowhere_or_for_an_agent_is_refused() {
    let world = World::new().await;
    let (_, agent) = world.agent(&world.home.admin, "bot").await;
    world
        .get("/v1/audit/tail", &agent)
        .await
        .refused(403, "forbidden");
    world
        .get("/v1/audit/tail?cursor=x", &world.home.admin)
        .await
        .refused(400, "invalid_request");
}

/// As the seeds' clients ask and read: by actor and resource, in pages by `offset`.
#[tokio::test]
async fn events_are_found_by_actor_and_by_resource() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    world
        .lease(&granted.agent, json!({"secret_set_id": granted.set_id}))
        .await;
    let find = async |query: &str| {
        let path = format!("/v1/audit/events?{query}");
        world.get(&path, &world.home.admin).await.ok(200)
    };
    let of_agent = find(&format!("actor_id={}&action=lease.mint", granted.agent_id)).await;
    assert_eq!(of_agent["count"], 1);
    let event = &of_agent["events"][0];
    assert_eq!(event["resource_type"], "lease");
    assert_eq!(event["resource_id"], event["lease_id"]);
    assert_eq!(event["details"]["decision"], "allow");
    assert!(event.as_object().unwrap().contains_key("ip_address"));
    let of_grant = find(&format!("resource_id={}", granted.grant_id)).await;
    let actions: Vec<&str> = of_grant["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["lease.mint", "grant.create"]);
    let second = find(&format!("resource_id={}&offset=1", granted.grant_id)).await;
    assert_eq!(second["events"][0]["action"], "grant.create");
    assert_eq!(
        find(&format!("resource_id={}&offset=2", granted.grant_id)).await["count"],
        0
    );
    assert_eq!(find("actor_id=%25").await["count"], 0, "no wildcard");
    for query in ["resource_id=x", "offset=10001", "offset=-1"] {
        let path = format!("/v1/audit/events?{query}");
        world
            .get(&path, &world.home.admin)
            .await
            .refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_verification_says_what_the_seeds_clients_read() {
    let world = World::new().await;
    world.agent(&world.home.admin, "bot").await;
    let path = "/v1/audit/verify?from=2026-01-01T00:00:00Z&limit=1000";
    let answer = world.get(path, &world.home.admin).await.ok(200);
    assert_eq!(answer["chain_valid"], true);
    assert_eq!(answer["events_verified"], answer["events_checked"]);
    assert!(answer["events_checked"].as_u64().unwrap() > 0);
    assert_eq!(answer["broken_at_event_id"], json!(null));
    assert_eq!(answer["scheme"]["link_field"], "prev_hash");
    world
        .get("/v1/audit/verify?form=x", &world.home.admin)
        .await
        .refused(400, "unknown_field");
}
