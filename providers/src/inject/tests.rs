mod recordings;

use std::fmt::Write as _;

use super::*;
use crate::{Authority, Catalog, CustomSpec};
use http::HeaderMap;
use serde_json::json;
use time::macros::datetime;

fn secrets(pairs: &[(&str, &str)]) -> BTreeMap<String, Arc<Secret>> {
    pairs
        .iter()
        .map(|(key, value)| {
            (
                (*key).to_owned(),
                Arc::new(Secret::from((*value).to_owned())),
            )
        })
        .collect()
}

fn plan(provider: &str, pairs: &[(&str, &str)]) -> Plan {
    let template = Catalog::builtin().get(provider).unwrap();
    let is_made = |key: &str| template.recipes().iter().any(|recipe| recipe.key() == key);
    let (made, stored): (Vec<_>, Vec<_>) = pairs.iter().partition(|(key, _)| is_made(key));
    Plan::prepare_with(&template, |_| true, secrets(&stored), secrets(&made)).unwrap()
}

/// The head that the provider receives for a head that an agent sends: what a proxy does with a plan.
fn forwarded(plan: &Plan, head: &str) -> String {
    let mut lines = head.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut request = lines.next().unwrap().split(' ');
    let (method, target) = (request.next().unwrap(), request.next().unwrap());
    let fields: Vec<(&str, &str)> = lines.map(|line| line.split_once(": ").unwrap()).collect();
    let host = fields
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("host"))
        .unwrap()
        .1;
    let host = Authority::parse(host).unwrap().host;
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(path, query)| (path, Some(query)));

    let mut agent = HeaderMap::new();
    for (name, value) in &fields {
        agent.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    let is_cookie = |name: &str| name.eq_ignore_ascii_case("cookie");
    let kept = fields
        .iter()
        .filter(|(name, _)| !plan.is_slot(name) && !is_cookie(name));
    let filled = plan.fill_path(host.as_str(), path);
    let sent_path = filled.as_ref().map_or(path, |filled| filled.as_str());
    let target = match plan.rewrite_query(host.as_str(), path, query) {
        None => target.replacen(path, sent_path, 1),
        Some(query) => query.as_str().map_or_else(
            || sent_path.to_owned(),
            |query| format!("{sent_path}?{query}"),
        ),
    };
    let mut out = format!("{method} {target} HTTP/1.1\n");
    for (name, value) in kept {
        writeln!(out, "{}: {value}", name.to_ascii_lowercase()).unwrap();
    }
    let mut set: Vec<(HeaderName, HeaderValue)> =
        plan.headers(host.as_str(), path).cloned().collect();
    if let Some(signer) = plan.sigv4() {
        let scope = sigv4::AgentScope::read(&agent, target.split_once('?').map(|(_, query)| query))
            .unwrap();
        let request = sigv4::Signable {
            method,
            host: host.as_str(),
            path_and_query: &target,
            headers: &agent,
            payload: &sigv4::PayloadHash::Empty,
        };
        set = signer
            .sign(&request, &scope, datetime!(2026-11-22 08:00 UTC))
            .unwrap()
            .headers;
    }
    let agents = agent.get_all("cookie");
    let agents: Vec<&[u8]> = agents.iter().map(HeaderValue::as_bytes).collect();
    match plan.rewrite_cookies(host.as_str(), path, agents.iter().copied()) {
        Cookies::Set(value) => set.push((http::header::COOKIE, value)),
        Cookies::Removed => {}
        Cookies::Unchanged => assert!(agents.is_empty(), "the recorded heads hold no cookie"),
    }
    for (name, value) in set {
        assert!(value.is_sensitive(), "{name}");
        writeln!(out, "{name}: {}", value.to_str().unwrap()).unwrap();
    }
    out
}

macro_rules! recorded {
    ($($test:ident: $provider:literal, $secrets:expr, $($head:literal),+;)*) => {$(
        #[test]
        fn $test() {
            let plan = plan($provider, &$secrets);
            let heads = [$($head),+];
            insta::assert_snapshot!(heads.map(|head| forwarded(&plan, head)).join("\n"));
        }
    )*};
}

