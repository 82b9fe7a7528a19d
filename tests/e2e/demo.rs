//! `claviger demo`: the whole product in under a minute, telling itself whether every step did what it should.

use std::time::{Duration, Instant};

use crate::support::stack;
use crate::support::wait;

#[tokio::test]
async fn the_demo_succeeds_within_a_minute_and_shows_both_sides() {
    let home = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let mut command = stack::binary(home.path());
    command.arg("demo").kill_on_drop(true);

    let output = tokio::time::timeout(wait::patience() * 4, command.output())
        .await
        .unwrap()
        .unwrap();

    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        started.elapsed() < Duration::from_mins(1),
        "{:?}",
        started.elapsed()
    );
    for refusal in [
        "lease_expired",
        "lease_revoked",
        "lease_consumed",
        "grant_denied",
    ] {
        assert!(
            said.contains(refusal),
            "the demo does not show {refusal}: {said}"
        );
    }
}
