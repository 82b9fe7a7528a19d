//! Tokens that somebody else made, or that are for something else.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::identity_provider::SigningKey;

/// A forgery and its name.
type Forgery = (&'static str, String);

/// Every forgery of a token of these claims under this key. `elsewhere` is where an attacker publishes a key.
pub(crate) fn forgeries(key: &SigningKey, good: &Value, elsewhere: &str) -> Vec<Forgery> {
    let mut forged = misshapen(key, good);
    forged.extend(of_other_keys(key, good, elsewhere));
    forged.extend(of_no_key(key, good));
    forged.extend(of_other_claims(key, good, elsewhere));
    forged.extend(of_other_times(key, good));
    forged
}

fn misshapen(key: &SigningKey, good: &Value) -> Vec<Forgery> {
    let signed = key.sign(good);
    let (head, signature) = signed.rsplit_once('.').unwrap();
    let turned = if signature.starts_with('A') { "B" } else { "A" };
    let mut long = good.clone();
    long["more"] = json!("x".repeat(20_000));
    // A claim twice has two meanings.
    let twice = good.to_string().replacen('{', "{\"sub\":\"eve\",", 1);
    let header = serde_json::to_vec(&key.header()).unwrap();
    let [header, twice] = [&header[..], twice.as_bytes()].map(|part| URL_SAFE_NO_PAD.encode(part));
    let message = format!("{header}.{twice}");
    let double = jsonwebtoken::crypto::sign(message.as_bytes(), &key.key, key.algorithm);
    vec![
        ("empty", String::new()),
        ("no JWT", "a.b.c".to_owned()),
        ("two parts", head.to_owned()),
        ("four parts", format!("{signed}.x")),
        ("five parts, as if sealed", "a.b.c.d.e".to_owned()),
        ("no signature", format!("{head}.")),
        (
            "a changed signature",
            format!("{head}.{turned}{}", &signature[1..]),
        ),
        ("too long", key.sign(&long)),
        ("a claim twice", format!("{message}.{}", double.unwrap())),
    ]
}

fn of_other_keys(key: &SigningKey, good: &Value, elsewhere: &str) -> Vec<Forgery> {
    let other = SigningKey::new(&key.kid);
    let keys = format!("{elsewhere}/keys");
    let with_kid = |kid: &str| Header {
        kid: Some(kid.to_owned()),
        ..key.header()
    };
    let own_jwk = serde_json::from_value(other.jwk.clone()).unwrap();
    let headers = [
        ("another key of the same id", key.header()),
        ("a kid that is a path", with_kid("../../../../dev/null")),
        ("a kid that is SQL", with_kid("one' OR '1'='1")),
        ("a kid that is a URL", with_kid(&keys)),
        (
            "a key elsewhere by jku",
            Header {
                jku: Some(keys.clone()),
                ..key.header()
            },
        ),
        (
            "a key elsewhere by x5u",
            Header {
                x5u: Some(keys.clone()),
                ..key.header()
            },
        ),
        (
            "a key that it brings",
            Header {
                jwk: Some(own_jwk),
                ..key.header()
            },
        ),
    ];
    let signed =
        |header: &Header, key: &EncodingKey| jsonwebtoken::encode(header, good, key).unwrap();
    let mut forged: Vec<Forgery> = headers
        .iter()
        .map(|(name, header)| (*name, signed(header, &other.key)))
        .collect();
    let extended = Header {
        crit: Some(vec!["exp".to_owned()]),
        ..key.header()
    };
    forged.push(("an extension", signed(&extended, &key.key)));
    forged.push(("a kid that is nobody's", signed(&with_kid("two"), &key.key)));
    let hmac = Header {
        kid: Some(key.kid.clone()),
        ..Header::new(Algorithm::HS256)
    };
    let published = key.jwk.to_string();
    for secret in [&key.public[..], published.as_bytes(), b""] {
        let secret = EncodingKey::from_secret(secret);
        forged.push(("HS256 with what is public", signed(&hmac, &secret)));
    }
    forged
}

fn of_no_key(key: &SigningKey, good: &Value) -> Vec<Forgery> {
    let body = URL_SAFE_NO_PAD.encode(good.to_string());
    let mut forged = Vec::new();
    for algorithm in ["none", "None", "NONE", "", "HS256", "ES256K", "RS1"] {
        let header = json!({"alg": algorithm, "kid": key.kid}).to_string();
        let header = URL_SAFE_NO_PAD.encode(header);
        forged.push(("an algorithm of nothing", format!("{header}.{body}.")));
        forged.push(("an algorithm of anything", format!("{header}.{body}.AA")));
    }
    forged
}

fn of_other_claims(key: &SigningKey, good: &Value, elsewhere: &str) -> Vec<Forgery> {
    let issuer = good["iss"].as_str().unwrap();
    let changes = [
        ("another issuer", "iss", json!(elsewhere)),
        (
            "an issuer with a slash more",
            "iss",
            json!(format!("{issuer}/")),
        ),
        ("two issuers", "iss", json!([issuer, elsewhere])),
        ("another audience", "aud", json!("somebody-else")),
        ("other audiences", "aud", json!(["somebody", "else"])),
        ("no audience at all", "aud", json!([])),
        ("another party", "azp", json!("somebody-else")),
        ("an empty subject", "sub", json!("")),
        ("a subject that is too long", "sub", json!("x".repeat(256))),
    ];
    let mut forged = changed(key, good, &changes);
    for name in ["iss", "aud", "sub", "exp", "iat"] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        forged.push(("a claim is missing", key.sign(&claims)));
    }
    forged
}

fn of_other_times(key: &SigningKey, good: &Value) -> Vec<Forgery> {
    let now = good["iat"].as_i64().unwrap();
    let changes = [
        ("expired", "exp", json!(now - 61)),
        ("from the future", "iat", json!(now + 120)),
        ("not good yet", "nbf", json!(now + 120)),
        ("older than a day", "iat", json!(now - 90_000)),
        ("an end that is text", "exp", json!("2100-01-01")),
        ("an end that is not a number of seconds", "exp", json!(1e30)),
    ];
    changed(key, good, &changes)
}

fn changed(
    key: &SigningKey,
    good: &Value,
    changes: &[(&'static str, &str, Value)],
) -> Vec<Forgery> {
    let forged = |(name, field, value): &(&'static str, &str, Value)| {
        let mut claims = good.clone();
        claims[*field] = value.clone();
        (*name, key.sign(&claims))
    };
    changes.iter().map(forged).collect()
}
