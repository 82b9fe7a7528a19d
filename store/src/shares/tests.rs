use std::sync::Arc;

use ::leases::clock::{Clock, ManualClock};
use ::leases::id::VaultId;
use futures::future::join_all;

use super::*;
use crate::secrets::tests::{path, put, vault};
use crate::testing::*;
use crate::{
    Acceptance, AgentPatch, NewAccount, NewInvitation, NewUser, Role, SecretVersion, StoreOptions,
};

on_both! {
    of_50_who_open_a_share_at_once_as_many_get_the_value_as_may,
    ten_shares_a_minute_are_made_however_many_are_tried_and_on_whichever_node,
    a_share_opens_until_it_ends_in_whichever_way,
    a_share_ends_with_its_makers_right_to_share,
    a_share_is_accepted_or_declined_by_whom_it_is_for,
    a_share_to_an_email_is_claimed_once_and_vouched_for_by_an_invitation,
    a_share_is_nothing_to_others,
    passphrases_are_tried_ten_times_until_one_is_right,
    an_entry_of_a_set_is_shared_until_the_set_drops_it,
    every_opening_is_on_record,
}

/// An organisation with a person who shares, and what there is to share.
struct Maker {
    org: OrgId,
    vault: VaultId,
    user: User,
    actor: Actor,
    secret: SecretVersion,
}

async fn user(world: &World, org: &OrgId, name: &str) -> User {
    let new = NewUser {
        name: name.to_owned(),
        role: Role::Member,
    };
    let users = world.store.users();
    users.create(org, new, &person()).await.unwrap()
}

fn acts(id: &str) -> Actor {
    Actor {
        id: id.to_owned(),
        ..person()
    }
}

async fn maker(world: &World, name: &str) -> Maker {
    let tenant = tenant(&world.store, name).await;
    let vault = vault(world, &tenant, "v").await;
    let user = user(world, &tenant.org, "ada").await;
    Maker {
        actor: acts(user.id.as_str()),
        secret: put(world, &tenant.org, &vault, "a/b").await,
        org: tenant.org,
        vault: vault.id,
        user,
    }
}

impl Maker {
    fn new_share(&self, recipient: Recipient) -> NewShare {
        NewShare {
            secret: self.secret.id.clone(),
            recipient,
            link_hash: None,
            passphrase: None,
            networks: Vec::new(),
            max_accesses: None,
            expires_at: START + Duration::from_hours(1),
        }
    }

    async fn share(&self, world: &World, new: NewShare) -> Share {
        let shares = world.store.shares();
        shares.create(&self.org, new, &self.actor).await.unwrap()
    }

    /// A share that anyone may open.
    async fn link(&self, world: &World) -> Share {
        self.share(world, self.new_share(Recipient::Anyone)).await
    }
}

/// The same database as another process has it; a file is one process's.
async fn second_node(world: &World) -> Store {
    if world.postgres.is_none() {
        return world.store.clone();
    }
    let clock = Arc::<ManualClock>::clone(&world.clock) as Arc<dyn Clock>;
    let checkpoint = world.directory.path().join("two.checkpoint");
    let options = StoreOptions {
        node: "two".to_owned(),
        ..StoreOptions::at(world.location(), checkpoint, clock)
    };
    Store::open(options).await.unwrap()
}

async fn opens(world: &World, share: &Share) -> bool {
    let shares = world.store.shares();
    let opened = shares.open(share, None, &person()).await.unwrap();
    opened.is_some()
}

async fn of_50_who_open_a_share_at_once_as_many_get_the_value_as_may(world: World) {
    let ada = maker(&world, "one").await;
    for most in [1, 7] {
        let new = NewShare {
            max_accesses: Some(most),
            ..ada.new_share(Recipient::Anyone)
        };
        let share = ada.share(&world, new).await;
        let all = join_all((0..50).map(|_| opens(&world, &share))).await;
        let got = all.iter().filter(|opened| **opened).count();
        assert_eq!(got as u64, most);
        let shares = world.store.shares();
        let now = shares.get(&ada.org, &share.id).await.unwrap().unwrap();
        assert_eq!(now.accesses, most);
        assert!(now.last_accessed_at.is_some());
    }
    // Each was a read of the version, too.
    let secrets = world.store.secrets();
    let version = secrets.by_id(&ada.org, &ada.secret.id).await;
    assert_eq!(version.unwrap().unwrap().reads, 8);
}

