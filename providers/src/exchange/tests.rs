use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{self, KeyPair as _, UnparsedPublicKey};
use serde_json::{Value, json};
use time::macros::datetime;

use super::*;
use crate::{Catalog, CustomSpec, parse_template};

const NOW: OffsetDateTime = datetime!(2026-11-22 08:00 UTC);

type Set = BTreeMap<String, Arc<Secret>>;

fn set(pairs: &[(&str, &str)]) -> Set {
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

/// The recipe of a template of one key `K` that is made as `make` says.
fn recipe(keys: &[&str], make: &str) -> Recipe {
    let keys: Vec<String> = keys
        .iter()
        .map(|key| format!("{key} = \"optional\""))
        .collect();
    let text = format!(
        "name = \"acme\"\nhosts = [\"api.acme.example\"]\nkeys = {{ MAIN = \"required\", {} }}\n\
         [[make]]\nkey = \"TOKEN\"\n{make}\n\
         [[inject]]\nheader = \"authorization\"\nvalue = \"Bearer ${{TOKEN}}\"\n\
         [[inject]]\nheader = \"x-main\"\nvalue = \"${{MAIN}}\"\n",
        keys.join(", ")
    );
    let template = parse_template("acme.toml", &text).unwrap_or_else(|errors| panic!("{errors}"));
    template.recipes()[0].clone()
}

fn ask(recipe: &Recipe, set: &Set) -> TokenRequest {
    match recipe.begin(set, &Narrowing::default(), NOW).unwrap() {
        Some(Step::Ask(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn body(request: &TokenRequest) -> &str {
    std::str::from_utf8(&request.body).unwrap()
}

fn header<'r>(request: &'r TokenRequest, name: &str) -> Option<&'r HeaderValue> {
    let mut headers = request.headers.iter();
    headers
        .find(|(other, _)| other == name)
        .map(|(_, value)| value)
}

/// Header and claims of a JWT, and the parts that its signature is checked by.
fn decode(jwt: &str) -> (Value, Value, String, Vec<u8>) {
    let parts: Vec<&str> = jwt.split('.').collect();
    let part = |at: usize| URL_SAFE_NO_PAD.decode(parts[at]).unwrap();
    let json = |at| serde_json::from_slice(&part(at)).unwrap();
    (
        json(0),
        json(1),
        format!("{}.{}", parts[0], parts[1]),
        part(2),
    )
}

fn field<'b>(body: &'b str, name: &str) -> Option<&'b str> {
    body.split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

const CLIENT: &str = "grant = \"client_credentials\"\nurl = \"https://auth.acme.example/oauth/token\"\n\
    client_id = \"${ID}\"\nclient_secret = \"${SECRET}\"\n";

#[test]
fn client_credentials_go_by_basic_form_encoded_first() {
    let recipe = recipe(&["ID", "SECRET"], CLIENT);
    let request = ask(&recipe, &set(&[("ID", "a:b"), ("SECRET", "s &")]));
    assert_eq!(
        (request.host.as_str(), request.port),
        ("auth.acme.example", 443)
    );
    assert_eq!(request.path, "/oauth/token");
    assert_eq!(body(&request), "grant_type=client_credentials");
    let authorization = header(&request, "authorization").unwrap();
    assert!(authorization.is_sensitive());
    let pair = authorization
        .to_str()
        .unwrap()
        .strip_prefix("Basic ")
        .unwrap();
    assert_eq!(STANDARD.decode(pair).unwrap(), b"a%3Ab:s%20%26");
    assert!(!format!("{request:?}").contains("s &"));
    assert_eq!(recipe.inputs(), ["ID", "SECRET"]);
}

#[test]
fn client_credentials_go_in_the_body_where_the_vendor_wants_them_there() {
    let make = format!(
        "{CLIENT}client_auth = \"post\"\nscope = \"${{SCOPE}}\"\naudience = \"https://api.acme.example/\"\n\
         parameters = {{ grant_type = \"account_credentials\", account_id = \"${{ACCOUNT}}\" }}"
    );
    let recipe = recipe(&["ID", "SECRET", "SCOPE", "ACCOUNT"], &make);
    let all = [("ID", "i"), ("SECRET", "s&t"), ("ACCOUNT", "7")];
    let request = ask(&recipe, &set(&all));
    assert_eq!(
        body(&request),
        "audience=https%3A%2F%2Fapi.acme.example%2F&client_id=i&client_secret=s%26t&account_id=7&grant_type=account_credentials"
    );
    assert!(header(&request, "authorization").is_none());
    // A parameter is part of the question; a scope may be left out.
    assert!(
        recipe
            .begin(&set(&all[..2]), &Narrowing::default(), NOW)
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_refresh_token_is_exchanged_by_a_public_client_too() {
    let recipe = recipe(
        &["ID", "REFRESH"],
        "grant = \"refresh_token\"\nurl = \"https://auth.acme.example/token\"\nclient_id = \"${ID}\"\nrefresh_token = \"${REFRESH}\"",
    );
    let request = ask(&recipe, &set(&[("ID", "i"), ("REFRESH", "r/1")]));
    assert_eq!(
        body(&request),
        "grant_type=refresh_token&refresh_token=r%2F1&client_id=i"
    );
    assert_eq!(recipe.rotates(), Some("REFRESH"));
    assert_eq!(recipe.travelling(), ["REFRESH"]);
}

#[test]
fn a_token_of_ones_own_is_renewed_with_half_of_its_time_left() {
    for (ttl, seconds) in [
        ("", 150),
        ("ttl = \"10s\"", 5),
        ("ttl = \"90s\"", 45),
        ("ttl = \"2m\"", 60),
        ("ttl = \"1h\"", 1_800),
    ] {
        let text = format!(
            "grant = \"jwt\"\nalgorithm = \"HS256\"\nprivate_key = \"${{KEY}}\"\nissuer = \"me\"\n{ttl}"
        );
        let key = "0123456789abcdef0123456789abcdef";
        let step = recipe(&["KEY"], &text).begin(&set(&[("KEY", key)]), &Narrowing::default(), NOW);
        let Some(Step::Made(made)) = step.unwrap() else {
            panic!("{ttl}");
        };
        assert_eq!(made.lifetime.as_secs(), seconds, "{ttl}");
    }
}

#[test]
fn what_the_set_lacks_makes_nothing() {
    let recipe = recipe(&["ID", "SECRET"], CLIENT);
    assert!(
        recipe
            .begin(&set(&[("ID", "i")]), &Narrowing::default(), NOW)
            .unwrap()
            .is_none()
    );
    assert!(
        recipe
            .begin(&set(&[]), &Narrowing::default(), NOW)
            .unwrap()
            .is_none()
    );
}

#[test]
fn each_algorithm_signs_so_that_its_public_key_verifies() {
    let random = ring::rand::SystemRandom::new();
    let pem = |der: &[u8]| {
        format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der)
        )
    };
    let p256 = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let ec = signature::EcdsaKeyPair::generate_pkcs8(p256, &random).unwrap();
    let curve = signature::EcdsaKeyPair::from_pkcs8(p256, ec.as_ref(), &random).unwrap();
    let ed = signature::Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let edwards = signature::Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap();
    let recipe_for = |algorithm: &str| {
        recipe(
            &["KEY", "WHO"],
            &format!(
                "grant = \"jwt\"\nalgorithm = \"{algorithm}\"\nprivate_key = \"${{KEY}}\"\nkey_id = \"k1\"\n\
                 issuer = \"${{WHO}}\"\naudience = \"acme\"\nttl = \"2m\""
            ),
        )
    };
    let sign = |algorithm: &str, key: &str| {
        let step = recipe_for(algorithm).begin(
            &set(&[("KEY", key), ("WHO", "me")]),
            &Narrowing::default(),
            NOW,
        );
        match step.unwrap() {
            Some(Step::Made(made)) => {
                assert_eq!(made.lifetime, Duration::from_mins(1));
                made.value.expose_str().unwrap().to_owned()
            }
            other => panic!("{other:?}"),
        }
    };
    let check = |jwt: &str, algorithm: &str| {
        let (header, claims, signed, signature) = decode(jwt);
        assert_eq!(
            header,
            json!({ "alg": algorithm, "typ": "JWT", "kid": "k1" })
        );
        assert_eq!(
            (&claims["iss"], &claims["aud"]),
            (&json!("me"), &json!("acme"))
        );
        assert_eq!(claims["exp"].as_i64().unwrap(), NOW.unix_timestamp() + 120);
        assert_eq!(claims["iat"].as_i64().unwrap(), NOW.unix_timestamp() - 30);
        (signed, signature)
    };
    let (signed, signature) = check(&sign("ES256", &pem(ec.as_ref())), "ES256");
    let public = UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, curve.public_key());
    public.verify(signed.as_bytes(), &signature).unwrap();
    let (signed, signature) = check(&sign("EdDSA", &pem(ed.as_ref())), "EdDSA");
    let public = UnparsedPublicKey::new(&signature::ED25519, edwards.public_key());
    public.verify(signed.as_bytes(), &signature).unwrap();
    let shared = "0123456789abcdef0123456789abcdef";
    let (signed, signature) = check(&sign("HS256", shared), "HS256");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, shared.as_bytes());
    ring::hmac::verify(&key, signed.as_bytes(), &signature).unwrap();

    for (algorithm, key) in [
        ("RS256", pem(ec.as_ref())),
        ("ES256", pem(ed.as_ref())),
        ("ES256", "nonsense".to_owned()),
        ("HS256", "short".to_owned()),
    ] {
        let error = recipe_for(algorithm)
            .begin(
                &set(&[("KEY", &key), ("WHO", "me")]),
                &Narrowing::default(),
                NOW,
            )
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("`KEY` cannot be used to make `TOKEN`"),
            "{error}"
        );
    }
}

