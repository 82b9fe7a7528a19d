//! An identity provider (OpenID Connect) at the token endpoint's place: what it publishes, the tokens that it signs, and a browser
//! that signs in there.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::token_endpoint::{Said, TokenEndpoint};
use super::wire::{Reply, Wire};

/// The client of the installation there.
pub(crate) const CLIENT: &str = "claviger-e2e";

/// What a provider answers with.
pub(crate) struct IdentityProvider {
    pub(crate) issuer: String,
    key: EncodingKey,
    /// The token for the next code.
    next: Arc<Mutex<String>>,
}

impl IdentityProvider {
    /// Makes the endpoint a provider of this host.
    pub(crate) fn at(endpoint: &TokenEndpoint, host: &str) -> Self {
        let pair = rcgen::KeyPair::generate().expect("the system's generator works");
        let public = pair.public_key_raw().to_vec();
        let [x, y] = [&public[1..33], &public[33..65]].map(|part| URL_SAFE_NO_PAD.encode(part));
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "use": "sig", "x": x, "y": y}]});
        let issuer = format!("https://{host}");
        let document = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys"), "token_endpoint": format!("{issuer}/token"),
            "authorization_endpoint": format!("{issuer}/authorize")});
        let next = Arc::new(Mutex::new(String::new()));
        let token = Arc::clone(&next);
        endpoint.answers(move |asked| {
            let path = asked.head.split(' ').nth(1).unwrap_or_default();
            match path {
                "/.well-known/openid-configuration" => Said::Json(200, document.clone()),
                "/keys" => Said::Json(200, keys.clone()),
                "/token" if asked.form("code") == Some("good") => {
                    let token = token.lock().expect("no holder panics").clone();
                    Said::Json(200, json!({"id_token": token, "token_type": "Bearer"}))
                }
                "/token" => Said::Json(400, json!({"error": "invalid_grant"})),
                _ => Said::Json(404, json!({})),
            }
        });
        Self {
            issuer,
            key: EncodingKey::from_ec_der(&pair.serialize_der()),
            next,
        }
    }

    /// Signs claims, with times and issuer where they are left out.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let mut whole = json!({"iss": self.issuer, "iat": now, "exp": now + 300});
        let fields = whole.as_object_mut().expect("it is an object");
        fields.extend(claims.as_object().expect("claims are an object").clone());
        let header = Header {
            kid: Some("one".to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&header, &whole, &self.key).expect("the key signs")
    }

    /// Somebody signs in at `page` in a browser, which then comes back to whoever waits for it.
    pub(crate) async fn sign_in(&self, page: &str, subject: &str) -> Reply {
        let page = reqwest::Url::parse(page).expect("the page is a URL");
        let parameter = |name: &str| {
            let mut pairs = page.query_pairs();
            let found = pairs.find(|(key, _)| key == name);
            found.expect("the page has it").1.into_owned()
        };
        let claims = json!({"aud": CLIENT, "sub": subject, "nonce": parameter("nonce"),
            "email": format!("{subject}@example.org"), "email_verified": true});
        *self.next.lock().expect("no holder panics") = self.sign(&claims);
        let back = reqwest::Url::parse(&parameter("redirect_uri")).expect("it is a URL");
        let addresses = back.socket_addrs(|| None).expect("it is an address");
        let stream = TcpStream::connect(addresses[0]).await;
        let mut wire = Wire::new(stream.expect("somebody waits there"), None);
        let request = format!(
            "GET {}?code=good&state={} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            back.path(),
            parameter("state"),
            addresses[0]
        );
        wire.send(request).await.expect("it reads requests");
        wire.reply("GET").await.expect("it answers")
    }
}
