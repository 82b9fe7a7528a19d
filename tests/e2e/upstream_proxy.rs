//! A proxy of the network between the injector and the providers: TLS goes through it, credentials do not stop there.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::support::stack::Builder;
use crate::support::{Stack, wait};

const PASSWORD: &str = "correct horse battery staple";

/// A proxy that asks for user and password, and leads to one address whatever it is asked for.
struct Proxy {
    addr: SocketAddr,
    /// Where it leads, once that is known.
    to: Arc<Mutex<Option<SocketAddr>>>,
    /// The heads that it read.
    asked: Arc<Mutex<Vec<String>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (to, asked) = (Arc::default(), Arc::default());
        let serving = tokio::spawn(serve(listener, Arc::clone(&to), Arc::clone(&asked)));
        Self {
            addr,
            to,
            asked,
            serving,
        }
    }

    fn lead_to(&self, addr: SocketAddr) {
        self.to.lock().unwrap().replace(addr);
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

type Shared<T> = Arc<Mutex<T>>;

async fn serve(listener: TcpListener, to: Shared<Option<SocketAddr>>, asked: Shared<Vec<String>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(relay(stream, Arc::clone(&to), Arc::clone(&asked)));
    }
}

async fn relay(mut stream: TcpStream, to: Shared<Option<SocketAddr>>, asked: Shared<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let credentials = STANDARD.encode(format!("claviger:{PASSWORD}"));
    let is_known = head.contains(&format!("Proxy-Authorization: Basic {credentials}\r\n"));
    asked.lock().unwrap().push(head);
    if !is_known {
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"corp\"\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(refusal).await;
        return;
    }
    let to = to.lock().unwrap().expect("it is told where to lead");
    let mut upstream = TcpStream::connect(to).await.unwrap();
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nVia: 1.1 corp\r\n\r\n")
        .await
        .unwrap();
    let _ = copy_bidirectional(&mut stream, &mut upstream).await;
}

/// A stack that reaches Stripe by `proxy` alone, with this password for it. Loopback is blocked as by default.
fn behind(proxy: SocketAddr, password: &str, dir: &tempfile::TempDir) -> Builder {
    let file = dir.path().join("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    Stack::builder()
        .unresolved("api.stripe.com")
        .without_loopback()
        .upstream_alpn(&[b"h2", b"http/1.1"])
        .argument(format!("--upstream-proxy=http://claviger@{proxy}"))
        .variable(
            "CLAVIGER_UPSTREAM_PROXY_PASSWORD_FILE",
            file.display().to_string(),
        )
        // Nobody who sets these may choose where credentials go by.
        .variable("HTTPS_PROXY", "http://127.0.0.1:9")
        .variable("ALL_PROXY", "http://127.0.0.1:9")
}

#[tokio::test]
async fn providers_are_reached_through_it_in_every_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::start().await;
    let stack = behind(proxy.addr, PASSWORD, &dir).start().await;
    proxy.lead_to(stack.upstream.addr);
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    for _ in 0..2 {
        tunnel.get("/v1/balance").await.expect_status(200);
    }
    let mut h2 = stack.tunnel_h2("api.stripe.com", &token).await;
    h2.request("GET", "https://api.stripe.com/v1/balance", &[], b"")
        .await
        .unwrap()
        .expect_status(200);
    let fields = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    tunnel
        .send("GET", "/websocket/chat", &fields, b"")
        .await
        .unwrap();
    let (head, _) = tunnel.wire.open("GET").await.unwrap();
    assert_eq!(head.status, 101);
    tunnel.wire.send(b"\x81\x85\0\0\0\0ignis").await.unwrap();
    tunnel.wire.expect(b"\x81\x05ignis").await.unwrap();
    drop(tunnel);

    let requests = stack.upstream.requests();
    assert_eq!(requests.len(), 4);
    for request in requests {
        assert_eq!(request.sni.as_deref(), Some("api.stripe.com"));
        assert_eq!(
            request.field("authorization"),
            format!("Bearer {}", access.secret.text())
        );
        assert!(request.fields("proxy-authorization").is_empty());
    }
    let asked = proxy.asked();
    assert_eq!(
        asked.len(),
        2,
        "one for requests, which is kept, and one for the WebSocket: {asked:?}"
    );
    for head in asked {
        assert!(
            head.starts_with("CONNECT api.stripe.com:443 HTTP/1.1\r\n"),
            "{head}"
        );
    }
    stack.finish().await;
}

#[tokio::test]
async fn credentials_that_it_does_not_take_are_told_as_that() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::start().await;
    let stack = behind(proxy.addr, "wrong", &dir).start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let refusal = tunnel
        .get("/v1/balance")
        .await
        .expect_refusal(502, "upstream_connect");

    let detail = refusal.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("407"), "{detail}");
    assert!(
        detail.contains("network.upstream_proxy_password_file"),
        "{detail}"
    );
    assert_eq!(proxy.asked().len(), 1, "it is not asked again");
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn when_it_is_away_nothing_is_dialled_around_it() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::start().await;
    let stack = behind(proxy.addr, PASSWORD, &dir).start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let addr = proxy.addr;
    drop(proxy);
    wait::until("the proxy to be gone", async || {
        TcpStream::connect(addr).await.is_err().then_some(())
    })
    .await;

    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let refusal = tunnel
        .get("/v1/balance")
        .await
        .expect_refusal(502, "upstream_connect");

    let detail = refusal.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("the upstream proxy cannot be reached"),
        "{detail}"
    );
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn a_password_on_the_command_line_is_refused() {
    let stack = Stack::start().await;
    let ran = stack
        .cli(&[
            "serve",
            "--upstream-proxy",
            "http://claviger:hush@proxy.example:3128",
        ])
        .await;
    assert_eq!(ran.status, Some(1), "{ran:#?}");
    assert!(
        ran.stderr.contains("network.upstream_proxy_password_file"),
        "{ran:#?}"
    );
    assert!(!ran.stderr.contains("hush"), "{ran:#?}");
    stack.finish().await;
}
