//! The credential: opened, prepared, injected or signed with, and taken out of responses.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderValue};
use leases::clock::{Clock as _, SystemClock};
use providers::inject::sigv4::{AgentScope, PayloadHash, Signable};
use providers::scrub::BodyDecoder;
use providers::{Catalog, Plan, Scrubber};
use tokio::runtime::Runtime;
use vault::{Protection, RowBinding, Secret, SoftwareKeys, Vault};

use crate::measure::Report;

const KEY: &str = "sk-proj-4kXq0Zr8TbU2mWv6Yh1Ls9Dc3Nf7Gj5Ka0Pe2Ri4To6Uw8Yx";
const MIB: usize = 1024 * 1024;
/// What a TLS record brings.
const CHUNK: usize = 16 * 1024;

pub(crate) fn measure(report: &mut Report, runtime: &Runtime) -> anyhow::Result<()> {
    seal_and_open(report, runtime)?;
    prepare_and_inject(report)?;
    sign(report)?;
    restream(report)?;
    scrub(report);
    unpack_and_scrub(report)
}

fn seal_and_open(report: &mut Report, runtime: &Runtime) -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let keys = SoftwareKeys::open(&home.path().join("keys"), Protection::File)?;
    let vault = Vault::new(Arc::new(keys));
    let row = RowBinding {
        org: "org",
        vault: "vault",
        path: "openai/prod/bot/OPENAI_API_KEY",
        version: 1,
    };
    let secret = Secret::from(KEY.to_owned());
    let kek = runtime.block_on(vault.wrapper().create_kek("vault"))?;
    let sealed = runtime.block_on(vault.seal(&kek, &secret, &row))?;
    report.batches("seal", |calls| {
        runtime.block_on(async {
            let start = Instant::now();
            for _ in 0..calls {
                vault
                    .seal(&kek, &secret, &row)
                    .await
                    .expect("the key is at hand");
            }
            start.elapsed()
        })
    });
    report.batches("open", |calls| {
        runtime.block_on(async {
            let start = Instant::now();
            for _ in 0..calls {
                vault
                    .open(&sealed, &row)
                    .await
                    .expect("it was sealed for this row");
            }
            start.elapsed()
        })
    });
    Ok(())
}

fn plan(provider: &str, secrets: &[(&str, &str)]) -> anyhow::Result<Plan> {
    let template = Catalog::builtin()
        .get(provider)
        .context("a built-in template")?;
    let secrets: BTreeMap<_, _> = secrets
        .iter()
        .map(|&(key, value)| (key.to_owned(), Arc::new(Secret::from(value.to_owned()))))
        .collect();
    Ok(Plan::prepare(&template, |_| true, secrets)?)
}

fn prepare_and_inject(report: &mut Report) -> anyhow::Result<()> {
    let template = Catalog::builtin()
        .get("openai")
        .context("a built-in template")?;
    let secret = Arc::new(Secret::from(KEY.to_owned()));
    report.each("prepare, once a version of a set", || {
        Plan::prepare(
            &template,
            |_| true,
            BTreeMap::from([("OPENAI_API_KEY".to_owned(), Arc::clone(&secret))]),
        )
    });
    let plan = plan("openai", &[("OPENAI_API_KEY", KEY)])?;
    let mut headers = agent_headers("api.openai.com");
    report.each("inject a header", || {
        for slot in plan.strip() {
            headers.remove(slot);
        }
        for (name, value) in plan.headers("api.openai.com", "/v1/chat/completions") {
            headers.insert(name.clone(), value.clone());
        }
    });
    Ok(())
}

