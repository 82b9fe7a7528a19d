use ::leases::id::VaultId;
use futures::future::join_all;

use super::*;
use crate::testing::*;
use crate::{
    CreateAgentError, CreateVaultError, DeleteVaultError, EventFilter, Gone, NamedVault, NewAgent,
    PageRequest, Quota, ReadSecretError,
};

on_both! {
    the_first_agent_makes_the_vault_and_its_keys_lie_there_sealed,
    of_many_first_agents_all_get_keys_in_one_vault,
    an_agent_that_is_not_made_leaves_no_vault_and_no_keys,
    other_keys_take_the_place_of_both_halves_at_once,
    keys_that_were_sealed_for_another_place_are_not_stored,
    an_agent_from_before_has_none_until_they_are_made,
    nobody_but_the_service_writes_to_the_vault_or_takes_its_name,
    an_agents_keys_are_deleted_with_it,
    identity_keys_take_no_place_of_a_quota,
    an_organisation_does_not_reach_anothers,
}

/// Keys for a place, told apart by their first byte.
fn keys(place: IdentityPlace, byte: u8) -> NewIdentity {
    NewIdentity {
        ssh_sealed: [b"ssh ".as_slice(), &[byte]].concat(),
        ecdh_sealed: [b"ecdh ".as_slice(), &[byte]].concat(),
        place,
        public: IdentityKeys {
            ssh: [byte; 32],
            ecdh: [byte; 65],
        },
    }
}

/// A place in a vault that is still to be made.
fn nowhere(agent: &AgentId) -> IdentityPlace {
    let vault = VaultId::new(START);
    IdentityPlace {
        agent: agent.clone(),
        kek_id: format!("kek of {vault}"),
        vault,
        version: 1,
    }
}

async fn place(world: &World, org: &OrgId, agent: &AgentId) -> IdentityPlace {
    let place = world.store.agents().identity_place(org, agent).await;
    place.unwrap().unwrap_or_else(|| nowhere(agent))
}

async fn try_make(
    world: &World,
    org: &OrgId,
    name: &str,
    byte: u8,
) -> Result<Agent, CreateAgentError> {
    let id = AgentId::new(START);
    let new = NewAgent {
        identity: Some(keys(place(world, org, &id).await, byte)),
        ..new_agent(name, &format!("{name} of {org}"))
    };
    world.store.agents().create(org, new, &person()).await
}

async fn make(world: &World, org: &OrgId, name: &str, byte: u8) -> Agent {
    loop {
        match try_make(world, org, name, byte).await {
            Err(CreateAgentError::Moved) => {}
            made => return made.unwrap(),
        }
    }
}

/// The envelope of a version, or why it is not read.
async fn sealed(
    world: &World,
    org: &OrgId,
    path: &SecretPath,
    version: Option<u64>,
) -> Result<Vec<u8>, ReadSecretError> {
    let vault = world.store.vaults().agent_keys(org).await.unwrap().unwrap();
    let event = NewEvent {
        action: "secret.read",
        ..NewEvent::default()
    };
    let secrets = world.store.secrets();
    let read = secrets
        .take_read(org, &vault.id, path, version, event, &person())
        .await;
    read.map(|read| read.unwrap().sealed)
}

async fn actions(world: &World, org: &OrgId) -> Vec<String> {
    let audit = world.store.audit();
    let page = PageRequest {
        limit: 200,
        ..PageRequest::default()
    };
    let page = audit.list(org, &EventFilter::default(), &page).await;
    let events = page.unwrap().items.into_iter();
    let mut actions: Vec<String> = events.map(|event| event.action).collect();
    actions.reverse();
    actions
}

async fn the_first_agent_makes_the_vault_and_its_keys_lie_there_sealed(world: World) {
    let one = tenant(&world.store, "one").await;
    let before = actions(&world, &one.org).await.len();
    assert!(
        world
            .store
            .vaults()
            .agent_keys(&one.org)
            .await
            .unwrap()
            .is_none()
    );
    let made = make(&world, &one.org, "bot", 7).await;
    let public = IdentityKeys {
        ssh: [7; 32],
        ecdh: [7; 65],
    };
    assert_eq!(made.identity, Some(public));
    let found = world.store.agents().get(&one.org, &made.id).await.unwrap();
    assert_eq!(found, Some(made.clone()));
    let vault = world.store.vaults().get(&one.org, "__agent-keys").await;
    let vault = vault.unwrap().unwrap();
    assert!(vault.is_agent_keys() && vault.created_by.is_none());
    let secrets = world.store.secrets();
    let listed = secrets
        .list(&one.org, &vault.id, "", &PageRequest::default())
        .await;
    let listed: Vec<_> = listed.unwrap().items.into_iter().collect();
    let kinds: Vec<_> = listed
        .iter()
        .map(|secret| (secret.path.clone(), secret.kind.clone().unwrap()))
        .collect();
    let expected = [("ecdh", "private_key"), ("ssh", "ssh_key")]
        .map(|(key, kind)| (format!("agents/{}/{key}/private_key", made.id), kind.into()));
    assert_eq!(kinds, expected);
    let place = place(&world, &one.org, &made.id).await;
    let ssh = sealed(&world, &one.org, &place.ssh_path(), None).await;
    assert_eq!(ssh.unwrap(), b"ssh \x07");
    let ecdh = sealed(&world, &one.org, &place.ecdh_path(), None).await;
    assert_eq!(ecdh.unwrap(), b"ecdh \x07");
    assert_eq!(
        actions(&world, &one.org).await[before..before + 4],
        [
            "vault.create",
            "secret.write",
            "secret.write",
            "agent.create"
        ]
    );
}

