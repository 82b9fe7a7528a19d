use std::time::Duration;

use ::leases::policy::PathPattern;

use super::*;
use crate::testing::*;

on_both! {
    a_policy_is_kept_whole_and_changed_and_ended_by_its_own_organisation_alone,
    a_policy_needs_a_vault_and_a_principal_of_its_organisation,
    only_policies_of_the_vault_and_the_principal_decide,
    a_vaults_policies_are_bounded_and_end_with_it,
}

fn rule(pattern: &str) -> Rule {
    Rule {
        pattern: PathPattern::parse(pattern).unwrap(),
        permissions: vec![Permission::Read, Permission::Rotate],
        effect: Effect::Deny,
        priority: -3,
        conditions: serde_json::from_str(
            r#"{"ip_allowlist": ["10.0.0.0/8"], "time_window": {"after": "22:00", "before": "06:00", "timezone": "Europe/Berlin", "days": ["fri"]}}"#,
        )
        .unwrap(),
        environments: vec!["prod".to_owned()],
        expires_at: Some(START + Duration::from_mins(1)),
    }
}

fn for_agent(tenant: &Tenant, pattern: &str) -> NewPolicy {
    NewPolicy {
        principal: PolicyPrincipal::Agent(tenant.agent.clone()),
        rule: rule(pattern),
    }
}

async fn a_policy_is_kept_whole_and_changed_and_ended_by_its_own_organisation_alone(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let policies = world.store.policies();
    let new = for_agent(&one, "a/**");
    let made = policies
        .create(&one.org, &one.vault, new.clone(), &person())
        .await
        .unwrap();
    assert_eq!((&made.rule, &made.principal), (&new.rule, &new.principal));
    let everything = PageRequest::default();
    let list = async || {
        let listed = policies.list(&one.org, &one.vault, &everything).await;
        listed.unwrap().items
    };
    assert_eq!(list().await, std::slice::from_ref(&made));
    let patch = PolicyPatch {
        permissions: Some(vec![Permission::Write]),
        effect: Some(Effect::Allow),
        expires_at: Some(None),
        ..PolicyPatch::default()
    };
    for (org, vault) in [(&other.org, &one.vault), (&one.org, &other.vault)] {
        let foreign = policies
            .patch(org, vault, &made.id, patch.clone(), &person())
            .await;
        assert!(foreign.unwrap().is_none());
        assert!(
            !policies
                .delete(org, vault, &made.id, &person())
                .await
                .unwrap()
        );
        let listed = policies.list(org, vault, &everything).await.unwrap();
        assert!(listed.items.is_empty());
    }
    world.advance(Duration::from_secs(5));
    let changed = policies
        .patch(&one.org, &one.vault, &made.id, patch, &person())
        .await
        .unwrap()
        .unwrap();
    let expected = Policy {
        rule: Rule {
            permissions: vec![Permission::Write],
            effect: Effect::Allow,
            expires_at: None,
            ..made.rule.clone()
        },
        version: 2,
        updated_at: START + Duration::from_secs(5),
        ..made.clone()
    };
    assert_eq!(changed, expected);
    assert_eq!(list().await, [expected]);
    for ended in [true, false] {
        let deleted = policies
            .delete(&one.org, &one.vault, &made.id, &person())
            .await;
        assert_eq!(deleted.unwrap(), ended);
    }
    assert_eq!(list().await, []);
}

async fn a_policy_needs_a_vault_and_a_principal_of_its_organisation(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let policies = world.store.policies();
    let foreign = policies
        .create(&one.org, &other.vault, for_agent(&one, "**"), &person())
        .await;
    assert!(matches!(foreign, Err(CreatePolicyError::NoVault(_))));
    let foreign = policies
        .create(&one.org, &one.vault, for_agent(&other, "**"), &person())
        .await;
    assert!(matches!(foreign, Err(CreatePolicyError::NoPrincipal(_))));
    let nobody = NewPolicy {
        principal: PolicyPrincipal::User(UserId::new(START)),
        rule: rule("**"),
    };
    let refused = policies
        .create(&one.org, &one.vault, nobody, &person())
        .await;
    assert!(matches!(refused, Err(CreatePolicyError::NoPrincipal(_))));
    let agents = world.store.agents();
    agents
        .delete(&one.org, &one.agent, &person())
        .await
        .unwrap();
    let refused = policies
        .create(&one.org, &one.vault, for_agent(&one, "**"), &person())
        .await;
    assert!(matches!(refused, Err(CreatePolicyError::NoPrincipal(_))));
}

async fn only_policies_of_the_vault_and_the_principal_decide(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let agents = world.store.agents();
    let second = agents
        .create(&one.org, new_agent("second", "k2"), &person())
        .await
        .unwrap();
    let policies = world.store.policies();
    let mut mine = Vec::new();
    for pattern in ["a", "b/**"] {
        let new = for_agent(&one, pattern);
        let made = policies.create(&one.org, &one.vault, new, &person()).await;
        mine.push(made.unwrap());
        world.clock.advance(Duration::from_millis(1));
    }
    let seconds = NewPolicy {
        principal: PolicyPrincipal::Agent(second.id.clone()),
        rule: rule("**"),
    };
    policies
        .create(&one.org, &one.vault, seconds, &person())
        .await
        .unwrap();
    let found = policies.find_for(&one.org, &one.vault, one.agent.as_str());
    assert_eq!(found.await.unwrap(), mine);
    let found = policies.find_for(&one.org, &other.vault, one.agent.as_str());
    assert_eq!(found.await.unwrap(), []);
    let found = policies.find_for(&other.org, &one.vault, one.agent.as_str());
    assert_eq!(found.await.unwrap(), []);
    let vaults = policies.vaults_of(&one.org, one.agent.as_str()).await;
    assert_eq!(vaults.unwrap(), std::slice::from_ref(&one.vault));
    let vaults = policies.vaults_of(&other.org, one.agent.as_str()).await;
    assert_eq!(vaults.unwrap(), []);
}

async fn a_vaults_policies_are_bounded_and_end_with_it(world: World) {
    let one = tenant(&world.store, "one").await;
    let vaults = world.store.vaults();
    let vault = vaults
        .create(&one.org, crate::vaults::tests::named("payments"), &person())
        .await
        .unwrap()
        .id;
    let policies = world.store.policies();
    let new = for_agent(&one, "**");
    let first = policies
        .create(&one.org, &vault, new.clone(), &person())
        .await
        .unwrap();
    let agent = one.agent.as_str();
    world.tamper(&format!(
        "WITH RECURSIVE many (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < 999) \
         INSERT INTO policies (id, org_id, vault_id, principal_type, principal_id, path_pattern, permissions, \
         effect, priority, conditions, environments, created_by, created_at, updated_at) \
         SELECT 'pol_' || n, p.org_id, p.vault_id, p.principal_type, p.principal_id, p.path_pattern, p.permissions, \
         p.effect, p.priority, p.conditions, p.environments, p.created_by, p.created_at, p.updated_at \
         FROM many, policies p WHERE p.id = '{}'",
        first.id
    ));
    let refused = policies.create(&one.org, &vault, new, &person()).await;
    assert!(matches!(refused, Err(CreatePolicyError::TooMany)));
    vaults.delete(&one.org, &vault, &person()).await.unwrap();
    let found = policies.find_for(&one.org, &vault, agent).await.unwrap();
    assert_eq!(found, []);
    let refused = policies
        .create(&one.org, &vault, for_agent(&one, "**"), &person())
        .await;
    assert!(matches!(refused, Err(CreatePolicyError::NoVault(_))));
}
