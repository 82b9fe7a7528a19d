use http::{HeaderName, HeaderValue};

use super::*;

const REGIONAL: &str = "s3.us-east-1.amazonaws.com";
const OWN: &str = "data.s3.us-east-1.amazonaws.com";

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    headers
}

fn copied(source: &'static str) -> CopySource {
    let headers = headers(&[("x-amz-copy-source", source)]);
    CopySource::read(&headers, None).unwrap().unwrap()
}

/// Where a copy from `source` would be read, as `HOST PATH PATH`.
fn place(source: &'static str, host: &str) -> Option<String> {
    let place = copied(source).place(host).ok()?;
    Some(format!("{} {}", place.host, place.paths.join(" ")))
}

#[test]
fn a_source_is_addressed_as_the_request_addresses_its_own_bucket() {
    for (host, source, expected) in [
        (REGIONAL, "data/a/b", "s3.us-east-1.amazonaws.com /data/a/b"),
        (REGIONAL, "/other/a", "s3.us-east-1.amazonaws.com /other/a"),
        (OWN, "data/a/b", "data.s3.us-east-1.amazonaws.com /a/b"),
        (OWN, "other/a", "other.s3.us-east-1.amazonaws.com /a"),
        ("a.b.s3.amazonaws.com", "c.d/e", "c.d.s3.amazonaws.com /e"),
        (
            "storage.googleapis.com",
            "/bkt-b/secret",
            "storage.googleapis.com /bkt-b/secret",
        ),
        (
            "storage.us-east1.rep.googleapis.com",
            "b/k",
            "storage.us-east1.rep.googleapis.com /b/k",
        ),
        (
            "data.storage.googleapis.com",
            "other/k",
            "other.storage.googleapis.com /k",
        ),
        (
            "commondatastorage.googleapis.com",
            "b/k",
            "commondatastorage.googleapis.com /b/k",
        ),
        ("minio.example", "data/k", "minio.example /data/k"),
    ] {
        assert_eq!(place(source, host).as_deref(), Some(expected), "{source}");
    }
}

#[test]
fn a_key_has_the_spellings_of_a_path() {
    for (source, paths) in [
        ("data/a b", "/a b /a%20b"),
        ("data/a%20b", "/a%20b"),
        ("data%2Fpublic%2Fx", "/public/x"),
        ("data/public%2Fx", "/public%2Fx /public/x"),
        ("data/year=1/x", "/year=1/x /year%3D1/x"),
        ("data/%61", "/%61 /a"),
        ("data/a%2520b", "/a%2520b"),
        ("data/..%2fx", "/..%2fx /../x"),
        ("data//a", "//a"),
        ("data/a?versionId=3.L4-_x", "/a"),
        ("data/a%3Fb", "/a%3Fb"),
        ("data/%C3%A4", "/%C3%A4"),
    ] {
        let expected = format!("{OWN} {paths}");
        assert_eq!(place(source, OWN), Some(expected), "{source}");
    }
}

#[test]
fn a_source_that_cannot_be_told_has_no_place() {
    for (host, source) in [
        (OWN, "arn:aws:s3:us-east-1:1:accesspoint/ap/object/k"),
        (OWN, "arn%3Aaws%3As3:::data/k"),
        (OWN, "data"),
        (OWN, "data/"),
        (OWN, "//k"),
        (OWN, ""),
        (OWN, "data/a+b"),
        (OWN, "data/a%2"),
        (OWN, "data/%FF"),
        (OWN, "data/a?versionId="),
        (OWN, "data/a?versionId=1&x=2"),
        (OWN, "data/a?versionId=1?versionId=2"),
        (OWN, "data/a?other"),
        (OWN, "data/a%3FversionId%3Db"),
        ("ap-1.s3-accesspoint.us-east-1.amazonaws.com", "data/k"),
        ("data.vpce-0a.s3.us-east-1.vpce.amazonaws.com", "data/k"),
        ("www.googleapis.com", "data/k"),
        ("data.minio.example", "data/k"),
    ] {
        let error = copied(source).place(host).unwrap_err();
        assert!(matches!(error, CopyError::Untold { .. }), "{source}");
    }
}

