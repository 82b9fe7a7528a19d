use std::time::Duration;

use super::*;
use crate::testing::*;

on_both! {
    a_webhook_is_made_changed_and_ended_by_its_own_organisation_alone,
    an_organisation_has_a_bounded_number,
    of_two_who_tell_one_moves_the_place_on,
    each_event_is_taken_once_in_the_order_of_its_stream,
    the_last_deliveries_are_kept,
    what_is_given_up_is_on_record_and_goes_on_when_somebody_says_so,
}

async fn create(world: &World, org: &OrgId) -> Webhook {
    let id = WebhookId::new(START);
    let new = NewWebhook {
        secret: secret(&id, 1),
        id,
        url: "https://hooks.example.org/claviger".to_owned(),
        events: vec!["lease.*".to_owned()],
        description: None,
    };
    let webhooks = world.store.webhooks();
    webhooks.create(org, new, &person()).await.unwrap()
}

/// A version of a webhook's secret.
fn secret(id: &WebhookId, version: u64) -> NewSealedKey {
    NewSealedKey {
        name: secret_name(id),
        version,
        sealed: b"sealed".to_vec(),
        public: Vec::new(),
        kek_id: None,
    }
}

/// How many versions of a webhook's secret lie in the store.
async fn secrets(world: &World, org: &OrgId, id: &WebhookId) -> usize {
    let keys = world.store.sealed_keys();
    keys.versions(org, &secret_name(id)).await.unwrap().len()
}

async fn actions(world: &World, org: &OrgId) -> Vec<String> {
    let steps = world.store.audit().steps(Some(org), "").await.unwrap();
    let actions = steps.steps.into_iter().map(|step| step.event.action);
    actions
        .filter(|action| action.starts_with("webhook."))
        .collect()
}

async fn a_webhook_is_made_changed_and_ended_by_its_own_organisation_alone(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let webhooks = world.store.webhooks();
    let made = create(&world, &one.org).await;
    assert_eq!((made.is_active, made.sink.delivered), (true, 0));
    let page = PageRequest::default();
    let listed = webhooks.list(&one.org, &page).await.unwrap();
    assert_eq!(listed.items, std::slice::from_ref(&made));
    let patch = WebhookPatch {
        events: Some(vec!["*".to_owned()]),
        description: Some(Some("for the watch".to_owned())),
        ..WebhookPatch::default()
    };
    let foreign = webhooks
        .patch(&other.org, &made.id, patch.clone(), &person())
        .await;
    assert!(foreign.unwrap().is_none());
    assert!(webhooks.get(&other.org, &made.id).await.unwrap().is_none());
    assert!(
        webhooks
            .list(&other.org, &page)
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let rotated = webhooks
        .set_secret(&other.org, &made.id, secret(&made.id, 1), &person())
        .await;
    assert!(rotated.unwrap().is_none());
    assert_eq!(secrets(&world, &other.org, &made.id).await, 0);
    assert!(!webhooks.disable(&other.org, &made.id, "no").await.unwrap());
    assert!(
        !webhooks
            .delete(&other.org, &made.id, &person())
            .await
            .unwrap()
    );

    let changed = webhooks
        .patch(&one.org, &made.id, patch, &person())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (changed.url.as_str(), changed.events.as_slice()),
        (made.url.as_str(), &["*".to_owned()][..])
    );
    let rotated = webhooks
        .set_secret(&one.org, &made.id, secret(&made.id, 2), &person())
        .await
        .unwrap();
    assert_eq!(rotated.unwrap().secret_version, 2);
    // Of two who rotate it at once one has to look again.
    let late = webhooks
        .set_secret(&one.org, &made.id, secret(&made.id, 2), &person())
        .await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })));
    assert_eq!(secrets(&world, &one.org, &made.id).await, 2);
    assert!(
        webhooks
            .delete(&one.org, &made.id, &person())
            .await
            .unwrap()
    );
    assert!(
        !webhooks
            .delete(&one.org, &made.id, &person())
            .await
            .unwrap()
    );
    assert!(webhooks.get(&one.org, &made.id).await.unwrap().is_none());
    // Neither what it had stays, nor what somebody makes for it who has not seen its end.
    assert_eq!(secrets(&world, &one.org, &made.id).await, 0);
    let late = webhooks
        .set_secret(&one.org, &made.id, secret(&made.id, 1), &person())
        .await;
    assert!(late.unwrap().is_none());
    assert_eq!(secrets(&world, &one.org, &made.id).await, 0);
    assert!(
        world
            .store
            .sinks()
            .get(made.id.as_str())
            .await
            .unwrap()
            .is_none()
    );
    let told = [
        "webhook.create",
        "webhook.update",
        "webhook.rotate_secret",
        "webhook.delete",
    ];
    assert_eq!(actions(&world, &one.org).await, told);
}