recorded! {
    github_app_gets_its_installation_token_and_git_gets_it_by_basic: "github-app",
        [("GITHUB_APP_ID", "12345"), ("GITHUB_APP_PRIVATE_KEY", "pem"), ("GITHUB_APP_INSTALLATION_ID", "678"), ("GITHUB_INSTALLATION_TOKEN", "ghs_FAKE")],
        "GET /repos/o/r/issues HTTP/1.1
        Host: api.github.com
        Authorization: token ghs_clavigerPlaceholder00000000000000000
        X-GitHub-Api-Version: 2022-11-28
        User-Agent: PyGithub/Python",
        "GET /o/r.git/info/refs?service=git-upload-pack HTTP/1.1
        Host: github.com
        Git-Protocol: version=2";
    google_gets_an_access_token_and_no_key_of_the_agents: "google-service-account",
        [("GOOGLE_SERVICE_ACCOUNT_JSON", "{}"), ("GOOGLE_ACCESS_TOKEN", "ya29.FAKE")],
        "POST /v1/projects/p/locations/us-central1/publishers/google/models/gemini-2.5-flash:generateContent?key=own HTTP/1.1
        Host: us-central1-aiplatform.googleapis.com
        X-Goog-Api-Key: agents-own
        x-goog-api-client: google-genai-sdk/1.52.0 gl-python/3.13.0
        Content-Type: application/json";
    paypal_gets_an_access_token: "paypal",
        [("PAYPAL_CLIENT_ID", "id"), ("PAYPAL_CLIENT_SECRET", "secret"), ("PAYPAL_ACCESS_TOKEN", "A21AAFAKE")],
        "POST /v2/checkout/orders HTTP/1.1
        Host: api-m.paypal.com
        Authorization: Bearer claviger-placeholder-00000000000000000000
        PayPal-Request-Id: 7b92603e";
    spotify_gets_an_access_token: "spotify",
        [("SPOTIFY_CLIENT_ID", "id"), ("SPOTIFY_CLIENT_SECRET", "secret"), ("SPOTIFY_ACCESS_TOKEN", "BQFAKE")],
        "GET /v1/albums/4aawyAB9vmqN3uQ7FjRGTy HTTP/1.1
        Host: api.spotify.com
        Authorization: Bearer claviger-placeholder-00000000000000000000";
    zoom_gets_an_access_token: "zoom",
        [("ZOOM_ACCOUNT_ID", "acc"), ("ZOOM_CLIENT_ID", "id"), ("ZOOM_CLIENT_SECRET", "secret"), ("ZOOM_ACCESS_TOKEN", "eyFAKE")],
        "GET /v2/users/me/meetings HTTP/1.1
        Host: api.zoom.us";
    salesforce_gets_an_access_token: "salesforce",
        [("SALESFORCE_CLIENT_ID", "id"), ("SALESFORCE_CLIENT_SECRET", "secret"), ("SALESFORCE_REFRESH_TOKEN", "5AepFAKE"), ("SALESFORCE_ACCESS_TOKEN", "00DFAKE")],
        "GET /services/data/v62.0/query/?q=SELECT+Id+FROM+Account HTTP/1.1
        Host: acme.my.salesforce.com
        Authorization: Bearer claviger-placeholder-00000000000000000000
        User-Agent: simple-salesforce/1.12.9";
    dropbox_gets_an_access_token: "dropbox",
        [("DROPBOX_APP_KEY", "key"), ("DROPBOX_APP_SECRET", "secret"), ("DROPBOX_REFRESH_TOKEN", "refresh"), ("DROPBOX_ACCESS_TOKEN", "sl.FAKE")],
        "POST /2/files/list_folder HTTP/1.1
        Host: api.dropboxapi.com
        Authorization: Bearer claviger-placeholder-00000000000000000000
        User-Agent: OfficialDropboxPythonSDKv2/12.0.2
        Content-Type: application/json";
    snowflake_gets_a_signed_token: "snowflake",
        [("SNOWFLAKE_ACCOUNT", "ACME"), ("SNOWFLAKE_USER", "BOT"), ("SNOWFLAKE_PRIVATE_KEY", "pem"), ("SNOWFLAKE_PUBLIC_KEY_FP", "SHA256:x"), ("SNOWFLAKE_JWT", "eyFAKE")],
        "POST /api/v2/statements HTTP/1.1
        Host: acme-xy12345.snowflakecomputing.com
        X-Snowflake-Authorization-Token-Type: KEYPAIR_JWT
        Content-Type: application/json";
    telegram_gets_the_token_in_its_path: "telegram",
        [("TELEGRAM_BOT_TOKEN", "7000000001:AAFAKE")],
        "POST /bot1234567890:claviger-placeholder-00000000000000/sendMessage HTTP/1.1
        Host: api.telegram.org
        User-Agent: python-telegram-bot v22.5 (https://python-telegram-bot.org)
        Content-Type: application/json",
        "GET /file/bot1234567890:claviger-placeholder-00000000000000/photos/file_0.jpg HTTP/1.1
        Host: api.telegram.org";
    openai_gets_the_key_organization_and_project: "openai",
        [("OPENAI_API_KEY", "sk-proj-FAKE0123456789"), ("OPENAI_ORG_ID", "org-FAKE"), ("OPENAI_PROJECT_ID", "proj_FAKE")],
        "POST /v1/chat/completions HTTP/1.1
        Host: api.openai.com
        Authorization: Bearer sk-claviger-placeholder-00000000000000000000000000000000
        OpenAI-Organization: org-agents-own
        OpenAI_Project: twin
        User-Agent: OpenAI/Python 2.8.1
        Content-Type: application/json";
    openai_without_an_organization_gets_the_key_alone: "openai",
        [("OPENAI_API_KEY", "sk-proj-FAKE0123456789")],
        "GET /v1/models HTTP/1.1
        Host: api.openai.com
        OpenAI-Organization: org-agents-own";
    anthropic_gets_the_key_and_keeps_the_clients_version: "anthropic",
        [("ANTHROPIC_API_KEY", "sk-ant-api03-FAKE")],
        "POST /v1/messages HTTP/1.1
        Host: api.anthropic.com
        X-Api-Key: sk-ant-api03-claviger-placeholder
        Authorization: Bearer agents-own-oauth
        anthropic-version: 2023-06-01";
    gemini_gets_the_key_in_the_header_and_none_in_the_query: "gemini",
        [("GEMINI_API_KEY", "AIzaFAKE")],
        "POST /v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse&key=AIzaSyClavigerPlaceholder HTTP/1.1
        Host: generativelanguage.googleapis.com
        Content-Type: application/json",
        "GET /v1beta/models?key=x HTTP/1.1
        Host: generativelanguage.googleapis.com
        x-goog-api-key: AIzaSyClavigerPlaceholder";
    mistral_gets_the_key: "mistral", [("MISTRAL_API_KEY", "mistralFAKE")],
        "POST /v1/chat/completions HTTP/1.1
        Host: api.mistral.ai
        Authorization: Bearer clavigerplaceholder0000000000000";
    groq_gets_the_key: "groq", [("GROQ_API_KEY", "gsk_FAKE")],
        "POST /openai/v1/chat/completions HTTP/1.1
        Host: api.groq.com
        Authorization: Bearer gsk_clavigerplaceholder";
    openrouter_gets_the_key_and_keeps_the_clients_referer: "openrouter", [("OPENROUTER_API_KEY", "sk-or-v1-FAKE")],
        "POST /api/v1/chat/completions HTTP/1.1
        Host: openrouter.ai
        HTTP-Referer: https://agent.example
        Authorization: Bearer sk-or-v1-clavigerplaceholder";
    cohere_gets_the_key: "cohere", [("COHERE_API_KEY", "cohereFAKE")],
        "POST /v2/chat HTTP/1.1
        Host: api.cohere.com
        Authorization: Bearer clavigerplaceholder";
    stripe_gets_the_key_and_the_sets_account: "stripe",
        [("STRIPE_SECRET_KEY", "sk_live_FAKE"), ("STRIPE_ACCOUNT_ID", "acct_FAKE"), ("STRIPE_WEBHOOK_SECRET", "whsec_FAKE")],
        "POST /v1/charges HTTP/1.1
        Host: api.stripe.com
        Authorization: Bearer sk_test_clavigerplaceholder00000
        Stripe-Account: acct_agents_own
        Stripe-Version: 2026-10-29
        Idempotency-Key: 7f0e";
    github_gets_a_bearer_on_its_apis_and_basic_for_git: "github", [("GITHUB_TOKEN", "ghp_FAKE0123456789")],
        "GET /repos/o/r/issues HTTP/1.1
        Host: api.github.com
        Authorization: token ghp_clavigerPlaceholder00000000000000000",
        "POST /graphql HTTP/1.1
        Host: api.github.com
        Authorization: Bearer ghp_clavigerPlaceholder00000000000000000",
        "POST /repos/o/r/releases/1/assets?name=a.zip HTTP/1.1
        Host: uploads.github.com",
        "GET /o/r/main/README.md HTTP/1.1
        Host: raw.githubusercontent.com",
        "GET /o/r/tar.gz/main HTTP/1.1
        Host: codeload.github.com",
        "GET /o/r.git/info/refs?service=git-upload-pack HTTP/1.1
        Host: github.com
        Git-Protocol: version=2",
        "POST /o/r.git/git-receive-pack HTTP/1.1
        Host: github.com
        Authorization: Basic eDpnaHBfY2xhdmlnZXI=",
        "POST /o/r.git/info/lfs/objects/batch HTTP/1.1
        Host: github.com",
        "GET /o/r HTTP/1.1
        Host: github.com
        Authorization: Bearer agents-own";
    gitlab_gets_the_private_token_on_its_api_and_basic_for_git: "gitlab", [("GITLAB_TOKEN", "glpat-FAKE0123456789")],
        "GET /api/v4/projects?private_token=agents-own&page=2 HTTP/1.1
        Host: gitlab.com
        PRIVATE-TOKEN: glpat-clavigerplaceholder0",
        "POST /api/graphql HTTP/1.1
        Host: gitlab.com
        Authorization: Bearer glpat-clavigerplaceholder0",
        "GET /g/p.git/info/refs?service=git-receive-pack HTTP/1.1
        Host: gitlab.com",
        "GET /g/p HTTP/1.1
        Host: gitlab.com
        Private_Token: agents-own";
    slack_gets_the_bot_token: "slack", [("SLACK_BOT_TOKEN", "xoxb-FAKE"), ("SLACK_SIGNING_SECRET", "FAKE")],
        "POST /api/chat.postMessage?token=xoxb-agents-own HTTP/1.1
        Host: slack.com
        Authorization: Bearer xoxb-000000000000-0000000000000-clavigerplaceholder000000";
    notion_gets_the_key_and_keeps_the_clients_version: "notion", [("NOTION_API_KEY", "ntn_FAKE")],
        "GET /v1/users/me HTTP/1.1
        Host: api.notion.com
        Notion-Version: 2025-09-03
        Authorization: Bearer ntn_clavigerplaceholder";
    linear_gets_the_key_without_a_scheme: "linear", [("LINEAR_API_KEY", "lin_api_FAKE")],
        "POST /graphql HTTP/1.1
        Host: api.linear.app
        Authorization: lin_api_clavigerplaceholder";
    sendgrid_gets_the_key: "sendgrid", [("SENDGRID_API_KEY", "SG.FAKE.FAKE")],
        "POST /v3/mail/send HTTP/1.1
        Host: api.sendgrid.com
        Authorization: Bearer SG.clavigerplaceholder";
    twilio_gets_basic_of_account_and_token: "twilio", [("TWILIO_ACCOUNT_SID", "ACFAKE"), ("TWILIO_AUTH_TOKEN", "FAKE0123456789")],
        "POST /2010-04-01/Accounts/ACFAKE/Messages.json HTTP/1.1
        Host: api.twilio.com
        Authorization: Basic QUNGQUtFOmNsYXZpZ2VycGxhY2Vob2xkZXI=",
        "POST /v2/Services/VA1/Verifications HTTP/1.1
        Host: verify.twilio.com";
    datadog_gets_both_keys_on_its_api_and_one_at_the_intake: "datadog", [("DD_API_KEY", "FAKEapi"), ("DD_APP_KEY", "FAKEapp")],
        "GET /api/v1/query?from=1&api_key=a&application_key=b HTTP/1.1
        Host: api.datadoghq.eu
        DD-API-KEY: clavigerplaceholder0000000000000
        DD-APPLICATION-KEY: clavigerplaceholder000000000000000000000",
        "POST /api/v2/logs HTTP/1.1
        Host: http-intake.logs.datadoghq.com
        DD-API-KEY: clavigerplaceholder0000000000000
        DD-APPLICATION-KEY: clavigerplaceholder000000000000000000000";
    aws_is_signed_again_with_our_keys_and_clock: "aws",
        [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), ("AWS_SESSION_TOKEN", "FAKE-session")],
        "GET /?Action=GetCallerIdentity&Version=2011-06-15 HTTP/1.1
        Host: sts.eu-west-1.amazonaws.com
        User-Agent: Boto3/1.43.11
        X-Amz-Date: 20200101T000000Z
        X-Amz-Security-Token: claviger-placeholder
        Authorization: AWS4-HMAC-SHA256 Credential=AKIACLAVIGERPLACEHLD/20200101/eu-west-1/sts/aws4_request, SignedHeaders=host;x-amz-date;x-amz-security-token, Signature=0000000000000000000000000000000000000000000000000000000000000000";
}