#[test]
fn a_source_stands_in_the_head_or_in_the_query_of_a_presigned_url() {
    let none = headers(&[]);
    for query in [
        "X-Amz-Copy-Source=data%2Fa%2520b&x-id=1",
        "a=b&x%2damz-copy-source=/data/a%2520b",
    ] {
        let source = CopySource::read(&none, Some(query)).unwrap().unwrap();
        let paths = source.place(OWN).unwrap().paths;
        assert_eq!(paths, ["/a%20b"], "{query}");
    }
    let plus = CopySource::read(&none, Some("x-amz-copy-source=data/a+b"));
    assert!(plus.unwrap().unwrap().place(OWN).is_err());
    for query in [None, Some("prefix=x-amz-copy-source"), Some("source")] {
        assert_eq!(CopySource::read(&none, query), Ok(None), "{query:?}");
    }
    let conditions = headers(&[
        ("x-amz-copy-source-if-match", "e"),
        ("x-goog-copy-source-generation", "1"),
        ("x-amz-website-redirect-location", "/private/x"),
    ]);
    assert_eq!(CopySource::read(&conditions, None), Ok(None));
}

#[test]
fn two_sources_or_a_twin_of_the_field_are_refused() {
    for (pairs, query) in [
        (
            &[("x-amz-copy-source", "a/b"), ("x-amz-copy-source", "a/b")][..],
            None,
        ),
        (
            &[("x-amz-copy-source", "a/b"), ("x-goog-copy-source", "a/c")],
            None,
        ),
        (&[("x_amz_copy_source", "a/b")], None),
        (&[("x-amz_copy-source", "a/b")], None),
        (
            &[("x-amz-copy-source", "a/b")],
            Some("x-amz-copy-source=a/b"),
        ),
        (&[], Some("x_amz_copy_source=a/b")),
        (&[], Some("x-amz-copy-source=a/b;x-amz-copy-source=a/c")),
    ] {
        let read = CopySource::read(&headers(pairs), query);
        assert!(matches!(read, Err(CopyError::Twice(_))), "{pairs:?}");
    }
}

#[test]
fn an_object_is_moved_within_the_bucket_of_the_host() {
    let moved = |source| {
        let headers = headers(&[("x-amz-rename-source", source)]);
        CopySource::read(&headers, None).unwrap().unwrap()
    };
    let source = moved("/data/private/x");
    assert_eq!(source.methods(), ["GET", "DELETE"]);
    assert_eq!(source.place(OWN).unwrap().paths, ["/private/x"]);
    assert!(moved("/private/x").place(OWN).is_err());
    assert!(moved("/data/x").place(REGIONAL).is_err());
    assert_eq!(copied("data/x").methods(), ["GET"]);
}

#[test]
fn a_message_names_the_object_in_one_short_line() {
    assert_eq!(
        copied("/data/private/secret").shown(),
        "data/private/secret"
    );
    assert_eq!(copied("data/a\tb").shown(), "data/a\\tb");
}

#[test]
fn a_body_that_names_objects_is_told_by_its_head() {
    let google = "storage.googleapis.com";
    for (method, host, target, objects) in [
        ("POST", OWN, "/?delete", Some("/**")),
        ("POST", OWN, "/public/?delete=", Some("/**")),
        ("POST", OWN, "/public/x?a&d%65lete", Some("/**")),
        ("POST", OWN, "/", Some("/**")),
        ("POST", REGIONAL, "/data?delete", Some("/data/**")),
        ("POST", REGIONAL, "/data/", Some("/data/**")),
        ("POST", OWN, "/public/x?uploads", None),
        ("PUT", OWN, "/public/x", None),
        ("GET", OWN, "/?list-type=2", None),
        ("DELETE", OWN, "/?delete", None),
        ("PUT", google, "/data/x?compose", Some("/data/**")),
        (
            "PUT",
            "data.storage.googleapis.com",
            "/x?compose",
            Some("/**"),
        ),
        ("PUT", google, "/data/x", None),
        (
            "POST",
            google,
            "/storage/v1/b/data/o/public-x/compose",
            Some("/storage/v1/b/data/o/**"),
        ),
        ("POST", "api.example.com", "/?delete", None),
        ("POST", "dynamodb.us-east-1.amazonaws.com", "/", None),
    ] {
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(path, query)| (path, Some(query)));
        let told = objects_in_body(&method.parse().unwrap(), host, path, query);
        assert_eq!(told.as_deref(), objects, "{method} {host}{target}");
    }
}
