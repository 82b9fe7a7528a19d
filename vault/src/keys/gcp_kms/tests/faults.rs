//! Each fault: what it becomes, and how many requests it costs.

use std::time::{Duration, Instant};

use http::StatusCode;

use super::*;

/// The deadline, and what a busy machine may add to it.
const SOON: Duration = Duration::from_millis(2_600);

/// Faults of any call that may pass, or that a second try may get round.
fn passing() -> Vec<Action> {
    vec![
        Action::DamageAnswer,
        Action::DamageChecksum,
        Action::OmitChecksum,
        Action::DamageRequest,
        Action::Garbage,
        Action::HangUp,
        Action::Replay,
        Action::Status(StatusCode::TOO_MANY_REQUESTS),
        Action::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Action::Status(StatusCode::BAD_GATEWAY),
        Action::Status(StatusCode::SERVICE_UNAVAILABLE),
    ]
}

#[tokio::test]
async fn a_passing_fault_of_a_wrap_is_tried_again_once() {
    let rig = Rig::new().await;
    let other_key = format!("{KEY_RING}/cryptoKeys/kek-vlt_b");
    let named = [
        Action::DenyChecksum,
        Action::NameVersion(9),
        Action::NameKey(other_key),
        Action::NameKey("nonsense".into()),
    ];
    for fault in passing().into_iter().chain(named) {
        rig.double.forget();
        rig.double.fault(Call::Encrypt, fault.clone());
        let refused = rig.wrap().await;
        assert!(is_unavailable(&refused), "{fault:?}: {refused:?}");
        assert_eq!(rig.double.count(Call::Encrypt), 2, "{fault:?}");
        rig.double.clear();
        rig.double.forget();
        rig.double.fault_times(Call::Encrypt, fault.clone(), 1);
        let wrapped = rig.wrap().await.unwrap();
        assert_eq!(rig.double.count(Call::Encrypt), 2, "{fault:?}");
        rig.unwrap(&wrapped).await.unwrap();
        rig.double.clear();
    }
}

#[tokio::test]
async fn a_passing_fault_of_an_unwrap_is_tried_again_once() {
    let rig = Rig::new().await;
    // The first answer of all, which a replay repeats, is to another question.
    let first = rig.wrap().await.unwrap();
    rig.unwrap(&first).await.unwrap();
    let wrapped = rig
        .keys
        .wrap(&rig.kek, &Dek::generate().unwrap(), b"row 2")
        .await
        .unwrap();
    let unwrap = || rig.keys.unwrap(&rig.kek, &wrapped, b"row 2");
    for fault in passing() {
        rig.double.forget();
        rig.double.fault(Call::Decrypt, fault.clone());
        let refused = unwrap().await;
        assert!(is_unavailable(&refused), "{fault:?}: {refused:?}");
        assert_eq!(rig.double.count(Call::Decrypt), 2, "{fault:?}");
        rig.double.clear();
        rig.double.forget();
        rig.double.fault_times(Call::Decrypt, fault.clone(), 1);
        unwrap().await.unwrap();
        assert_eq!(rig.double.count(Call::Decrypt), 2, "{fault:?}");
        rig.double.clear();
    }
}

#[tokio::test]
async fn a_refusal_is_not_tried_again() {
    let rig = Rig::new().await;
    let wrapped = rig.wrap().await.unwrap();
    rig.double.forget();
    rig.double.fault_all(Action::Deny);
    let refused = [
        rig.wrap().await.map(drop),
        rig.unwrap(&wrapped).await.map(drop),
    ];
    for refused in refused {
        assert!(is_denied(&refused), "{refused:?}");
        let text = text(&refused);
        assert!(text.contains("roles/cloudkms"), "{text}");
    }
    assert_eq!(rig.double.requests().len(), 2);
    rig.double.clear();
    rig.double.forget();
    rig.double.fault_all(Action::Unauthenticated);
    for refused in [
        rig.wrap().await.map(drop),
        rig.unwrap(&wrapped).await.map(drop),
    ] {
        let text = text(&refused);
        assert!(
            text.contains("gcloud auth application-default login"),
            "{text}"
        );
    }
    assert_eq!(rig.double.requests().len(), 2);
    rig.double.clear();
    rig.unwrap(&wrapped).await.unwrap();
}

#[tokio::test]
async fn a_destroyed_version_opens_nothing_and_says_so() {
    let rig = Rig::new().await;
    let old = rig.wrap().await.unwrap();
    rig.keys.rotate_kek(&rig.kek).await.unwrap();
    let new = rig.wrap().await.unwrap();
    rig.double
        .set_state(&rig.version(1), VersionState::Destroyed)
        .unwrap();
    rig.double.forget();
    let refused = rig.unwrap(&old).await;
    assert!(is_denied(&refused), "{refused:?}");
    let text = text(&refused);
    assert!(
        text.contains("DESTROYED") && text.contains("restore"),
        "{text}"
    );
    assert_eq!(rig.double.count(Call::Decrypt), 1);
    rig.unwrap(&new).await.unwrap();
}

