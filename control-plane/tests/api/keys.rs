//! Keys of the service, rotation of KEKs, and moves between key providers, while traffic goes on.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::leases::clock::{Clock, ManualClock, SystemClock};
use ::leases::token::PresentedToken;
use ::leases::verify::verify;
use control_plane::{
    CaKey, ControlPlane, InjectorKeysError, KeyChest, NewKey, Signers, Start, VerifyingRing,
    bootstrap, injector_keys,
};
use serde_json::{Value, json};
use store::{Location, Role, Store, StoreOptions};
use test_postgres::Server;
use tokio::sync::{Notify, watch};
use vault::envelope::Envelope;
use vault::keys::pkcs11::softhsm::{CONF_VARIABLE, SoftHsm};
use vault::{KekId, KeyWrapper, Pkcs11Keys, Providers, RowBinding, Secret, Vault};

use crate::doubles::{Distant, HeldUp, MemorySigner, PaperCa, WrapOnly};
use crate::support::{Base, CANARY, START, Setup, Who, World, open, person, software};

/// Makes two tests of each story: on a file, and on Postgres.
macro_rules! on_both {
    ($($story:ident),* $(,)?) => {
        mod on_file {
            $(#[tokio::test]
            async fn $story() {
                super::$story(crate::support::Base::File).await;
            })*
        }

        mod on_postgres {
            $(#[tokio::test]
            async fn $story() {
                super::$story(crate::support::Base::Postgres).await;
            })*
        }
    };
}

on_both! {
    a_worker_that_is_cut_off_anywhere_goes_on_where_it_was,
    two_control_planes_do_it_once_and_readers_never_wait,
    an_installation_moves_to_another_provider_and_back,
    many_control_planes_that_start_at_once_make_one_of_each,
}

/// Stores this many sets, each with the canary.
async fn fill(world: &World, sets: usize) {
    for number in 0..sets {
        world
            .stripe_set(&world.home.admin, &format!("set-{number}"))
            .await;
    }
}

/// Opens every seal of the home organisation as an injector would, and gives the versions and KEKs that wrap.
async fn open_all(world: &World, vault: &Vault) -> BTreeSet<(String, u64)> {
    let id = world.chest.vault_id();
    let mut found = BTreeSet::new();
    let mut after = None;
    loop {
        let seals = world.store.seals();
        let rows = seals.page(&world.home.org, id, after.as_ref(), 200).await;
        let rows = rows.unwrap();
        let Some(last) = rows.last() else {
            return found;
        };
        after = Some(last.seal.clone());
        for row in rows {
            let binding = RowBinding {
                org: row.seal.org.as_str(),
                vault: row.seal.vault.as_str(),
                path: &row.seal.path,
                version: row.seal.version,
            };
            let opened = vault.open(&row.sealed, &binding).await.unwrap();
            if !row.seal.path.starts_with("__keys/") {
                assert_eq!(opened.expose_str(), Some(CANARY));
            }
            let envelope = Envelope::decode(&row.sealed).unwrap();
            let version = vault.wrapper().wrapped_version(envelope.wrapped_dek());
            found.insert((envelope.kek().to_string(), version.unwrap()));
        }
    }
}

async fn rotation(world: &World, id: &str) -> Value {
    let path = format!("/v1/keys/rotations/{id}");
    world.get(&path, &world.home.admin).await.ok(200)
}

/// Runs a plane's background work until the rotation is done.
async fn work_until_done(world: &World, id: &str) {
    let (_stop, stopped) = watch::channel(false);
    let _tasks = ControlPlane::start(&world.state, &stopped);
    wait_until_done(world, id).await;
}

async fn wait_until_done(world: &World, id: &str) {
    let done = async {
        while rotation(world, id).await["state"] == "running" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), done)
        .await
        .expect("a rotation ends");
}