async fn an_organisation_has_a_bounded_number(world: World) {
    let one = tenant(&world.store, "one").await;
    let mut last = None;
    for _ in 0..MAX_WEBHOOKS {
        last = Some(create(&world, &one.org).await);
    }
    let refused = WebhookId::new(START);
    let new = NewWebhook {
        secret: secret(&refused, 1),
        id: refused.clone(),
        url: String::new(),
        events: Vec::new(),
        description: None,
    };
    let webhooks = world.store.webhooks();
    let answer = webhooks.create(&one.org, new.clone(), &person()).await;
    assert!(matches!(answer, Err(CreateWebhookError::TooMany)));
    assert_eq!(secrets(&world, &one.org, &refused).await, 0);
    let id = last.unwrap().id;
    assert!(webhooks.delete(&one.org, &id, &person()).await.unwrap());
    webhooks.create(&one.org, new, &person()).await.unwrap();
}

async fn of_two_who_tell_one_moves_the_place_on(world: World) {
    let one = tenant(&world.store, "one").await;
    let sink = create(&world, &one.org).await.sink;
    let sinks = world.store.sinks();
    // Whoever did not claim it moves nothing.
    let steps = world
        .store
        .audit()
        .steps(Some(&one.org), &sink.place)
        .await
        .unwrap();
    let next = Sink {
        place: steps.end.clone(),
        delivered: 1,
        ..sink.clone()
    };
    assert!(!sinks.advance(&sink, &next, &[]).await.unwrap());
    assert!(sinks.claim(&sink).await.unwrap());
    assert!(sinks.advance(&sink, &next, &[]).await.unwrap());
    // What was read before that is of yesterday.
    assert!(!sinks.advance(&sink, &next, &[]).await.unwrap());
    assert!(!sinks.claim(&sink).await.unwrap());
    assert_eq!(sinks.get(&sink.name).await.unwrap().unwrap(), next);
    // Another node has it, until its time is over.
    world.tamper("UPDATE audit_sinks SET holder = 'other/control'");
    assert!(!sinks.claim(&next).await.unwrap());
    assert!(!sinks.advance(&next, &next, &[]).await.unwrap());
    assert!(world.store.webhooks().due().await.unwrap().is_empty());
    world.advance(crate::sinks::HELD + Duration::from_secs(1));
    assert_eq!(world.store.webhooks().due().await.unwrap().len(), 1);
    assert!(sinks.claim(&next).await.unwrap());
}

async fn each_event_is_taken_once_in_the_order_of_its_stream(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let audit = world.store.audit();
    let begun = audit.end().await.unwrap();
    let empty = audit.steps(Some(&one.org), &begun).await.unwrap();
    assert_eq!((empty.steps.len(), empty.end.as_str()), (0, begun.as_str()));
    let request = one
        .lease(&world.store, ::leases::scope::Kind::Workflow)
        .await;
    for _ in 0..3 {
        world
            .store
            .ledger()
            .record_use(request.clone())
            .await
            .unwrap();
        create(&world, &other.org).await;
    }
    // One by one, as after a crash behind each, gives the same as all at once.
    let all = audit.steps(None, &begun).await.unwrap();
    let (mut place, mut taken) = (begun.clone(), Vec::new());
    while let Some(step) = audit
        .steps(None, &place)
        .await
        .unwrap()
        .steps
        .into_iter()
        .next()
    {
        place = step.place;
        taken.push(step.event);
    }
    assert_eq!(place, all.end);
    let ids = |events: &[crate::Event]| {
        let mut ids: Vec<_> = events
            .iter()
            .map(|event| (event.stream.clone(), event.seq))
            .collect();
        ids.sort();
        ids
    };
    let at_once: Vec<_> = all.steps.into_iter().map(|step| step.event).collect();
    assert_eq!(ids(&taken), ids(&at_once));
    assert_eq!(taken.len(), 10);
    for stream in ["local/ledger", "local/control"] {
        let seqs = |events: &[crate::Event]| -> Vec<u64> {
            events
                .iter()
                .filter(|event| event.stream == stream)
                .map(|event| event.seq)
                .collect()
        };
        assert!(seqs(&taken).is_sorted() && seqs(&at_once).is_sorted());
    }
    let own = audit.steps(Some(&one.org), &begun).await.unwrap();
    assert_eq!(own.steps.len(), 4);
    assert_eq!(own.end, place);
}

