//! gRPC calls in all four kinds, with bare bytes as their messages (a name of a path tells the kind).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{HeaderMap, Response};
use tokio::sync::mpsc;

use super::{Recorded, Shared};

/// Flag and length before each message.
const PREFIX: usize = 5;

/// Answers a call while its messages come in: `/Unary` and `/Stream` echo each message, `/Count` says how many there were,
/// `/Repeat` sends one three times, `/Key` says the credential, `/Fail` fails.
pub(super) fn answer(
    request: Arc<Recorded>,
    body: Incoming,
    shared: &Arc<Shared>,
) -> Response<BoxBody<Bytes, Infallible>> {
    let (sender, mut frames) = mpsc::channel(1);
    let shared = Arc::clone(shared);
    shared.calls.fetch_add(1, Ordering::SeqCst);
    tokio::spawn(async move {
        call(request, body, sender).await;
        shared.calls.fetch_sub(1, Ordering::SeqCst);
    });
    let frames = futures::stream::poll_fn(move |context| frames.poll_recv(context));
    Response::builder()
        .header("content-type", "application/grpc")
        .body(BoxBody::new(StreamBody::new(frames)))
        .expect("the fields are sound")
}

type Out = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

async fn call(request: Arc<Recorded>, mut body: Incoming, out: Out) {
    let method = request
        .path()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let mut pending = BytesMut::new();
    let mut count = 0;
    while let Some(frame) = body.frame().await {
        // The call was cancelled.
        let Ok(frame) = frame else { return };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        request.receive(&data);
        pending.extend_from_slice(&data);
        while let Some(message) = next_message(&mut pending) {
            count += 1;
            let times = match &*method {
                "Repeat" => 3,
                "Unary" | "Stream" => 1,
                _ => 0,
            };
            for _ in 0..times {
                // Nobody reads any more: the call was cancelled.
                if out.send(Ok(Frame::data(framed(&message)))).await.is_err() {
                    return;
                }
            }
        }
    }
    request.complete();
    let last = match &*method {
        "Count" => Some(format!("{count} messages")),
        "Key" => Some(format!(
            "your key is {}",
            request.fields("authorization").concat()
        )),
        _ => None,
    };
    if let Some(last) = last {
        let _ = out.send(Ok(Frame::data(framed(last.as_bytes())))).await;
    }
    let mut trailers = HeaderMap::new();
    let status = if method == "Fail" { "5" } else { "0" };
    trailers.insert("grpc-status", status.parse().expect("a number"));
    trailers.insert("grpc-message", "as asked".parse().expect("a text"));
    let credential = request.fields("authorization").concat();
    trailers.insert("x-echo", credential.parse().expect("it came in a field"));
    let _ = out.send(Ok(Frame::trailers(trailers))).await;
}

fn next_message(pending: &mut BytesMut) -> Option<Bytes> {
    let mut prefix = pending.get(1..PREFIX)?;
    let length = usize::try_from(prefix.get_u32()).ok()?;
    if pending.len() < PREFIX + length {
        return None;
    }
    pending.advance(PREFIX);
    Some(pending.split_to(length).freeze())
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a short message");
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}
