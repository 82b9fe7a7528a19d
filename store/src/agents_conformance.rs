//! The story of how agents authenticate, which every database must pass.

use std::time::Duration;

use ::leases::clock::Clock as _;
use ::leases::id::{AgentId, VaultId};
use ::leases::scope::Kind;
use time::OffsetDateTime;

use crate::db::{Change, insert_many};
use crate::nonces::MAX_KEPT;
use crate::testing::*;
use crate::timekeeper::millis;
use crate::{
    AgentOidc, AgentPatch, AgentSettings, AuthMethod, CreateAgentError, CreateLeaseError, NewAgent,
    NonceUse, PatchAgentError, RotateKeyError, SettingsError, SettingsPatch,
};

on_both! {
    settings_are_read_as_they_were_written,
    a_method_comes_with_its_means_and_with_no_others,
    another_method_ends_the_key_and_the_tokens_of_the_one_before,
    a_stop_a_new_key_and_other_means_begin_an_epoch,
    a_provider_is_kept_whole_and_another_one_begins_an_epoch,
    an_agent_is_bound_to_vaults_of_its_own_organisation,
    an_agents_end_bounds_its_leases,
    fewer_vaults_end_the_leases_and_more_do_not,
    other_means_and_a_new_key_end_the_leases_and_a_new_name_does_not,
    of_many_agents_those_that_are_there_are_deleted,
    a_nonce_is_taken_once,
    of_many_who_bring_one_nonce_one_is_first,
    an_agent_keeps_a_bounded_number_of_nonces_and_old_ones_are_swept,
}

fn signer() -> AgentSettings {
    AgentSettings {
        auth_method: AuthMethod::SignedRequest,
        public_key: Some([7; 32]),
        ..AgentSettings::default()
    }
}

fn provider() -> AgentOidc {
    AgentOidc {
        issuer: "https://id.example.org".to_owned(),
        client_id: "ci".to_owned(),
        audience: Some("keys".to_owned()),
    }
}

fn signs(name: &str) -> NewAgent {
    NewAgent {
        name: name.to_owned(),
        settings: signer(),
        ..NewAgent::default()
    }
}

fn with(settings: SettingsPatch) -> AgentPatch {
    AgentPatch {
        settings,
        ..AgentPatch::default()
    }
}

fn to(auth_method: AuthMethod) -> SettingsPatch {
    SettingsPatch {
        auth_method: Some(auth_method),
        ..SettingsPatch::default()
    }
}

async fn settings_are_read_as_they_were_written(world: World) {
    let one = tenant(&world.store, "one").await;
    let agents = world.store.agents();
    let new = NewAgent {
        settings: AgentSettings {
            auth_method: AuthMethod::Mtls,
            public_key: None,
            client_cert_fingerprint: Some([9; 32]),
            oidc: None,
            token_ttl_seconds: Some(300),
            vault_ids: Some(vec![one.vault.clone()]),
            expires_at: Some(world.clock.now() + Duration::from_hours(1)),
        },
        ..signs("tls")
    };
    let made = agents.create(&one.org, new, &person()).await.unwrap();
    let found = agents.get(&one.org, &made.id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&made));
    assert_eq!(agents.find_anywhere(&made.id).await.unwrap(), found);
    let nobody = AgentId::new(world.clock.now());
    assert_eq!(agents.find_anywhere(&nobody).await.unwrap(), None);
    // Without a word everything is as it always was.
    let usual = agents.get(&one.org, &one.agent).await.unwrap().unwrap();
    assert_eq!(usual.settings, AgentSettings::default());
    assert_eq!(usual.token_epoch, 0);
}

async fn a_method_comes_with_its_means_and_with_no_others(world: World) {
    let one = tenant(&world.store, "one").await;
    let agents = world.store.agents();
    let needy = [
        AuthMethod::Mtls,
        AuthMethod::OidcClientCredentials,
        AuthMethod::SignedRequest,
    ];
    for method in needy {
        let patched = agents
            .patch(&one.org, &one.agent, with(to(method)), &person())
            .await;
        assert!(
            matches!(patched, Err(PatchAgentError::Settings(SettingsError::Incomplete(of))) if of == method)
        );
    }
    let certified = AgentSettings {
        client_cert_fingerprint: Some([9; 32]),
        ..signer()
    };
    let vouched_for = AgentSettings {
        oidc: Some(provider()),
        ..signer()
    };
    for settings in [certified, vouched_for] {
        let both = NewAgent {
            settings,
            ..signs("both")
        };
        let made = agents.create(&one.org, both, &person()).await;
        assert!(matches!(
            made,
            Err(CreateAgentError::Settings(SettingsError::Superfluous(
                AuthMethod::SignedRequest
            )))
        ));
    }
}

