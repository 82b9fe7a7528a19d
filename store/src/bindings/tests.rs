use serde_json::json;

use super::*;
use crate::testing::*;

on_both! {
    a_binding_is_kept_whole_and_changed_and_ended_by_its_own_organisation_alone,
    a_binding_needs_an_agent_of_its_organisation_and_a_name_of_its_own,
}

fn new(tenant: &Tenant, name: &str) -> NewBinding {
    NewBinding {
        id: BindingId::new(START),
        agent_id: tenant.agent.clone(),
        name: name.to_owned(),
        kind: "http".to_owned(),
        config: json!({"base_url": "https://api.example.org", "auth_type": "bearer"}),
        guardrails: json!({"max_requests_per_minute": 3}),
        set: tenant.set.clone(),
        grant: tenant.grant.clone(),
        source: Some(Source {
            vault: tenant.vault.clone(),
            path: "a/b".to_owned(),
            version: 2,
        }),
    }
}

async fn a_binding_is_kept_whole_and_changed_and_ended_by_its_own_organisation_alone(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let bindings = world.store.bindings();
    let made = bindings.create(&one.org, new(&one, "api"), &person()).await;
    let made = made.unwrap();
    let everything = PageRequest::default();
    for named in ["api", made.id.as_str()] {
        let found = bindings.get(&one.org, &one.agent, named).await.unwrap();
        assert_eq!(found.as_ref(), Some(&made));
        for (org, agent) in [(&other.org, &one.agent), (&one.org, &other.agent)] {
            assert_eq!(bindings.get(org, agent, named).await.unwrap(), None);
        }
    }
    let listed = bindings.list(&one.org, &one.agent, &everything).await;
    assert_eq!(listed.unwrap().items, std::slice::from_ref(&made));
    let listed = bindings.list(&other.org, &one.agent, &everything).await;
    assert!(listed.unwrap().items.is_empty());

    let foreign = Binding {
        org: other.org.clone(),
        ..made.clone()
    };
    assert_eq!(
        bindings.update(foreign.clone(), &person()).await.unwrap(),
        None
    );
    assert!(!bindings.delete(&foreign, &person()).await.unwrap());
    let changed = Binding {
        name: "renamed".to_owned(),
        source: None,
        is_active: false,
        ..made.clone()
    };
    let changed = bindings.update(changed, &person()).await.unwrap().unwrap();
    let found = bindings.get(&one.org, &one.agent, "renamed").await.unwrap();
    assert_eq!(found, Some(changed.clone()));
    assert!(bindings.delete(&changed, &person()).await.unwrap());
    assert!(!bindings.delete(&changed, &person()).await.unwrap());
    let gone = bindings.get(&one.org, &one.agent, "renamed").await;
    assert_eq!(gone.unwrap(), None);
    let sets = bindings.sets(&one.org, &one.agent).await.unwrap();
    let kept = (one.set.clone(), made.id.clone(), made.kind.clone());
    assert_eq!(sets, [kept], "the trail's");
}

async fn a_binding_needs_an_agent_of_its_organisation_and_a_name_of_its_own(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let bindings = world.store.bindings();
    let foreign = bindings
        .create(&other.org, new(&one, "api"), &person())
        .await;
    assert!(matches!(foreign, Err(CreateBindingError::NoAgent(_))));
    let made = bindings.create(&one.org, new(&one, "api"), &person()).await;
    let made = made.unwrap();
    let again = bindings.create(&one.org, new(&one, "api"), &person()).await;
    assert!(matches!(again, Err(CreateBindingError::NameTaken)));
    bindings.delete(&made, &person()).await.unwrap();
    bindings
        .create(&one.org, new(&one, "api"), &person())
        .await
        .unwrap();
}
