use std::time::Duration;

use ::leases::id::VaultId;
use serde_json::json;

use super::*;
use crate::testing::*;
use crate::{NamedVault, NewSet, NewVault, PageRequest, Vault, WriteSetError};

on_both! {
    a_secret_gets_a_version_with_each_write_and_the_newest_enabled_one_is_current,
    of_two_writers_who_sealed_the_same_version_one_must_seal_anew,
    a_deleted_secret_is_restored_and_its_versions_go_on,
    a_read_is_refused_for_what_is_deleted_disabled_expired_or_used_up,
    of_64_readers_at_once_exactly_as_many_as_allowed_get_a_value,
    every_read_is_on_record,
    a_list_gives_a_prefix_and_nothing_else,
    what_belongs_to_a_set_is_not_touched_by_its_path,
    a_set_does_not_swallow_secrets_that_lie_under_its_prefix,
    a_secret_is_nothing_to_another_organisation_or_vault,
    a_vaults_deletion_deletes_its_secrets,
}

pub(crate) fn path(text: &str) -> SecretPath {
    SecretPath::parse(text).unwrap()
}

pub(crate) async fn vault(world: &World, tenant: &Tenant, name: &str) -> Vault {
    let new = NamedVault {
        vault: NewVault {
            id: VaultId::new(START),
            kek_id: format!("kek-{name}"),
        },
        name: name.to_owned(),
        description: None,
    };
    let vaults = world.store.vaults();
    vaults.create(&tenant.org, new, &person()).await.unwrap()
}

async fn new(world: &World, org: &OrgId, vault: &Vault, at: &str) -> NewSecret {
    let secrets = world.store.secrets();
    NewSecret {
        place: secrets.next_version(org, vault, &path(at)).await.unwrap(),
        sealed: b"sealed".to_vec(),
        kind: "generic".to_owned(),
        metadata: None,
        rotation_policy: None,
        expires_at: None,
        max_reads: None,
    }
}

pub(crate) async fn put(world: &World, org: &OrgId, vault: &Vault, at: &str) -> SecretVersion {
    let new = new(world, org, vault, at).await;
    let secrets = world.store.secrets();
    secrets
        .put(org, new, "secret.write", &person())
        .await
        .unwrap()
}

async fn read_it(
    world: &World,
    org: &OrgId,
    vault: &Vault,
    at: &str,
    version: Option<u64>,
) -> Result<Option<u64>, ReadSecretError> {
    let event = NewEvent {
        action: "secret.read",
        ..NewEvent::default()
    };
    let secrets = world.store.secrets();
    let read = secrets
        .take_read(org, &vault.id, &path(at), version, event, &person())
        .await?;
    Ok(read.map(|read| read.version.version))
}