async fn another_method_ends_the_key_and_the_tokens_of_the_one_before(world: World) {
    let one = tenant(&world.store, "one").await;
    let agents = world.store.agents();
    let bot = new_agent("bot", "ocv_bot");
    let bot = agents.create(&one.org, bot, &person()).await.unwrap();
    let patch = SettingsPatch {
        public_key: Some([7; 32]),
        ..to(AuthMethod::SignedRequest)
    };
    let signing = agents
        .patch(&one.org, &bot.id, with(patch), &person())
        .await;
    let signing = signing.unwrap().unwrap();
    assert_eq!(signing.token_epoch, 1);
    let by_key = agents.find_by_key_hash(&key_hash("ocv_bot")).await;
    assert_eq!(by_key.unwrap(), None);
    let rotated = agents
        .rotate_key(&one.org, &bot.id, &key_hash("ocv_new"), &person())
        .await;
    assert!(matches!(
        rotated,
        Err(RotateKeyError::NoKey(AuthMethod::SignedRequest))
    ));
    // Back to a key: the old one is not good again, a new one is.
    let back = with(to(AuthMethod::ApiKey));
    let back = agents.patch(&one.org, &bot.id, back, &person()).await;
    let back = back.unwrap().unwrap();
    assert_eq!((back.token_epoch, back.settings.public_key), (2, None));
    let by_key = agents.find_by_key_hash(&key_hash("ocv_bot")).await;
    assert_eq!(by_key.unwrap(), None);
    let fresh = key_hash("ocv_new");
    let rotated = agents
        .rotate_key(&one.org, &bot.id, &fresh, &person())
        .await;
    rotated.unwrap().unwrap();
    assert!(agents.find_by_key_hash(&fresh).await.unwrap().is_some());
}

async fn a_stop_a_new_key_and_other_means_begin_an_epoch(world: World) {
    let one = tenant(&world.store, "one").await;
    let agents = world.store.agents();
    let epoch = async |patch| {
        let patched = agents.patch(&one.org, &one.agent, patch, &person()).await;
        patched.unwrap().unwrap().token_epoch
    };
    let active = |is_active| AgentPatch {
        is_active: Some(is_active),
        ..AgentPatch::default()
    };
    assert_eq!(epoch(AgentPatch::default()).await, 0);
    assert_eq!(epoch(active(false)).await, 1);
    assert_eq!(epoch(active(true)).await, 1);
    let rotated = agents
        .rotate_key(&one.org, &one.agent, &key_hash("ocv_2"), &person())
        .await;
    assert_eq!(rotated.unwrap().unwrap().token_epoch, 2);
    let patch = SettingsPatch {
        public_key: Some([7; 32]),
        ..to(AuthMethod::SignedRequest)
    };
    assert_eq!(epoch(with(patch.clone())).await, 3);
    assert_eq!(epoch(with(patch)).await, 3);
    let another = SettingsPatch {
        public_key: Some([8; 32]),
        ..SettingsPatch::default()
    };
    assert_eq!(epoch(with(another)).await, 4);
}

async fn a_provider_is_kept_whole_and_another_one_begins_an_epoch(world: World) {
    let one = tenant(&world.store, "one").await;
    let agents = world.store.agents();
    let patch = async |settings| {
        let patched = agents
            .patch(&one.org, &one.agent, with(settings), &person())
            .await;
        let patched = patched.unwrap().unwrap();
        let found = agents.get(&one.org, &one.agent).await.unwrap();
        assert_eq!(found.as_ref(), Some(&patched));
        (patched.settings.oidc, patched.token_epoch)
    };
    let by = |oidc: AgentOidc| SettingsPatch {
        oidc: Some(oidc),
        ..to(AuthMethod::OidcClientCredentials)
    };
    assert_eq!(patch(by(provider())).await, (Some(provider()), 1));
    assert_eq!(patch(by(provider())).await, (Some(provider()), 1));
    let kept = patch(SettingsPatch::default()).await;
    assert_eq!(kept, (Some(provider()), 1));
    let usual = AgentOidc {
        audience: None,
        ..provider()
    };
    assert_eq!(patch(by(usual.clone())).await, (Some(usual), 2));
    assert_eq!(patch(to(AuthMethod::ApiKey)).await, (None, 3));
}

