use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use time::macros::datetime;

use super::*;
use crate::exchange::{AnswerError, AwsNarrowing, Recipe, Step};
use crate::inject::{Plan, PrepareError};
use crate::{Catalog, parse_template};

const NOW: OffsetDateTime = datetime!(2026-11-22 08:00 UTC);
const ROLE: &str = "arn:aws:iam::123456789012:role/team/reports";
const KEY_ID: &str = "AKIAEXAMPLEEXAMPLE00";

type Set = BTreeMap<String, Arc<Secret>>;

/// A key, a role, and these.
fn set(more: &[(&str, &str)]) -> Set {
    let usual = [
        ("AWS_ACCESS_KEY_ID", KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", "stored/secret+key"),
        ("AWS_ROLE_ARN", ROLE),
    ];
    usual
        .iter()
        .chain(more)
        .map(|(key, value)| {
            (
                (*key).to_owned(),
                Arc::new(Secret::from((*value).to_owned())),
            )
        })
        .collect()
}

fn recipe() -> Recipe {
    let aws = Catalog::builtin().get("aws").unwrap();
    aws.recipes()[0].clone()
}

fn ask_narrowed(set: &Set, narrowing: &Narrowing) -> TokenRequest {
    match recipe().begin(set, narrowing, NOW).unwrap() {
        Some(Step::Ask(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn ask(set: &Set) -> TokenRequest {
    ask_narrowed(set, &Narrowing::default())
}

/// The fields of the form.
fn form(request: &TokenRequest) -> BTreeMap<String, String> {
    form_urlencoded::parse(&request.body).into_owned().collect()
}

fn header<'r>(request: &'r TokenRequest, name: &str) -> Option<&'r str> {
    let mut headers = request.headers.iter();
    let found = headers.find(|(other, _)| other == name);
    found.map(|(_, value)| value.to_str().unwrap())
}

fn answer(token: &str, expires: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <AssumeRoleResult>\n    \
         <AssumedRoleUser><AssumedRoleId>AROA:claviger</AssumedRoleId><Arn>arn:aws:sts::1:assumed-role/r/c</Arn></AssumedRoleUser>\n    \
         <Credentials>\n<AccessKeyId>ASIASESSIONEXAMPLE00</AccessKeyId><SecretAccessKey>session/secret</SecretAccessKey>\
         <SessionToken>{token}</SessionToken><Expiration>{expires}</Expiration></Credentials>\n  \
         </AssumeRoleResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleResponse>"
    )
}

fn read(status: u16, body: &str) -> Result<super::super::MadeKey, AnswerError> {
    recipe().read(status, body.as_bytes(), NOW)
}

#[test]
fn a_role_is_asked_for_at_the_endpoint_of_the_sets_first_region() {
    let request = ask(&set(&[("AWS_REGION", "eu-central-1, us-east-1")]));
    assert_eq!(request.host.as_str(), "sts.eu-central-1.amazonaws.com");
    assert_eq!((request.port, request.path.as_str()), (443, "/"));
    let form = form(&request);
    assert_eq!(form["Action"], "AssumeRole");
    assert_eq!(form["RoleArn"], ROLE);
    assert_eq!(form["RoleSessionName"], "claviger");
    assert_eq!(form.len(), 4);
    let authorization = header(&request, "authorization").unwrap();
    let credential = format!("Credential={KEY_ID}/20261122/eu-central-1/sts/aws4_request");
    assert!(authorization.contains(&credential), "{authorization}");
    assert_eq!(header(&request, "x-amz-date"), Some("20261122T080000Z"));
    assert_eq!(header(&request, "x-amz-security-token"), None);
    assert!(!format!("{request:?}").contains("Signature"));
}

#[test]
fn what_the_set_says_of_the_session_is_asked_for() {
    let request = ask(&set(&[
        ("AWS_SESSION_TOKEN", "stored+token"),
        ("AWS_ROLE_EXTERNAL_ID", "acme:7 &"),
        ("AWS_ROLE_SESSION_NAME", "reports@acme"),
        ("AWS_ROLE_DURATION_SECONDS", "900"),
    ]));
    let form = form(&request);
    assert_eq!(form["ExternalId"], "acme:7 &");
    assert_eq!(form["RoleSessionName"], "reports@acme");
    assert_eq!(form["DurationSeconds"], "900");
    assert_eq!(
        header(&request, "x-amz-security-token"),
        Some("stored+token")
    );
}

#[test]
fn a_set_without_a_region_asks_in_the_roles_partition() {
    for (role, host) in [
        (ROLE, "sts.us-east-1.amazonaws.com"),
        (
            "arn:aws-cn:iam::123456789012:role/r",
            "sts.cn-north-1.amazonaws.com.cn",
        ),
        (
            "arn:aws-us-gov:iam::123456789012:role/r",
            "sts.us-gov-west-1.amazonaws.com",
        ),
    ] {
        let request = ask(&set(&[("AWS_ROLE_ARN", role)]));
        assert_eq!(request.host.as_str(), host);
    }
}

#[test]
fn what_is_no_role_and_no_session_is_refused_by_the_name_of_its_key() {
    for (key, value) in [
        ("AWS_ROLE_ARN", "reports"),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:user/reports"),
        ("AWS_ROLE_ARN", "arn:aws:iam::12345678901:role/reports"),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/"),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/a b"),
        ("AWS_ROLE_ARN", "arn:evil:iam::123456789012:role/reports"),
        ("AWS_ROLE_ARN", "arn:aws:sts::123456789012:role/reports"),
        ("AWS_REGION", "evil.example/"),
        ("AWS_REGION", "us-east-1.evil"),
        ("AWS_ROLE_SESSION_NAME", "a"),
        ("AWS_ROLE_SESSION_NAME", "a b"),
        ("AWS_ROLE_DURATION_SECONDS", "899"),
        ("AWS_ROLE_DURATION_SECONDS", "43201"),
        ("AWS_ROLE_DURATION_SECONDS", "+900"),
        ("AWS_ROLE_EXTERNAL_ID", "a\nb"),
    ] {
        let error = recipe()
            .begin(&set(&[(key, value)]), &Narrowing::default(), NOW)
            .unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("`{key}`")),
            "{error}"
        );
    }
}