async fn rotate(world: &World, body: Value) -> String {
    let answer = world.post("/v1/keys/rotate", &world.home.admin, body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.field("/rotation/id")
}

async fn actions(world: &World) -> Vec<String> {
    let events = world.events("").await;
    let action = |event: &Value| event["action"].as_str().unwrap().to_owned();
    events.iter().map(action).collect()
}

#[tokio::test]
async fn a_rotation_wraps_everything_anew_and_tells_how_far_it_is() {
    let world = World::new().await;
    fill(&world, 40).await;
    let before = world.get("/v1/keys", &world.home.admin).await.ok(200);
    assert_eq!(before["vaults"][0]["provider"], "software");
    assert_eq!(before["vaults"][0]["current"], 1);
    assert_eq!(before["vaults"][0]["rotation"], Value::Null);

    let id = rotate(&world, json!({"vault": "default"})).await;
    let running = world.get("/v1/keys", &world.home.admin).await.ok(200);
    assert_eq!(running["vaults"][0]["rotation"]["id"], id.as_str());
    world
        .post("/v1/keys/rotate", &world.home.admin, json!({}))
        .await
        .refused(409, "rotation_running");
    work_until_done(&world, &id).await;

    let kek = before["vaults"][0]["kek"].as_str().unwrap().to_owned();
    assert_eq!(
        open_all(&world, &world.vault).await,
        BTreeSet::from([(kek, 2)])
    );
    let after = world.get("/v1/keys", &world.home.admin).await.ok(200);
    assert_eq!(after["vaults"][0]["current"], 2);
    assert_eq!(after["vaults"][0]["versions"].as_array().unwrap().len(), 2);
    assert_eq!(after["rotations"][0]["state"], "done");
    assert!(after["rotations"][0]["total"].as_u64().unwrap() >= 40);
    let actions = actions(&world).await;
    let begin = actions.iter().rposition(|action| action == "key.rotate");
    let end = actions.iter().rposition(|action| action == "key.rotated");
    assert!(begin.unwrap() < end.unwrap(), "{actions:?}");
}

async fn a_worker_that_is_cut_off_anywhere_goes_on_where_it_was(base: Base) {
    let world = World::of(Setup {
        base,
        ..Setup::default()
    })
    .await;
    fill(&world, 200).await;
    let id = rotate(&world, json!({})).await;
    let (_stop, stopped) = watch::channel(false);
    let mut cuts = 0;
    // Each worker lives a little longer than the one before, so the cuts fall at ever other points.
    while rotation(&world, &id).await["state"] != "done" {
        let tasks = ControlPlane::start(&world.state, &stopped);
        tokio::time::sleep(Duration::from_micros(5_000 + 731 * cuts)).await;
        drop(tasks);
        cuts += 1;
        assert!(cuts < 2_000, "{}", rotation(&world, &id).await);
    }
    assert!(cuts > 1, "at least one worker was cut off");
    let found = open_all(&world, &world.vault).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found.first().unwrap().1, 2);
}

async fn two_control_planes_do_it_once_and_readers_never_wait(base: Base) {
    let world = Arc::new(
        World::of(Setup {
            base,
            ..Setup::default()
        })
        .await,
    );
    fill(&world, 120).await;
    let second = world
        .plane(&world.vault, Signers::default(), Vec::new())
        .await;
    let (_stop, stopped) = watch::channel(false);
    let _one = ControlPlane::start(&world.state, &stopped);
    let _two = ControlPlane::start(&second.state, &stopped);
    let reading = Arc::new(AtomicBool::new(true));
    let reads = Arc::new(AtomicU64::new(0));
    let reader = tokio::spawn({
        let (world, reading, reads) =
            (Arc::clone(&world), Arc::clone(&reading), Arc::clone(&reads));
        async move {
            while reading.load(Ordering::SeqCst) {
                open_all(&world, &world.vault).await;
                reads.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    for version in 2..=4 {
        let id = rotate(&world, json!({})).await;
        // Written while it runs: by the old version or the new one.
        world
            .stripe_set(&world.home.admin, &format!("late-{version}"))
            .await;
        wait_until_done(&world, &id).await;
        let found = open_all(&world, &world.vault).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found.first().unwrap().1, version);
    }
    reading.store(false, Ordering::SeqCst);
    reader.await.expect("every read succeeds");
    assert!(reads.load(Ordering::SeqCst) > 0);
    let ended = actions(&world).await;
    let ended = ended.iter().filter(|action| *action == "key.rotated");
    assert_eq!(ended.count(), 3, "each ends once");
}

#[tokio::test]
async fn a_rotation_waits_for_a_provider_that_is_away() {
    let distant = Distant::new("gcp-kms");
    let world = World::of(Setup {
        wrapper: Some(Arc::<Distant>::clone(&distant)),
        ..Setup::default()
    })
    .await;
    fill(&world, 20).await;
    let id = rotate(&world, json!({})).await;
    distant.away.store(true, Ordering::SeqCst);
    let (_stop, stopped) = watch::channel(false);
    let _tasks = ControlPlane::start(&world.state, &stopped);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rotation(&world, &id).await["done"], 0);
    let keys = world.get("/v1/keys", &world.home.admin).await.ok(200);
    assert!(keys["vaults"][0]["error"].is_string());
    distant.away.store(false, Ordering::SeqCst);
    wait_until_done(&world, &id).await;
    open_all(&world, &world.vault).await;
}

#[tokio::test]
async fn a_rotation_does_not_end_where_nothing_opens() {
    let distant = Distant::new("gcp-kms");
    let world = World::of(Setup {
        wrapper: Some(Arc::<Distant>::clone(&distant)),
        ..Setup::default()
    })
    .await;
    fill(&world, 20).await;
    let id = rotate(&world, json!({})).await;
    distant.forget();
    let (_stop, stopped) = watch::channel(false);
    let _tasks = ControlPlane::start(&world.state, &stopped);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let stands = rotation(&world, &id).await;
    assert_eq!(
        (&stands["state"], &stands["done"]),
        (&json!("running"), &json!(0))
    );
}

#[tokio::test]
async fn a_plane_that_took_over_waits_until_it_knows_the_new_version() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let world = World::of(Setup {
        wrapper: Some(software(&keys)),
        ..Setup::default()
    })
    .await;
    fill(&world, 10).await;
    let other = Vault::new(software(&keys));
    let second = world.plane(&other, Signers::default(), Vec::new()).await;
    // The plane that was asked does nothing more.
    let id = rotate(&world, json!({})).await;
    let (_stop, stopped) = watch::channel(false);
    let _tasks = ControlPlane::start(&second.state, &stopped);
    wait_until_done(&world, &id).await;
    assert_eq!(rotation(&world, &id).await["state"], "done");
    let found = open_all(&world, &world.vault).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found.first().unwrap().1, 2);
}

