//! What the upstream answers, by path: echoes, streams, errors; files and vendors' own calls have places of their own.

use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{Answer, Recorded, Shared, aws, files, git, vendors};

/// The size of the pieces of `/bytes/N`.
const PIECE: usize = 64 << 10;

/// The answer to `request`, whose body has been read.
pub(super) async fn answer(request: &Arc<Recorded>, shared: &Arc<Shared>) -> Answer {
    if request.authority.starts_with("github.com") && request.path().contains(".git/") {
        return git::answer(request, shared).await;
    }
    if let Some(answer) = aws::answer(request) {
        return answer;
    }
    let path = request.path();
    if let Some(file) = shared.file(path) {
        return files::answer(request, &file);
    }
    if let Some(answer) = vendors::answer(request) {
        return answer;
    }
    let mut segments = path.trim_start_matches('/').splitn(2, '/');
    let (route, rest) = (
        segments.next().unwrap_or_default(),
        segments.next().unwrap_or_default(),
    );
    match (route, rest) {
        ("echo", _) => echo(request, None),
        ("gzip-echo", _) => echo(request, Some("gzip")),
        ("deflate-echo", _) => echo(request, Some("deflate")),
        ("br-echo", _) => echo(request, Some("br")),
        ("zstd-echo", _) => echo(request, Some("zstd")),
        ("reflect", form) => reflect(request, form),
        ("reflect-in-name", _) => reflect_in_fields(&[(format!("X-{}", credential(request)), "1".into())]),
        ("reflect-in-two", _) => {
            let secret = credential(request);
            let (first, second) = secret.split_at(secret.len() / 2);
            reflect_in_fields(&[("X-Half".into(), first.into()), ("X-Half".into(), second.into())])
        }
        ("reflect-undeclared", coding) => reflect_undeclared(request, coding),
        ("split-reflect", _) => split_reflection(request),
        ("bytes", count) => counted_bytes(count.parse().unwrap_or(0)),
        ("upload", _) => Answer::json(200, &json!({ "received": request.body_length() })),
        ("stream" | "early", name) => named_stream(name, shared),
        ("redirect", to) => Answer::Full {
            status: 302,
            fields: vec![("location".into(), format!("https://{to}"))],
            body: Vec::new(),
        },
        ("status", status) => Answer::json(status.parse().unwrap_or(500), &json!({ "status": status })),
        ("turned-down", digest) if digest == authorization_digest(request) => {
            Answer::json(401, &json!({ "error": "invalid_token" }))
        }
        ("websocket", _) => Answer::WebSocket,
        ("trailers", _) => Answer::Trailers(request.fields("authorization").concat()),
        ("hints", _) => Answer::Raw(
            format!(
                "HTTP/1.1 103 Early Hints\r\nlink: </{}>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                credential(request)
            )
            .into_bytes(),
        ),
        ("hang", _) => Answer::Silence,
        ("close-before", _) => Answer::Raw(Vec::new()),
        ("close-midway", _) => Answer::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nonly this".to_vec()),
        ("unasked-switch", _) => Answer::Raw(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\x81\x02hi".to_vec(),
        ),
        ("hop-by-hop", _) => Answer::Raw(
            b"HTTP/1.1 200 OK\r\nconnection: X-Nominated\r\nx-nominated: 1\r\nupgrade: h2c\r\nte: trailers\r\ntrailer: x-sum\r\n\
              keep-alive: timeout=9\r\nx-kept: 1\r\ncontent-length: 2\r\n\r\nhi"
                .to_vec(),
        ),
        ("garbage", _) => Answer::Raw(b"220 mail.example ESMTP\r\n\r\n".to_vec()),
        ("two-responses", _) => Answer::Raw(
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond".to_vec(),
        ),
        _ => Answer::json(200, &json!({ "ok": true, "path": path })),
    }
}

/// What stands for the request's credential in a path, where it may not stand itself.
fn authorization_digest(request: &Recorded) -> String {
    digest_of(&request.fields("authorization").concat())
}

/// The digest by which `/turned-down/` knows the credential that it answers 401 to.
pub(crate) fn digest_of(authorization: &str) -> String {
    hex::encode(&Sha256::digest(authorization)[..8])
}

/// Every field and the start of the body, given back in a header, in the body, or compressed.
fn echo(request: &Recorded, coding: Option<&str>) -> Answer {
    let fields: serde_json::Map<String, Value> = request
        .fields
        .iter()
        .map(|(name, value)| {
            (
                name.to_ascii_lowercase(),
                Value::from(String::from_utf8_lossy(value).into_owned()),
            )
        })
        .collect();
    let body = json!({
        "method": request.method,
        "target": request.target,
        "headers": fields,
        "body": String::from_utf8_lossy(&request.body()),
    })
    .to_string()
    .into_bytes();
    let mut answer_fields = vec![("content-type".to_owned(), "application/json".to_owned())];
    if let Some(credential) = request.fields("authorization").into_iter().next() {
        answer_fields.push(("x-echo-authorization".into(), credential.clone()));
        answer_fields.push(("set-cookie".into(), format!("session={credential}; Path=/")));
    }
    let body = match coding {
        None => body,
        Some(coding) => {
            answer_fields.push(("content-encoding".into(), coding.to_owned()));
            compress(coding, &body)
        }
    };
    Answer::Full {
        status: 200,
        fields: answer_fields,
        body,
    }
}

