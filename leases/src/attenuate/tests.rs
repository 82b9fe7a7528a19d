use time::Duration;

use super::*;
use crate::{
    Limit, Scope, TokenError,
    fixtures::{NOW, hosts, keys, minted, narrowed, scope, stripe, verified},
    inspect, verify,
};

fn token() -> Token {
    minted(vec![stripe(Scope::default())])
}

fn everything() -> Narrowing {
    Narrowing {
        hosts: hosts(&["api.stripe.com"]),
        methods: vec!["GET".to_owned()],
        paths: vec![PathGlob::parse("/v1/**").unwrap()],
        cidrs: vec!["10.0.0.0/8".parse().unwrap()],
        expires_at: Some(NOW + Duration::milliseconds(60_999)),
    }
}

fn refusal(token: &Token, narrowing: &Narrowing) -> AttenuateError {
    attenuate(&token.present(), narrowing, NOW).unwrap_err()
}

#[test]
fn every_limit_becomes_a_check_that_is_known_again() {
    let lease = verified(&narrowed(&token(), &everything()));
    let Narrowing {
        hosts,
        methods,
        paths,
        cidrs,
        ..
    } = everything();
    let expected = [
        Limit::Hosts(hosts),
        Limit::Methods(methods),
        Limit::Paths(paths),
        Limit::Clients(cidrs),
        Limit::Before(NOW + Duration::seconds(60)),
    ];
    assert_eq!(lease.narrowings().collect::<Vec<_>>(), [&expected[..]]);
}

#[test]
fn the_parent_still_does_what_it_did() {
    let parent = token();
    let child = narrowed(&parent, &everything());
    assert_ne!(parent.as_str(), child.as_str());
    assert!(verify(&parent.present(), &keys()).is_ok());
    assert_eq!(verified(&parent).lease(), verified(&child).lease());
}

#[test]
fn a_lease_is_narrowed_seven_times_and_no_more() {
    let narrowing = Narrowing {
        methods: vec!["GET".to_owned()],
        ..Narrowing::default()
    };
    let last = (0..7).fold(token(), |token, _| narrowed(&token, &narrowing));
    assert_eq!(verified(&last).block_count(), 8);
    assert_eq!(refusal(&last, &narrowing), AttenuateError::Final);
}

#[test]
fn a_sealed_lease_is_not_narrowed() {
    let sealed = UnverifiedBiscuit::from(token().present().bytes())
        .unwrap()
        .seal()
        .unwrap();
    let sealed = Token::from_bytes(&sealed.to_vec().unwrap()).unwrap();
    assert!(inspect(&sealed.present()).unwrap().sealed);
    assert_eq!(refusal(&sealed, &everything()), AttenuateError::Final);
}

#[test]
fn nothing_to_narrow_is_refused() {
    assert_eq!(
        refusal(&token(), &Narrowing::default()),
        AttenuateError::Nothing
    );
}

#[test]
fn an_end_that_has_passed_is_refused() {
    for end in [
        NOW - Duration::hours(1),
        NOW,
        NOW + Duration::milliseconds(999),
    ] {
        let narrowing = Narrowing {
            expires_at: Some(end),
            ..Narrowing::default()
        };
        assert_eq!(refusal(&token(), &narrowing), AttenuateError::Ended);
    }
}

#[test]
fn methods_that_no_scope_has_are_refused() {
    for method in ["TRACE", "CONNECT", "get", "FETCH"] {
        let narrowing = Narrowing {
            methods: vec![method.to_owned()],
            ..Narrowing::default()
        };
        assert!(matches!(
            refusal(&token(), &narrowing),
            AttenuateError::Scope(_)
        ));
    }
}

#[test]
fn limits_that_a_verifier_would_refuse_are_refused_here() {
    let glob = |n: usize| PathGlob::parse(&format!("/{n}/*/{}", "x".repeat(80))).unwrap();
    let narrowing = |count| Narrowing {
        paths: (0..count).map(glob).collect(),
        ..Narrowing::default()
    };
    assert!(attenuate(&token().present(), &narrowing(12), NOW).is_ok());
    assert!(matches!(
        refusal(&token(), &narrowing(22)),
        AttenuateError::Bounds(_)
    ));
}

#[test]
fn more_than_a_token_holds_is_refused() {
    let long = |n: usize| PathGlob::parse(&format!("/{n}{}", "x".repeat(400))).unwrap();
    let narrowing = Narrowing {
        paths: (0..12).map(long).collect(),
        ..Narrowing::default()
    };
    assert!(
        matches!(refusal(&token(), &narrowing), AttenuateError::TooLarge { size } if size > 4096)
    );
}

#[test]
fn what_is_no_lease_is_not_narrowed() {
    let other = PresentedToken::parse("clv_AAH_").unwrap();
    let error = attenuate(&other, &everything(), NOW).unwrap_err();
    assert!(matches!(error, AttenuateError::Unreadable(_)));
    assert!(inspect(&other).is_err());
    assert_eq!(
        PresentedToken::parse("AAH_").unwrap_err(),
        TokenError::Prefix
    );
}

#[test]
fn an_inspection_says_what_the_lease_says() {
    let parent = minted(vec![stripe(scope(r#"{"methods": ["GET"]}"#))]);
    let child = narrowed(&parent, &everything());
    let (inspection, lease) = (inspect(&child.present()).unwrap(), verified(&child));
    assert_eq!(inspection.root_key_id, Some(1));
    assert_eq!(&inspection.lease, lease.lease());
    assert_eq!(inspection.expires_at, lease.effective_expiry());
    assert_eq!(
        inspection.bindings[0].constraints,
        lease.bindings()[0].scope
    );
    let ids: Vec<_> = inspection
        .blocks
        .iter()
        .map(|block| block.revocation_id)
        .collect();
    assert_eq!(ids, lease.revocation_ids());
    assert!(inspection.blocks[0].limits.is_empty());
    assert_eq!(
        inspection.blocks[1].limits[..2],
        ["host api.stripe.com", "method GET"]
    );
    let json = serde_json::to_string(&inspection).unwrap();
    assert!(
        json.contains(r#""expires_at":"2026-11-22T07:01:00Z""#),
        "{json}"
    );
    assert!(!json.contains(&child.as_str()[8..40]));
}