fn agent_headers(host: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static(host));
    headers.insert(
        AUTHORIZATION,
        HeaderValue::from_static("Bearer sk-claviger-placeholder-0000000000000000"),
    );
    for (name, value) in [
        ("accept", "application/json"),
        ("user-agent", "agent/1.0"),
        ("content-type", "application/json"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

fn sign(report: &mut Report) -> anyhow::Result<()> {
    const HOST: &str = "dynamodb.us-east-1.amazonaws.com";
    let plan = plan(
        "aws",
        &[
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            (
                "AWS_SECRET_ACCESS_KEY",
                "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            ),
        ],
    )?;
    let signer = plan.sigv4().context("the template signs")?;
    let mut headers = agent_headers(HOST);
    headers.insert(
        "x-amz-target",
        HeaderValue::from_static("DynamoDB_20120810.GetItem"),
    );
    let dummy = format!(
        "AWS4-HMAC-SHA256 Credential=AKIACLAVIGERPLACEHLD/20261122/us-east-1/dynamodb/aws4_request, \
         SignedHeaders=host;x-amz-date;x-amz-target, Signature={:0>64}",
        ""
    );
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&dummy)?);
    let now = SystemClock.now();
    let body = [b'x'; 1024];
    let scope = AgentScope::read(&headers, None)?;
    headers.remove(AUTHORIZATION);
    report.each("sign by SigV4, its body of 1 KiB hashed", || {
        let payload = PayloadHash::of(&body);
        let request = Signable {
            method: "POST",
            host: HOST,
            path_and_query: "/",
            headers: &headers,
            payload: &payload,
        };
        signer
            .sign(&request, &scope, now)
            .expect("the scope is the host's")
    });
    Ok(())
}

/// A payload in signed chunks of 64 KiB, as SDKs send them, in the pieces that TLS brings. A second of it is MiB.
fn restream(report: &mut Report) -> anyhow::Result<()> {
    const HOST: &str = "s3.us-east-1.amazonaws.com";
    let plan = plan(
        "aws",
        &[
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            (
                "AWS_SECRET_ACCESS_KEY",
                "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            ),
        ],
    )?;
    let signer = plan.sigv4().context("the template signs")?;
    let none = "0".repeat(64);
    let mut headers = agent_headers(HOST);
    for (name, value) in [
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("x-amz-decoded-content-length", "1048576"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let dummy = format!(
        "AWS4-HMAC-SHA256 Credential=AKIACLAVIGERPLACEHLD/20261122/us-east-1/s3/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature={none}"
    );
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&dummy)?);
    let scope = AgentScope::read(&headers, None)?;
    headers.remove(AUTHORIZATION);
    let mut body = Vec::new();
    for data in random().chunks(64 * 1024) {
        body.extend_from_slice(format!("10000;chunk-signature={none}\r\n").as_bytes());
        body.extend_from_slice(data);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("0;chunk-signature={none}\r\n\r\n").as_bytes());
    report.each("sign 1 MiB again, chunk by chunk", || {
        let request = Signable {
            method: "PUT",
            host: HOST,
            path_and_query: "/bucket/key",
            headers: &headers,
            payload: &PayloadHash::Unsigned,
        };
        let mut streamed = signer
            .sign(&request, &scope, SystemClock.now())
            .expect("the scope is the host's")
            .body
            .expect("the payload is streamed");
        let mut sent = 0;
        for piece in body.chunks(CHUNK) {
            sent += streamed.push(piece).expect("the chunks are sound").len();
        }
        sent + streamed.finish().expect("the body is whole").len()
    });
    Ok(())
}

fn scrub(report: &mut Report) {
    let scrubber = Arc::new(Scrubber::new([KEY.as_bytes()]));
    // The last body is the worst one: again and again the search stops for a secret that is not there.
    let beginnings = KEY.as_bytes()[..8].repeat(MIB / 8);
    // Here it stops at every escape, which might begin a spelling of any secret.
    let escapes = br"caf\u00e9 &amp; co. 100%25 =3D ".repeat(MIB / 32);
    for (name, body) in [
        ("JSON", json()),
        ("escapes", escapes),
        ("random bytes", random()),
        ("a secret's beginnings", beginnings),
    ] {
        let chunks: Vec<Bytes> = body.chunks(CHUNK).map(Bytes::copy_from_slice).collect();
        report.each(&format!("scrub 1 MiB of {name}"), || {
            let mut stream = scrubber.stream();
            let sent: usize = chunks
                .iter()
                .map(|chunk| stream.push(chunk.clone()).len())
                .sum();
            sent + stream.finish().len()
        });
    }
}

/// What it unpacks to is what is counted.
fn unpack_and_scrub(report: &mut Report) -> anyhow::Result<()> {
    let scrubber = Arc::new(Scrubber::new([KEY.as_bytes()]));
    let plain = records();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&plain)?;
    let mut br = brotli::CompressorWriter::new(Vec::new(), 64 * 1024, 5, 22);
    br.write_all(&plain)?;
    for (encoding, packed) in [
        ("gzip", gzip.finish()?),
        ("br", br.into_inner()),
        ("zstd", zstd::encode_all(&plain[..], 3)?),
    ] {
        report.each(&format!("unpack and scrub 1 MiB, {encoding}"), || {
            let mut decoder = BodyDecoder::for_encoding(encoding)
                .expect("it is an encoding")
                .expect("it is known");
            let mut stream = scrubber.stream();
            let mut sent = 0;
            for piece in packed.chunks(CHUNK) {
                let plain = decoder.push(piece).expect("the body is sound");
                sent += stream.push(plain).len();
            }
            let rest = decoder.finish().expect("the body is whole");
            sent += stream.push(rest).len() + stream.finish().len();
            assert_eq!(sent, plain.len());
            sent
        });
    }
    Ok(())
}

/// JSON as an API lists it: alike from record to record, but for ids and numbers.
fn records() -> Vec<u8> {
    let mut text = Vec::with_capacity(MIB + 256);
    let ids = random();
    for id in ids.chunks_exact(8) {
        if text.len() >= MIB {
            break;
        }
        let id = u64::from_le_bytes(id.try_into().expect("eight bytes"));
        let record = format!(
            r#"{{"id":"ch_{id:016x}","object":"charge","amount":{},"currency":"usd","paid":{},"created":{}}},"#,
            id % 100_000,
            id % 2 == 0,
            1_700_000_000 + id % 10_000_000
        );
        text.extend_from_slice(record.as_bytes());
    }
    text.truncate(MIB);
    text
}

fn json() -> Vec<u8> {
    let line = br#"{"id":"chatcmpl-9sK2","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" a word"}}]}"#;
    line.iter().copied().cycle().take(MIB).collect()
}

/// Numerical Recipes' generator: the same bytes in every run.
fn random() -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(MIB).collect()
}