fn compress(coding: &str, body: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder
                .write_all(body)
                .and_then(|()| encoder.finish())
                .expect("memory takes it")
        }
        "deflate" => {
            let mut encoder =
                flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder
                .write_all(body)
                .and_then(|()| encoder.finish())
                .expect("memory takes it")
        }
        "br" => {
            let mut out = Vec::new();
            brotli::BrotliCompress(
                &mut &body[..],
                &mut out,
                &brotli::enc::BrotliEncoderParams::default(),
            )
            .expect("memory takes it");
            out
        }
        _ => zstd::encode_all(body, 3).expect("memory takes it"),
    }
}

/// The credential as a page could show it, in the form that the path names.
fn reflect(request: &Recorded, form: &str) -> Answer {
    let secret = credential(request);
    let spelled = match form {
        "base64" => STANDARD.encode(&secret),
        "base64-of-pair" => STANDARD.encode(format!("ab:{secret}")),
        "hex" => hex::encode(&secret),
        "percent" => spell(&secret, |byte| format!("%{byte:02X}")),
        "percent-twice" => spell(&secret, |byte| format!("%25{byte:02x}")),
        "PERCENT-TWICE" => spell(&secret, |byte| format!("%25{byte:02X}")),
        "reverse" => secret.chars().rev().collect(),
        "json" => spell(&secret, |byte| format!("\\u{byte:04x}")),
        "JSON" => spell(&secret, |byte| format!("\\u{byte:04X}")),
        "html" => spell(&secret, |byte| format!("&#{byte};")),
        "html-hex" => spell(&secret, |byte| format!("&#x{byte:x};")),
        "HTML-HEX" => spell(&secret, |byte| format!("&#X{byte:X};")),
        "html-padded" => spell(&secret, |byte| format!("&#{byte:04};")),
        "html-names" => secret.replace('_', "&lowbar;").replace('-', "&hyphen;"),
        "mail" => spell(&secret, |byte| format!("={byte:02X}")),
        "mail-specials" => spell(&secret, |byte| match byte {
            b'_' | b'-' => format!("={byte:02X}"),
            _ => char::from(byte).to_string(),
        }),
        "mail-break" => broken(&secret, "=\r\n"),
        "mail-break-lf" => broken(&secret, "=\n"),
        "fields-of-an-event" => broken(&secret, "\ndata: "),
        "two-events" => broken(&secret, "\n\ndata: "),
        _ => secret,
    };
    Answer::Full {
        status: 200,
        fields: vec![("content-type".into(), "text/html".into())],
        body: format!("<p>your key is {spelled}, keep it well</p>").into_bytes(),
    }
}

/// The credential in the fields of an answer.
fn reflect_in_fields(fields: &[(String, String)]) -> Answer {
    Answer::Full {
        status: 200,
        fields: fields.to_vec(),
        body: b"see above".to_vec(),
    }
}

/// The credential in a compressed body that does not say so; the media type is behind the coding.
fn reflect_undeclared(request: &Recorded, coding: &str) -> Answer {
    let (coding, kind) = coding.split_once('/').unwrap_or((coding, "text/plain"));
    let page = format!("<p>your key is {}, keep it well</p>", credential(request));
    let body = match coding {
        // Of the same make, and without the credential.
        "harmless" => compress("gzip", b"nothing to see"),
        coding => compress(coding, page.as_bytes()),
    };
    Answer::Full {
        status: 200,
        fields: vec![("content-type".into(), kind.to_owned())],
        body,
    }
}

fn broken(secret: &str, between: &str) -> String {
    let (first, second) = secret.split_at(secret.len() / 2);
    format!("{first}{between}{second}")
}

fn spell(secret: &str, byte: impl Fn(u8) -> String) -> String {
    secret.bytes().map(byte).collect::<Vec<_>>().concat()
}

/// The credential, one byte a chunk, between two sentences.
fn split_reflection(request: &Recorded) -> Answer {
    let text = format!("your key is {}, keep it well", credential(request));
    let (sender, pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        for byte in text.into_bytes() {
            if sender.send(Bytes::from(vec![byte])).await.is_err() {
                return;
            }
        }
    });
    Answer::Pieces {
        status: 200,
        fields: vec![("content-type".into(), "text/plain".into())],
        pieces,
    }
}

fn credential(request: &Recorded) -> String {
    let value = request
        .fields("authorization")
        .into_iter()
        .next()
        .unwrap_or_default();
    value.rsplit(' ').next().unwrap_or_default().to_owned()
}

/// `count` bytes whose values follow from their places.
fn counted_bytes(count: usize) -> Answer {
    let (sender, pieces) = mpsc::channel(4);
    tokio::spawn(async move {
        let piece: Bytes = (0..PIECE).map(pattern).collect::<Vec<_>>().into();
        let mut left = count;
        while left > 0 {
            let take = left.min(PIECE);
            if sender.send(piece.slice(..take)).await.is_err() {
                return;
            }
            left -= take;
        }
    });
    let fields = vec![
        (
            "content-type".to_owned(),
            "application/octet-stream".to_owned(),
        ),
        ("content-length".to_owned(), count.to_string()),
    ];
    Answer::Pieces {
        status: 200,
        fields,
        pieces,
    }
}

/// The byte of `/bytes/N` at `place`.
fn pattern(place: usize) -> u8 {
    u8::try_from(place % 251).expect("251 is below 256")
}

fn named_stream(name: &str, shared: &Shared) -> Answer {
    match shared
        .streams
        .lock()
        .expect("no holder panics")
        .remove(name)
    {
        Some(pieces) => Answer::Pieces {
            status: 200,
            fields: vec![
                ("content-type".into(), "text/event-stream".into()),
                ("cache-control".into(), "no-store".into()),
            ],
            pieces,
        },
        None => Answer::json(404, &json!({ "error": "no such stream" })),
    }
}