#[test]
fn a_service_account_signs_for_the_scope_that_is_asked_for() {
    let template = Catalog::builtin().get("google-service-account").unwrap();
    let recipe = &template.recipes()[0];
    assert!(!recipe.is_of_github());
    let file = json!({
        "type": "service_account", "client_email": "bot@p.iam.gserviceaccount.com",
        "private_key_id": "kid1", "private_key": RSA_KEY, "token_uri": "https://evil.example/token",
    })
    .to_string();
    for (more, scope) in [
        (None, "https://www.googleapis.com/auth/cloud-platform"),
        (
            Some(("GOOGLE_SCOPES", "https://www.googleapis.com/auth/drive")),
            "https://www.googleapis.com/auth/drive",
        ),
    ] {
        let mut pairs = vec![("GOOGLE_SERVICE_ACCOUNT_JSON", &*file)];
        pairs.extend(more);
        let request = ask(recipe, &set(&pairs));
        assert_eq!(
            request.host.as_str(),
            "oauth2.googleapis.com",
            "the file does not say where"
        );
        assert_eq!(
            field(body(&request), "grant_type").unwrap(),
            "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer"
        );
        let (header, claims, signed, signature) =
            decode(field(body(&request), "assertion").unwrap());
        assert_eq!(
            header,
            json!({ "alg": "RS256", "typ": "JWT", "kid": "kid1" })
        );
        assert_eq!(claims["scope"], scope);
        assert_eq!(claims["iss"], "bot@p.iam.gserviceaccount.com");
        assert_eq!(claims["aud"], "https://oauth2.googleapis.com/token");
        verify_rsa(&signed, &signature);
    }
    let error = recipe
        .begin(
            &set(&[("GOOGLE_SERVICE_ACCOUNT_JSON", "{}")]),
            &Narrowing::default(),
            NOW,
        )
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("not the JSON file of a service account's key"),
        "{error}"
    );
}

