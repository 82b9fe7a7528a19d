//! What the fuzz targets call: each states what must hold for any bytes.

use std::net::IpAddr;
use std::sync::Arc;

use http::Version;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;

use crate::authenticate::proxy_token;
use crate::chunk::Chunks;
use crate::connect::prepare;
use crate::context::Link;
use crate::head::{Head, end_of_head};
use crate::normalize::{Endpoint, inside};
use crate::stream::Conn;

/// A head that is accepted is one that `httparse` reads in the same way.
///
/// # Panics
/// When the two readings differ.
pub fn head(data: &[u8]) {
    let Some(end) = end_of_head(data) else {
        return;
    };
    let Ok(head) = Head::parse(&data[..end]) else {
        return;
    };
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut other = httparse::Request::new(&mut fields);
    let read = other
        .parse(data)
        .expect("an accepted head is proper HTTP/1");
    assert_eq!(read, httparse::Status::Complete(end));
    assert_eq!(
        (other.method, other.path),
        (Some(head.method), Some(head.target))
    );
}

/// A head that the front hands on is one that Pingora takes, so that it never answers in its own words.
///
/// # Panics
/// When Pingora refuses it.
pub fn front(data: &[u8]) {
    let Some(end) = end_of_head(data) else {
        return;
    };
    if data.starts_with(b"CONNECT ") {
        return;
    }
    let link = Link::new(IpAddr::from([127, 0, 0, 1]), Arc::default(), None);
    let mut conn = Conn::new(tokio::io::join(tokio::io::empty(), tokio::io::sink()), 0);
    if prepare(&mut conn, data.into(), end, &link).is_err() {
        return;
    }
    let mut session = ServerSession::new_http1(Box::new(conn));
    let read = futures::executor::block_on(session.read_request());
    assert!(read.is_ok_and(|read| read), "Pingora refuses the head");
}

/// A chunked body has one reading, in whatever pieces it comes, and it is also that of `httparse`.
///
/// # Panics
/// When there are two.
pub fn chunks(data: &[u8]) {
    let Some((cut, body)) = data.split_first() else {
        return;
    };
    let mut whole = Chunks::default();
    let verdict = whole.read(body);
    let (start, rest) = body.split_at(usize::from(*cut).min(body.len()));
    let mut pieces = Chunks::default();
    let in_pieces = pieces.read(start).and_then(|()| pieces.read(rest));
    assert_eq!((verdict, &whole), (in_pieces, &pieces));
    if verdict.is_err() || !whole.is_done() {
        return;
    }
    let mut rest = body;
    loop {
        let Ok(httparse::Status::Complete((at, size))) = httparse::parse_chunk_size(rest) else {
            panic!("another reading of a size line");
        };
        if size == 0 {
            break;
        }
        let end = at + usize::try_from(size).expect("no more than there is");
        assert_eq!(&rest[end..end + 2], b"\r\n");
        rest = &rest[end + 2..];
    }
}

/// The door reads any bytes without a panic.
pub fn connect(data: &[u8]) {
    if let Ok(head) = Head::parse(data) {
        let _ = Endpoint::of_connect(head.target);
        let _ = proxy_token(head.values("proxy-authorization"));
    }
}

/// A target that is accepted keeps its bytes.
///
/// # Panics
/// When policy would see other bytes than are forwarded.
pub fn target(data: &[u8]) {
    let head = [b"GET ", data, b" HTTP/1.1\r\nHost: api.example.com\r\n\r\n"].concat();
    if Head::parse(&head).is_err() {
        return;
    }
    let tunnel = Endpoint::of_connect("api.example.com:443").expect("a proper target");
    let Ok(mut request) = RequestHeader::build("GET", data, None) else {
        return;
    };
    request.set_version(Version::HTTP_11);
    let _ = request.append_header("host", "api.example.com");
    if let Ok(target) = inside(&tunnel, &request) {
        let raw = String::from_utf8_lossy(data);
        assert!(raw.contains(&*target.path), "the path was changed");
        assert!(
            !target.path.split('/').any(|segment| segment == ".."),
            "a dot segment was let through: {}",
            target.path
        );
    }
}