async fn ten_shares_a_minute_are_made_however_many_are_tried_and_on_whichever_node(world: World) {
    let ada = maker(&world, "one").await;
    let other = maker(&world, "other").await;
    let second = second_node(&world).await;
    let stores = [&world.store, &second];
    let attempts = (0..24).map(|nth: usize| {
        let new = ada.new_share(Recipient::Anyone);
        let (org, actor) = (&ada.org, &ada.actor);
        async move { stores[nth % 2].shares().create(org, new, actor).await }
    });
    let tried = join_all(attempts).await;
    let made = tried.iter().filter(|made| made.is_ok()).count();
    assert_eq!(made as u64, MAX_SHARES);
    for refused in tried.into_iter().filter_map(Result::err) {
        let CreateShareError::TooMany(wait) = refused else {
            panic!("{refused:?}");
        };
        assert!(wait <= SHARES_PER && wait > Duration::from_secs(50));
    }
    // Another organisation's are its own, and after the minute there is room again.
    other.link(&world).await;
    world.advance(SHARES_PER);
    ada.link(&world).await;
}

async fn a_share_opens_until_it_ends_in_whichever_way(world: World) {
    let ada = maker(&world, "one").await;
    let shares = world.store.shares();
    let revoked = ada.link(&world).await;
    assert!(opens(&world, &revoked).await);
    for is_there in [true, false] {
        let revoke = shares.revoke(&ada.org, &revoked.id, None, &ada.actor).await;
        assert_eq!(revoke.unwrap(), is_there);
        assert!(!opens(&world, &revoked).await);
    }
    let secrets = world.store.secrets();
    let share = ada.link(&world).await;
    let at = path("a/b");
    secrets
        .delete(&ada.org, &ada.vault, &at, &ada.actor)
        .await
        .unwrap();
    assert!(!opens(&world, &share).await);
    secrets
        .restore(&ada.org, &ada.vault, &at, &ada.actor)
        .await
        .unwrap();
    assert!(opens(&world, &share).await);
    world.advance(Duration::from_hours(1));
    assert!(!opens(&world, &share).await);

    // It is of its version, whatever is written after it, and ends with it.
    let ada = maker(&world, "two").await;
    let later = NewShare {
        expires_at: START + Duration::from_hours(9),
        ..ada.new_share(Recipient::Anyone)
    };
    let share = ada.share(&world, later).await;
    let vaults = world.store.vaults();
    let vault = vaults.get(&ada.org, "v").await.unwrap().unwrap();
    assert_eq!(put(&world, &ada.org, &vault, "a/b").await.version, 2);
    let opened = shares.open(&share, None, &ada.actor).await.unwrap();
    let (accesses, opened) = opened.unwrap();
    assert_eq!((accesses, opened.version.version), (1, 1));
    secrets
        .disable(&ada.org, &ada.vault, &at, 1, &ada.actor)
        .await
        .unwrap();
    assert!(!opens(&world, &share).await);
    let gone = ada.new_share(Recipient::Anyone);
    let refused = shares.create(&ada.org, gone, &ada.actor).await;
    assert!(matches!(refused, Err(CreateShareError::NoSecret)));
}

async fn a_share_ends_with_its_makers_right_to_share(world: World) {
    let ada = maker(&world, "one").await;
    let share = ada.link(&world).await;
    assert!(opens(&world, &share).await);
    let demote = |role: &str| {
        let id = &ada.user.id;
        world.tamper(&format!(
            "UPDATE users SET role = '{role}' WHERE id = '{id}'"
        ));
    };
    demote("auditor");
    assert!(!opens(&world, &share).await);
    demote("member");
    assert!(opens(&world, &share).await);
    world.tamper(&format!(
        "UPDATE users SET removed_at = 1 WHERE id = '{}'",
        ada.user.id
    ));
    assert!(!opens(&world, &share).await);

    let agents = world.store.agents();
    let new = new_agent("sharer", "sharer");
    let agent = agents.create(&ada.org, new, &ada.actor).await.unwrap();
    let creator = agents.creator(&ada.org, &agent.id).await.unwrap();
    assert_eq!(creator.as_ref(), Some(&ada.user.id));
    let actor = Actor {
        kind: ActorKind::Agent,
        ..acts(agent.id.as_str())
    };
    let shares = world.store.shares();
    let new = ada.new_share(Recipient::Anyone);
    let share = shares.create(&ada.org, new, &actor).await.unwrap();
    assert!(share.is_by_agent && opens(&world, &share).await);
    let patch = AgentPatch {
        is_active: Some(false),
        ..AgentPatch::default()
    };
    agents
        .patch(&ada.org, &agent.id, patch, &ada.actor)
        .await
        .unwrap();
    assert!(!opens(&world, &share).await);
}