#[test]
fn every_built_in_template_has_a_recorded_request() {
    let source = include_str!("tests.rs");
    for template in Catalog::builtin().iter() {
        let is_here = source.contains(&format!(": \"{}\", ", template.name()))
            || source.contains(&format!(": \"{}\",\n", template.name()));
        let is_recorded = recordings::file_of(template.name()).exists();
        assert!(is_here || is_recorded, "{}", template.name());
    }
}

fn custom(inject: &serde_json::Value, keys: &[(&str, &str)]) -> Result<Plan, PrepareError> {
    let spec: CustomSpec =
        serde_json::from_value(serde_json::json!({ "hosts": ["x.example"], "inject": [inject] }))
            .unwrap();
    let template = spec
        .to_template("custom/x", keys.iter().map(|(key, _)| *key))
        .unwrap();
    Plan::prepare(&Arc::new(template), |_| true, secrets(keys))
}

#[test]
fn a_custom_header_is_set_as_the_set_says() {
    let plan = custom(
        &serde_json::json!({ "header": "X-Token", "value": "id=${ID};key=${KEY}" }),
        &[("ID", "a"), ("KEY", "b c")],
    )
    .unwrap();
    let head = forwarded(
        &plan,
        "GET / HTTP/1.1\nHost: x.example\nx-token: agents-own",
    );
    assert_eq!(
        head,
        "GET / HTTP/1.1\nhost: x.example\nx-token: id=a;key=b c\n"
    );
    assert_eq!(**plan.keys(), ["ID".to_owned(), "KEY".to_owned()]);
}