/// What GitHub is asked to narrow a token to, where set and grant say this.
fn narrowed(
    of_set: [Option<&str>; 2],
    repositories: &[&str],
    permissions: &[(&str, &str)],
) -> Result<Value, RecipeError> {
    let template = Catalog::builtin().get("github-app").unwrap();
    let recipe = &template.recipes()[0];
    assert!(recipe.is_of_github());
    let mut pairs = vec![
        ("GITHUB_APP_ID", "12345"),
        ("GITHUB_APP_PRIVATE_KEY", RSA_KEY),
        ("GITHUB_APP_INSTALLATION_ID", "678"),
    ];
    let keys = ["GITHUB_APP_REPOSITORIES", "GITHUB_APP_PERMISSIONS"];
    pairs.extend(
        keys.into_iter()
            .zip(of_set)
            .filter_map(|(key, value)| Some((key, value?))),
    );
    let github = GithubNarrowing {
        repositories: repositories.iter().map(|&name| name.to_owned()).collect(),
        permissions: permissions
            .iter()
            .map(|&(name, level)| (name.to_owned(), level.to_owned()))
            .collect(),
    };
    let narrowing = Narrowing {
        github,
        ..Narrowing::default()
    };
    match recipe.begin(&set(&pairs), &narrowing, NOW)? {
        Some(Step::Ask(request)) => Ok(serde_json::from_slice(&request.body).unwrap()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_github_apps_token_is_narrowed_to_what_set_and_grant_have_in_common() {
    let none = [None, None];
    assert_eq!(narrowed(none, &[], &[]).unwrap(), json!({}));
    assert_eq!(
        narrowed(none, &["site"], &[("contents", "read")]).unwrap(),
        json!({ "repositories": ["site"], "permissions": { "contents": "read" } })
    );
    let both = [
        Some("Site,docs"),
        Some("contents:read,issues:write,checks:write"),
    ];
    assert_eq!(
        narrowed(
            both,
            &["site", "other"],
            &[
                ("contents", "write"),
                ("issues", "read"),
                ("administration", "admin")
            ]
        )
        .unwrap(),
        json!({ "repositories": ["Site"], "permissions": { "contents": "read", "issues": "read" } })
    );
    // What one of them leaves open, the other bounds.
    assert_eq!(
        narrowed(both, &[], &[("contents", "admin")]).unwrap(),
        json!({ "repositories": ["Site", "docs"], "permissions": { "contents": "read" } })
    );
    let error = narrowed(both, &["other"], &[]).unwrap_err().to_string();
    assert!(
        error.contains("repositories") && error.contains("GITHUB_APP_REPOSITORIES"),
        "{error}"
    );
    let error = narrowed(both, &[], &[("pages", "read")])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("permissions") && error.contains("GITHUB_APP_PERMISSIONS"),
        "{error}"
    );
}

#[test]
fn tokens_of_a_github_app_that_grants_narrow_in_two_ways_are_two() {
    let template = Catalog::builtin().get("github-app").unwrap();
    let key_of = |repositories: &[&str]| {
        let github = GithubNarrowing {
            repositories: repositories.iter().map(|&name| name.to_owned()).collect(),
            ..GithubNarrowing::default()
        };
        template.recipes()[0].narrowed_by(&Narrowing {
            github,
            ..Narrowing::default()
        })
    };
    assert_eq!(key_of(&[]), "", "what no grant narrows is one");
    assert_ne!(key_of(&["site"]), key_of(&[]));
    assert_ne!(key_of(&["site"]), key_of(&["docs"]));
    assert_eq!(key_of(&["site"]), key_of(&["site"]));
}

#[test]
fn a_github_app_asks_for_an_installations_token_narrowed_as_the_set_says() {
    let template = Catalog::builtin().get("github-app").unwrap();
    let recipe = &template.recipes()[0];
    let basic = [
        ("GITHUB_APP_ID", "12345"),
        ("GITHUB_APP_PRIVATE_KEY", RSA_KEY),
        ("GITHUB_APP_INSTALLATION_ID", "678"),
    ];
    let with = |more: &[(&str, &str)]| set(&[&basic[..], more].concat());
    let request = ask(recipe, &with(&[]));
    assert_eq!(request.host.as_str(), "api.github.com");
    assert_eq!(request.path, "/app/installations/678/access_tokens");
    assert_eq!(body(&request), "{}");
    let jwt = header(&request, "authorization").unwrap().to_str().unwrap();
    let (_, claims, signed, signature) = decode(jwt.strip_prefix("Bearer ").unwrap());
    assert_eq!(claims["iss"], "12345");
    assert!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 600);
    verify_rsa(&signed, &signature);

    let narrowed = ask(
        recipe,
        &with(&[
            ("GITHUB_APP_REPOSITORIES", "site, docs"),
            ("GITHUB_APP_PERMISSIONS", "contents:read,issues:write"),
        ]),
    );
    let body: Value = serde_json::from_slice(&narrowed.body).unwrap();
    assert_eq!(
        body,
        json!({ "repositories": ["site", "docs"], "permissions": { "contents": "read", "issues": "write" } })
    );

    for (key, value) in [
        ("GITHUB_APP_REPOSITORIES", " , "),
        ("GITHUB_APP_REPOSITORIES", "acme/site"),
        ("GITHUB_APP_PERMISSIONS", "contents"),
        ("GITHUB_APP_PERMISSIONS", "contents:all"),
        ("GITHUB_APP_INSTALLATION_ID", "678/../1"),
        ("GITHUB_APP_PRIVATE_KEY", "-----BEGIN nonsense"),
    ] {
        let error = recipe
            .begin(&with(&[(key, value)]), &Narrowing::default(), NOW)
            .unwrap_err();
        assert!(
            error.to_string().contains(key) && !error.to_string().contains("nonsense"),
            "{error}"
        );
    }
}

#[test]
fn an_assertion_stands_for_the_client_where_it_has_a_private_key() {
    let recipe = recipe(
        &["ID", "KEY"],
        "grant = \"client_credentials\"\nurl = \"https://auth.acme.example/token\"\nclient_id = \"${ID}\"\n\
         client_auth = \"private_key_jwt\"\nalgorithm = \"RS256\"\nprivate_key = \"${KEY}\"",
    );
    let request = ask(&recipe, &set(&[("ID", "me"), ("KEY", RSA_KEY)]));
    let (_, claims, signed, signature) = decode(field(body(&request), "client_assertion").unwrap());
    assert_eq!(claims["sub"], "me");
    assert_eq!(claims["aud"], "https://auth.acme.example/token");
    assert!(claims["jti"].as_str().unwrap().len() > 20);
    verify_rsa(&signed, &signature);
    assert!(recipe.travelling().is_empty());
}

#[test]
fn tokens_are_read_with_their_time() {
    let recipe = recipe(&["ID", "SECRET"], CLIENT);
    for (answer, seconds) in [
        (
            r#"{"access_token":"tok","token_type":"Bearer","expires_in":3600}"#,
            3540,
        ),
        (
            r#"{"access_token":"tok","token_type":"bearer","expires_in":"3600"}"#,
            3540,
        ),
        (r#"{"access_token":"tok","expires_in":40}"#, 30),
        (r#"{"access_token":"tok"}"#, 540),
        (r#"{"access_token":"tok","expires_in":1e12}"#, 86_340),
        (r#"{"access_token":"tok","expires_in":-5}"#, 0),
    ] {
        let made = recipe.read(200, answer.as_bytes(), NOW).unwrap();
        assert_eq!(made.value.expose(), b"tok");
        assert_eq!(made.lifetime.as_secs(), seconds, "{answer}");
        assert!(made.rotated.is_none());
    }
    let rotated = br#"{"access_token":"tok","refresh_token":"next"}"#;
    let made = recipe.read(200, rotated, NOW).unwrap();
    assert_eq!(made.rotated.unwrap().expose(), b"next");
}

#[test]
fn wrong_answers_say_what_is_wrong_and_repeat_nothing() {
    let recipe = recipe(&["ID", "SECRET"], CLIENT);
    let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(17 * 1024));
    for (status, body, error) in [
        (
            400,
            r#"{"error":"invalid_grant","error_description":"hunter2"}"#,
            AnswerError::Denied("invalid_grant"),
        ),
        (
            401,
            r#"{"error":"hunter2"}"#,
            AnswerError::Denied("status 401"),
        ),
        (403, "<html>", AnswerError::Denied("status 403")),
        (302, "", AnswerError::Redirect(302)),
        (500, "hunter2", AnswerError::Status(500)),
        (429, "", AnswerError::Status(429)),
        (204, "", AnswerError::Status(204)),
        (200, "<html>hunter2</html>", AnswerError::NotAToken),
        (200, "{}", AnswerError::NotAToken),
        (200, r#"{"access_token":""}"#, AnswerError::NotAToken),
        (200, r#"{"access_token":"a b"}"#, AnswerError::NotAToken),
        (200, r#"{"access_token":7}"#, AnswerError::NotAToken),
        (200, &long, AnswerError::NotAToken),
        (
            200,
            r#"{"access_token":"t","token_type":"DPoP"}"#,
            AnswerError::Kind,
        ),
        (
            200,
            r#"{"access_token":"t","expires_in":"soon"}"#,
            AnswerError::NotAToken,
        ),
    ] {
        let found = recipe.read(status, body.as_bytes(), NOW).unwrap_err();
        assert_eq!(found, error, "{body}");
        assert!(!found.to_string().contains("hunter2"));
    }
}

#[test]
fn an_installations_token_is_read_with_its_end() {
    let recipe = &Catalog::builtin().get("github-app").unwrap().recipes()[0].clone();
    let answer = br#"{"token":"ghs_x","expires_at":"2026-11-22T09:00:00Z","permissions":{}}"#;
    let made = recipe.read(201, answer, NOW).unwrap();
    assert_eq!(
        (made.value.expose(), made.lifetime),
        (&b"ghs_x"[..], Duration::from_mins(59))
    );
    assert_eq!(
        recipe.read(404, b"{}", NOW).unwrap_err(),
        AnswerError::Denied("status 404")
    );
}

#[test]
fn a_custom_set_makes_its_own_tokens() {
    let spec: CustomSpec = serde_json::from_value(json!({
        "hosts": ["api.acme.example"],
        "make": [{ "key": "TOKEN", "grant": "client_credentials", "url": "https://auth.acme.example:8443/t",
                   "client_id": "${ID}", "client_secret": "${SECRET}" }],
        "inject": [{ "header": "authorization", "value": "Bearer ${TOKEN}" }],
    }))
    .unwrap();
    let template = spec.to_template("acme", ["ID", "SECRET", "OTHER"]).unwrap();
    let request = ask(
        &template.recipes()[0],
        &set(&[("ID", "i"), ("SECRET", "s")]),
    );
    assert_eq!(
        (request.host.as_str(), request.port),
        ("auth.acme.example", 8443)
    );
    assert_eq!(template.sent_keys(), ["ID", "SECRET"]);
}

fn verify_rsa(signed: &str, signature: &[u8]) {
    let key = PrivateKeyDer::from_pem_slice(RSA_KEY.as_bytes()).unwrap();
    let pair = signature::RsaKeyPair::from_pkcs8(key.secret_der()).unwrap();
    UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, pair.public_key())
        .verify(signed.as_bytes(), signature)
        .unwrap();
}

use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

/// Made for these tests: `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`.
const RSA_KEY: &str = include_str!("testdata/rsa-2048.pem");
