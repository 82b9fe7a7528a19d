//! The part of the story that is about people, on both databases.

use std::time::Duration;

use ::leases::clock::Clock as _;
use ::leases::id::{IpRuleId, KeyId, OrgId, UserId};
use futures::future::join_all;

use crate::testing::*;
use crate::{
    Acceptance, AccountError, Actor, ActorKind, Attempt, BegunOidcLogin, DevicePoll, Identified,
    IpRuleError, IpRuleKind, LinkError, MemberError, NewAccount, NewDeviceLogin, NewInvitation,
    NewIpRule, NewOidcLogin, NewPersonalKey, PageRequest, PasswordDigest, ProfilePatch, Role,
    SessionRef, Store, User,
};

on_both! {
    an_email_is_one_persons_in_all_organisations,
    a_session_ends_with_its_epoch_its_key_its_person_or_itself,
    a_key_ends_at_its_time_and_is_nothing_to_others,
    members_are_managed_within_an_organisation_and_a_role,
    of_owners_who_demote_each_other_one_stays,
    an_invitation_is_accepted_once_however_many_try,
    a_step_and_a_recovery_code_are_taken_once_and_tries_are_few,
    a_device_gets_one_key_however_often_it_asks,
    rules_are_an_organisations_own_and_bounded,
    an_identity_is_one_persons_and_ends_with_it,
    an_invitation_is_accepted_by_whom_its_email_is_vouched_for,
    a_sign_in_that_began_and_a_providers_token_are_taken_once,
}

fn digest(text: &str) -> PasswordDigest {
    PasswordDigest(text.to_owned())
}

async fn account(store: &Store, org: &OrgId, email: &str, role: Role) -> User {
    let new = NewAccount {
        email: email.to_owned(),
        display_name: None,
        role,
        password: digest("first"),
    };
    store
        .credentials()
        .create(org, new, &person())
        .await
        .unwrap()
}

fn new_key(name: &str, is_session: bool) -> NewPersonalKey {
    NewPersonalKey {
        hash: key_hash(name),
        name: name.to_owned(),
        prefix: "1ck_abcdefgh".to_owned(),
        reads_only: false,
        expires_at: None,
        is_session,
    }
}

async fn an_email_is_one_persons_in_all_organisations(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let credentials = world.store.credentials();
    let ada = account(&world.store, &one.org, "ada@example.org", Role::Member).await;
    let new = |email: &str| NewAccount {
        email: email.to_owned(),
        display_name: None,
        role: Role::Member,
        password: digest("x"),
    };
    for org in [&one.org, &other.org] {
        let taken = credentials
            .create(org, new("ada@example.org"), &person())
            .await;
        assert!(matches!(taken, Err(AccountError::EmailTaken)));
    }
    let orgs = [&one.org, &other.org, &one.org, &other.org];
    let all = orgs.map(|org| async move {
        let (new, actor) = (new("race@example.org"), person());
        credentials.create(org, new, &actor).await.is_ok()
    });
    let made = join_all(all).await;
    assert_eq!(made.iter().filter(|made| **made).count(), 1);
    let found = credentials.find("ada@example.org").await.unwrap();
    assert_eq!(found, Some((ada.clone(), Some(digest("first")))));
    assert_eq!(credentials.find("").await.unwrap(), None);
    let patch = ProfilePatch {
        email: Some("race@example.org".to_owned()),
        display_name: None,
    };
    let taken = credentials
        .patch(&one.org, &ada.id, patch.clone(), &person())
        .await;
    assert!(matches!(taken, Err(AccountError::EmailTaken)));
    let foreign = credentials
        .patch(&other.org, &ada.id, patch, &person())
        .await;
    assert_eq!(foreign.unwrap(), None);
    let moved = credentials
        .set_password(
            &one.org,
            &ada.id,
            Some(&digest("no")),
            &digest("new"),
            &person(),
        )
        .await;
    assert!(matches!(moved, Err(AccountError::Moved)));
    let foreign = credentials
        .set_password(&other.org, &ada.id, None, &digest("new"), &person())
        .await;
    assert_eq!(foreign.unwrap(), None);
    assert_eq!(
        credentials.password(&other.org, &ada.id).await.unwrap(),
        None
    );
}