#[test]
fn a_query_parameter_is_encoded_and_replaces_the_agents_own() {
    let plan = custom(
        &serde_json::json!({ "query": "key", "value": "${KEY}" }),
        &[("KEY", "a&b=c d%")],
    )
    .unwrap();
    assert!(plan.has_url_credential());
    let rewritten = |query| {
        plan.rewrite_query("x.example", "/", query)
            .unwrap()
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(rewritten(None).as_deref(), Some("key=a%26b%3Dc%20d%25"));
    assert_eq!(
        rewritten(Some("q=%7E&K%65y=own&KEY=own&&x")).as_deref(),
        Some("q=%7E&&x&key=a%26b%3Dc%20d%25")
    );
    assert_eq!(
        format!("{:?}", plan.rewrite_query("x.example", "/", None)),
        "Some(RewrittenQuery(..))"
    );
}

#[test]
fn a_custom_cookie_replaces_the_agents_own_of_that_name() {
    let plan = custom(
        &serde_json::json!({ "cookie": "sid", "value": "s%3A${KEY}" }),
        &[("KEY", "FAKE")],
    )
    .unwrap();
    let head = forwarded(
        &plan,
        "GET / HTTP/1.1\nHost: x.example\nCookie: a=1; sid=own; b=2",
    );
    assert_eq!(
        head,
        "GET / HTTP/1.1\nhost: x.example\ncookie: a=1; b=2; sid=s%3AFAKE\n"
    );
}

#[test]
fn a_cookie_of_ours_never_comes_back_and_others_where_they_pass() {
    let cookie = serde_json::json!({ "cookie": "session", "value": "${KEY}" });
    let passes = custom(&cookie, &[("KEY", "tok_0123456789abcdef")]).unwrap();
    let drops = plan(
        "stripe",
        &[("STRIPE_SECRET_KEY", "sk_live_0123456789abcdef")],
    );
    for (field, is_ours) in [
        (&b"session=1; Path=/"[..], true),
        (b"theme=dark; Secure", false),
    ] {
        assert_eq!(passes.drops_set_cookie(field), is_ours, "{field:?}");
        assert!(drops.drops_set_cookie(field), "{field:?}");
    }
    for (name, is_cookie) in [("cookie", true), ("Cookie2", true), ("cookies", false)] {
        assert!(!passes.drops_cookie(name), "{name}");
        assert_eq!(drops.drops_cookie(name), is_cookie, "{name}");
    }
}

#[test]
fn a_custom_path_is_filled_in_its_segment_alone() {
    let plan = custom(
        &serde_json::json!({ "path": "/hook/${KEY}/send" }),
        &[("KEY", "FAKE")],
    )
    .unwrap();
    assert!(plan.has_url_credential());
    let filled = |path| {
        plan.fill_path("x.example", path)
            .map(|path| path.as_str().to_owned())
    };
    assert_eq!(filled("/hook/own/send").as_deref(), Some("/hook/FAKE/send"));
    assert_eq!(filled("/hook/own/read"), None);
    assert_eq!(filled("/hook/own/send/more"), None);
}

#[test]
fn a_client_certificate_is_shown_where_the_template_says() {
    let plan = custom(
        &serde_json::json!({ "client_certificate": { "certificate": "${CERT}", "key": "${KEY}" } }),
        &[
            ("CERT", "pem of the certificate"),
            ("KEY", "pem of the private key"),
        ],
    )
    .unwrap();
    assert!(plan.presents_certificate("x.example"));
    let pair = plan.client_certificate().unwrap();
    assert_eq!(pair.key.expose(), b"pem of the private key");
    assert!(plan.scrubber().is_empty(), "neither travels as a secret");
}

#[test]
fn a_value_that_its_place_cannot_hold_is_refused_by_its_name() {
    for (inject, value) in [
        (serde_json::json!({ "path": "/a/${KEY}" }), "a/b"),
        (serde_json::json!({ "path": "/a/${KEY}" }), ".."),
        (serde_json::json!({ "path": "/${KEY}/a" }), "a?b"),
        (
            serde_json::json!({ "cookie": "c", "value": "${KEY}" }),
            "a; b=c",
        ),
        (
            serde_json::json!({ "form": "f", "value": "${KEY}" }),
            "a\nb",
        ),
        (
            serde_json::json!({ "json": "/f", "value": "${KEY}" }),
            "a\nb",
        ),
    ] {
        let error = custom(&inject, &[("KEY", value)]).unwrap_err();
        let is_named = matches!(&error, PrepareError::BadValue { key, .. } if key == "KEY");
        assert!(is_named && !error.to_string().contains(value), "{error}");
    }
}

#[test]
fn a_misplaced_placeholder_is_told_with_its_slot() {
    let plan = plan("gemini", &[("GEMINI_API_KEY", "AIzaFAKE")]);
    let placeholder = "AIzaSyClavigerPlaceholder00000000000000";
    let (query, other) = (format!("a=b&key={placeholder}"), format!("q={placeholder}"));
    let header = |name: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(placeholder).unwrap());
        headers
    };
    let check = |path: &str, query: Option<&str>, headers: &HeaderMap| {
        plan.check_placeholders(&AgentHead {
            host: "generativelanguage.googleapis.com",
            path,
            query,
            headers,
        })
    };
    check("/v1", Some(&query), &header("x-goog-api-key")).unwrap();
    check("/v1", None, &header("authorization")).unwrap();
    for (path, query, headers) in [
        ("/v1", Some(&*other), HeaderMap::new()),
        ("/v1", None, header("x-note")),
        (&*format!("/v1/{placeholder}"), None, HeaderMap::new()),
    ] {
        let misplaced = check(path, query, &headers).unwrap_err();
        assert_eq!(misplaced.key, "GEMINI_API_KEY");
        assert_eq!(misplaced.slot, "the header `x-goog-api-key`");
    }
}