#[tokio::test]
async fn a_disabled_version_is_left_for_the_primary_one() {
    let rig = Rig::new().await;
    let other = open(&rig.double).await;
    other.rotate_kek(&rig.kek).await.unwrap();
    // This process still wraps under version 1, until that refuses.
    rig.double
        .set_state(&rig.version(1), VersionState::Disabled)
        .unwrap();
    let wrapped = rig.wrap().await.unwrap();
    assert_eq!(rig.keys.wrapped_version(&wrapped), Some(2));
    rig.double
        .set_state(&rig.version(2), VersionState::Disabled)
        .unwrap();
    let refused = rig.wrap().await;
    assert!(is_denied(&refused), "{refused:?}");
    rig.double
        .set_state(&rig.version(2), VersionState::Enabled)
        .unwrap();
    rig.unwrap(&wrapped).await.unwrap();
    rig.wrap().await.unwrap();
}

/// One thread runs everything, so a call that blocked it would stop the ticks.
#[tokio::test(flavor = "current_thread")]
async fn a_late_answer_is_unavailable_in_time_and_holds_up_nobody() {
    let rig = Rig::new().await;
    let wrapped = rig.wrap().await.unwrap();
    let late = Duration::from_secs(30);
    rig.double.fault(Call::Encrypt, Action::Delay(late));
    rig.double.fault(Call::Decrypt, Action::Delay(late));
    rig.double.forget();
    let mut longest_gap = Duration::ZERO;
    let ticking = async {
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            longest_gap = longest_gap.max(last.elapsed());
            last = Instant::now();
        }
    };
    let start = Instant::now();
    let both = async { tokio::join!(rig.wrap(), rig.unwrap(&wrapped)) };
    let (wrap, unwrap) = tokio::select! {
        both = both => both,
        () = ticking => unreachable!("it ticks for ever"),
    };
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    assert!(is_unavailable(&wrap), "{wrap:?}");
    assert!(is_unavailable(&unwrap), "{unwrap:?}");
    assert!(longest_gap < Duration::from_millis(500), "{longest_gap:?}");
    assert_eq!(rig.double.count(Call::Encrypt), 2);
    assert_eq!(rig.double.count(Call::Decrypt), 2);
    rig.double.clear();
    rig.unwrap(&wrapped).await.unwrap();
}

#[tokio::test]
async fn one_hanging_connection_leaves_time_for_another() {
    let rig = Rig::new().await;
    let wrapped = rig.wrap().await.unwrap();
    let late = Action::Delay(Duration::from_secs(30));
    rig.double.fault_times(Call::Decrypt, late, 1);
    rig.unwrap(&wrapped).await.unwrap();
}

#[tokio::test]
async fn it_recovers_when_the_service_returns() {
    let rig = Rig::new().await;
    let wrapped = rig.wrap().await.unwrap();
    rig.double.down().await;
    let start = Instant::now();
    let refused = [
        rig.wrap().await.map(drop),
        rig.unwrap(&wrapped).await.map(drop),
        rig.keys.check().await,
    ];
    assert!(refused.iter().all(is_unavailable), "{refused:?}");
    assert!(start.elapsed() < 3 * SOON, "{:?}", start.elapsed());
    rig.double.up().unwrap();
    rig.unwrap(&wrapped).await.unwrap();
    rig.wrap().await.unwrap();
    rig.keys.check().await.unwrap();
}

#[tokio::test]
async fn it_opens_while_the_service_is_away() {
    let rig = Rig::new().await;
    let wrapped = rig.wrap().await.unwrap();
    rig.double.down().await;
    let keys = open(&rig.double).await;
    assert!(is_unavailable(&keys.unwrap(&rig.kek, &wrapped, AAD).await));
    rig.double.up().unwrap();
    keys.unwrap(&rig.kek, &wrapped, AAD).await.unwrap();
}

#[tokio::test]
async fn a_fault_makes_no_storm() {
    let rig = Rig::new().await;
    let wrapped = rig.wrap().await.unwrap();
    rig.double.forget();
    rig.double
        .fault_all(Action::Status(StatusCode::SERVICE_UNAVAILABLE));
    let many = (0..64).map(|_| rig.unwrap(&wrapped));
    for refused in futures::future::join_all(many).await {
        assert!(is_unavailable(&refused), "{refused:?}");
    }
    assert_eq!(rig.double.count(Call::Decrypt), 128);
}

#[tokio::test]
async fn the_check_tells_reachable_from_away() {
    let rig = Rig::new().await;
    rig.keys.check().await.unwrap();
    // Credentials for encryption alone may not look at the key ring.
    rig.double.fault(Call::GetKeyRing, Action::Deny);
    rig.keys.check().await.unwrap();
    rig.double.fault(Call::GetKeyRing, Action::Unauthenticated);
    let refused = rig.keys.check().await;
    assert!(matches!(refused, Err(KeyError::GcpKms(_))), "{refused:?}");
    rig.double.fault(
        Call::GetKeyRing,
        Action::Status(StatusCode::GATEWAY_TIMEOUT),
    );
    let refused = rig.keys.check().await;
    assert!(is_unavailable(&refused), "{refused:?}");
}
