//! The first start makes all; later ones find it.

use ::leases::clock::ManualClock;
use control_plane::{KeyChest, NewKey, Signers, Start, bootstrap, reissue_admin_key};
use serde_json::json;
use vault::Secret;

use crate::support::{START, World, holder};

#[tokio::test]
async fn a_later_start_finds_everything_and_shows_no_key() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let (_, token) = world
        .lease(&granted.agent, json!({"secret_set_id": granted.set_id}))
        .await;
    let clock = ManualClock::new(START);
    let again = bootstrap(&Start {
        store: &world.store,
        vault: &world.vault,
        clock: &clock,
        signers: Signers::default(),
        node: "local",
    })
    .await
    .unwrap();
    assert_eq!(again.org, world.home.org);
    assert!(again.admin_key.is_none());
    let token = ::leases::token::PresentedToken::parse(&token).unwrap();
    ::leases::verify::verify(&token, &again.keys.public()).unwrap();
}

#[tokio::test]
async fn a_lost_key_is_replaced_and_the_lost_one_ends() {
    let world = World::new().await;
    let key = reissue_admin_key(&world.store, &world.home.org)
        .await
        .unwrap();
    world.get("/v1/agents", &holder(key.reveal())).await.ok(200);
    world
        .get("/v1/agents", &world.home.admin)
        .await
        .refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_key_of_the_service_is_made_once_and_opens_under_its_own_name_only() {
    let world = World::new().await;
    let chest = KeyChest::of(&world.store, &world.vault, &world.home.org)
        .await
        .unwrap();
    let make = |text: &'static str| {
        move |_| NewKey {
            secret: Secret::from(text.to_owned()),
            public: b"public".to_vec(),
        }
    };
    let first = chest.load_or_create("ca", make("one")).await.unwrap();
    let again = chest.load_or_create("ca", make("two")).await.unwrap();
    assert_eq!((first.version, first.secret), (again.version, again.secret));
    let rotated = chest
        .rotate("ca", make("three"), &store::Actor::system("test"))
        .await
        .unwrap();
    assert_eq!(rotated.version, 2);
    assert_eq!(
        chest.current("ca").await.unwrap().unwrap().secret,
        Secret::from("three".to_owned())
    );
    assert_eq!(chest.newest("ca", 5).await.unwrap().len(), 2);

    // The row of one key under the name of another does not open.
    let stolen = world
        .store
        .sealed_keys()
        .current(&world.home.org, "ca")
        .await
        .unwrap()
        .unwrap();
    let new = store::NewSealedKey {
        kek_id: None,
        name: "other".to_owned(),
        version: 1,
        sealed: stolen.sealed,
        public: stolen.public,
    };
    world
        .store
        .sealed_keys()
        .put(&world.home.org, new, &store::Actor::system("test"))
        .await
        .unwrap();
    let error = chest.current("other").await.unwrap_err();
    assert!(error.to_string().contains("`other`"), "{error}");
}