#[test]
fn a_query_that_needs_no_change_is_left_as_it_is() {
    let plan = plan("gemini", &[("GEMINI_API_KEY", "AIzaFAKE")]);
    for query in [None, Some(""), Some("a=b&c"), Some("keys=1&monkey=2")] {
        assert_eq!(
            plan.rewrite_query("generativelanguage.googleapis.com", "/", query),
            None,
            "{query:?}"
        );
    }
    assert_eq!(
        plan.rewrite_query("generativelanguage.googleapis.com", "/", Some("key=x"))
            .unwrap()
            .as_str(),
        None
    );
}

#[test]
fn a_missing_required_key_is_named() {
    let template = Catalog::builtin().get("twilio").unwrap();
    let error = Plan::prepare(
        &template,
        |_| true,
        secrets(&[("TWILIO_ACCOUNT_SID", "AC")]),
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the set has no `TWILIO_AUTH_TOKEN`, which `twilio` needs; add it with `claviger set put`"
    );
}

#[test]
fn a_required_key_that_the_grant_does_not_allow_is_named() {
    let template = Catalog::builtin().get("stripe").unwrap();
    let all = secrets(&[
        ("STRIPE_SECRET_KEY", "sk_live_x"),
        ("STRIPE_ACCOUNT_ID", "acct_x"),
    ]);
    let error = Plan::prepare(&template, |key| key == "STRIPE_ACCOUNT_ID", all).unwrap_err();
    assert!(matches!(error, PrepareError::KeyNotAllowed { key, .. } if key == "STRIPE_SECRET_KEY"));
}