/// The KEK and version under which the first value of this set lies.
async fn lies_under(world: &World, set: &str) -> (String, u64) {
    let seals = world.store.seals();
    let id = world.chest.vault_id();
    let rows = seals.page(&world.home.org, id, None, 200).await.unwrap();
    let prefix = format!("stripe/prod/{set}/");
    let row = rows.iter().find(|row| row.seal.path.starts_with(&prefix));
    let sealed = &row.expect("the set is there").sealed;
    let envelope = Envelope::decode(sealed).unwrap();
    let version = world.vault.kek_version(sealed).unwrap();
    (envelope.kek().to_string(), version)
}

#[tokio::test]
async fn a_write_that_was_sealed_before_the_key_changed_is_sealed_anew() {
    let dir = tempfile::tempdir().unwrap();
    let held = Arc::new(HeldUp {
        inner: software(&dir.path().join("keys")),
        hold: Mutex::default(),
        waits: Notify::new(),
        go_on: Notify::new(),
    });
    let world = World::of(Setup {
        wrapper: Some(Arc::<HeldUp>::clone(&held)),
        ..Setup::default()
    })
    .await;
    let org = &world.home.org;
    let vault = world.store.vaults().default_vault(org).await.unwrap();
    let vault = vault.unwrap();
    let old = KekId::parse(&vault.kek_id).unwrap();
    let new = held.create_kek("elsewhere").await.unwrap();
    let actor = store::Actor::system("test");
    let admin = &world.home.admin;

    *held.hold.lock().unwrap() = Some(old.clone());
    let (_, ()) = tokio::join!(world.stripe_set(admin, "late"), async {
        held.waits.notified().await;
        let vaults = world.store.vaults();
        let moved = vaults.set_kek(org, &vault.id, new.as_str(), &actor).await;
        assert!(moved.unwrap());
        held.go_on.notify_one();
    });
    assert_eq!(lies_under(&world, "late").await, (new.to_string(), 1));

    // The same of a key of the service.
    *held.hold.lock().unwrap() = Some(new.clone());
    let key = |_| NewKey {
        secret: Secret::from("17".to_owned()),
        public: Vec::new(),
    };
    let (made, ()) = tokio::join!(world.chest.rotate("late", key, &actor), async {
        held.waits.notified().await;
        let vaults = world.store.vaults();
        let moved = vaults.set_kek(org, &vault.id, old.as_str(), &actor).await;
        assert!(moved.unwrap());
        held.go_on.notify_one();
    });
    assert_eq!(made.unwrap().version, 1);
    let row = world.store.sealed_keys().current(org, "late").await;
    let sealed = row.unwrap().unwrap().sealed;
    assert_eq!(*Envelope::decode(&sealed).unwrap().kek(), old);
}