async fn a_session_ends_with_its_epoch_its_key_its_person_or_itself(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let other = tenant(store, "other").await;
    let owner = account(store, &one.org, "owner@example.org", Role::Owner).await;
    let ada = account(store, &one.org, "ada@example.org", Role::Member).await;
    let keys = store.personal_keys();
    let key = keys
        .create(&one.org, &ada.id, new_key("k", false), &person())
        .await;
    let key = key.unwrap().unwrap();
    let session = |jti: &'static str, epoch: u64, key: Option<KeyId>| {
        let (org, user) = (&one.org, &ada.id);
        async move {
            let key = key.as_ref();
            let session = SessionRef {
                org,
                user,
                jti,
                epoch,
                key,
            };
            store.sessions().find(session).await.unwrap().is_some()
        }
    };
    assert!(session("a", 0, None).await);
    assert!(session("b", 0, Some(key.id.clone())).await);
    assert!(!session("a", 1, None).await);
    let foreign = SessionRef {
        org: &other.org,
        user: &ada.id,
        jti: "a",
        epoch: 0,
        key: None,
    };
    assert_eq!(store.sessions().find(foreign).await.unwrap(), None);
    let until = START + Duration::from_mins(15);
    for _ in 0..2 {
        let revoked = store
            .sessions()
            .revoke(&one.org, "a", until, &person())
            .await;
        revoked.unwrap();
    }
    assert!(store.sessions().is_revoked("a").await.unwrap());
    assert!(!session("a", 0, None).await);
    assert!(session("c", 0, None).await);
    let revoked = keys.revoke(&one.org, &ada.id, &key.id, &person()).await;
    assert!(revoked.unwrap());
    assert!(!session("b", 0, Some(key.id)).await);
    let of_session = new_key("s", true);
    let hash = of_session.hash;
    let made = keys.create(&one.org, &ada.id, of_session, &person()).await;
    assert!(made.unwrap().unwrap().is_session);
    assert!(keys.find(&hash).await.unwrap().unwrap().is_session);
    let was = digest("first");
    let changed = store
        .credentials()
        .set_password(&one.org, &ada.id, Some(&was), &digest("second"), &person())
        .await;
    assert_eq!(changed.unwrap().unwrap().session_epoch, 1);
    assert!(!session("c", 0, None).await);
    assert!(session("c", 1, None).await);
    assert_eq!(keys.find(&hash).await.unwrap(), None);
    let members = store.members();
    let removed = members
        .remove(&one.org, &ada.id, &owner.id, &person())
        .await;
    removed.unwrap();
    assert!(!session("c", 1, None).await && !session("c", 2, None).await);
    // What was ended is forgotten once it would have ended anyway.
    world.advance(Duration::from_secs(901));
    let later = world.clock.now() + Duration::from_mins(15);
    let revoked = store
        .sessions()
        .revoke(&one.org, "z", later, &person())
        .await;
    revoked.unwrap();
    assert!(!store.sessions().is_revoked("a").await.unwrap());
}

async fn a_key_ends_at_its_time_and_is_nothing_to_others(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let other = tenant(store, "other").await;
    let ada = account(store, &one.org, "ada@example.org", Role::Member).await;
    let grace = account(store, &one.org, "grace@example.org", Role::Owner).await;
    let keys = store.personal_keys();
    let new = NewPersonalKey {
        expires_at: Some(START + Duration::from_mins(1)),
        reads_only: true,
        ..new_key("k", false)
    };
    let foreign = keys
        .create(&other.org, &ada.id, new.clone(), &person())
        .await;
    assert_eq!(foreign.unwrap(), None);
    let key = keys.create(&one.org, &ada.id, new, &person()).await;
    let key = key.unwrap().unwrap();
    let found = keys.find(&key_hash("k")).await.unwrap().unwrap();
    assert_eq!((&found.user, found.reads_only), (&ada, true));
    keys.touch(&one.org, &key.id).await.unwrap();
    let page = PageRequest::default();
    let listed = keys.list(&one.org, &ada.id, &page).await.unwrap().items;
    assert_eq!(listed.len(), 1);
    assert!(listed[0].last_used_at.is_some());
    for (org, user) in [(&other.org, &ada.id), (&one.org, &grace.id)] {
        assert!(keys.list(org, user, &page).await.unwrap().items.is_empty());
        let revoked = keys.revoke(org, user, &key.id, &person()).await;
        assert!(!revoked.unwrap());
    }
    world.advance(Duration::from_mins(1));
    assert_eq!(keys.find(&key_hash("k")).await.unwrap(), None);
}

