//! SOCKS5 on the port of `claviger run`, for programs that speak to no HTTP proxy.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::sdk::script;
use crate::support::stack::Ran;
use crate::support::{Access, Stack, wait};
use crate::wrapped::{SET, said, shell};

/// A greeting without authentication, and a request for a tunnel to Stripe.
const GREETING: &[u8] = &[5, 1, 0];
const TO_STRIPE: &[u8] = b"\x05\x01\x00\x03\x0eapi.stripe.com\x01\xbb";
/// The status of a curl whose proxy said no.
const CURL_PROXY: &str = "curl: (97)";

/// Checks the credential of every request that reached the upstream.
fn expect_injected(stack: &Stack, access: &Access, count: usize) {
    assert_eq!(stack.upstream.count(), count);
    for request in stack.upstream.requests() {
        let credential = format!("Bearer {}", access.secret.text());
        assert_eq!(request.field("authorization"), credential);
    }
}

/// How many lines of the terminal say this.
fn lines_with(ran: &Ran, part: &str) -> usize {
    let lines = ran.stderr.lines();
    lines.filter(|line| line.contains(part)).count()
}

#[tokio::test]
async fn curl_passes_names_and_gets_the_credential() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let script = "for version in --http1.1 --http2; do \
                  curl -sS --fail $version -w ' CONNECT %{http_connect}' --socks5-hostname $SOCKS5_SERVER https://api.stripe.com/v1/balance; \
                  ALL_PROXY= HTTPS_PROXY= https_proxy= curl -sS --fail $version -x socks5h://$SOCKS5_SERVER \
                  -d amount=5 https://api.stripe.com/v1/charges; done";

    let ran = shell(&stack, &[], script).await.expect_success();

    // No proxy answered an HTTP CONNECT.
    assert_eq!(ran.stdout.matches(" CONNECT 000").count(), 2, "{ran:#?}");
    assert_eq!(ran.stdout.matches("ch_1").count(), 2, "{ran:#?}");
    assert_eq!(ran.stderr, "");
    expect_injected(&stack, &access, 4);
    stack.finish().await;
}

#[tokio::test]
async fn an_address_that_a_set_names_is_reached_by_its_address() {
    let stack = Stack::builder().host("192.0.2.7").start().await;
    let secret = stack.secret("tok_");
    let spec = json!({
        "hosts": ["192.0.2.7"],
        "inject": [{ "header": "authorization", "value": "Bearer ${TOKEN}" }],
    });
    let entries = json!({ "TOKEN": secret.text() });
    let access = stack.custom_access("inner", &entries, &spec, &secret).await;

    let script = "curl -sS --fail --socks5 $SOCKS5_SERVER https://192.0.2.7/v1/things";
    stack
        .cli(&[
            "run",
            "--set",
            "custom/test/inner",
            "--",
            "sh",
            "-c",
            script,
        ])
        .await
        .expect_success();

    expect_injected(&stack, &access, 1);
    stack.finish().await;
}

#[tokio::test]
async fn what_no_grant_covers_is_not_allowed_and_the_terminal_says_why_once() {
    let stack = Stack::start().await;
    stack.stripe().await;
    let script = "for i in 1 2; do \
                  curl -sS --socks5-hostname $SOCKS5_SERVER https://other.example/; \
                  curl -sS --resolve api.stripe.com:443:192.0.2.7 --socks5 $SOCKS5_SERVER https://api.stripe.com/; done; true";

    let ran = shell(&stack, &[], script).await.expect_success();

    assert_eq!(lines_with(&ran, CURL_PROXY), 4, "{ran:#?}");
    assert_eq!(lines_with(&ran, "(2)"), 4, "{ran:#?}");
    assert_eq!(
        lines_with(
            &ran,
            "warning: a SOCKS request for other.example:443 was refused: "
        ),
        1,
        "{ran:#?}"
    );
    assert_eq!(
        lines_with(&ran, "192.0.2.7:443 was refused: "),
        1,
        "{ran:#?}"
    );
    assert_eq!(lines_with(&ran, "leave names to its proxy"), 1, "{ran:#?}");
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn socks4_ends_without_an_answer_and_with_a_hint() {
    let stack = Stack::start().await;
    stack.stripe().await;
    let script = "for version in --socks4 --socks4a --socks4a; do \
                  curl -sS $version $SOCKS5_SERVER https://192.0.2.7/ && exit 1; done; true";

    let ran = shell(&stack, &[], script).await.expect_success();

    assert_eq!(lines_with(&ran, "let it speak SOCKS5"), 1, "{ran:#?}");
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn a_stranger_is_not_allowed() {
    let stack = Stack::start().await;
    stack.stripe().await;
    let (told, stop) = (
        stack.home.path().join("told"),
        stack.home.path().join("stop"),
    );
    let script = format!(
        "echo $SOCKS5_SERVER > {}; while [ ! -e {} ]; do sleep 0.05; done; \
         curl -sS --fail --socks5-hostname $SOCKS5_SERVER https://api.stripe.com/v1/balance",
        told.display(),
        stop.display()
    );

    let strangers = async {
        let address = said(&told).await;
        for (sent, expected) in [
            (
                &[GREETING, TO_STRIPE].concat()[..],
                &[5, 0, 5, 2, 0, 1, 0, 0, 0, 0, 0, 0][..],
            ),
            (&[5, 1, 2], &[5, 0xff]),
            (&[4, 1, 1, 0xbb, 192, 0, 2, 7, 0], &[]),
        ] {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.write_all(sent).await.unwrap();
            let mut answer = Vec::new();
            // The end may be a reset, since something that nobody read may be left.
            let _ = wait::within("an answer", stream.read_to_end(&mut answer)).await;
            stack.seen.record(&answer);
            assert_eq!(answer, expected, "{sent:?}");
        }
        std::fs::write(&stop, "").unwrap();
    };
    let (ran, ()) = tokio::join!(shell(&stack, &[], &script), strangers);

    let ran = ran.expect_success();
    assert_eq!(ran.stderr, "");
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn a_lease_in_the_environment_comes_without_socks() {
    let stack = Stack::start().await;
    stack.stripe().await;

    let script = "curl -sS --socks5-hostname ${HTTPS_PROXY#*@} https://api.stripe.com/; echo $? ${SOCKS5_SERVER-none}";
    let ran = shell(&stack, &["--lease-in-env"], script).await;

    assert_eq!(ran.expect_success().stdout.trim(), "97 none");
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn sockets_of_java_pass_names_that_java_does_not_look_up() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let run = format!(
        "java -DsocksProxyHost=${{SOCKS5_SERVER%:*}} -DsocksProxyPort=${{SOCKS5_SERVER#*:}} \
         -Djdk.net.hosts.file=/dev/null {}",
        script("SocksClient.java")
    );

    let ran = stack
        .cli(&["run", "--set", SET, "--", "sh", "-c", &run])
        .await
        .expect_success();

    assert!(ran.stdout.contains("java: HTTP/1.1 200"), "{ran:#?}");
    expect_injected(&stack, &access, 1);
    stack.finish().await;
}