async fn of_many_first_agents_all_get_keys_in_one_vault(world: World) {
    let one = tenant(&world.store, "one").await;
    let names: Vec<String> = (0..8).map(|nth| format!("bot {nth}")).collect();
    let made = join_all(
        names
            .iter()
            .zip(1..)
            .map(|(name, byte)| make(&world, &one.org, name, byte)),
    )
    .await;
    for (agent, byte) in made.iter().zip(1_u8..) {
        let place = place(&world, &one.org, &agent.id).await;
        let ssh = sealed(&world, &one.org, &place.ssh_path(), None).await;
        assert_eq!(ssh.unwrap(), [b"ssh ".as_slice(), &[byte]].concat());
    }
    let vaults = world.store.vaults().list(&one.org).await.unwrap();
    let own = vaults.iter().filter(|vault| vault.is_agent_keys());
    assert_eq!((vaults.len(), own.count()), (2, 1));
}

async fn an_agent_that_is_not_made_leaves_no_vault_and_no_keys(world: World) {
    let one = tenant(&world.store, "one").await;
    let refused = try_make(&world, &one.org, "builder", 7).await;
    assert!(matches!(refused, Err(CreateAgentError::NameTaken)));
    world.store.quotas().set_default(Quota {
        agents: Some(1),
        ..Quota::default()
    });
    let refused = try_make(&world, &one.org, "bot", 7).await;
    assert!(matches!(refused, Err(CreateAgentError::Limit(_))));
    let vaults = world.store.vaults();
    assert!(vaults.agent_keys(&one.org).await.unwrap().is_none());
}

async fn other_keys_take_the_place_of_both_halves_at_once(world: World) {
    let one = tenant(&world.store, "one").await;
    let made = make(&world, &one.org, "bot", 7).await;
    let agents = world.store.agents();
    let next = place(&world, &one.org, &made.id).await;
    assert_eq!(next.version, 2);
    let rotated = agents
        .rotate_identity(&one.org, keys(next.clone(), 8), &person())
        .await;
    let rotated = rotated.unwrap().unwrap();
    assert_eq!(rotated.identity.unwrap().ssh, [8; 32]);
    let found = agents.get(&one.org, &made.id).await.unwrap();
    assert_eq!(found, Some(rotated));
    for (version, byte) in [(None, 8), (Some(1), 7), (Some(2), 8)] {
        let ecdh = sealed(&world, &one.org, &next.ecdh_path(), version).await;
        assert_eq!(ecdh.unwrap(), [b"ecdh ".as_slice(), &[byte]].concat());
    }
    let last = actions(&world, &one.org).await;
    assert!(last.contains(&"agent.rotate_identity_keys".to_owned()));
}

async fn keys_that_were_sealed_for_another_place_are_not_stored(world: World) {
    let one = tenant(&world.store, "one").await;
    let made = make(&world, &one.org, "bot", 7).await;
    let agents = world.store.agents();
    let next = place(&world, &one.org, &made.id).await;
    let elsewhere = IdentityPlace {
        version: 2,
        ..nowhere(&made.id)
    };
    let under_another_key = IdentityPlace {
        kek_id: "another".to_owned(),
        ..next.clone()
    };
    let over_the_last = IdentityPlace {
        version: 1,
        ..next.clone()
    };
    for place in [elsewhere, under_another_key, over_the_last] {
        let refused = agents
            .rotate_identity(&one.org, keys(place, 8), &person())
            .await;
        assert!(matches!(refused, Err(RotateIdentityError::Moved)));
    }
    let nobody = nowhere(&AgentId::new(START));
    let missing = agents
        .rotate_identity(&one.org, keys(nobody, 8), &person())
        .await;
    assert!(missing.unwrap().is_none());
    assert_eq!(agents.get(&one.org, &made.id).await.unwrap(), Some(made));
    let ssh = sealed(&world, &one.org, &next.ssh_path(), None).await;
    assert_eq!(ssh.unwrap(), b"ssh \x07");
}

async fn an_agent_from_before_has_none_until_they_are_made(world: World) {
    let one = tenant(&world.store, "one").await;
    let agents = world.store.agents();
    let before = agents.get(&one.org, &one.agent).await.unwrap().unwrap();
    assert_eq!(before.identity, None);
    let first = keys(place(&world, &one.org, &one.agent).await, 9);
    let rotated = agents.rotate_identity(&one.org, first, &person()).await;
    assert_eq!(rotated.unwrap().unwrap().identity.unwrap().ssh, [9; 32]);
    let place = place(&world, &one.org, &one.agent).await;
    assert_eq!(place.version, 2);
    // One that never had any is deleted like every other.
    let new = new_agent("bare", "bare");
    let bare = agents.create(&one.org, new, &person()).await;
    let bare = bare.unwrap().id;
    assert!(agents.delete(&one.org, &bare, &person()).await.unwrap());
}

