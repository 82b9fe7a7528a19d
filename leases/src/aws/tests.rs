use serde_json::{Value, from_value, json};

use super::*;

fn scope(value: Value) -> AwsScope {
    from_value(value).unwrap()
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Decides on a call of `service` in us-east-1.
fn decide(
    scope: &AwsScope,
    service: &str,
    buckets: Option<&[&str]>,
    actions: Option<&[&str]>,
) -> Result<(), String> {
    let (buckets, actions) = (buckets.map(strings), actions.map(strings));
    let call = AwsCall {
        service,
        regions: &strings(&["us-east-1"]),
        has_buckets: service == "s3",
        buckets: buckets.as_deref(),
        actions: actions.as_deref(),
    };
    scope.allows(&call).map_err(|denial| denial.to_string())
}

#[test]
fn no_limit_allows_what_cannot_be_told() {
    let open = AwsScope::default();
    assert_eq!(decide(&open, "lambda", None, None), Ok(()));
    assert!(open.is_default() && !open.names_action("sts", "AssumeRole"));
}

#[test]
fn each_list_is_a_limit_of_its_own() {
    let bound = scope(json!({"services": ["s3", "sqs"], "regions": ["us-east-1"]}));
    assert_eq!(decide(&bound, "sqs", None, None), Ok(()));
    let denial = decide(&bound, "ec2", None, None).unwrap_err();
    assert_eq!(
        denial,
        "AWS service `ec2` is outside the grant (allowed: s3, sqs); ask for a grant that includes it"
    );
    let elsewhere = scope(json!({"regions": ["eu-west-1"]}));
    let denial = decide(&elsewhere, "s3", None, None).unwrap_err();
    assert!(denial.starts_with("AWS region `us-east-1`"), "{denial}");
}

#[test]
fn a_region_set_must_lie_within_the_regions() {
    let bound = scope(json!({"regions": ["us-east-1"]}));
    let both = strings(&["us-east-1", "*"]);
    let call = AwsCall {
        service: "s3",
        regions: &both,
        has_buckets: true,
        buckets: None,
        actions: None,
    };
    assert!(bound.allows(&call).is_err());
    assert!(
        scope(json!({"regions": ["*", "us-east-1"]}))
            .allows(&call)
            .is_ok()
    );
}

#[test]
fn buckets_bind_every_bucket_of_a_request_and_leave_other_services_out() {
    let bound = scope(json!({"buckets": ["data", "logs-*"]}));
    assert_eq!(
        decide(&bound, "s3", Some(&["data", "logs-1"]), None),
        Ok(())
    );
    for buckets in [
        Some(&["data", "other"][..]),
        Some(&["data-2"]),
        Some(&[]),
        None,
    ] {
        assert!(decide(&bound, "s3", buckets, None).is_err(), "{buckets:?}");
    }
    assert!(decide(&bound, "dynamodb", None, None).is_err());
    let with_service = scope(json!({"buckets": ["data"], "services": ["s3", "dynamodb"]}));
    assert_eq!(decide(&with_service, "dynamodb", None, None), Ok(()));
}

#[test]
fn actions_bind_every_action_of_a_request() {
    let bound = scope(json!({"actions": ["dynamodb:GetItem", "s3:Get*", "lambda:*"]}));
    for (service, actions) in [
        ("dynamodb", Some(&["GetItem"][..])),
        ("s3", Some(&["GetObject", "GetObjectAcl"])),
        ("lambda", None),
    ] {
        assert_eq!(decide(&bound, service, None, actions), Ok(()));
    }
    for (service, actions) in [
        ("dynamodb", Some(&["GetItems"][..])),
        ("dynamodb", Some(&["getitem"])),
        ("s3", Some(&["GetObject", "PutObject"])),
        ("s3", Some(&[])),
        ("s3", None),
        ("sqs", Some(&["GetItem"])),
        ("sqs", None),
    ] {
        assert!(
            decide(&bound, service, None, actions).is_err(),
            "{service} {actions:?}"
        );
    }
    assert!(bound.names_action("lambda", "CreateFunction"));
    assert!(!bound.names_action("lambdas", "CreateFunction"));
}

#[test]
fn what_is_no_limit_is_refused_by_its_place() {
    for (value, place) in [
        (json!({"services": ["s 3"]}), "aws.services[0]"),
        (json!({"regions": ["us-east-1", "eu*"]}), "aws.regions[1]"),
        (json!({"buckets": ["*"]}), "aws.buckets[0]"),
        (json!({"buckets": ["a*b"]}), "aws.buckets[0]"),
        (json!({"actions": ["*"]}), "aws.actions[0]"),
        (json!({"actions": ["*:Get"]}), "aws.actions[0]"),
        (json!({"actions": ["s3:"]}), "aws.actions[0]"),
        (json!({"actions": ["s3:Get*Object"]}), "aws.actions[0]"),
        (json!({"actions": ["s3"]}), "aws.actions[0]"),
        (json!({"bucket": ["a"]}), "unknown field `bucket`"),
    ] {
        let error = from_value::<AwsScope>(value).unwrap_err().to_string();
        assert!(error.contains(place), "{error}");
    }
}

#[test]
fn a_narrower_scope_is_told_from_a_wider_one() {
    let parent = scope(json!({"services": ["s3"], "buckets": ["logs-*"], "actions": ["s3:Get*"]}));
    let child =
        json!({"services": ["s3"], "buckets": ["logs-1", "logs-2*"], "actions": ["s3:GetObject"]});
    assert!(scope(child.clone()).narrows(&parent) && parent.narrows(&parent));
    for (field, value) in [
        ("services", json!(["s3", "sqs"])),
        ("buckets", json!(["logs"])),
        ("buckets", json!(["log*"])),
        ("actions", json!(["s3:*"])),
        ("actions", json!([])),
        ("presigned", json!(true)),
    ] {
        let mut wider = child.clone();
        wider[field] = value;
        assert!(!scope(wider.clone()).narrows(&parent), "{wider}");
    }
}