async fn the_last_deliveries_are_kept(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let webhook = create(&world, &one.org).await;
    let sinks = world.store.sinks();
    assert!(sinks.claim(&webhook.sink).await.unwrap());
    let delivery = |number, error: Option<&str>| Delivery {
        number,
        event_id: format!("evt_{number}"),
        action: "lease.use".to_owned(),
        attempts: 1,
        attempted_at: START,
        duration_ms: 7,
        status: Some(200),
        error: error.map(str::to_owned),
    };
    let many: Vec<_> = (1..=KEPT_DELIVERIES + 3)
        .map(|number| delivery(number, None))
        .collect();
    assert!(
        sinks
            .advance(&webhook.sink, &webhook.sink, &many)
            .await
            .unwrap()
    );
    let failed = delivery(KEPT_DELIVERIES + 4, Some("no"));
    assert!(
        sinks
            .advance(&webhook.sink, &webhook.sink, std::slice::from_ref(&failed))
            .await
            .unwrap()
    );
    let webhooks = world.store.webhooks();
    let mut page = PageRequest {
        limit: 60,
        cursor: None,
    };
    let first = webhooks
        .deliveries(&one.org, &webhook.id, &page)
        .await
        .unwrap();
    assert_eq!((first.items.len(), &first.items[0]), (60, &failed));
    page.cursor = first.next_cursor;
    let second = webhooks
        .deliveries(&one.org, &webhook.id, &page)
        .await
        .unwrap();
    assert_eq!((second.items.len(), second.next_cursor), (40, None));
    assert_eq!(second.items[39].number, 5);
    let foreign = webhooks
        .deliveries(&other.org, &webhook.id, &PageRequest::default())
        .await;
    assert!(foreign.unwrap().items.is_empty());
    page.cursor = Some("x".to_owned());
    let refused = webhooks.deliveries(&one.org, &webhook.id, &page).await;
    assert!(matches!(refused, Err(StoreError::BadCursor)));
}

async fn what_is_given_up_is_on_record_and_goes_on_when_somebody_says_so(world: World) {
    let one = tenant(&world.store, "one").await;
    let made = create(&world, &one.org).await;
    let (webhooks, sinks) = (world.store.webhooks(), world.store.sinks());
    assert!(sinks.claim(&made.sink).await.unwrap());
    let failing = Sink {
        attempts: 3,
        retry_at: START + Duration::from_hours(1),
        failing_since: Some(START),
        error: Some("it answered 500".to_owned()),
        ..made.sink.clone()
    };
    assert!(sinks.advance(&made.sink, &failing, &[]).await.unwrap());
    assert!(webhooks.due().await.unwrap().is_empty());
    assert!(
        webhooks
            .disable(&one.org, &made.id, "three days")
            .await
            .unwrap()
    );
    assert!(
        !webhooks
            .disable(&one.org, &made.id, "three days")
            .await
            .unwrap()
    );
    let stopped = webhooks.get(&one.org, &made.id).await.unwrap().unwrap();
    assert_eq!(
        (stopped.is_active, stopped.disabled_reason.as_deref()),
        (false, Some("three days"))
    );
    world.advance(Duration::from_hours(2));
    assert!(webhooks.due().await.unwrap().is_empty());
    let patch = WebhookPatch {
        is_active: Some(true),
        ..WebhookPatch::default()
    };
    let again = webhooks
        .patch(&one.org, &made.id, patch, &person())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        again,
        webhooks.get(&one.org, &made.id).await.unwrap().unwrap()
    );
    assert_eq!(
        (again.is_active, again.disabled_reason, again.sink.attempts),
        (true, None, 0)
    );
    assert_eq!(again.sink.place, made.sink.place);
    assert_eq!(webhooks.due().await.unwrap().len(), 1);
    let told = ["webhook.create", "webhook.disabled", "webhook.update"];
    assert_eq!(actions(&world, &one.org).await, told);
}