async fn a_secret_gets_a_version_with_each_write_and_the_newest_enabled_one_is_current(
    world: World,
) {
    let one = tenant(&world.store, "one").await;
    let vault = vault(&world, &one, "v").await;
    let secrets = world.store.secrets();
    let first = put(&world, &one.org, &vault, "a/b").await;
    assert_eq!((first.version, first.reads), (1, 0));
    let mut second = new(&world, &one.org, &vault, "a/b").await;
    second.kind = "api_key".to_owned();
    second.metadata = Some(json!({"team": "x"}));
    second.rotation_policy = Some(json!({"days": 30}));
    let second = secrets
        .put(&one.org, second, "secret.write", &person())
        .await
        .unwrap();
    assert_eq!(second.version, 2);
    let head = secrets.head(&one.org, &vault.id, &path("a/b")).await;
    assert_eq!(head.unwrap().unwrap().current.as_ref(), Some(&second));
    let versions = secrets
        .versions(&one.org, &vault.id, &path("a/b"), &PageRequest::default())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(versions.items, [second, first.clone()]);
    let short = PageRequest {
        limit: 1,
        cursor: None,
    };
    let page = secrets
        .versions(&one.org, &vault.id, &path("a/b"), &short)
        .await
        .unwrap()
        .unwrap();
    let rest = PageRequest {
        limit: 1,
        cursor: page.next_cursor,
    };
    let page = secrets
        .versions(&one.org, &vault.id, &path("a/b"), &rest)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (page.items.as_slice(), page.next_cursor),
        (&[first][..], None)
    );
    for (version, is_there) in [(2, true), (2, true), (9, false)] {
        let disabled = secrets
            .disable(&one.org, &vault.id, &path("a/b"), version, &person())
            .await;
        assert_eq!(disabled.unwrap(), is_there);
    }
    assert_eq!(
        read_it(&world, &one.org, &vault, "a/b", None)
            .await
            .unwrap(),
        Some(1)
    );
    secrets
        .disable(&one.org, &vault.id, &path("a/b"), 1, &person())
        .await
        .unwrap();
    let gone = read_it(&world, &one.org, &vault, "a/b", None).await;
    assert!(matches!(gone, Err(ReadSecretError::Gone(Gone::Disabled))));
    // A number is never given twice.
    assert_eq!(put(&world, &one.org, &vault, "a/b").await.version, 3);
}

async fn of_two_writers_who_sealed_the_same_version_one_must_seal_anew(world: World) {
    let one = tenant(&world.store, "one").await;
    let vault = vault(&world, &one, "v").await;
    let secrets = world.store.secrets();
    for _ in 0..2 {
        let first = new(&world, &one.org, &vault, "a").await;
        let late = new(&world, &one.org, &vault, "a").await;
        secrets
            .put(&one.org, first, "secret.write", &person())
            .await
            .unwrap();
        let refused = secrets.put(&one.org, late, "secret.write", &person()).await;
        assert!(matches!(refused, Err(WriteSecretError::Moved)));
    }
    let stale = new(&world, &one.org, &vault, "a").await;
    let vaults = world.store.vaults();
    vaults
        .set_kek(&one.org, &vault.id, "another", &person())
        .await
        .unwrap();
    let refused = secrets
        .put(&one.org, stale, "secret.write", &person())
        .await;
    assert!(matches!(refused, Err(WriteSecretError::Moved)));
}

async fn a_deleted_secret_is_restored_and_its_versions_go_on(world: World) {
    let one = tenant(&world.store, "one").await;
    let vault = vault(&world, &one, "v").await;
    let secrets = world.store.secrets();
    put(&world, &one.org, &vault, "a").await;
    let delete = async || {
        secrets
            .delete(&one.org, &vault.id, &path("a"), &person())
            .await
            .unwrap()
    };
    assert!(delete().await);
    assert!(!delete().await);
    let gone = read_it(&world, &one.org, &vault, "a", Some(1)).await;
    assert!(matches!(gone, Err(ReadSecretError::Gone(Gone::Deleted))));
    let restored = secrets
        .restore(&one.org, &vault.id, &path("a"), &person())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(restored.deleted_at, None);
    assert_eq!(
        read_it(&world, &one.org, &vault, "a", None).await.unwrap(),
        Some(1)
    );
    assert!(delete().await);
    assert_eq!(put(&world, &one.org, &vault, "a").await.version, 2);
    assert_eq!(
        read_it(&world, &one.org, &vault, "a", None).await.unwrap(),
        Some(2)
    );
    let never = secrets
        .restore(&one.org, &vault.id, &path("never"), &person())
        .await
        .unwrap();
    assert!(never.is_none());
}