#[tokio::test]
async fn what_an_older_version_sealed_beside_a_newer_one_is_sealed_again() {
    let dir = tempfile::tempdir().unwrap();
    let held = Arc::new(HeldUp {
        inner: software(&dir.path().join("keys")),
        hold: Mutex::default(),
        waits: Notify::new(),
        go_on: Notify::new(),
    });
    let world = World::of(Setup {
        wrapper: Some(Arc::<HeldUp>::clone(&held)),
        ..Setup::default()
    })
    .await;
    let kek = world.store.vaults().default_vault(&world.home.org).await;
    let kek = KekId::parse(&kek.unwrap().unwrap().kek_id).unwrap();
    *held.hold.lock().unwrap() = Some(kek.clone());
    // More keys than are sealed at once: the first waits, and the last ones come after the rotation.
    let mut entries = json!({"STRIPE_SECRET_KEY": CANARY});
    for number in 0..12 {
        entries[format!("KEY_{number}")] = json!(CANARY);
    }
    let body =
        json!({"provider": "stripe", "environment": "prod", "name": "long", "entries": entries});
    let asked = world.post("/v1/vault/secret-sets", &world.home.admin, body);
    let (answer, ()) = tokio::join!(asked, async {
        held.waits.notified().await;
        assert_eq!(held.rotate_kek(&kek).await.unwrap(), 2);
        held.go_on.notify_one();
    });
    answer.ok(201);
    let seals = world.store.seals();
    let id = world.chest.vault_id();
    let rows = seals.page(&world.home.org, id, None, 200).await.unwrap();
    let set = rows.iter().filter(|row| row.seal.path.contains("/long/"));
    let versions: Vec<_> = set
        .map(|row| world.vault.kek_version(&row.sealed))
        .collect();
    assert_eq!(versions, vec![Some(2); 13]);
}

#[tokio::test]
async fn a_seal_that_was_altered_holds_up_no_rotation_and_stays_unreadable() {
    let world = World::new().await;
    fill(&world, 3).await;
    let seals = world.store.seals();
    let page = seals.page(&world.home.org, world.chest.vault_id(), None, 2);
    let rows = page.await.unwrap();
    // One row gets another's bytes.
    let swap = store::seals::Swap {
        seal: rows[0].seal.clone(),
        old: rows[0].sealed.clone(),
        new: rows[1].sealed.clone(),
    };
    assert_eq!(seals.swap(&[swap]).await.unwrap(), 1);
    let id = rotate(&world, json!({})).await;
    let (_stop, stopped) = watch::channel(false);
    let _tasks = ControlPlane::start(&world.state, &stopped);
    wait_until_done(&world, &id).await;
    let ended = rotation(&world, &id).await;
    assert_eq!(ended["state"], "incomplete");
    assert_eq!(ended["skipped"], 1);
    let events = actions(&world).await;
    assert!(events.contains(&"key.rotated_in_part".to_owned()));
    // The gauges follow what the database says.
    let counted = async {
        let metrics = async || world.get("/metrics", &world.home.admin).await.text;
        while !metrics().await.contains("rotation_skipped 1") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), counted)
        .await
        .expect("the skipped seal is counted");
    let after = seals.page(&world.home.org, world.chest.vault_id(), None, 2);
    assert_eq!(after.await.unwrap()[0].sealed, rows[1].sealed);
}

