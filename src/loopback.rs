//! The end of a sign-in in a browser: one answer, at an address of this machine with a port that was free (RFC 8252, section 7.3).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Where the browser comes back to.
#[derive(Debug)]
pub(crate) struct Loopback {
    listener: TcpListener,
    address: SocketAddr,
}

/// What the identity provider's answer says.
#[derive(Deserialize)]
pub(crate) struct Answered {
    code: Option<String>,
    state: Option<String>,
    pub(crate) iss: Option<String>,
    error: Option<String>,
}

impl std::fmt::Debug for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answered").finish_non_exhaustive()
    }
}

/// What the page is answered with.
struct Waiting {
    state: Zeroizing<String>,
    tell: mpsc::Sender<Answered>,
}

impl Loopback {
    /// Listens, before the provider is told where.
    ///
    /// # Errors
    /// If this machine has no free port.
    pub(crate) async fn bind() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .context("no port is free at 127.0.0.1")?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where the provider sends the browser.
    pub(crate) fn redirect_uri(&self) -> String {
        format!("http://{}/callback", self.address)
    }

    /// Waits for the answer to the sign-in of this state: its code. Whatever else asks here is told nothing and changes nothing.
    ///
    /// # Errors
    /// A [`Failure`] if the provider said no, or nothing came in time.
    pub(crate) async fn answer(self, state: &str, bound: Duration) -> anyhow::Result<Answered> {
        let (tell, mut told) = mpsc::channel(1);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let state = Zeroizing::new(state.to_owned());
        let app = Router::new()
            .route("/callback", get(take))
            .with_state(Arc::new(Waiting { state, tell }));
        let stopping = async move {
            let _ = stopped.await;
        };
        let serving = axum::serve(self.listener, app).with_graceful_shutdown(stopping);
        let serving = tokio::spawn(async move { serving.await });
        let answered = tokio::time::timeout(bound, told.recv()).await;
        // The browser gets its page before this process goes on, and no other one does.
        drop(stop);
        let _ = tokio::time::timeout(Duration::from_secs(2), serving).await;
        let Ok(Some(answered)) = answered else {
            return Err(
                Failure::new("nobody signed in at the identity provider in time")
                    .code("expired_token")
                    .hint("run the command again, and open the page that it shows")
                    .into(),
            );
        };
        if let Some(error) = &answered.error {
            return Err(Failure::new(format!(
                "the identity provider did not sign you in: {}",
                crate::output::clean(error)
            ))
            .code("access_denied")
            .hint("sign in there, and let the application in")
            .into());
        }
        Ok(answered)
    }
}

impl Answered {
    /// What is exchanged for a session.
    pub(crate) fn code(&self) -> &str {
        self.code.as_deref().unwrap_or_default()
    }
}

async fn take(
    State(waiting): State<Arc<Waiting>>,
    Query(answered): Query<Answered>,
) -> (StatusCode, &'static str) {
    let is_ours = answered.state.as_deref() == Some(waiting.state.as_str());
    let says_something = answered.code.is_some() || answered.error.is_some();
    if !is_ours || !says_something {
        return (
            StatusCode::BAD_REQUEST,
            "This is no answer to the sign-in that waits here. Begin again at the terminal.\n",
        );
    }
    let refused = answered.error.is_some();
    // A second one finds nobody that waits.
    let _ = waiting.tell.try_send(answered);
    if refused {
        return (
            StatusCode::OK,
            "You were not signed in. The terminal says why.\n",
        );
    }
    (
        StatusCode::OK,
        "You can close this window and go back to the terminal.\n",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(uri: &str, query: &str) -> u16 {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{uri}?{query}");
        client.get(url).send().await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn the_answer_of_its_own_sign_in_is_taken_and_no_other() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let loopback = Loopback::bind().await.unwrap();
        let uri = loopback.redirect_uri();
        assert!(uri.starts_with("http://127.0.0.1:"));
        let waiting = tokio::spawn(loopback.answer_owned());
        for stray in ["", "code=x", "code=x&state=other", "state=own", "error=x"] {
            assert_eq!(ask(&uri, stray).await, 400, "{stray}");
        }
        assert_eq!(ask(&uri, "code=a%2Fb&state=own&iss=i").await, 200);
        let answered = waiting.await.unwrap().unwrap();
        assert_eq!(answered.code(), "a/b");
        assert_eq!(answered.iss.as_deref(), Some("i"));
    }

    #[tokio::test]
    async fn a_refusal_and_silence_are_failures_with_a_hint() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let loopback = Loopback::bind().await.unwrap();
        let uri = loopback.redirect_uri();
        let waiting = tokio::spawn(loopback.answer_owned());
        assert_eq!(ask(&uri, "error=access_denied&state=own").await, 200);
        let error = waiting.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("access_denied"), "{error}");
        let loopback = Loopback::bind().await.unwrap();
        let error = loopback.answer("own", Duration::from_millis(1)).await;
        let error = error.unwrap_err();
        let failure = error.downcast_ref::<Failure>().unwrap();
        assert!(failure.next_action().is_some());
    }

    impl Loopback {
        async fn answer_owned(self) -> anyhow::Result<Answered> {
            self.answer("own", Duration::from_secs(20)).await
        }
    }
}