async fn a_read_is_refused_for_what_is_deleted_disabled_expired_or_used_up(world: World) {
    let one = tenant(&world.store, "one").await;
    let vault = vault(&world, &one, "v").await;
    let secrets = world.store.secrets();
    let mut short = new(&world, &one.org, &vault, "short").await;
    short.expires_at = Some(START + Duration::from_mins(1));
    short.max_reads = Some(2);
    secrets
        .put(&one.org, short, "secret.write", &person())
        .await
        .unwrap();
    for _ in 0..2 {
        let read = read_it(&world, &one.org, &vault, "short", None).await;
        assert_eq!(read.unwrap(), Some(1));
    }
    let gone = read_it(&world, &one.org, &vault, "short", None).await;
    assert!(matches!(gone, Err(ReadSecretError::Gone(Gone::Consumed))));
    world.advance(Duration::from_mins(1));
    let gone = read_it(&world, &one.org, &vault, "short", None).await;
    assert!(matches!(gone, Err(ReadSecretError::Gone(Gone::Expired))));
    let missing = read_it(&world, &one.org, &vault, "short", Some(2)).await;
    assert_eq!(missing.unwrap(), None);
    let missing = read_it(&world, &one.org, &vault, "none", None).await;
    assert_eq!(missing.unwrap(), None);
}

async fn of_64_readers_at_once_exactly_as_many_as_allowed_get_a_value(world: World) {
    let one = tenant(&world.store, "one").await;
    let vault = vault(&world, &one, "v").await;
    let mut few = new(&world, &one.org, &vault, "few").await;
    few.max_reads = Some(7);
    let secrets = world.store.secrets();
    secrets
        .put(&one.org, few, "secret.write", &person())
        .await
        .unwrap();
    let racers = (0..64).map(|_| {
        let (store, org, vault) = (world.store.clone(), one.org.clone(), vault.id.clone());
        tokio::spawn(async move {
            let event = NewEvent {
                action: "secret.read",
                ..NewEvent::default()
            };
            let secrets = store.secrets();
            secrets
                .take_read(&org, &vault, &path("few"), None, event, &person())
                .await
        })
    });
    let answers = futures::future::join_all(racers).await;
    let mut got = 0;
    for answer in answers {
        match answer.unwrap() {
            Ok(read) => {
                assert_eq!(read.unwrap().sealed, b"sealed");
                got += 1;
            }
            Err(ReadSecretError::Gone(gone)) => assert_eq!(gone, Gone::Consumed),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(got, 7);
    let head = secrets.head(&one.org, &vault.id, &path("few")).await;
    assert_eq!(head.unwrap().unwrap().current.unwrap().reads, 7);
    assert_eq!(events(&world, &one.org, "secret.read").await.len(), 7);
}

async fn events(world: &World, org: &OrgId, action: &str) -> Vec<crate::Event> {
    let filter = crate::EventFilter::default();
    let page = PageRequest {
        limit: 200,
        cursor: None,
    };
    let audit = world.store.audit();
    let mut found = audit.list(org, &filter, &page).await.unwrap().items;
    found.retain(|event| event.action == action);
    found
}

async fn every_read_is_on_record(world: World) {
    let one = tenant(&world.store, "one").await;
    let vault = vault(&world, &one, "v").await;
    put(&world, &one.org, &vault, "a/b").await;
    read_it(&world, &one.org, &vault, "a/b", None)
        .await
        .unwrap();
    let _ = read_it(&world, &one.org, &vault, "none", None).await;
    let read = events(&world, &one.org, "secret.read").await;
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].vault_id.as_deref(), Some(vault.id.as_str()));
    assert_eq!(read[0].keys, ["a/b"]);
    assert_eq!(read[0].secret_version, Some(1));
    assert_eq!(events(&world, &one.org, "secret.write").await.len(), 1);
}

