//! TLS with the proxy itself: `https://` proxies, their certificates, and no cleartext from other machines.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::process::Command;

use crate::support::tunnel::basic;
use crate::support::{Stack, Wire, wait};

/// A call by curl through `https://` at the proxy's own port, which trusts `proxy_ca` there and our CA inside.
fn curl(stack: &Stack, token: &str, proxy_ca: &Path, options: &[&str]) -> Command {
    let mut curl = Command::new("curl");
    let proxy = format!(
        "https://lease:{token}@localhost:{}",
        stack.proxy_addr.port()
    );
    curl.args(["-sS", "--fail", "--proxy", &proxy, "--proxy-cacert"])
        .arg(proxy_ca)
        .arg("--cacert")
        .arg(&stack.ca)
        .args(options)
        .arg("https://api.stripe.com/v1/balance");
    curl
}

#[tokio::test]
async fn curl_speaks_tls_with_the_proxy_under_a_leaf_of_our_ca() {
    let stack = Stack::builder()
        .argument("--proxy-tls-name=localhost")
        .argument("--proxy-tls-name=127.0.0.1")
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    for options in [
        &["--http1.1"][..],
        &["--http2"],
        &["--http2", "-d", "amount=5"],
    ] {
        let curl = curl(&stack, &token, &stack.ca, options);
        stack.run(curl).await.expect_success();
        assert_eq!(
            stack.upstream.last().field("authorization"),
            format!("Bearer {}", access.secret.text())
        );
    }
    let again = ["https://api.stripe.com/v1/refunds", "--http1.1"];
    let curl = curl(&stack, &token, &stack.ca, &again);
    stack.run(curl).await.expect_success();
    // On the same machine, as `run` calls it, cleartext goes on.
    stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_status(200);
    assert_eq!(stack.upstream.count(), 6);
    stack.finish().await;
}

#[tokio::test]
async fn run_reaches_a_proxy_elsewhere_by_tls() {
    let stack = Stack::builder()
        .argument("--proxy-tls-name=localhost")
        .start()
        .await;
    let access = stack.stripe().await;
    let url = format!("https://localhost:{}", stack.proxy_addr.port());

    for options in [&[][..], &["--lease-in-env"]] {
        let run = ["run", "--set", "stripe/test/stripe-bot"];
        let curl = [
            "--",
            "curl",
            "-sS",
            "--fail",
            "https://api.stripe.com/v1/balance",
        ];
        let mut command = stack.command(&[&run[..], options, &curl[..]].concat());
        command.env("CLAVIGER_PROXY", &url);
        if !options.is_empty() {
            command.env("CURL_HOME", stack.home.path());
            let trusted = format!("proxy-cacert = \"{}\"\n", stack.ca.display());
            std::fs::write(stack.home.path().join(".curlrc"), trusted).unwrap();
        }
        stack.run(command).await.expect_success();
        assert_eq!(
            stack.upstream.last().field("authorization"),
            format!("Bearer {}", access.secret.text())
        );
    }
    assert_eq!(stack.upstream.count(), 2);
    stack.finish().await;
}

/// A certificate for `localhost` that is its own root, and its key.
fn write_pair(dir: &Path) -> String {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("tls.crt"), &certificate).unwrap();
    certificate
}

#[tokio::test]
async fn an_operators_own_certificate_is_read_again_when_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    write_pair(dir.path());
    let stack = Stack::builder()
        .argument(format!("--proxy-tls-cert={}/tls.crt", dir.path().display()))
        .argument(format!("--proxy-tls-key={}/tls.key", dir.path().display()))
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let old = dir.path().join("old.pem");
    std::fs::copy(dir.path().join("tls.crt"), &old).unwrap();

    let call = async |trusted: &Path| {
        let curl = curl(&stack, &token, trusted, &["--http1.1"]);
        stack.run(curl).await.status == Some(0)
    };
    assert!(call(&old).await);
    // What cannot be used is told, and the old one is shown on.
    std::fs::write(dir.path().join("tls.crt"), "half a cert").unwrap();
    wait::until("the complaint in the log", async || {
        let told = stack.node.launch.errors();
        told.contains("the proxy keeps its old certificate")
            .then_some(())
    })
    .await;
    assert!(call(&old).await);

    let new = dir.path().join("new.pem");
    std::fs::write(&new, write_pair(dir.path())).unwrap();
    wait::until("the new certificate", async || {
        call(&new).await.then_some(())
    })
    .await;
    assert!(!call(&old).await, "the old certificate is not shown");
    stack.finish().await;
}