async fn an_agent_is_bound_to_vaults_of_its_own_organisation(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let agents = world.store.agents();
    for strange in [other.vault.clone(), VaultId::new(world.clock.now())] {
        let patch = SettingsPatch {
            vault_ids: Some(Some(vec![one.vault.clone(), strange.clone()])),
            ..SettingsPatch::default()
        };
        let patched = agents
            .patch(&one.org, &one.agent, with(patch), &person())
            .await;
        assert!(
            matches!(patched, Err(PatchAgentError::Settings(SettingsError::NoVault(id))) if id == strange)
        );
    }
}

async fn an_agents_end_bounds_its_leases(world: World) {
    let one = tenant(&world.store, "one").await;
    let (agents, leases) = (world.store.agents(), world.store.leases());
    let mint = async || {
        let new = one.new_lease(Kind::Workflow);
        let ends = new.expires_at;
        (leases.create(&one.org, new, &person()).await, ends)
    };
    let ending = async |at| {
        let patch = SettingsPatch {
            expires_at: Some(at),
            ..SettingsPatch::default()
        };
        let patched = agents
            .patch(&one.org, &one.agent, with(patch), &person())
            .await;
        patched.unwrap().unwrap()
    };
    let (long, ends) = mint().await;
    let long = long.unwrap();
    ending(Some(ends)).await;
    let kept = leases.get(&one.org, &long.id).await.unwrap().unwrap();
    assert_eq!(kept.revoked_at, None);

    let sooner = ends - Duration::from_secs(1);
    assert!(ending(Some(sooner)).await.is_live(world.clock.now()));
    let ended = leases.get(&one.org, &long.id).await.unwrap().unwrap();
    assert!(ended.revoked_at.is_some());
    let (refused, _) = mint().await;
    assert!(
        matches!(refused, Err(CreateLeaseError::OutlivesAgent { ends_at }) if ends_at == sooner)
    );
    let over = ending(Some(world.clock.now() - Duration::from_secs(1))).await;
    assert!(!over.is_live(world.clock.now()));
    let (refused, _) = mint().await;
    assert!(matches!(refused, Err(CreateLeaseError::AgentInactive(_))));
    ending(None).await;
    mint().await.0.unwrap();
}

async fn fewer_vaults_end_the_leases_and_more_do_not(world: World) {
    let one = tenant(&world.store, "one").await;
    let (agents, leases) = (world.store.agents(), world.store.leases());
    let bind = async |vault_ids| {
        let patch = SettingsPatch {
            vault_ids: Some(vault_ids),
            ..SettingsPatch::default()
        };
        let patched = agents
            .patch(&one.org, &one.agent, with(patch), &person())
            .await;
        patched.unwrap().unwrap();
    };
    let mint = async || {
        let new = one.new_lease(Kind::Workflow);
        leases.create(&one.org, new, &person()).await.unwrap().id
    };
    let is_revoked = async |id| {
        let lease = leases.get(&one.org, &id).await.unwrap().unwrap();
        lease.revoked_at.is_some()
    };
    let before = mint().await;
    bind(Some(vec![one.vault.clone()])).await;
    assert!(is_revoked(before).await);
    let under = mint().await;
    bind(Some(vec![one.vault.clone()])).await;
    bind(None).await;
    assert!(!is_revoked(under).await);
}

async fn other_means_and_a_new_key_end_the_leases_and_a_new_name_does_not(world: World) {
    let one = tenant(&world.store, "one").await;
    let (agents, leases) = (world.store.agents(), world.store.leases());
    let mint = async || {
        let new = one.new_lease(Kind::Workflow);
        leases.create(&one.org, new, &person()).await.unwrap().id
    };
    let is_revoked = async |id| {
        let lease = leases.get(&one.org, id).await.unwrap().unwrap();
        lease.revoked_at.is_some()
    };
    let patched = async |patch| {
        let patched = agents.patch(&one.org, &one.agent, patch, &person()).await;
        patched.unwrap().unwrap();
    };
    let before = mint().await;
    patched(AgentPatch {
        name: Some("renamed".to_owned()),
        ..AgentPatch::default()
    })
    .await;
    assert!(!is_revoked(&before).await);
    let rotated = agents
        .rotate_key(&one.org, &one.agent, &key_hash("ocv_2"), &person())
        .await;
    rotated.unwrap().unwrap();
    assert!(is_revoked(&before).await);

    let before = mint().await;
    let signing = |key| SettingsPatch {
        public_key: Some([key; 32]),
        ..to(AuthMethod::SignedRequest)
    };
    patched(with(signing(7))).await;
    assert!(is_revoked(&before).await);
    let before = mint().await;
    patched(with(signing(7))).await;
    assert!(!is_revoked(&before).await, "the same once more");
    patched(with(signing(8))).await;
    assert!(is_revoked(&before).await);
}