async fn a_list_gives_a_prefix_and_nothing_else(world: World) {
    let one = tenant(&world.store, "one").await;
    let vault = vault(&world, &one, "v").await;
    let secrets = world.store.secrets();
    for at in ["a", "a/b", "a/c", "ab", "b/a", "a_b", "A/b", "a/deleted"] {
        put(&world, &one.org, &vault, at).await;
    }
    secrets
        .delete(&one.org, &vault.id, &path("a/deleted"), &person())
        .await
        .unwrap();
    let list = |prefix: &'static str| {
        let (org, vault) = (one.org.clone(), vault.id.clone());
        let store = world.store.clone();
        async move {
            let mut all = Vec::new();
            let mut page = PageRequest {
                limit: 2,
                cursor: None,
            };
            loop {
                let found = store.secrets().list(&org, &vault, prefix, &page).await;
                let found = found.unwrap();
                all.extend(found.items.into_iter().map(|version| version.path));
                match found.next_cursor {
                    Some(cursor) => page.cursor = Some(cursor),
                    None => return all,
                }
            }
        }
    };
    assert_eq!(
        list("").await,
        ["A/b", "a", "a/b", "a/c", "a_b", "ab", "b/a"]
    );
    assert_eq!(list("a/").await, ["a/b", "a/c"]);
    assert_eq!(list("a_").await, ["a_b"]);
    assert_eq!(list("z").await, Vec::<String>::new());
    let forged = PageRequest {
        limit: 2,
        cursor: Some("a'--".to_owned()),
    };
    let refused = secrets.list(&one.org, &vault.id, "", &forged).await;
    assert!(matches!(refused, Err(StoreError::BadCursor)));
}

async fn what_belongs_to_a_set_is_not_touched_by_its_path(world: World) {
    let one = tenant(&world.store, "one").await;
    let secrets = world.store.secrets();
    let default = world.store.vaults().default_vault(&one.org).await;
    let default = default.unwrap().unwrap();
    let set = world.store.secret_sets().get(&one.org, &one.set).await;
    let set = set.unwrap().unwrap();
    let under = format!("{}/{}/{}", set.provider, set.environment, set.name);
    let entry = format!("{under}/{}", set.keys[0]);
    for at in [
        entry.clone(),
        format!("{under}/new"),
        format!("{under}/a/b"),
    ] {
        let new = new(&world, &one.org, &default, &at).await;
        let refused = secrets.put(&one.org, new, "secret.write", &person()).await;
        assert!(matches!(refused, Err(WriteSecretError::SetEntry(name)) if name == under));
    }
    let refused = secrets
        .delete(&one.org, &default.id, &path(&entry), &person())
        .await;
    assert!(matches!(refused, Err(WriteSecretError::SetEntry(_))));
    let refused = secrets
        .disable(&one.org, &default.id, &path(&entry), 1, &person())
        .await;
    assert!(matches!(refused, Err(WriteSecretError::SetEntry(_))));
    for version in [None, Some(1)] {
        let refused = read_it(&world, &one.org, &default, &entry, version).await;
        assert!(matches!(refused, Err(ReadSecretError::SetEntry(name)) if name == under));
    }
    // Seen by its name, and no more.
    let listed = secrets
        .list(&one.org, &default.id, &under, &PageRequest::default())
        .await
        .unwrap()
        .items;
    assert_eq!(listed[0].set_name(), Some(&*under));
    // Its deletion does not make it readable, nor does a restore.
    let sets = world.store.secret_sets();
    sets.delete(&one.org, &one.set, &person()).await.unwrap();
    let gone = read_it(&world, &one.org, &default, &entry, None).await;
    assert!(matches!(gone, Err(ReadSecretError::Gone(Gone::Deleted))));
    let refused = secrets
        .restore(&one.org, &default.id, &path(&entry), &person())
        .await;
    assert!(matches!(refused, Err(WriteSecretError::SetEntry(_))));
    // A secret of that path is another one, with the next number; what the set had stays shut.
    let next = put(&world, &one.org, &default, &entry).await.version;
    assert_eq!(
        read_it(&world, &one.org, &default, &entry, None)
            .await
            .unwrap(),
        Some(next)
    );
    let refused = read_it(&world, &one.org, &default, &entry, Some(1)).await;
    assert!(matches!(refused, Err(ReadSecretError::SetEntry(_))));
    secrets
        .disable(&one.org, &default.id, &path(&entry), next, &person())
        .await
        .unwrap();
    let gone = read_it(&world, &one.org, &default, &entry, None).await;
    assert!(matches!(gone, Err(ReadSecretError::Gone(Gone::Disabled))));
}

