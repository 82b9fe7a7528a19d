//! Tokens that the control plane did not make, or not in this spelling, never pass.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use biscuit_auth::builder::BlockBuilder;
use biscuit_auth::{KeyPair, UnverifiedBiscuit};

use crate::support::tunnel::basic;
use crate::support::{Stack, wait};

fn binary_of(token: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD
        .decode(token.strip_prefix("clv_").unwrap())
        .unwrap()
}

fn text_of(binary: &[u8]) -> String {
    format!("clv_{}", URL_SAFE_NO_PAD.encode(binary))
}

/// `token` with one more block of this Datalog, appended as any holder could.
fn append(token: &str, datalog: &str) -> String {
    let parsed = UnverifiedBiscuit::from(binary_of(token)).unwrap();
    let block = BlockBuilder::new().code(datalog).unwrap();
    text_of(&parsed.append(block).unwrap().to_vec().unwrap())
}

async fn expect_invalid(stack: &Stack, tokens: &[(&str, String)]) {
    for (what, token) in tokens {
        let (reply, _) = stack.connect("api.stripe.com:443", &basic(token)).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (407, "lease_invalid"),
            "{what}: {}",
            reply.text()
        );
    }
    assert_eq!(stack.upstream.connections(), 0);
}

#[tokio::test]
async fn a_token_under_another_root_key_never_passes() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let source = UnverifiedBiscuit::from(binary_of(&token))
        .unwrap()
        .print_block_source(0)
        .unwrap();
    let root = KeyPair::new();
    let mut forged = Vec::new();
    for root_key_id in [None, Some(0), Some(1), Some(2), Some(u32::MAX)] {
        let mut builder = biscuit_auth::Biscuit::builder().code(&source).unwrap();
        if let Some(id) = root_key_id {
            builder = builder.root_key_id(id);
        }
        forged.push((
            "the same facts under another root",
            text_of(&builder.build(&root).unwrap().to_vec().unwrap()),
        ));
    }
    let open = biscuit_auth::Biscuit::builder()
        .code("allow_all(true);")
        .unwrap()
        .build(&root)
        .unwrap();
    forged.push((
        "other facts under another root",
        text_of(&open.to_vec().unwrap()),
    ));

    expect_invalid(&stack, &forged).await;
    stack.finish().await;
}

#[tokio::test]
async fn no_changed_byte_passes() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let good = binary_of(&token);

    let mut changed = Vec::new();
    for place in (0..good.len()).step_by(7).chain(good.len() - 4..good.len()) {
        let mut bad = good.clone();
        bad[place] ^= 1;
        changed.push(("a flipped bit", text_of(&bad)));
    }
    for length in (0..good.len()).step_by(29) {
        changed.push(("cut off", text_of(&good[..length])));
    }
    changed.push(("one byte more", text_of(&[&good[..], b"\0"].concat())));
    changed.push(("twice", text_of(&[&good[..], &good[..]].concat())));

    expect_invalid(&stack, &changed).await;
    stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_status(200);
    stack.finish().await;
}

#[tokio::test]
async fn another_spelling_of_a_good_token_never_passes() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let binary = binary_of(&token);

    let mut spellings = vec![
        (
            "padded",
            format!("clv_{}=", URL_SAFE_NO_PAD.encode(&binary)),
        ),
        ("without its prefix", URL_SAFE_NO_PAD.encode(&binary)),
        (
            "another prefix",
            format!("CLV_{}", URL_SAFE_NO_PAD.encode(&binary)),
        ),
        ("twice the prefix", format!("clv_{token}")),
        (
            "a blank inside",
            format!("{} {}", &token[..40], &token[40..]),
        ),
        ("hex", format!("clv_{}", hex::encode(&binary))),
    ];
    for other in [
        STANDARD.encode(&binary),
        STANDARD_NO_PAD.encode(&binary),
        URL_SAFE.encode(&binary),
    ] {
        let other = format!("clv_{other}");
        if other != token {
            spellings.push(("another alphabet or padding", other));
        }
    }

    expect_invalid(&stack, &spellings).await;
    stack.finish().await;
}

#[tokio::test]
async fn an_appended_block_with_facts_rules_or_too_much_never_passes() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let other_set = format!("right(\"{}\", \"export_plaintext\");", access.set);

    let blocks = [
        ("a fact that widens", append(&token, &other_set)),
        (
            "a fact about the host",
            append(&token, "host(\"api.openai.com\");"),
        ),
        (
            "a rule",
            append(
                &token,
                "right($s, \"export_plaintext\") <- right($s, \"proxy_use\");",
            ),
        ),
        (
            "five predicates",
            append(&token, "check if a($x), b($x), c($x), d($x), e($x);"),
        ),
        (
            "too large",
            append(&token, &format!("check if note(\"{}\");", "x".repeat(5000))),
        ),
    ];

    expect_invalid(&stack, &blocks).await;
    stack.finish().await;
}

#[tokio::test]
async fn an_appended_check_that_nothing_satisfies_denies() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let child = append(&token, "check if false;");

    let (reply, wire) = stack.connect("api.stripe.com:443", &basic(&child)).await;
    let status = if reply.status == 200 {
        drop(wire);
        stack
            .get("api.stripe.com", "/v1/balance", &child)
            .await
            .status
    } else {
        reply.status
    };

    assert!(matches!(status, 403 | 407), "{status}");
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn blocks_that_are_swapped_or_left_out_never_pass() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let narrowed = append(
        &append(&token, "check if method(\"GET\");"),
        "check if path(\"/v1/balance\");",
    );
    let parent = binary_of(&token);
    let child = binary_of(&narrowed);

    // The parent's end, with its proof, behind the child's beginning, and the other way round.
    let mut spliced = Vec::new();
    for cut in (parent.len() / 2..parent.len()).step_by(11) {
        spliced.push((
            "spliced",
            text_of(&[&child[..cut], &parent[cut..]].concat()),
        ));
        let from_end = parent.len() - cut;
        let tail = &child[child.len() - from_end..];
        spliced.push(("spliced", text_of(&[&parent[..cut], tail].concat())));
    }
    spliced.retain(|(_, token_text)| *token_text != token && *token_text != narrowed);

    expect_invalid(&stack, &spliced).await;
    stack.finish().await;
}

#[tokio::test]
async fn names_with_datalog_in_them_are_names() {
    let stack = Stack::start().await;
    let secret = stack.secret("sk_live_");
    let set = stack
        .put_set(
            "stripe",
            "plain",
            &serde_json::json!({ "STRIPE_SECRET_KEY": secret.text() }),
        )
        .await;
    let (agent, _) = stack.agent("\"); allow if true; //").await;
    let paths = serde_json::json!({ "constraints": { "paths": ["/v1/x\");allow-if-true;"] } });
    let body = {
        let mut body = serde_json::json!({
            "agent_id": agent, "secret_set_id": set, "allowed_actions": ["proxy_use", "mint_workflow_lease"],
        });
        body["constraints"] = paths["constraints"].clone();
        body
    };
    let reply = stack.admin().post("/v1/vault/grants", &body).await;
    if reply.status == 201 {
        let token = stack
            .mint(&serde_json::json!({ "secret_set_id": set, "agent_id": agent }))
            .await;
        stack
            .get("api.stripe.com", "/v1/balance", &token)
            .await
            .expect_refusal(403, "grant_denied");
    } else {
        reply.expect_status(400);
    }
    assert_eq!(stack.upstream.count(), 0);
    wait::within("the end", stack.finish()).await;
}
