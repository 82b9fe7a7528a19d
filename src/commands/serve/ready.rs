//! Readiness: asked of each plane in the way that a client would.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use tokio::time::sleep;

use super::Addresses;
use crate::failure::Failure;
use crate::tunnel::{Call, Door, Place};
use crate::units::HostPort;

const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// Returns when all that listens answers.
///
/// # Errors
/// A [`Failure`] if one does not in time.
pub(super) async fn all(addresses: &Addresses) -> anyhow::Result<()> {
    let asked = async {
        while !api(addresses).await {
            sleep(PAUSE).await;
        }
        while let Some(proxy) = addresses.proxy
            && !injector(proxy).await
        {
            sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.map_err(|_| {
        Failure::new(format!(
            "the planes do not answer within {} s",
            PATIENCE.as_secs()
        ))
        .hint("the log above has the cause")
        .into()
    })
}

/// A degraded server answers as well: it can say what it lacks.
async fn api(addresses: &Addresses) -> bool {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build();
    let url = format!("http://{}/v1/health", HostPort::from(addresses.api));
    match client {
        Ok(client) => client.get(url).send().await.is_ok(),
        Err(_) => false,
    }
}

/// Without a lease, the door asks for one.
async fn injector(proxy: SocketAddr) -> bool {
    let door = Door {
        proxy: HostPort::from(proxy).into(),
        ca_pem: String::new(),
        lease: String::new(),
    };
    let call = Call {
        method: Method::GET,
        host: "ready.claviger.invalid",
        port: 443,
        path: "/",
        headers: &[],
        body: "",
    };
    door.call(&call)
        .await
        .is_ok_and(|answer| answer.place == Place::Door && answer.status.as_u16() == 407)
}