async fn a_share_is_accepted_or_declined_by_whom_it_is_for(world: World) {
    let ada = maker(&world, "one").await;
    let bob = user(&world, &ada.org, "bob").await;
    let eve = user(&world, &ada.org, "eve").await;
    let shares = world.store.shares();
    let of_bob = Recipient::User(bob.id.clone());
    let share = ada.share(&world, ada.new_share(of_bob.clone())).await;
    assert!(!opens(&world, &share).await);
    let (bob_id, actor) = (bob.id.as_str(), acts(bob.id.as_str()));
    let by_eve = shares.accept(&share, eve.id.as_str(), &actor).await;
    assert!(!by_eve.unwrap());
    for _ in 0..2 {
        assert!(shares.accept(&share, bob_id, &actor).await.unwrap());
    }
    assert!(opens(&world, &share).await);
    let inbound = shares.inbound(bob_id, &PageRequest::default()).await;
    assert_eq!(inbound.unwrap().items.len(), 1);
    let by_eve = shares.decline(&share, eve.id.as_str(), &actor).await;
    assert!(!by_eve.unwrap());
    for _ in 0..2 {
        assert!(shares.decline(&share, bob_id, &actor).await.unwrap());
        assert!(!opens(&world, &share).await);
    }
    assert!(!shares.accept(&share, bob_id, &actor).await.unwrap());
    let inbound = shares.inbound(bob_id, &PageRequest::default()).await;
    assert_eq!(inbound.unwrap().items, []);

    let expired = ada.share(&world, ada.new_share(of_bob)).await;
    world.advance(Duration::from_hours(1));
    assert!(!shares.accept(&expired, bob_id, &actor).await.unwrap());
    let nobody = Recipient::User(UserId::new(START));
    let refused = shares
        .create(&ada.org, ada.new_share(nobody), &ada.actor)
        .await;
    assert!(matches!(refused, Err(CreateShareError::NoRecipient)));
}

async fn a_share_to_an_email_is_claimed_once_and_vouched_for_by_an_invitation(world: World) {
    let ada = maker(&world, "one").await;
    let far = tenant(&world.store, "far").await;
    let (shares, email) = (world.store.shares(), "bob@example.org");
    let new = NewShare {
        link_hash: Some(key_hash("link")),
        ..ada.new_share(Recipient::Email(email.to_owned()))
    };
    let share = ada.share(&world, new).await;
    let account = NewAccount {
        email: email.to_owned(),
        display_name: None,
        role: Role::Owner,
        password: PasswordDigest("x".to_owned()),
    };
    let credentials = world.store.credentials();
    let bob = credentials
        .create(&far.org, account, &person())
        .await
        .unwrap();
    let actor = acts(bob.id.as_str());
    for _ in 0..2 {
        shares.claim(&bob, &actor).await.unwrap();
    }
    let inbound = shares
        .inbound(bob.id.as_str(), &PageRequest::default())
        .await
        .unwrap();
    assert_eq!(inbound.items.len(), 1);
    let claimed = &inbound.items[0];
    assert_eq!(claimed.claimed_by.as_ref(), Some(&bob.id));
    assert!(claimed.is_for(bob.id.as_str()) && claimed.accepted_at.is_none());
    assert!(!shares.is_vouched(claimed, &bob.id).await.unwrap());
    let by_link = shares.find_by_link(&key_hash("link")).await.unwrap();
    assert_eq!(by_link.as_ref(), Some(claimed));
    let of_bob = shares.get_for(bob.id.as_str(), &share.id).await.unwrap();
    assert_eq!(of_bob.as_ref(), Some(claimed));

    // One whom the organisation invited.
    world.tamper(&format!(
        "UPDATE users SET role = 'owner' WHERE id = '{}'",
        ada.user.id
    ));
    let invitation = NewInvitation {
        email: "carol@example.org".to_owned(),
        role: Role::Member,
        token_hash: key_hash("token"),
        expires_at: START + Duration::from_hours(1),
    };
    let invitations = world.store.invitations();
    invitations
        .create(&ada.org, invitation, &ada.user.id, &ada.actor)
        .await
        .unwrap();
    let by = Acceptance {
        display_name: None,
        password: PasswordDigest("x".to_owned()),
        client_ip: None,
        request_id: None,
    };
    let carol = invitations.accept(&key_hash("token"), by).await;
    let carol = carol.unwrap().unwrap();
    let to_carol = Recipient::Email("carol@example.org".to_owned());
    let share = ada.share(&world, ada.new_share(to_carol)).await;
    assert!(shares.is_vouched(&share, &carol.id).await.unwrap());
    assert!(!shares.is_vouched(&share, &bob.id).await.unwrap());
}