#[test]
fn an_answer_becomes_a_key_until_a_minute_before_its_end() {
    let made = read(200, &answer("a+b/c=", "2026-11-22T09:00:00Z")).unwrap();
    assert_eq!(made.lifetime, Duration::from_mins(59));
    let session = Session::read(made.value.expose()).unwrap();
    assert_eq!(session.access_key_id, "ASIASESSIONEXAMPLE00");
    assert_eq!(session.secret_access_key, "session/secret");
    assert_eq!(session.token, "a+b/c=");
    // XML's own entities are read.
    let made = read(200, &answer("a&#43;b&amp;c", "2026-11-22T09:00:00Z")).unwrap();
    let session = Session::read(made.value.expose()).unwrap();
    assert_eq!(session.token, "a+b&c");
    let past = read(200, &answer("t", "2026-11-22T07:00:00Z")).unwrap();
    assert_eq!(past.lifetime, Duration::ZERO);
}

#[test]
fn an_odd_answer_makes_nothing() {
    let good = answer("t", "2026-11-22T09:00:00Z");
    let twice = good.replace(
        "<Credentials>",
        "<Credentials><AccessKeyId>x</AccessKeyId></Credentials><Credentials>",
    );
    let bomb = format!(
        "<!DOCTYPE a [<!ENTITY b \"{}\">]>{}",
        "x".repeat(100),
        good.replace(">t<", ">&b;<")
            .replace("<?xml version=\"1.0\"?>\n", "")
    );
    for odd in [
        "",
        "{}",
        "<AssumeRoleResponse/>",
        "<AssumeRoleResponse><AssumeRoleResult>",
        &"<a>".repeat(10_000),
        &format!(
            "<AssumeRoleResponse>{}</AssumeRoleResponse>",
            "<a/>".repeat(5_000)
        ),
        &twice,
        &bomb,
        &good.replace(">t<", "><"),
        &good.replace(">t<", &format!(">{}<", "t".repeat(100_000))),
        &good.replace(">t<", ">&other;<"),
        &good.replace(">t<", ">a&#10;b<"),
        &good.replace(">t<", "><b>t</b><"),
        &good.replace(">t<", ">t<!-- -->u<"),
        &good.replace("<SessionToken>t</SessionToken>", ""),
        &good.replace("2026-11-22T09:00:00Z", "soon"),
        &good.replace("AssumeRoleResult", "GetSessionTokenResult"),
    ] {
        assert_eq!(
            read(200, odd).unwrap_err(),
            AnswerError::NotASession,
            "{odd}"
        );
    }
    let latin = [good.as_bytes(), b"\xff"].concat();
    assert_eq!(
        recipe().read(200, &latin, NOW).unwrap_err(),
        AnswerError::NotASession
    );
}

