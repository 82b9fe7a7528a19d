//! github.com's side of git over HTTPS: `git http-backend` behind Basic authentication.

use std::process::Stdio;
use std::sync::Arc;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{Answer, Recorded, Shared};

/// Runs `request` through git's CGI program.
pub(super) async fn answer(request: &Arc<Recorded>, shared: &Shared) -> Answer {
    let root = shared.git_root.lock().expect("no holder panics").clone();
    let Some(root) = root else {
        return Answer::json(404, &json!({ "message": "Not Found" }));
    };
    if !request
        .fields("authorization")
        .iter()
        .any(|value| value.starts_with("Basic "))
    {
        return Answer::Full {
            status: 401,
            fields: vec![("www-authenticate".into(), "Basic realm=\"GitHub\"".into())],
            body: Vec::new(),
        };
    }
    let (path, query) = request
        .target
        .split_once('?')
        .unwrap_or((&request.target, ""));
    let first = |name: &str| request.fields(name).into_iter().next().unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "x-access-token")
        .env("REQUEST_METHOD", &request.method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", first("content-type"))
        .env("CONTENT_LENGTH", request.body_length().to_string())
        .env("HTTP_CONTENT_ENCODING", first("content-encoding"))
        .env("GIT_PROTOCOL", first("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("git is installed");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let body = request.body();
    let feed = tokio::spawn(async move {
        let _ = stdin.write_all(&body).await;
    });
    let output = child.wait_with_output().await.expect("git runs");
    let _ = feed.await;
    parse(&output.stdout)
}

/// A CGI response (RFC 3875 section 6) as an answer.
fn parse(output: &[u8]) -> Answer {
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or(output.len());
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let body = output.get(end + 4..).unwrap_or_default().to_vec();
    let mut status = 200;
    let mut fields = Vec::new();
    for (name, value) in head.split("\r\n").filter_map(|line| line.split_once(": ")) {
        if name.eq_ignore_ascii_case("status") {
            status = value
                .get(..3)
                .and_then(|code| code.parse().ok())
                .unwrap_or(500);
        } else {
            fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
    Answer::Full {
        status,
        fields,
        body,
    }
}