async fn a_share_is_nothing_to_others(world: World) {
    let ada = maker(&world, "one").await;
    let other = maker(&world, "other").await;
    let shares = world.store.shares();
    let share = ada.link(&world).await;
    let page = PageRequest::default();
    assert_eq!(shares.get(&other.org, &share.id).await.unwrap(), None);
    let revoked = shares
        .revoke(&other.org, &share.id, None, &other.actor)
        .await;
    assert!(!revoked.unwrap());
    let outbound = shares.outbound(&other.org, None, &page).await.unwrap();
    assert_eq!(outbound.items, []);
    let of_ada = shares
        .outbound(&ada.org, Some(ada.user.id.as_str()), &page)
        .await;
    assert_eq!(of_ada.unwrap().items, std::slice::from_ref(&share));
    let by_another = shares
        .revoke(&ada.org, &share.id, Some("usr_x"), &ada.actor)
        .await;
    assert!(!by_another.unwrap());
    // Neither another's secret nor another's people are shared with.
    let theirs = NewShare {
        secret: other.secret.id.clone(),
        ..ada.new_share(Recipient::Anyone)
    };
    let refused = shares.create(&ada.org, theirs, &ada.actor).await;
    assert!(matches!(refused, Err(CreateShareError::NoSecret)));
    let to_other = ada.new_share(Recipient::User(other.user.id.clone()));
    let refused = shares.create(&ada.org, to_other, &ada.actor).await;
    assert!(matches!(refused, Err(CreateShareError::NoRecipient)));
    assert!(opens(&world, &share).await);
}

async fn passphrases_are_tried_ten_times_until_one_is_right(world: World) {
    let ada = maker(&world, "one").await;
    let share = ada.link(&world).await;
    let shares = world.store.shares();
    let tried = join_all((0..30).map(|_| shares.count_try(&share))).await;
    let counted = tried.into_iter().filter(|tried| *tried.as_ref().unwrap());
    assert_eq!(counted.count() as u64, MAX_TRIES);
    // Whoever was right among them gives the tries back.
    assert!(opens(&world, &share).await);
    assert!(shares.count_try(&share).await.unwrap());
}

async fn an_entry_of_a_set_is_shared_until_the_set_drops_it(world: World) {
    let ada = maker(&world, "one").await;
    create_set(&world.store, &ada.org, "shared", &["A", "B"]).await;
    let secrets = world.store.secrets();
    let vault = world.store.vaults().get(&ada.org, "default").await;
    let vault = vault.unwrap().unwrap();
    let entries = secrets
        .list(
            &ada.org,
            &vault.id,
            "stripe/prod/shared/",
            &PageRequest::default(),
        )
        .await
        .unwrap();
    let new = NewShare {
        secret: entries.items[0].id.clone(),
        ..ada.new_share(Recipient::Anyone)
    };
    let share = ada.share(&world, new).await;
    assert_eq!(share.path, "stripe/prod/shared/A");
    assert!(opens(&world, &share).await);
    let sets = world.store.secret_sets();
    let set = sets
        .get_by_name(&ada.org, "stripe", "prod", "shared")
        .await
        .unwrap()
        .unwrap();
    sets.delete(&ada.org, &set.id, &ada.actor).await.unwrap();
    assert!(!opens(&world, &share).await);
}

async fn every_opening_is_on_record(world: World) {
    let ada = maker(&world, "one").await;
    let share = ada.link(&world).await;
    assert!(opens(&world, &share).await);
    let shares = world.store.shares();
    shares
        .revoke(&ada.org, &share.id, None, &ada.actor)
        .await
        .unwrap();
    assert!(!opens(&world, &share).await);
    let filter = crate::EventFilter::default();
    let events = world
        .store
        .audit()
        .list(&ada.org, &filter, &PageRequest::default())
        .await
        .unwrap();
    let told: Vec<&str> = events
        .items
        .iter()
        .filter(|event| event.keys.contains(&share.id.to_string()))
        .map(|event| event.action.as_str())
        .collect();
    assert_eq!(told.len(), 4);
    for action in [
        "share.create",
        "secret.export",
        "share.access",
        "share.revoke",
    ] {
        assert!(told.contains(&action), "{told:?}");
    }
    // Whoever is told of an opening learns whose share it was.
    let access = events
        .items
        .iter()
        .find(|event| event.action == "share.access");
    assert_eq!(access.unwrap().keys.last(), Some(&share.created_by));
}