async fn members_are_managed_within_an_organisation_and_a_role(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let other = tenant(store, "other").await;
    let owner = account(store, &one.org, "owner@example.org", Role::Owner).await;
    let admin = account(store, &one.org, "admin@example.org", Role::Admin).await;
    let member = account(store, &one.org, "member@example.org", Role::Member).await;
    let foreign = account(store, &other.org, "foreign@example.org", Role::Owner).await;
    let members = store.members();
    let set = |id: &User, role, by: &User| {
        let (id, by) = (id.id.clone(), by.id.clone());
        let org = &one.org;
        async move { members.set_role(org, &id, role, &by, &person()).await }
    };
    let refused = set(&member, Role::Auditor, &member).await;
    assert!(matches!(refused, Err(MemberError::NotAdmin)));
    let refused = set(&member, Role::Auditor, &foreign).await;
    assert!(matches!(refused, Err(MemberError::NotAdmin)));
    let refused = set(&foreign, Role::Auditor, &owner).await;
    assert!(matches!(refused, Err(MemberError::Missing)));
    let refused = set(&owner, Role::Member, &admin).await;
    assert!(matches!(refused, Err(MemberError::Above(Role::Owner))));
    let refused = set(&member, Role::Owner, &admin).await;
    assert!(matches!(refused, Err(MemberError::Raises(Role::Owner))));
    let refused = set(&admin, Role::Member, &admin).await;
    assert!(matches!(refused, Err(MemberError::Oneself)));
    let changed = set(&member, Role::Admin, &admin).await.unwrap();
    assert_eq!((changed.role, changed.session_epoch), (Role::Admin, 1));
    assert_eq!(
        store.users().get(&one.org, &member.id).await.unwrap(),
        Some(changed)
    );
    let last = members
        .remove(&one.org, &owner.id, &owner.id, &person())
        .await;
    assert!(matches!(last, Err(MemberError::LastOwner)));
    let left = members
        .remove(&one.org, &admin.id, &admin.id, &person())
        .await;
    left.unwrap();
    assert_eq!(store.users().get(&one.org, &admin.id).await.unwrap(), None);
    let gone = members
        .remove(&one.org, &admin.id, &owner.id, &person())
        .await;
    assert!(matches!(gone, Err(MemberError::Missing)));
    assert_eq!(
        store.credentials().find("admin@example.org").await.unwrap(),
        None
    );
    let again = account(store, &one.org, "admin@example.org", Role::Member).await;
    assert_ne!(again.id, admin.id);
}

async fn of_owners_who_demote_each_other_one_stays(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let ada = account(store, &one.org, "ada@example.org", Role::Owner).await;
    let grace = account(store, &one.org, "grace@example.org", Role::Owner).await;
    let actor = person();
    let demote = |id: &User, by: &User| {
        let (id, by) = (id.id.clone(), by.id.clone());
        let (org, actor) = (&one.org, &actor);
        async move {
            let members = store.members();
            members.set_role(org, &id, Role::Member, &by, actor).await
        }
    };
    let (first, second) = tokio::join!(demote(&ada, &grace), demote(&grace, &ada));
    assert_ne!(first.is_ok(), second.is_ok());
}