async fn nobody_but_the_service_writes_to_the_vault_or_takes_its_name(world: World) {
    let one = tenant(&world.store, "one").await;
    let vaults = world.store.vaults();
    for name in ["__agent-keys", "__Agent-Keys"] {
        let new = NamedVault {
            vault: NewVault {
                id: VaultId::new(START),
                kek_id: "kek".to_owned(),
            },
            name: name.to_owned(),
            description: None,
        };
        let refused = vaults.create(&one.org, new, &person()).await;
        assert!(matches!(refused, Err(CreateVaultError::Reserved)));
    }
    let made = make(&world, &one.org, "bot", 7).await;
    let vault = vaults.agent_keys(&one.org).await.unwrap().unwrap();
    let refused = vaults.delete(&one.org, &vault.id, &person()).await;
    assert!(matches!(refused, Err(DeleteVaultError::Reserved)));

    let secrets = world.store.secrets();
    let ssh = place(&world, &one.org, &made.id).await.ssh_path();
    let mine = SecretPath::parse("my/own").unwrap();
    for path in [&ssh, &mine] {
        let new = NewSecret {
            place: secrets.next_version(&one.org, &vault, path).await.unwrap(),
            sealed: b"sealed".to_vec(),
            kind: "generic".to_owned(),
            metadata: None,
            rotation_policy: None,
            expires_at: None,
            max_reads: None,
        };
        let put = secrets.put(&one.org, new, "secret.write", &person()).await;
        assert!(matches!(put, Err(WriteSecretError::Reserved)));
    }
    let (org, id, actor) = (&one.org, &vault.id, person());
    let deleted = secrets.delete(org, id, &ssh, &actor).await;
    assert!(matches!(deleted, Err(WriteSecretError::Reserved)));
    let disabled = secrets.disable(org, id, &ssh, 1, &actor).await;
    assert!(matches!(disabled, Err(WriteSecretError::Reserved)));
    let agents = world.store.agents();
    assert!(agents.delete(org, &made.id, &actor).await.unwrap());
    let restored = secrets.restore(org, id, &ssh, &actor).await;
    assert!(matches!(restored, Err(WriteSecretError::Reserved)));
}

async fn an_agents_keys_are_deleted_with_it(world: World) {
    let one = tenant(&world.store, "one").await;
    let agents = world.store.agents();
    let mut made = Vec::new();
    for (name, byte) in [("a", 1), ("b", 2), ("c", 3)] {
        made.push(make(&world, &one.org, name, byte).await.id);
    }
    assert!(agents.delete(&one.org, &made[0], &person()).await.unwrap());
    let many = [made[1].clone(), one.agent.clone()];
    let deleted = agents.delete_many(&one.org, &many, &person()).await;
    assert_eq!(deleted.unwrap().len(), 2);
    for (agent, is_gone) in made.iter().zip([true, true, false]) {
        let place = place(&world, &one.org, agent).await;
        for path in [place.ssh_path(), place.ecdh_path()] {
            let read = sealed(&world, &one.org, &path, None).await;
            assert_eq!(
                matches!(read, Err(ReadSecretError::Gone(Gone::Deleted))),
                is_gone
            );
        }
    }
    let told = actions(&world, &one.org).await;
    let deletions = told.iter().filter(|action| *action == "secret.delete");
    assert_eq!(deletions.count(), 4);
    // They do not come back with keys that were on their way.
    let late = keys(place(&world, &one.org, &made[0]).await, 9);
    let late = agents.rotate_identity(&one.org, late, &person()).await;
    assert!(late.unwrap().is_none());
}

async fn identity_keys_take_no_place_of_a_quota(world: World) {
    let one = tenant(&world.store, "one").await;
    let quotas = world.store.quotas();
    let before = quotas.holdings(&one.org).await.unwrap();
    world.store.quotas().set_default(Quota {
        vaults: Some(0),
        secrets: Some(0),
        agents: Some(2),
        requests_per_month: None,
    });
    make(&world, &one.org, "bot", 7).await;
    let after = quotas.holdings(&one.org).await.unwrap();
    assert_eq!(
        (after.vaults, after.secrets),
        (before.vaults, before.secrets)
    );
    assert_eq!(after.agents, before.agents + 1);
}

async fn an_organisation_does_not_reach_anothers(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let made = make(&world, &one.org, "bot", 7).await;
    let agents = world.store.agents();
    let foreign = keys(nowhere(&made.id), 8);
    let rotated = agents.rotate_identity(&other.org, foreign, &person()).await;
    assert!(rotated.unwrap().is_none());
    let vaults = world.store.vaults();
    assert!(vaults.agent_keys(&other.org).await.unwrap().is_none());
    assert_eq!(agents.get(&one.org, &made.id).await.unwrap(), Some(made));
}
