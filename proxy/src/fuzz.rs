//! What the fuzz targets call: each states what must hold for any bytes.

use http::Version;
use pingora::http::RequestHeader;

use crate::authenticate::proxy_token;
use crate::head::{Head, end_of_head};
use crate::normalize::{Endpoint, inside};

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