#[test]
fn an_optional_key_that_the_grant_does_not_allow_is_left_out() {
    let template = Catalog::builtin().get("stripe").unwrap();
    let all = secrets(&[
        ("STRIPE_SECRET_KEY", "sk_live_x"),
        ("STRIPE_ACCOUNT_ID", "acct_x"),
        ("STRIPE_WEBHOOK_SECRET", "whsec"),
    ]);
    let plan = Plan::prepare(&template, |key| key == "STRIPE_SECRET_KEY", all).unwrap();
    assert_eq!(plan.headers("api.stripe.com", "/").count(), 1);
    assert_eq!(**plan.keys(), ["STRIPE_SECRET_KEY".to_owned()]);
    assert!(plan.is_slot("stripe-account"));
}

#[test]
fn a_value_that_would_break_its_slot_is_refused_and_not_shown() {
    let header = serde_json::json!({ "header": "x-token", "value": "${KEY}" });
    for value in [
        "hidden\r\nx: y",
        "hidden\n",
        "hidden\0",
        "",
        " hidden",
        "hidden ",
        "hiddené",
    ] {
        let error = custom(&header, &[("KEY", value)]).unwrap_err();
        assert!(
            matches!(&error, PrepareError::BadValue { key, .. } if key == "KEY"),
            "{value:?}"
        );
        assert!(!error.to_string().contains("hidden"));
    }
    let basic = serde_json::json!({ "basic": { "user": "${USER}", "password": "${KEY}" } });
    assert!(custom(&basic, &[("USER", "a:b"), ("KEY", "k")]).is_err());
    assert!(custom(&basic, &[("USER", "a"), ("KEY", "k\n")]).is_err());
    assert!(custom(&basic, &[("USER", "a"), ("KEY", "pass:wörd")]).is_ok());
}

