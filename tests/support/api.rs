//! The REST API as a client sees it.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use tokio::net::TcpSocket;

use super::wait;
use super::wire::{Reply, Seen, Wire};

/// A caller of the REST API with one key.
#[derive(Clone)]
pub(crate) struct Api {
    addr: SocketAddr,
    key: String,
    seen: Seen,
    source: IpAddr,
}

impl Api {
    pub(crate) fn new(addr: SocketAddr, key: &str, seen: Seen) -> Self {
        Self {
            addr,
            key: key.to_owned(),
            seen,
            source: IpAddr::from([127, 0, 0, 1]),
        }
    }

    /// The same from another address of this machine.
    pub(crate) fn from(mut self, source: [u8; 4]) -> Self {
        self.source = IpAddr::from(source);
        self
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, None, Some(&self.seen)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.call("POST", path, Some(body), Some(&self.seen)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.call("PUT", path, Some(body), Some(&self.seen)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.call("PATCH", path, Some(body), Some(&self.seen)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.call("DELETE", path, None, Some(&self.seen)).await
    }

    /// An export may answer with secrets, so it is not among what the leak sweep reads.
    pub(crate) async fn export(&self, body: &Value) -> Reply {
        self.call("POST", "/v1/vault/export", Some(body), None)
            .await
    }

    /// Another call that may answer with secrets.
    pub(crate) async fn call_secretly(&self, path: &str, body: &Value) -> Reply {
        self.call("POST", path, Some(body), None).await
    }

    /// A read of a secret by its path, which may answer with it as well.
    pub(crate) async fn reveal(&self, path: &str) -> Reply {
        self.call("GET", path, None, None).await
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        seen: Option<&Seen>,
    ) -> Reply {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::new(self.source, 0))
            .expect("an address of this machine");
        let stream = wait::within("a connection to the API", socket.connect(self.addr))
            .await
            .expect("the API listens");
        let mut wire = Wire::new(stream, seen.cloned());
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n",
            self.addr
        );
        if !self.key.is_empty() {
            let _ = write!(head, "authorization: Bearer {}\r\n", self.key);
        }
        if !body.is_empty() {
            head.push_str("content-type: application/json\r\n");
        }
        if method != "GET" && method != "DELETE" {
            let _ = write!(head, "content-length: {}\r\n", body.len());
        }
        wire.send(format!("{head}\r\n{body}"))
            .await
            .expect("the API reads requests");
        wire.reply(method).await.expect("the API answers")
    }
}
