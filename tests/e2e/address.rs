//! The address that is really dialled decides: inner networks are closed, metadata and ourselves always.

use std::net::IpAddr;

use serde_json::json;

use crate::support::stack::Builder;
use crate::support::{Access, Stack};

/// A custom set whose template sends to `hosts`.
async fn custom(stack: &Stack, hosts: &[String]) -> Access {
    let secret = stack.secret("tok_");
    let spec = json!({
        "hosts": hosts,
        "inject": [{ "header": "authorization", "value": "Bearer ${TOKEN}" }],
    });
    let entries = json!({ "TOKEN": secret.text() });
    stack.custom_access("inner", &entries, &spec, &secret).await
}

#[tokio::test]
async fn loopback_is_blocked_unless_it_is_allowed() {
    let stack = Stack::builder().without_loopback().start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    let reply = stack
        .attempt("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_refusal(403, "destination_blocked");

    assert!(!reply.text().contains(access.secret.text()));
    assert_eq!(stack.upstream.connections(), 0);
    stack.finish().await;
}

/// Each of these addresses is refused by the name that leads there, and the record tells where it led.
async fn expect_blocked(builder: Builder, addresses: &[&str]) {
    let names: Vec<String> = (0..addresses.len())
        .map(|number| format!("inner-{number}.example"))
        .collect();
    let builder = names
        .iter()
        .zip(addresses)
        .fold(builder, |builder, (name, address)| {
            builder.resolve(name, format!("{address}:443"))
        });
    let stack = builder.start().await;
    let access = custom(&stack, &names).await;
    let token = stack.workflow_lease(&access).await;

    for (name, address) in names.iter().zip(addresses) {
        let reply = stack.attempt(name, "/v1/things", &token).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (403, "destination_blocked"),
            "{address}: {}",
            reply.text()
        );
    }

    let events = stack.events().await;
    for (name, address) in names.iter().zip(addresses) {
        let refused = events
            .iter()
            .find(|event| event["action"] == "lease.refuse" && event["host"] == name.as_str());
        let recorded = refused.unwrap()["address"].as_str().unwrap();
        let expected = address.trim_matches(['[', ']']).parse::<IpAddr>();
        assert_eq!(recorded.parse::<IpAddr>().unwrap(), expected.unwrap());
    }
    assert_eq!(stack.upstream.connections(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn inner_addresses_are_blocked_whatever_name_leads_there() {
    expect_blocked(
        Stack::builder(),
        &[
            "10.0.0.1",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "169.254.1.1",
            "0.0.0.0",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "[::1]",
            "[fe80::1]",
            "[fc00::1]",
            "[::ffff:10.0.0.1]",
            "[::ffff:8.8.8.8]",
            "[64:ff9b::a00:1]",
            "[2002:a00:1::]",
            "[ff02::1]",
            "[::]",
        ],
    )
    .await;
}

#[tokio::test]
async fn metadata_addresses_are_blocked_even_when_allowed() {
    let all = ["0.0.0.0/0", "::/0"];
    let builder = all.iter().fold(Stack::builder(), |builder, network| {
        builder.argument("--allow-address").argument(*network)
    });
    expect_blocked(
        builder,
        &[
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "[fd00:ec2::254]",
            "[fd20:ce::254]",
        ],
    )
    .await;
}

#[tokio::test]
async fn our_own_listeners_are_blocked_even_when_loopback_is_allowed() {
    let own = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let stack = Stack::builder()
        .resolve("api.stripe.com", own)
        .api(own)
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    stack
        .attempt("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_refusal(403, "destination_blocked");

    stack.finish().await;
}

#[tokio::test]
async fn a_custom_set_injects_at_its_own_host_only() {
    let stack = Stack::builder().host("inner.example").start().await;
    let access = custom(&stack, &["inner.example".to_owned()]).await;
    let token = stack.workflow_lease(&access).await;

    stack
        .get("inner.example", "/v1/things", &token)
        .await
        .expect_status(200);
    let (reply, _) = stack
        .connect("api.stripe.com:443", &crate::support::tunnel::basic(&token))
        .await;
    reply.expect_refusal(403, "grant_denied");

    assert_eq!(
        stack.upstream.last().field("authorization"),
        format!("Bearer {}", access.secret.text())
    );
    stack.finish().await;
}

/// An address in one to four parts, each part as a resolver of the old kind may read it.
fn spellings(octets: [u64; 4]) -> Vec<String> {
    let [a, b, c, d] = octets;
    let low = (c << 8) | d;
    let forms = [
        vec![(a << 24) | (b << 16) | low],
        vec![a, (b << 16) | low],
        vec![a, b, low],
        vec![a, b, c, d],
    ];
    let write = |number: u64| {
        [
            number.to_string(),
            format!("0{number:o}"),
            format!("0x{number:x}"),
        ]
    };
    let mut all = Vec::new();
    for form in forms {
        let mut texts = vec![String::new()];
        for part in form {
            let longer = |text: &String| {
                let joint = if text.is_empty() { "" } else { "." };
                write(part).map(|one| format!("{text}{joint}{one}"))
            };
            texts = texts.iter().flat_map(longer).collect();
        }
        all.extend(texts);
    }
    let plain = format!("{a}.{b}.{c}.{d}");
    all.extend([
        format!("{plain}."),
        format!("[{plain}]"),
        format!("[::ffff:{plain}]"),
        format!("[::{plain}]"),
        format!("[64:ff9b::{plain}]"),
        format!("[fe80::{plain}%25lo]"),
        format!("api.stripe.com@{plain}"),
        format!("{plain}%00.api.stripe.com"),
        format!("{plain}#.api.stripe.com"),
        plain.replace('.', "%2e"),
        plain,
    ]);
    all
}

#[tokio::test]
async fn no_spelling_of_an_address_opens_a_tunnel() {
    let stack = Stack::builder().log("info").start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let fields = crate::support::tunnel::basic(&token);
    let mut count = 0;
    for octets in [[127, 0, 0, 1], [169, 254, 169, 254], [10, 0, 0, 1]] {
        for host in spellings(octets) {
            for authority in [format!("{host}:443"), host.clone()] {
                let (reply, _) = stack.connect(&authority, &fields).await;
                assert!(
                    [400, 403].contains(&reply.status),
                    "{authority}: {}",
                    reply.text()
                );
                count += 1;
            }
        }
    }
    assert!(count > 750, "{count}");
    assert_eq!(stack.upstream.connections(), 0);
    stack.finish().await;
}