#[test]
fn twins_of_a_slot_are_slots() {
    let plan = plan("anthropic", &[("ANTHROPIC_API_KEY", "sk-ant-x")]);
    for name in [
        "x-api-key",
        "X-API-KEY",
        "x_api_key",
        "X_Api-Key",
        "_x-api-key",
        "x-api-key_",
        "Authorization",
        "authorization-",
        "_AUTHORIZATION_",
    ] {
        assert!(plan.is_slot(name), "{name}");
    }
    for name in ["x-api-keys", "xapikey", "x-api", "anthropic-version", ""] {
        assert!(!plan.is_slot(name), "{name}");
    }
    assert_eq!(plan.strip(), ["x-api-key", "authorization"]);
}

#[test]
fn headers_that_steer_routing_are_known_in_every_spelling() {
    for name in [
        "X-Original-URL",
        "x_original_url",
        "X-Rewrite-Url",
        "X-Forwarded-Host",
        "x-forwarded-proto",
        "X_Forwarded_For",
        "Forwarded",
        "X-HTTP-Method-Override",
        "x-forwarded",
    ] {
        assert!(is_routing_header(name), "{name}");
    }
    for name in ["x-request-id", "forward", "x-forward", "authorization"] {
        assert!(!is_routing_header(name), "{name}");
    }
}