async fn a_set_does_not_swallow_secrets_that_lie_under_its_prefix(world: World) {
    let one = tenant(&world.store, "one").await;
    let default = world.store.vaults().default_vault(&one.org).await;
    let default = default.unwrap().unwrap();
    put(&world, &one.org, &default, "stripe/prod/web/deep/KEY").await;
    put(&world, &one.org, &default, "stripe/prod/web2").await;
    let new = NewSet {
        provider: "stripe".to_owned(),
        environment: "prod".to_owned(),
        name: "web".to_owned(),
        entries: sealed(&world.store, &one.org, "web", &["KEY"]).await,
        custom: None,
        kek_id: None,
    };
    let sets = world.store.secret_sets();
    let refused = sets.create(&one.org, new.clone(), &person()).await;
    assert!(
        matches!(refused, Err(WriteSetError::PrefixTaken(prefix)) if prefix == "stripe/prod/web/")
    );
    let secrets = world.store.secrets();
    secrets
        .delete(
            &one.org,
            &default.id,
            &path("stripe/prod/web/deep/KEY"),
            &person(),
        )
        .await
        .unwrap();
    sets.create(&one.org, new, &person()).await.unwrap();
    let read = read_it(&world, &one.org, &default, "stripe/prod/web2", None).await;
    assert_eq!(read.unwrap(), Some(1));
}

async fn a_secret_is_nothing_to_another_organisation_or_vault(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let vault = vault(&world, &one, "v").await;
    let default = world.store.vaults().default_vault(&one.org).await;
    let default = default.unwrap().unwrap();
    put(&world, &one.org, &vault, "a").await;
    let secrets = world.store.secrets();
    for (org, vault) in [(&other.org, &vault), (&one.org, &default)] {
        let id = &vault.id;
        assert_eq!(read_it(&world, org, vault, "a", None).await.unwrap(), None);
        assert!(secrets.head(org, id, &path("a")).await.unwrap().is_none());
        assert!(
            !secrets
                .delete(org, id, &path("a"), &person())
                .await
                .unwrap()
        );
        assert!(
            secrets
                .restore(org, id, &path("a"), &person())
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            !secrets
                .disable(org, id, &path("a"), 1, &person())
                .await
                .unwrap()
        );
        let page = PageRequest::default();
        let listed = secrets.list(org, id, "a", &page).await.unwrap().items;
        assert!(listed.iter().all(|version| version.path != "a"));
        assert!(
            secrets
                .versions(org, id, &path("a"), &page)
                .await
                .unwrap()
                .is_none()
        );
    }
    let foreign = new(&world, &other.org, &vault, "a").await;
    let refused = secrets
        .put(&other.org, foreign, "secret.write", &person())
        .await;
    assert!(matches!(refused, Err(WriteSecretError::Moved)));
}

async fn a_vaults_deletion_deletes_its_secrets(world: World) {
    let one = tenant(&world.store, "one").await;
    let vault = vault(&world, &one, "v").await;
    put(&world, &one.org, &vault, "a").await;
    let stale = new(&world, &one.org, &vault, "a").await;
    let vaults = world.store.vaults();
    vaults.delete(&one.org, &vault.id, &person()).await.unwrap();
    let gone = read_it(&world, &one.org, &vault, "a", None).await;
    assert!(matches!(gone, Err(ReadSecretError::Gone(Gone::Deleted))));
    let secrets = world.store.secrets();
    let refused = secrets
        .put(&one.org, stale, "secret.write", &person())
        .await;
    assert!(matches!(refused, Err(WriteSecretError::Moved)));
}