async fn an_installation_moves_to_another_provider_and_back(base: Base) {
    let dir = tempfile::tempdir().unwrap();
    let local = software(&dir.path().join("keys"));
    let signer = MemorySigner::new("gcp-kms");
    let mut world = World::of(Setup {
        base,
        wrapper: Some(Arc::clone(&local)),
        ..Setup::default()
    })
    .await;
    fill(&world, 30).await;
    let granted = world.granted(json!({})).await;
    let lease = json!({"secret_set_id": granted.set_id});
    let (_, token) = world.lease(&granted.agent, lease.clone()).await;
    let old = PresentedToken::parse(&token).unwrap();

    // The server was not told of the other provider.
    world
        .post(
            "/v1/keys/migrate",
            &world.home.admin,
            json!({"to": "gcp-kms"}),
        )
        .await
        .refused(409, "provider_not_configured");
    for (to, status, code) in [
        ("hsm", 400, "invalid_request"),
        ("software", 409, "conflict"),
    ] {
        world
            .post("/v1/keys/migrate", &world.home.admin, json!({"to": to}))
            .await
            .refused(status, code);
    }

    let distant = Distant::new("gcp-kms");
    let both = Providers::new(Arc::<Distant>::clone(&distant), vec![Arc::clone(&local)]);
    let both = Vault::new(Arc::new(both));
    let signers = Signers::new(Some(Arc::<MemorySigner>::clone(&signer)), Vec::new());
    let plane = world.plane(&both, signers, Vec::new()).await;
    world.through(&plane);
    let answer = world
        .post(
            "/v1/keys/migrate",
            &world.home.admin,
            json!({"to": "gcp-kms"}),
        )
        .await;
    let id = answer.field("/rotation/id");
    work_until_done(&world, &id).await;
    world.stripe_set(&world.home.admin, "after").await;

    // All of it opens without the old provider.
    let alone = Vault::new(Arc::<Distant>::clone(&distant));
    let found = open_all(&world, &alone).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found.first().unwrap().0.starts_with("gcp-kms:"));
    assert_eq!(
        signer.names(),
        [("jwt".to_owned(), 2), ("lease-root".to_owned(), 2)]
    );
    verify(&old, &plane.keys.public()).unwrap();
    world.clock.advance(control_plane::keys::OVERLAP);
    world.follow().await;
    let (_, token) = world.lease(&granted.agent, lease).await;
    verify(
        &PresentedToken::parse(&token).unwrap(),
        &plane.keys.public(),
    )
    .unwrap();
    let keys = world.get("/v1/keys", &world.home.admin).await.ok(200);
    let signing = keys["signing_keys"].as_array().unwrap();
    let now = signing.iter().filter(|key| key["signs"] == true);
    assert!(now.clone().count() == 2);
    assert!(
        now.into_iter().all(|key| key["where"] == "gcp-kms"),
        "{keys}"
    );

    // And back.
    let both = Providers::new(
        Arc::clone(&local),
        vec![Arc::<Distant>::clone(&distant) as _],
    );
    let signers = Signers::new(None, vec![Arc::<MemorySigner>::clone(&signer) as _]);
    let plane = world
        .plane(&Vault::new(Arc::new(both)), signers, Vec::new())
        .await;
    world.through(&plane);
    let answer = world
        .post(
            "/v1/keys/migrate",
            &world.home.admin,
            json!({"to": "software"}),
        )
        .await;
    work_until_done(&world, &answer.field("/rotation/id")).await;
    let found = open_all(&world, &Vault::new(local)).await;
    assert!(
        found.first().unwrap().0.starts_with("software:"),
        "{found:?}"
    );
}

#[tokio::test]
async fn signing_keys_live_in_a_provider_that_signs() {
    let signer = MemorySigner::new("pkcs11");
    let world = World::of(Setup {
        signers: Signers::new(Some(Arc::<MemorySigner>::clone(&signer)), Vec::new()),
        ..Setup::default()
    })
    .await;
    assert_eq!(
        signer.names(),
        [("jwt".to_owned(), 1), ("lease-root".to_owned(), 1)]
    );
    let granted = world.granted(json!({})).await;
    let (_, token) = world
        .lease(&granted.agent, json!({"secret_set_id": granted.set_id}))
        .await;
    // An injector knows the public half, without the signer and without the private one.
    let ring = VerifyingRing::load(&world.chest, START).await.unwrap();
    verify(&PresentedToken::parse(&token).unwrap(), &ring.public()).unwrap();
    let key = granted.agent.0.clone();
    let jwt = world
        .post("/v1/auth/agent-token", &Who(None), json!({"api_key": key}))
        .await
        .field("/access_token");
    world.get("/v1/vault/leases", &Who(Some(jwt))).await.ok(200);
    let rows = world.store.sealed_keys();
    for name in ["lease-root", "jwt"] {
        let row = rows.current(&world.home.org, name).await.unwrap().unwrap();
        assert!(row.public.starts_with(b"pkcs11:"), "{name}");
    }
}