async fn of_many_agents_those_that_are_there_are_deleted(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let agents = world.store.agents();
    let mut ids = vec![other.agent.clone(), AgentId::new(world.clock.now())];
    for number in 0..60 {
        let new = new_agent(&format!("bot-{number}"), &format!("ocv_{number}"));
        ids.push(agents.create(&one.org, new, &person()).await.unwrap().id);
    }
    let deleted = agents.delete_many(&one.org, &ids, &person()).await.unwrap();
    assert_eq!(deleted, ids[2..]);
    assert!(agents.get(&one.org, &ids[61]).await.unwrap().is_none());
    let foreign = agents.get(&other.org, &other.agent).await.unwrap();
    assert!(foreign.is_some());
    let again = agents.delete_many(&one.org, &ids, &person()).await.unwrap();
    assert_eq!(again, []);
}

async fn a_nonce_is_taken_once(world: World) {
    let nonces = world.store.nonces();
    let until = world.clock.now() + Duration::from_mins(5);
    let agent = AgentId::new(world.clock.now());
    let take = async |digest: u8| nonces.take(&agent, &[digest; 32], until).await.unwrap();
    assert_eq!(take(1).await, NonceUse::Fresh);
    assert_eq!(take(1).await, NonceUse::Seen);
    assert_eq!(take(2).await, NonceUse::Fresh);
    world.advance(Duration::from_mins(5));
    assert_eq!(take(1).await, NonceUse::Seen);
}

async fn of_many_who_bring_one_nonce_one_is_first(world: World) {
    let until = world.clock.now() + Duration::from_mins(5);
    let agent = AgentId::new(world.clock.now());
    let many = (0..20).map(|_| {
        let (store, agent) = (world.store.clone(), agent.clone());
        tokio::spawn(async move { store.nonces().take(&agent, &[1; 32], until).await.unwrap() })
    });
    let many: Vec<_> = many.collect();
    let mut fresh = 0;
    for one in many {
        fresh += usize::from(one.await.unwrap() == NonceUse::Fresh);
    }
    assert_eq!(fresh, 1);
}

/// Keeps that many nonces for an agent.
async fn fill(world: &World, agent: &AgentId, count: i64, until: OffsetDateTime) {
    let row = |number: i64| {
        let mut digest = vec![0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        vec![digest.into(), agent.as_str().into(), millis(until).into()]
    };
    let mut tx = world.store.write(Change::Once).await.unwrap();
    let columns = ["digest", "agent_id", "until"];
    let rows = (0..count).map(row).collect();
    insert_many(tx.conn(), "seen_nonces", &columns, rows)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

async fn an_agent_keeps_a_bounded_number_of_nonces_and_old_ones_are_swept(world: World) {
    let nonces = world.store.nonces();
    let until = world.clock.now() + Duration::from_mins(5);
    let agent = AgentId::new(world.clock.now());
    assert_eq!(
        nonces.take(&agent, &[1; 32], until).await.unwrap(),
        NonceUse::Fresh
    );
    fill(&world, &agent, MAX_KEPT - 1, until).await;
    let full = nonces.take(&agent, &[2; 32], until).await.unwrap();
    assert_eq!(full, NonceUse::TooMany);
    // The bound is each agent's own.
    let another = AgentId::new(world.clock.now());
    let free = nonces.take(&another, &[2; 32], until).await.unwrap();
    assert_eq!(free, NonceUse::Fresh);
    world.advance(Duration::from_mins(7));
    let until = world.clock.now() + Duration::from_mins(5);
    let swept = nonces.take(&agent, &[2; 32], until).await.unwrap();
    assert_eq!(swept, NonceUse::Fresh);
}