#[test]
fn the_scrubber_knows_what_travels_and_nothing_else() {
    let plan = plan(
        "twilio",
        &[
            ("TWILIO_ACCOUNT_SID", "AC0123456789abcdef0123456789abcdef"),
            ("TWILIO_AUTH_TOKEN", "0123456789fedcba0123456789fedcba"),
        ],
    );
    let scrubs = |text: &str| plan.scrubber().header(text.as_bytes()).is_some();
    assert!(scrubs("token 0123456789fedcba0123456789fedcba"));
    let (_, value) = plan.headers("api.twilio.com", "/").next().unwrap();
    let clean = plan.scrubber().header(value.as_bytes()).unwrap();
    assert_eq!(
        clean,
        [b"Basic ", &vec![b'*'; value.len() - 6][..]].concat()
    );
    // Twilio writes the account's SID into every answer.
    assert!(!scrubs(
        "/2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Messages"
    ));
    let aws = self::plan(
        "aws",
        &[
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE000000000"),
            ("AWS_SECRET_ACCESS_KEY", "secret-that-never-travels"),
            ("AWS_SESSION_TOKEN", "session-that-travels"),
        ],
    );
    assert!(
        aws.scrubber()
            .header(b"secret-that-never-travels")
            .is_none()
    );
    assert!(aws.scrubber().header(b"session-that-travels").is_some());
}

#[test]
fn only_a_plan_that_signs_reads_the_body() {
    let stripe = plan("stripe", &[("STRIPE_SECRET_KEY", "sk_live_x")]);
    assert_eq!(
        (stripe.reads_body(), stripe.sigv4().is_some()),
        (BodyNeed::None, false)
    );
    let aws = plan(
        "aws",
        &[
            ("AWS_ACCESS_KEY_ID", "AKID"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
        ],
    );
    assert_eq!(
        (aws.reads_body(), aws.sigv4().is_some()),
        (BodyNeed::HashUpTo(8 * 1024 * 1024), true)
    );
    assert_eq!(aws.headers("sts.amazonaws.com", "/").count(), 0);
}

#[test]
fn a_body_is_taken_where_something_is_set_or_signed_in_it() {
    let hmac =
        |over: &str| json!({ "hmac": { "key": "${KEY}", "over": over, "header": "x-sign" } });
    for (inject, takes, need) in [
        (
            json!({ "header": "x-key", "value": "${KEY}" }),
            false,
            BodyNeed::None,
        ),
        (hmac("{method}{target}"), false, BodyNeed::None),
        (
            hmac("{time}{body}"),
            true,
            BodyNeed::FillUpTo(LONGEST_FILLED_BODY),
        ),
        (
            hmac("{body_sha256}"),
            true,
            BodyNeed::FillUpTo(LONGEST_FILLED_BODY),
        ),
        (
            json!({ "form": "key", "value": "${KEY}" }),
            true,
            BodyNeed::FillUpTo(LONGEST_FILLED_BODY),
        ),
    ] {
        let plan = custom(&inject, &[("KEY", "FAKE")]).unwrap();
        assert_eq!(plan.takes_body("x.example", "/"), takes, "{inject}");
        assert_eq!(plan.reads_body(), need, "{inject}");
    }
}

#[test]
fn debug_shows_names_alone() {
    let plan = plan("stripe", &[("STRIPE_SECRET_KEY", "sk_live_canary")]);
    let text = format!(
        "{plan:?} {:?}",
        plan.headers("api.stripe.com", "/").collect::<Vec<_>>()
    );
    assert!(
        text.contains("stripe") && !text.contains("canary"),
        "{text}"
    );
}
