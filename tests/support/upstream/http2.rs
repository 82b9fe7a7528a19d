//! HTTP/2 for the same routes, by hyper.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Answer, Body, Recorded, Shared, grpc, routes};

/// Answers requests until the client goes away.
pub(super) async fn serve<S>(stream: S, sni: Option<String>, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        let sni = sni.clone();
        async move { respond(request, sni, &shared).await }
    });
    // An error is a client that went away, which each test sees on its own side.
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond(
    request: Request<Incoming>,
    sni: Option<String>,
    shared: &Arc<Shared>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, std::io::Error> {
    let (parts, mut body) = request.into_parts();
    let recorded = shared.record(record(&parts, sni));
    let kinds = recorded.fields("content-type");
    if kinds
        .iter()
        .any(|kind| kind.starts_with("application/grpc"))
    {
        return Ok(grpc::answer(recorded, body, shared));
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(std::io::Error::other)?;
        if let Some(data) = frame.data_ref() {
            recorded.receive(data);
        }
    }
    recorded.complete();
    let (status, fields, body) = match routes::answer(&recorded, shared).await {
        Answer::Full {
            status,
            fields,
            body,
        } => (status, fields, BoxBody::new(Full::from(body))),
        Answer::Pieces {
            status,
            fields,
            pieces,
        } => {
            let frames = tokio_stream_of(pieces).map(|piece| Ok(Frame::data(piece)));
            (status, fields, BoxBody::new(StreamBody::new(frames)))
        }
        Answer::Trailers(value) => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-echo", value.parse().map_err(std::io::Error::other)?);
            let frames = [
                Ok(Frame::data(Bytes::from_static(b"ok"))),
                Ok(Frame::trailers(trailers)),
            ];
            let body = StreamBody::new(futures::stream::iter(frames));
            (200, Vec::new(), BoxBody::new(body))
        }
        Answer::Raw(_) | Answer::WebSocket => {
            return Err(std::io::Error::other("the route closes the stream"));
        }
        Answer::Silence => std::future::pending().await,
    };
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(name, value);
    }
    response.body(body).map_err(std::io::Error::other)
}

fn tokio_stream_of(
    mut pieces: tokio::sync::mpsc::Receiver<Bytes>,
) -> impl futures::Stream<Item = Bytes> {
    futures::stream::poll_fn(move |context| pieces.poll_recv(context))
}

fn record(parts: &hyper::http::request::Parts, sni: Option<String>) -> Recorded {
    let fields: Vec<(String, Vec<u8>)> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    let target = parts
        .uri
        .path_and_query()
        .map(ToString::to_string)
        .unwrap_or_default();
    let authority = parts
        .uri
        .authority()
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut head = format!(
        "{} {target} HTTP/2\r\n:authority: {authority}\r\n",
        parts.method
    )
    .into_bytes();
    for (name, value) in &fields {
        head.extend_from_slice(format!("{name}: ").as_bytes());
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
    Recorded {
        sni,
        version: "HTTP/2",
        method: parts.method.to_string(),
        target,
        authority,
        body: Mutex::new(Body::of(&fields)),
        fields,
        head,
    }
}