#[tokio::test]
async fn a_listener_beyond_loopback_needs_a_certificate_or_the_owners_word() {
    let stack = Stack::start().await;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    let serve = [
        "serve",
        "--data",
        &data,
        "--api",
        "127.0.0.1:0",
        "--proxy",
        "0.0.0.0:0",
    ];

    let serve_with = async |arguments: &[&str]| {
        let mut command = stack.command(arguments);
        // To a client it is the injector's URL.
        command.env_remove("CLAVIGER_PROXY");
        stack.run(command).await
    };
    let ran = serve_with(&serve).await;

    assert_eq!(ran.status, Some(1), "{ran:#?}");
    for word in [
        "the injector would take leases and keys in cleartext on 0.0.0.0:0",
        "--proxy-tls-name",
        "--allow-plaintext-listener",
    ] {
        assert!(ran.stderr.contains(word), "{word} in {}", ran.stderr);
    }
    let half = [&serve[..], &["--proxy-tls-cert", "/nowhere"]].concat();
    let ran = serve_with(&half).await;
    assert_eq!(ran.status, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("only one is given"), "{}", ran.stderr);
    let absent = [&half[..], &["--proxy-tls-key", "/nowhere"]].concat();
    let ran = serve_with(&absent).await;
    assert_eq!(ran.status, Some(1), "{ran:#?}");
    assert!(
        ran.stderr.contains("/nowhere cannot be read"),
        "{}",
        ran.stderr
    );
    stack.finish().await;
}

/// An address of this machine by which others may reach it, if it has one.
async fn address_beyond_loopback() -> Option<IpAddr> {
    let probe = UdpSocket::bind("0.0.0.0:0").await.ok()?;
    // Nothing is sent by this; it asks for a route.
    probe.connect("198.51.100.1:9").await.ok()?;
    let ip = probe.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[tokio::test]
async fn a_proxy_with_a_certificate_takes_no_cleartext_from_elsewhere() {
    let Some(elsewhere) = address_beyond_loopback().await else {
        eprintln!("skipped: this machine has no address beyond loopback");
        return;
    };
    let stack = Stack::builder()
        .proxy("0.0.0.0:0")
        .argument("--proxy-tls-name=localhost")
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let proxy = SocketAddr::from(([127, 0, 0, 1], stack.proxy_addr.port()));
    let dial = async || {
        let socket = TcpSocket::new_v4().unwrap();
        // Its two ends differ and one is no loopback address, as with a peer on the network.
        socket.bind(SocketAddr::new(elsewhere, 0)).unwrap();
        Wire::new(
            socket.connect(proxy).await.unwrap(),
            Some(stack.seen.clone()),
        )
    };
    let connect = format!(
        "CONNECT api.stripe.com:443 HTTP/1.1\r\nHost: api.stripe.com:443\r\n{}\r\n",
        basic(&token)
    );

    let mut plain = dial().await;
    plain.send(connect.as_str()).await.unwrap();
    let refusal = plain.reply("CONNECT").await.unwrap();
    refusal.expect_refusal(403, "plaintext_denied");
    assert!(plain.rest().await.is_empty(), "the connection ends");

    let tls = stack
        .handshake(dial().await, "localhost", &[b"http/1.1"])
        .await
        .unwrap();
    let mut wire = Wire::new(tls, Some(stack.seen.clone()));
    wire.send(connect.as_str()).await.unwrap();
    wire.reply("CONNECT").await.unwrap().expect_status(200);
    drop(wire);
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn a_socks_client_is_told_that_no_method_will_do() {
    let stack = Stack::start().await;
    let mut wire = stack.proxy_wire().await;
    wire.send(b"\x05\x02\x00\x02").await.unwrap();
    assert_eq!(wire.rest().await, b"\x05\xff");
    stack.finish().await;
}