#[tokio::test]
async fn a_provider_that_lost_its_signing_keys_is_found_out() {
    let signer = MemorySigner::new("pkcs11");
    let signers = Signers::new(Some(Arc::<MemorySigner>::clone(&signer)), Vec::new());
    let world = World::of(Setup {
        signers: signers.clone(),
        ..Setup::default()
    })
    .await;
    signer.forget();
    let clock = ManualClock::new(START);
    for (signers, expected) in [
        (signers, "another key"),
        (Signers::default(), "lives in the key provider pkcs11"),
    ] {
        let error = bootstrap(&Start {
            store: &world.store,
            vault: &world.vault,
            clock: &clock,
            signers,
            node: "local",
        })
        .await
        .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn keys_of_the_service_rotate_on_request() {
    let world = World::new().await;
    let (_, agent) = world.agent(&world.home.admin, "bot").await;
    let jwt = async || {
        let body = json!({"api_key": agent.0.clone()});
        world.post("/v1/auth/agent-token", &Who(None), body).await
    };
    let first = jwt().await.field("/access_token");
    for key in ["lease-root", "jwt"] {
        let rotated = world
            .post("/v1/keys/rotate", &world.home.admin, json!({"key": key}))
            .await
            .ok(202);
        assert_eq!(rotated["key"]["version"], 2);
        assert_eq!(rotated["key"]["signs_from"], "2026-11-22T07:00:30.000Z");
    }
    world.clock.advance(control_plane::keys::OVERLAP);
    world.follow().await;
    let second = jwt().await.field("/access_token");
    for token in [&first, &second] {
        world
            .get("/v1/vault/leases", &Who(Some(token.clone())))
            .await
            .ok(200);
    }
    world.clock.advance(Duration::from_mins(14));
    world.follow().await;
    world
        .get("/v1/vault/leases", &Who(Some(first.clone())))
        .await
        .ok(200);
    world.clock.advance(Duration::from_mins(1));
    world
        .get("/v1/vault/leases", &Who(Some(first)))
        .await
        .refused(401, "unauthenticated");
}

#[tokio::test]
async fn keys_are_for_admins_and_the_services_own_for_its_organisation() {
    let world = World::new().await;
    let member = person(&world.store, &world.home.org, "member", Role::Member).await;
    world
        .post("/v1/keys/rotate", &member, json!({}))
        .await
        .refused(403, "forbidden");
    world
        .post("/v1/keys/migrate", &member, json!({"to": "software"}))
        .await
        .refused(403, "forbidden");
    let other = &world.other.admin;
    world
        .post("/v1/keys/rotate", other, json!({"key": "lease-root"}))
        .await
        .refused(403, "forbidden");
    let theirs = world.get("/v1/keys", other).await.ok(200);
    assert_eq!(theirs["signing_keys"], json!([]));
    let id = rotate(&world, json!({})).await;
    world
        .get(&format!("/v1/keys/rotations/{id}"), other)
        .await
        .refused(404, "not_found");
    for body in [
        json!({"key": "x"}),
        json!({"key": "ca", "vault": "default"}),
    ] {
        world
            .post("/v1/keys/rotate", &world.home.admin, body)
            .await
            .refused(400, "invalid_request");
    }
    world
        .post(
            "/v1/keys/rotate",
            &world.home.admin,
            json!({"vault": "none"}),
        )
        .await
        .refused(404, "not_found");
}

#[tokio::test]
async fn a_public_half_that_was_planted_is_not_taken() {
    let world = World::new().await;
    let keys = world.store.sealed_keys();
    let name = "lease-root-public";
    let real = keys.current(&world.home.org, name).await.unwrap().unwrap();
    // Whoever can write the database alone has only seals of other rows.
    let planted = store::NewSealedKey {
        kek_id: None,
        name: name.to_owned(),
        version: 2,
        sealed: real.sealed,
        public: vec![7; 32],
    };
    keys.put(&world.home.org, planted, &store::Actor::system("test"))
        .await
        .unwrap();
    assert!(ControlPlane::follow_once(&world.state).await.is_err());
    assert!(VerifyingRing::load(&world.chest, START).await.is_err());
    assert!(world.keys.public().get(2).is_none());
}

async fn many_control_planes_that_start_at_once_make_one_of_each(base: Base) {
    let dir = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let database = matches!(base, Base::Postgres).then(|| Server::shared().database());
    let location = match &database {
        None => Location::Sqlite(dir.path().join("claviger.db")),
        Some(database) => Location::parse(&database.url()).unwrap(),
    };
    let first = open(location.clone(), dir.path(), "node-0", &clock).await;
    let mut nodes = vec![first.clone()];
    for number in 1..8 {
        nodes.push(match base {
            Base::File => first.clone(),
            Base::Postgres => {
                let node = format!("node-{number}");
                open(location.clone(), dir.path(), &node, &clock).await
            }
        });
    }
    let vault = Vault::new(software(&dir.path().join("keys")));
    let signer = MemorySigner::new("pkcs11");
    let starts = (0..).zip(nodes).map(|(number, store)| {
        let (vault, clock) = (vault.clone(), Arc::clone(&clock));
        let signers = Signers::new(Some(Arc::<MemorySigner>::clone(&signer)), Vec::new());
        tokio::spawn(async move {
            let node = format!("node-{number}");
            let start = Start {
                store: &store,
                vault: &vault,
                clock: clock.as_ref(),
                signers,
                node: &node,
            };
            bootstrap(&start).await.unwrap()
        })
    });
    let made: Vec<_> = futures::future::join_all(starts)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let orgs: BTreeSet<String> = made.iter().map(|one| one.org.to_string()).collect();
    assert_eq!(orgs.len(), 1);
    let admins = made.iter().filter(|one| one.admin_key.is_some());
    assert_eq!(admins.count(), 1);
    let org = &made[0].org;
    assert_eq!(first.vaults().list(org).await.unwrap().len(), 1);
    assert_eq!(signer.names().len(), 2);
    for name in ["lease-root", "lease-root-public", "jwt", "jwt-public"] {
        let versions = first.sealed_keys().versions(org, name).await.unwrap();
        assert_eq!(versions.len(), 1, "{name}");
    }
    // Each node signs the heads of its own streams.
    let heads: BTreeSet<[u8; 32]> = made.iter().map(|one| one.checkpoints.public()).collect();
    assert_eq!(heads.len(), 8);
    assert_eq!(
        std::fs::read_dir(dir.path().join("keys")).unwrap().count(),
        1
    );
}

#[tokio::test]
async fn an_injector_makes_nothing_and_says_what_it_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let clock: Arc<ManualClock> = Arc::new(ManualClock::new(START));
    let options = StoreOptions::new(dir.path().join("claviger.db"), Arc::clone(&clock) as _);
    let store = Store::open(options).await.unwrap();
    let vault = Vault::new(software(&dir.path().join("keys")));
    let start = Start {
        store: &store,
        vault: &vault,
        clock: clock.as_ref(),
        signers: Signers::default(),
        node: "injector-1",
    };
    let refused = injector_keys(&start).await.unwrap_err();
    assert!(
        matches!(refused, InjectorKeysError::NotMade { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("start a control plane"));
    assert!(store.orgs().first().await.unwrap().is_none());
    let made = bootstrap(&start).await.unwrap();
    // Its keys are there, its certificate authority not yet.
    let refused = injector_keys(&start).await.unwrap_err();
    assert!(refused.to_string().contains("`ca`"), "{refused}");
    assert_eq!(made.keys.minting_version(), 1);
}

#[tokio::test]
async fn a_new_certificate_authority_is_trusted_a_day_before_it_signs() {
    let world = World::new().await;
    let first = CaKey::load_or_create(&world.chest, &PaperCa, START).await;
    let first = first.unwrap();
    let again = CaKey::load_or_create(&world.chest, &PaperCa, START).await;
    assert_eq!(again.unwrap().certificate_pem, first.certificate_pem);
    let rotated = world
        .post("/v1/keys/rotate", &world.home.admin, json!({"key": "ca"}))
        .await
        .ok(202);
    assert_eq!(rotated["key"]["version"], 2);
    world.follow().await;
    let trusted = world.get("/v1/ca.pem", &Who(None)).await.text;
    assert!(trusted.ends_with(&first.certificate_pem), "{trusted}");
    assert_eq!(trusted.lines().count(), 2, "{trusted}");
    let now = world.clock.now();
    let signs = CaKey::load(&world.chest, now).await.unwrap();
    assert_eq!(signs.version, 1);
    let later = CaKey::load(&world.chest, now + control_plane::CA_OVERLAP).await;
    let later = later.unwrap();
    assert_eq!(later.version, 2);
    assert!(trusted.starts_with(&later.certificate_pem));
    // An injector that runs takes it up then, and not before.
    let taken_up = async |at| CaKey::other_than(1, &world.chest, at).await.unwrap();
    assert!(taken_up(now).await.is_none());
    let at_its_time = taken_up(now + control_plane::CA_OVERLAP).await.unwrap();
    assert_eq!(at_its_time.version, 2);
    // An installation of before has no published certificate: it is published if it is its key's.
    let other = KeyChest::of(&world.store, &world.vault, &world.other.org).await;
    let other = other.unwrap();
    for (number, good) in [(1, true), (2, false)] {
        let key = |_| NewKey {
            secret: Secret::from("17".to_owned()),
            public: if good {
                b"certificate 17\n".to_vec()
            } else {
                b"planted\n".to_vec()
            },
        };
        let actor = store::Actor::system("test");
        let row = other.rotate("ca", key, &actor).await.unwrap();
        assert_eq!(row.version, number);
        let loaded = CaKey::load_or_create(&other, &PaperCa, START).await;
        assert_eq!(loaded.is_ok(), good, "{loaded:?}");
    }
}

#[tokio::test]
async fn an_authority_that_was_not_published_holds_up_no_later_one() {
    let world = World::new().await;
    let actor = store::Actor::system("test");
    let half_done = |secret: &'static str| {
        move |_| NewKey {
            secret: Secret::from(secret.to_owned()),
            public: format!("certificate {secret}\n").into_bytes(),
        }
    };
    let published = async |chest: &KeyChest| {
        let keys = world.store.sealed_keys();
        let rows = keys.versions(chest.org(), "ca-public").await.unwrap();
        rows.iter().map(|row| row.version).collect::<Vec<_>>()
    };
    // Where it can be opened, the next call publishes it.
    let chest = &world.chest;
    CaKey::load_or_create(chest, &PaperCa, START).await.unwrap();
    chest.rotate("ca", half_done("18"), &actor).await.unwrap();
    let rotated = world
        .post("/v1/keys/rotate", &world.home.admin, json!({"key": "ca"}))
        .await
        .ok(202);
    assert_eq!(rotated["key"]["version"], 3);
    assert_eq!(published(chest).await, [3, 2, 1]);
    let later = CaKey::load(chest, START + control_plane::CA_OVERLAP).await;
    assert_eq!(later.unwrap().version, 3);

    // Where it cannot, the start goes on all the same, and makes one if there is none to start with.
    let limited = Vault::new(Arc::new(WrapOnly(Arc::clone(world.vault.wrapper()))));
    let org = &world.other.org;
    let limited = KeyChest::of(&world.store, &limited, org).await.unwrap();
    let other = KeyChest::of(&world.store, &world.vault, org).await.unwrap();
    other.rotate("ca", half_done("19"), &actor).await.unwrap();
    control_plane::ensure_ca(&limited, &PaperCa, START)
        .await
        .unwrap();
    assert_eq!(published(&other).await, [2]);
    assert_eq!(CaKey::load(&other, START).await.unwrap().version, 2);
    other.rotate("ca", half_done("20"), &actor).await.unwrap();
    control_plane::ensure_ca(&limited, &PaperCa, START)
        .await
        .unwrap();
    assert_eq!(published(&other).await, [2]);
}

/// With a real token: `SoftHSM` reads its configuration's place from the environment, so the story has a process of its own.
#[test]
fn an_installation_moves_into_a_token() {
    const ROOM: &str = "CLAVIGER_TEST_ROOM";
    if let Some(room) = std::env::var_os(ROOM) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let room = std::path::PathBuf::from(room);
        runtime.block_on(move_into_a_token(&room));
        std::fs::write(room.join("done"), "").unwrap();
        return;
    }
    let room = tempfile::tempdir().unwrap();
    let hsm = SoftHsm::prepare(room.path()).expect("SoftHSM2 is installed");
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "keys::an_installation_moves_into_a_token",
            "--nocapture",
        ])
        .env(ROOM, room.path())
        .env(CONF_VARIABLE, hsm.conf())
        .output()
        .unwrap();
    assert!(
        output.status.success() && room.path().join("done").exists(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn move_into_a_token(room: &Path) {
    let options = SoftHsm::prepare(room).unwrap().initialise().unwrap();
    let token = Pkcs11Keys::open(options).await.unwrap();
    let signer = token.signer().expect("SoftHSM signs Ed25519");
    let local = software(&room.join("keys"));
    let mut world = World::of(Setup {
        wrapper: Some(Arc::clone(&local)),
        ..Setup::default()
    })
    .await;
    fill(&world, 25).await;
    let granted = world.granted(json!({})).await;
    let both = Providers::new(Arc::<Pkcs11Keys>::clone(&token), vec![local]);
    let signers = Signers::new(Some(signer), Vec::new());
    let plane = world
        .plane(&Vault::new(Arc::new(both)), signers, Vec::new())
        .await;
    world.through(&plane);
    let answer = world
        .post(
            "/v1/keys/migrate",
            &world.home.admin,
            json!({"to": "pkcs11"}),
        )
        .await;
    work_until_done(&world, &answer.field("/rotation/id")).await;
    let alone = Vault::new(token);
    let found = open_all(&world, &alone).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found.first().unwrap().0.starts_with("pkcs11:"));
    // Leases are minted inside the token now.
    world.clock.advance(control_plane::keys::OVERLAP);
    world.follow().await;
    assert_eq!(plane.keys.minting_version(), 2);
    let (_, lease) = world
        .lease(&granted.agent, json!({"secret_set_id": granted.set_id}))
        .await;
    let ring = VerifyingRing::load(&plane.chest, world.clock.now())
        .await
        .unwrap();
    verify(&PresentedToken::parse(&lease).unwrap(), &ring.public()).unwrap();
    let id = rotate(&world, json!({})).await;
    work_until_done(&world, &id).await;
    let found = open_all(&world, &alone).await;
    assert_eq!(found.first().unwrap().1, 2, "{found:?}");
}