#[test]
fn a_denial_says_awss_own_code_and_nothing_else() {
    let error = |code: &str| {
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>secret</Message></Error></ErrorResponse>"
        )
    };
    for (status, code, expected) in [
        (403, "AccessDenied", AnswerError::Denied("AccessDenied")),
        (
            400,
            "ValidationError",
            AnswerError::Denied("ValidationError"),
        ),
        (403, "secret", AnswerError::Denied("status 403")),
        (400, "Throttling", AnswerError::Status(400)),
        (500, "AccessDenied", AnswerError::Status(500)),
        (302, "x", AnswerError::Redirect(302)),
    ] {
        let found = read(status, &error(code)).unwrap_err();
        assert_eq!(found, expected);
        assert!(!found.to_string().contains("secret"));
    }
}

fn policy(aws: AwsNarrowing) -> Option<Value> {
    let narrowing = Narrowing {
        aws,
        ..Narrowing::default()
    };
    let request = ask_narrowed(&set(&[]), &narrowing);
    let policy = form(&request).remove("Policy");
    assert_eq!(
        recipe().narrowed_by(&narrowing),
        policy.clone().unwrap_or_default()
    );
    policy.map(|policy| serde_json::from_str(&policy).unwrap())
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn a_session_is_narrowed_to_what_the_grant_says() {
    assert_eq!(policy(AwsNarrowing::default()), None);
    let services = policy(AwsNarrowing {
        services: texts(&["dynamodb", "monitoring"]),
        ..AwsNarrowing::default()
    })
    .unwrap();
    assert_eq!(
        services["Statement"][0]["Condition"]["Bool"]["aws:ViaAWSService"],
        "true"
    );
    assert_eq!(
        services["Statement"][1]["Action"],
        serde_json::json!(["dynamodb:*", "cloudwatch:*"])
    );
    assert!(services["Statement"][2].is_null());
    let both = policy(AwsNarrowing {
        actions: texts(&["s3:Get*", "dynamodb:GetItem"]),
        buckets: texts(&["reports", "logs-*"]),
        ..AwsNarrowing::default()
    })
    .unwrap();
    let [_, others, of_buckets] = &both["Statement"].as_array().unwrap()[..] else {
        panic!("{both}")
    };
    assert_eq!(others["Action"], serde_json::json!(["dynamodb:GetItem"]));
    assert_eq!(of_buckets["Action"], serde_json::json!(["s3:Get*"]));
    let resources = of_buckets["Resource"].as_array().unwrap();
    for name in [
        "arn:*:s3:::reports",
        "arn:*:s3:::reports/*",
        "arn:*:s3:::logs-*",
    ] {
        assert!(resources.contains(&name.into()), "{resources:?}");
    }
    // Buckets alone mean S3 alone.
    let buckets = policy(AwsNarrowing {
        buckets: texts(&["reports"]),
        ..AwsNarrowing::default()
    })
    .unwrap();
    assert_eq!(
        buckets["Statement"][1]["Action"],
        serde_json::json!(["s3:*", "s3express:*"])
    );
    assert!(buckets["Statement"][2].is_null());
}

#[test]
fn a_policy_that_aws_does_not_take_is_left_out() {
    let many = (0..200).map(|n| format!("dynamodb:Action{n}")).collect();
    let narrowing = AwsNarrowing {
        actions: many,
        ..AwsNarrowing::default()
    };
    assert_eq!(policy(narrowing), None);
}

#[test]
fn a_set_with_a_role_never_signs_with_its_own_key() {
    let aws = Catalog::builtin().get("aws").unwrap();
    let prepare = |secrets: Set, made: Set| Plan::prepare_with(&aws, |_| true, secrets, made);
    let error = prepare(set(&[]), Set::new()).unwrap_err();
    assert!(
        matches!(&error, PrepareError::NotMade { key } if key == "AWS_ROLE_SESSION"),
        "{error}"
    );
    let made = read(
        200,
        &answer("session-token-of-a-role", "2026-11-22T09:00:00Z"),
    )
    .unwrap();
    let made = Set::from([("AWS_ROLE_SESSION".to_owned(), Arc::new(made.value))]);
    let plan = prepare(set(&[]), made).unwrap();
    let headers = HeaderMap::new();
    let signable = Signable {
        method: "GET",
        host: "s3.us-east-1.amazonaws.com",
        path_and_query: "/",
        headers: &headers,
        payload: &PayloadHash::Empty,
    };
    let scope = AgentScope::of_ours("s3", "us-east-1", NOW);
    let signed = plan.sigv4().unwrap().sign(&signable, &scope, NOW).unwrap();
    let value = |name: &str| {
        let found = signed.headers.iter().find(|(other, _)| other == name);
        found.unwrap().1.to_str().unwrap()
    };
    assert!(value("authorization").contains("Credential=ASIASESSIONEXAMPLE00/"));
    assert_eq!(value("x-amz-security-token"), "session-token-of-a-role");
    let names: Vec<&str> = plan.keys().iter().map(String::as_str).collect();
    assert_eq!(
        names,
        ["AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", "AWS_SECRET_ACCESS_KEY"]
    );
    for part in ["session-token-of-a-role", "ASIASESSIONEXAMPLE00"] {
        assert!(plan.scrubber().header(part.as_bytes()).is_some(), "{part}");
    }
}

#[test]
fn the_session_of_a_role_stands_in_a_signature_alone() {
    let template = |inject: &str| {
        format!(
            "name = \"acme\"\nhosts = [\"s3.us-east-1.amazonaws.com\"]\nkeys = {{ ID = \"required\", KEY = \"required\", ROLE = \"optional\" }}\n\
             [[make]]\nkey = \"SESSION\"\ngrant = \"aws_assume_role\"\naccess_key_id = \"${{ID}}\"\nsecret_access_key = \"${{KEY}}\"\nrole = \"${{ROLE}}\"\n\
             [[inject]]\n{inject}\n"
        )
    };
    let signs = "sigv4 = { access_key_id = \"${ID}\", secret_access_key = \"${KEY}\", session = \"${SESSION}\" }";
    assert!(parse_template("acme.toml", &template(signs)).is_ok());
    for odd in [
        "header = \"x-session\"\nvalue = \"${SESSION}\"",
        "sigv4 = { access_key_id = \"${ID}\", secret_access_key = \"${KEY}\", session_token = \"${SESSION}\" }",
        "sigv4 = { access_key_id = \"${ID}\", secret_access_key = \"${KEY}\", session = \"${ROLE}\" }",
    ] {
        let errors = parse_template("acme.toml", &template(odd)).unwrap_err();
        assert!(errors.to_string().contains("as what it is not"), "{errors}");
    }
}