async fn an_invitation_is_accepted_once_however_many_try(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let other = tenant(store, "other").await;
    let owner = account(store, &one.org, "owner@example.org", Role::Owner).await;
    let invitations = store.invitations();
    let new = NewInvitation {
        email: "ada@example.org".to_owned(),
        role: Role::Admin,
        token_hash: key_hash("token"),
        expires_at: START + Duration::from_mins(1),
    };
    let made = invitations
        .create(&one.org, new, &owner.id, &person())
        .await;
    let made = made.unwrap();
    let page = PageRequest::default();
    let listed = invitations.list(&one.org, &page).await.unwrap().items;
    assert_eq!(listed, std::slice::from_ref(&made));
    assert!(
        invitations
            .list(&other.org, &page)
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let foreign = invitations.revoke(&other.org, &made.id, &person()).await;
    assert!(!foreign.unwrap());
    assert_eq!(
        invitations.org_of(&key_hash("token")).await.unwrap(),
        Some(one.org.clone())
    );
    let accept = |_| async {
        let by = Acceptance {
            display_name: None,
            password: digest("x"),
            client_ip: None,
            request_id: None,
        };
        let accepted = invitations.accept(&key_hash("token"), by).await;
        accepted.unwrap().is_some()
    };
    let accepted = join_all((0..8).map(accept)).await;
    assert_eq!(accepted.iter().filter(|accepted| **accepted).count(), 1);
    assert_eq!(invitations.org_of(&key_hash("token")).await.unwrap(), None);
    let revoked = invitations.revoke(&one.org, &made.id, &person()).await;
    assert!(!revoked.unwrap());
}

async fn a_step_and_a_recovery_code_are_taken_once_and_tries_are_few(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let other = tenant(store, "other").await;
    let ada = account(store, &one.org, "ada@example.org", Role::Member).await;
    let (factors, actor) = (store.second_factors(), person());
    let (org, user) = (&one.org, &ada.id);
    assert_eq!(factors.attempt(org, user).await.unwrap(), Attempt::None);
    assert!(factors.set_up(org, user, 1, &actor).await.unwrap());
    assert!(factors.set_up(org, user, 2, &actor).await.unwrap());
    assert!(!factors.is_enabled(org, user).await.unwrap());
    let step = async |version, step, codes: Option<&[[u8; 32]]>| {
        let taken = factors
            .take_step(org, user, (version, step), codes, &actor)
            .await;
        taken.unwrap()
    };
    let codes = [key_hash("one"), key_hash("two")];
    assert!(!step(1, 10, Some(&codes)).await, "of an older secret");
    assert!(!step(2, 10, None).await, "not enabled");
    assert!(step(2, 10, Some(&codes)).await);
    assert!(factors.is_enabled(org, user).await.unwrap());
    assert!(!factors.is_enabled(&other.org, user).await.unwrap());
    assert!(!factors.set_up(org, user, 3, &actor).await.unwrap());
    assert!(!step(2, 10, None).await && !step(2, 9, None).await);
    let taken = join_all((0..6).map(|_| step(2, 11, None))).await;
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
    let recover = async |code: &str| {
        let taken = factors
            .take_recovery_code(org, user, &key_hash(code), &actor)
            .await;
        taken.unwrap()
    };
    let taken = join_all((0..6).map(|_| recover("one"))).await;
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
    assert!(!recover("three").await);
    let tries = join_all((0..9).map(|_| factors.attempt(org, user))).await;
    let counted = |attempt: &&Result<Attempt, _>| matches!(attempt, Ok(Attempt::Counted(_)));
    assert_eq!(tries.iter().filter(counted).count(), 5);
    world.advance(Duration::from_mins(15));
    assert!(matches!(
        factors.attempt(org, user).await,
        Ok(Attempt::Counted(_))
    ));
    assert!(!factors.disable(&other.org, user, &actor).await.unwrap());
    assert!(factors.disable(org, user, &actor).await.unwrap());
    assert!(!recover("two").await);
}

async fn a_device_gets_one_key_however_often_it_asks(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let ada = account(store, &one.org, "ada@example.org", Role::Member).await;
    let devices = store.device_logins();
    let new = |name: &str| NewDeviceLogin {
        device_hash: key_hash(name),
        user_code: name.to_owned(),
        lifetime: Duration::from_mins(10),
        interval: Duration::from_secs(5),
    };
    assert!(devices.begin(new("A")).await.unwrap());
    assert!(devices.begin(new("A")).await.is_err());
    let poll = async |name: &str, key: &str| {
        let actor = |user: &UserId| Actor {
            kind: ActorKind::User,
            id: user.to_string(),
            client_ip: None,
            request_id: None,
        };
        let answer = devices
            .poll(&key_hash(name), new_key(key, true), actor)
            .await;
        answer.unwrap()
    };
    assert_eq!(poll("A", "early").await, DevicePoll::SlowDown);
    world.advance(Duration::from_secs(10));
    assert_eq!(poll("A", "k").await, DevicePoll::Pending);
    assert_eq!(poll("B", "k").await, DevicePoll::Expired);
    let who = (&one.org, &ada.id);
    let decide = async |code: &str, lets_in| {
        let decided = devices.decide(code, lets_in, who, &person()).await;
        decided.unwrap()
    };
    assert!(!decide("B", true).await);
    assert!(decide("A", true).await);
    assert!(!decide("A", false).await);
    let answers = join_all((0..4).map(|index| async move {
        let key = format!("k{index}");
        poll("A", &key).await
    }))
    .await;
    let let_in = |answer: &&DevicePoll| matches!(answer, DevicePoll::LetIn(..));
    assert_eq!(answers.iter().filter(let_in).count(), 1);
    let page = PageRequest::default();
    let keys = store.personal_keys().list(&one.org, &ada.id, &page).await;
    assert_eq!(keys.unwrap().items.len(), 1);
    assert!(devices.begin(new("C")).await.unwrap());
    world.advance(Duration::from_mins(10));
    assert!(!decide("C", true).await);
    assert_eq!(poll("C", "c").await, DevicePoll::Expired);
}

async fn rules_are_an_organisations_own_and_bounded(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let other = tenant(store, "other").await;
    let rules = store.ip_rules();
    let new = |index: usize| NewIpRule {
        kind: IpRuleKind::Allow,
        cidr: format!("192.0.2.{index}/32"),
        description: String::new(),
    };
    let actor = person();
    let refused = rules
        .create(&one.org, new(0), &actor, <[_]>::is_empty)
        .await;
    assert!(matches!(refused, Err(IpRuleError::ShutsOut)));
    for index in 0..200 {
        rules
            .create(&one.org, new(index), &actor, |_| true)
            .await
            .unwrap();
    }
    let full = rules.create(&one.org, new(200), &actor, |_| true).await;
    assert!(matches!(full, Err(IpRuleError::Full(200))));
    let listed = rules.list(&one.org).await.unwrap();
    assert_eq!(listed.len(), 200);
    assert!(rules.list(&other.org).await.unwrap().is_empty());
    let id = &listed[0].id;
    let foreign = rules.delete(&other.org, id, &actor, |_| true).await;
    assert!(matches!(foreign, Err(IpRuleError::Missing)));
    let unknown = IpRuleId::new(START);
    let unknown = rules.delete(&one.org, &unknown, &actor, |_| true).await;
    assert!(matches!(unknown, Err(IpRuleError::Missing)));
    let kept = rules.delete(&one.org, id, &actor, |rules| rules.len() == 200);
    assert!(matches!(kept.await, Err(IpRuleError::ShutsOut)));
    rules.delete(&one.org, id, &actor, |_| true).await.unwrap();
    assert_eq!(rules.list(&one.org).await.unwrap().len(), 199);
    assert_eq!(rules.clear(&other.org, &actor).await.unwrap(), 0);
    assert_eq!(rules.clear(&one.org, &actor).await.unwrap(), 199);
    assert!(rules.list(&one.org).await.unwrap().is_empty());
    assert!(store.audit().verify().await.unwrap().is_intact());
}

fn identified(subject: &str, email: Option<&str>) -> Identified {
    Identified {
        issuer: "https://id.example.org".to_owned(),
        subject: subject.to_owned(),
        email: email.map(str::to_owned),
    }
}

async fn an_identity_is_one_persons_and_ends_with_it(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let other = tenant(store, "other").await;
    let owner = account(store, &one.org, "owner@example.org", Role::Owner).await;
    let ada = account(store, &one.org, "ada@example.org", Role::Member).await;
    let eve = account(store, &other.org, "eve@example.org", Role::Owner).await;
    let identities = store.identities();
    let who = identified("sub-1", None);
    let link = async |user: &User, who: &Identified| {
        let linked = identities.link(&user.org, &user.id, who, &person()).await;
        linked.map(|user| user.id)
    };
    assert_eq!(link(&ada, &who).await.unwrap(), ada.id);
    assert_eq!(link(&ada, &who).await.unwrap(), ada.id);
    assert!(matches!(link(&eve, &who).await, Err(LinkError::Taken)));
    let nobody = User {
        org: other.org.clone(),
        ..ada.clone()
    };
    let fresh = identified("sub-2", None);
    assert!(matches!(
        link(&nobody, &fresh).await,
        Err(LinkError::Missing)
    ));
    let find = async |issuer: &str, subject: &str| {
        let found = identities.find(issuer, subject).await.unwrap();
        found.map(|user| user.id)
    };
    assert_eq!(find(&who.issuer, "sub-1").await, Some(ada.id.clone()));
    assert_eq!(find(&who.issuer, "SUB-1").await, None);
    assert_eq!(find("https://id.example.org/", "sub-1").await, None);
    identities
        .touch(&one.org, &identified("sub-1", Some("a@b")))
        .await
        .unwrap();
    let held = identities.of(&one.org, &ada.id).await.unwrap();
    assert_eq!(held[0].email.as_deref(), Some("a@b"));
    assert!(identities.of(&other.org, &ada.id).await.unwrap().is_empty());
    for index in 0..7 {
        link(&ada, &identified(&format!("more-{index}"), None))
            .await
            .unwrap();
    }
    assert!(matches!(link(&ada, &fresh).await, Err(LinkError::Full(8))));
    assert_eq!(
        identities
            .unlink(&other.org, &ada.id, &person())
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        identities
            .unlink(&one.org, &ada.id, &person())
            .await
            .unwrap(),
        8
    );
    let after = world.store.users().get(&one.org, &ada.id).await;
    assert_eq!(after.unwrap().unwrap().session_epoch, ada.session_epoch + 1);
    assert_eq!(find(&who.issuer, "sub-1").await, None);
    link(&ada, &who).await.unwrap();
    let members = store.members();
    members
        .remove(&one.org, &ada.id, &owner.id, &person())
        .await
        .unwrap();
    assert_eq!(find(&who.issuer, "sub-1").await, None);
    assert_eq!(link(&eve, &who).await.unwrap(), eve.id);
}

async fn an_invitation_is_accepted_by_whom_its_email_is_vouched_for(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let other = tenant(store, "other").await;
    let owner = account(store, &one.org, "owner@example.org", Role::Owner).await;
    let invite = async |email: &str| {
        let new = NewInvitation {
            email: email.to_owned(),
            role: Role::Admin,
            token_hash: key_hash(email),
            expires_at: START + Duration::from_mins(1),
        };
        let invitations = store.invitations();
        invitations
            .create(&one.org, new, &owner.id, &person())
            .await
            .unwrap()
    };
    let actor = |user: &UserId| Actor {
        id: user.to_string(),
        ..person()
    };
    let identities = store.identities();
    let accept = async |org: &OrgId, subject: &str, email: Option<&str>| {
        let accepted = identities
            .accept(org, &identified(subject, email), None, actor)
            .await;
        accepted.unwrap()
    };
    invite("ada@example.org").await;
    assert_eq!(accept(&one.org, "ada", None).await, None);
    assert_eq!(accept(&one.org, "ada", Some("eve@example.org")).await, None);
    assert_eq!(
        accept(&other.org, "ada", Some("ada@example.org")).await,
        None
    );
    let home = &one.org;
    let accepted = join_all((0..4).map(|index| async move {
        accept(home, &format!("ada-{index}"), Some("ada@example.org")).await
    }))
    .await;
    let mut made = accepted.into_iter().flatten();
    assert_eq!(made.next().unwrap().role, Role::Admin);
    assert_eq!(made.next(), None);
    // Somebody has the identity already.
    invite("grace@example.org").await;
    identities
        .link(&one.org, &owner.id, &identified("grace", None), &person())
        .await
        .unwrap();
    assert_eq!(
        accept(&one.org, "grace", Some("grace@example.org")).await,
        None
    );
    world.advance(Duration::from_mins(1));
    assert_eq!(
        accept(&one.org, "late", Some("grace@example.org")).await,
        None
    );
    let create = async |subject: &str, email: Option<&str>| {
        let who = identified(subject, email);
        let made = identities
            .create(&other.org, &who, (None, Role::Owner), &person())
            .await;
        made.unwrap().map(|user| user.role)
    };
    assert_eq!(create("mary", None).await, None);
    assert_eq!(create("mary", Some("owner@example.org")).await, None);
    assert_eq!(
        create("mary", Some("mary@example.org")).await,
        Some(Role::Owner)
    );
}

async fn a_sign_in_that_began_and_a_providers_token_are_taken_once(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let ada = account(store, &one.org, "ada@example.org", Role::Member).await;
    let logins = store.oidc_logins();
    let begin = async |name: &str, link_to| {
        let new = NewOidcLogin {
            flow_hash: key_hash(name),
            redirect_uri: "http://127.0.0.1:7/callback".to_owned(),
            lifetime: Duration::from_mins(10),
            link_to,
        };
        logins.begin(new).await
    };
    let link_to = Some((one.org.clone(), ada.id.clone()));
    assert!(begin("A", link_to.clone()).await.unwrap());
    assert!(begin("A", None).await.is_err());
    assert!(begin("B", None).await.unwrap());
    assert_eq!(logins.take(&key_hash("C")).await.unwrap(), None);
    let taken =
        join_all((0..4).map(|_| async { logins.take(&key_hash("A")).await.unwrap() })).await;
    let taken: Vec<BegunOidcLogin> = taken.into_iter().flatten().collect();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].link_to, link_to);
    world.advance(Duration::from_mins(10));
    assert_eq!(logins.take(&key_hash("B")).await.unwrap(), None);
    let until = START + Duration::from_mins(20);
    let take = async || logins.take_token(&key_hash("T"), until).await.unwrap();
    let taken = join_all((0..4).map(|_| take())).await;
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
    world.advance(Duration::from_mins(10));
    assert!(take().await, "what has ended by itself is forgotten");
}
