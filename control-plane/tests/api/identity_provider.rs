//! An identity provider: real sockets on this machine, real signatures, a record of what is asked, and every wrong answer that a
//! test wants.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The client of the installation there.
pub(crate) const CLIENT: &str = "claviger";
/// Its secret, with what a form would write otherwise.
pub(crate) const CLIENT_SECRET: &str = "canary secret/of:client";

/// A key that signs.
#[derive(Clone)]
pub(crate) struct SigningKey {
    pub(crate) kid: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: EncodingKey,
    /// The public half.
    pub(crate) jwk: Value,
    /// The bytes of the public half, as somebody may take them for a secret.
    pub(crate) public: Vec<u8>,
}

impl SigningKey {
    /// A new key of P-256.
    pub(crate) fn new(kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let public = pair.public_key_raw().to_vec();
        let (x, y) = (&public[1..33], &public[33..65]);
        let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
        Self {
            kid: kid.to_owned(),
            algorithm: Algorithm::ES256,
            key: EncodingKey::from_ec_der(&pair.serialize_der()),
            jwk: json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256", "x": x, "y": y}),
            public,
        }
    }

    /// The RSA key of all tests.
    pub(crate) fn rsa(kid: &str) -> Self {
        let pem = include_str!("../../../providers/src/exchange/testdata/rsa-2048.pem");
        let lines = pem.lines().filter(|line| !line.starts_with('-'));
        let pkcs8 = STANDARD.decode(lines.collect::<String>()).unwrap();
        // What stands before the key that the library takes.
        let key = EncodingKey::from_rsa_der(&pkcs8[26..]);
        let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!(kid);
        let public = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
        Self {
            kid: kid.to_owned(),
            algorithm: Algorithm::RS256,
            key,
            jwk,
            public,
        }
    }

    /// The header of its tokens.
    pub(crate) fn header(&self) -> Header {
        Header {
            kid: Some(self.kid.clone()),
            ..Header::new(self.algorithm)
        }
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        jsonwebtoken::encode(&self.header(), claims, &self.key).unwrap()
    }
}

/// What a code stands for.
struct Granted {
    redirect_uri: String,
    challenge: String,
    token: String,
}

#[derive(Default)]
struct Inner {
    /// The document's fields, over what they would be.
    document: Value,
    keys: Vec<Value>,
    codes: HashMap<String, Granted>,
    asked: Vec<String>,
    is_down: bool,
}

/// A running provider. It stops when it is dropped.
pub(crate) struct IdentityProvider {
    pub(crate) issuer: String,
    pub(crate) key: SigningKey,
    inner: Arc<Mutex<Inner>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for IdentityProvider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

type Shared = (String, Arc<Mutex<Inner>>);

impl IdentityProvider {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let key = SigningKey::new("one");
        let inner = Arc::new(Mutex::new(Inner {
            document: json!({}),
            keys: vec![key.jwk.clone()],
            ..Inner::default()
        }));
        let shared: Shared = (issuer.clone(), Arc::clone(&inner));
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(describe))
            .route("/keys", get(keys))
            .route("/token", post(redeem))
            .fallback(|| async { StatusCode::NOT_FOUND })
            .layer(from_fn_with_state(shared.clone(), record))
            .with_state(shared);
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            issuer,
            key,
            inner,
            serving,
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap())
    }

    /// Publishes these keys from now on.
    pub(crate) fn publishes(&self, keys: &[&Value]) {
        let keys = keys.iter().map(|key| (*key).clone()).collect();
        self.with(|inner| inner.keys = keys);
    }

    /// Says this of itself from now on, over what it would say.
    pub(crate) fn says(&self, fields: Value) {
        self.with(|inner| inner.document = fields);
    }

    /// Answers 500 to everything, or answers again.
    pub(crate) fn is_down(&self, is_down: bool) {
        self.with(|inner| inner.is_down = is_down);
    }

    /// The paths that were asked for so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.with(|inner| inner.asked.clone())
    }

    /// Somebody signs in: what a token of them says.
    pub(crate) fn claims(&self, url: &str, now: time::OffsetDateTime, subject: &str) -> Value {
        let now = now.unix_timestamp();
        json!({"iss": self.issuer, "aud": CLIENT, "sub": subject, "iat": now, "exp": now + 300, "nonce": parameter(url, "nonce"),
               "email": format!("{subject}@example.org"), "email_verified": true, "name": "Somebody"})
    }

    /// Somebody signs in at this address and gets this token: the code for it, and the state.
    pub(crate) fn grants(&self, url: &str, token: String) -> (String, String) {
        assert!(
            url.starts_with(&format!("{}/authorize?", self.issuer)),
            "{url}"
        );
        for (name, value) in [
            ("response_type", "code"),
            ("client_id", CLIENT),
            ("code_challenge_method", "S256"),
            ("scope", "openid email profile"),
        ] {
            assert_eq!(parameter(url, name), value, "{url}");
        }
        let code = format!("code/{}", self.with(|inner| inner.codes.len()));
        let granted = Granted {
            redirect_uri: parameter(url, "redirect_uri"),
            challenge: parameter(url, "code_challenge"),
            token,
        };
        self.with(|inner| inner.codes.insert(code.clone(), granted));
        (code, parameter(url, "state"))
    }
}

/// A parameter of a URL.
pub(crate) fn parameter(url: &str, name: &str) -> String {
    let (_, query) = url.split_once('?').unwrap();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let found = pairs.find(|(key, _)| key == name);
    found
        .unwrap_or_else(|| panic!("no {name} in {url}"))
        .1
        .into_owned()
}

async fn record(State((_, inner)): State<Shared>, request: Request, next: Next) -> Response {
    let is_down = {
        let mut inner = inner.lock().unwrap();
        inner.asked.push(request.uri().path().to_owned());
        inner.is_down
    };
    if is_down {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    next.run(request).await
}

async fn describe(State((issuer, inner)): State<Shared>) -> Json<Value> {
    let mut document = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys"), "token_endpoint": format!("{issuer}/token"),
        "authorization_endpoint": format!("{issuer}/authorize")});
    let over = inner.lock().unwrap().document.clone();
    let fields = document.as_object_mut().unwrap();
    fields.extend(over.as_object().unwrap().clone());
    Json(document)
}

async fn keys(State((_, inner)): State<Shared>) -> Json<Value> {
    Json(json!({"keys": inner.lock().unwrap().keys}))
}

async fn redeem(State((_, inner)): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let form: HashMap<String, String> = form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect();
    let refused =
        |error: &str| (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response();
    let of_form = (form.get("client_id"), form.get("client_secret"));
    let basic = headers.get(header::AUTHORIZATION);
    let known = match (basic.and_then(|basic| basic.to_str().ok()), of_form) {
        (Some(basic), (None, None)) => {
            basic
                == format!(
                    "Basic {}",
                    STANDARD.encode("claviger:canary+secret%2Fof%3Aclient")
                )
        }
        (None, (Some(id), Some(secret))) => id == CLIENT && secret == CLIENT_SECRET,
        _ => false,
    };
    if !known {
        return refused("invalid_client");
    }
    let granted = inner.lock().unwrap().codes.remove(&form["code"]);
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"]));
    match granted {
        Some(granted)
            if granted.redirect_uri == form["redirect_uri"] && granted.challenge == challenge =>
        {
            Json(json!({"access_token": "opaque", "token_type": "Bearer", "id_token": granted.token}))
                .into_response()
        }
        Some(_) | None => refused("invalid_grant"),
    }
}
