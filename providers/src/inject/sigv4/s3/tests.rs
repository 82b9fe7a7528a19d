use http::{HeaderName, HeaderValue};

use super::*;

const COPY_SOURCE: &str = "x-amz-copy-source";

const REGIONAL: &str = "s3.us-east-1.amazonaws.com";

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    let mut headers = HeaderMap::new();
    for (name, value) in pairs.iter().map(pair) {
        headers.append(name, value);
    }
    headers
}

fn ask(
    method: &str,
    host: &str,
    target: &str,
    pairs: &[(&'static str, &'static str)],
) -> (Option<Vec<String>>, Option<Vec<String>>) {
    let (path, query) = target
        .split_once('?')
        .map_or((target, None), |(p, q)| (p, Some(q)));
    let headers = headers(pairs);
    let request = S3Request {
        method: &method.parse().unwrap(),
        host,
        path,
        query,
        headers: &headers,
    };
    (request.buckets(), request.actions())
}

fn actions(method: &str, target: &str, pairs: &[(&'static str, &'static str)]) -> String {
    ask(method, REGIONAL, target, pairs)
        .1
        .map_or("?".to_owned(), |actions| actions.join(" "))
}

#[test]
fn the_bucket_stands_in_the_host_or_first_in_the_path() {
    for (host, path, bucket) in [
        (REGIONAL, "/data/key", Some("data")),
        (REGIONAL, "/data", Some("data")),
        ("s3.amazonaws.com", "/data/", Some("data")),
        (
            "s3.dualstack.eu-west-1.amazonaws.com",
            "/data/k",
            Some("data"),
        ),
        ("s3-us-west-2.amazonaws.com", "/data/k", Some("data")),
        (
            "data.s3.us-east-1.amazonaws.com",
            "/other/key",
            Some("data"),
        ),
        (
            "a.dotted.data.s3.us-east-1.amazonaws.com",
            "/k",
            Some("a.dotted.data"),
        ),
        ("data.s3.amazonaws.com", "/", Some("data")),
        ("data.s3.s3.us-east-1.amazonaws.com", "/", Some("data.s3")),
        ("data.s3-accelerate.amazonaws.com", "/k", Some("data")),
        (
            "data.s3-accelerate.dualstack.amazonaws.com",
            "/k",
            Some("data"),
        ),
        (
            "b--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com",
            "/k",
            Some("b--use1-az4--x-s3"),
        ),
        (REGIONAL, "/arn%3Aaws%3As3%3A1%3Aap", None),
        (REGIONAL, "/d%61ta/key", None),
        (REGIONAL, "//key", None),
        ("ap-123.s3-accesspoint.us-east-1.amazonaws.com", "/k", None),
        ("123.s3-control.us-east-1.amazonaws.com", "/data/k", None),
        ("a.mrap.accesspoint.s3-global.amazonaws.com", "/k", None),
        ("data.vpce-0a.s3.us-east-1.vpce.amazonaws.com", "/k", None),
        ("minio.example", "/data/k", None),
    ] {
        let expected = bucket.map(|name| vec![name.to_owned()]);
        assert_eq!(ask("GET", host, path, &[]).0, expected, "{host}{path}");
    }
    assert_eq!(ask("GET", REGIONAL, "/", &[]).0, Some(vec![]));
}

#[test]
fn a_key_is_what_follows_the_bucket() {
    for (host, path, key) in [
        (REGIONAL, "/data/a//b", Some("a//b")),
        (REGIONAL, "/data/", Some("")),
        (REGIONAL, "/data", None),
        (REGIONAL, "//data/a", None),
        (REGIONAL, "/../data/a", None),
        ("data.s3.amazonaws.com", "//a", Some("/a")),
        ("sqs.us-east-1.amazonaws.com", "/1/q", None),
        ("1.s3-control.us-east-1.amazonaws.com", "/a/b", None),
    ] {
        assert_eq!(object_key(host, path), key, "{host}{path}");
    }
}

#[test]
fn the_source_of_a_copy_is_a_bucket_of_the_request() {
    for (source, buckets) in [
        ("other/key", Some(&["data", "other"][..])),
        ("/other/a%20b?versionId=1", Some(&["data", "other"])),
        ("other%2Fkey", Some(&["data", "other"])),
        ("arn:aws:s3:us-east-1:1:accesspoint/ap/object/k", None),
        ("other", None),
        ("%FF/key", None),
    ] {
        let expected = buckets.map(|names| names.iter().map(|n| (*n).to_owned()).collect());
        let told = ask("PUT", REGIONAL, "/data/key", &[(COPY_SOURCE, source)]).0;
        assert_eq!(told, expected, "{source}");
    }
    let twice = [(COPY_SOURCE, "data/a"), (COPY_SOURCE, "other/b")];
    assert_eq!(ask("PUT", REGIONAL, "/data/key", &twice).0, None);
    let presigned = "/data/key?x-amz-copy-source=other%2Fkey";
    let buckets = ask("PUT", REGIONAL, presigned, &[]).0;
    assert_eq!(buckets, Some(vec!["data".to_owned(), "other".to_owned()]));
}

#[test]
fn actions_have_their_names_in_iam() {
    for (method, target, expected) in [
        ("GET", "/", "ListAllMyBuckets"),
        ("GET", "/b", "ListBucket"),
        (
            "GET",
            "/b/?list-type=2&prefix=a&delimiter=%2F",
            "ListBucket",
        ),
        ("HEAD", "/b", "ListBucket"),
        ("PUT", "/b", "CreateBucket"),
        ("DELETE", "/b", "DeleteBucket"),
        ("GET", "/b?policy", "GetBucketPolicy"),
        ("PUT", "/b?policy=", "PutBucketPolicy"),
        ("DELETE", "/b?lifecycle", "PutLifecycleConfiguration"),
        ("POST", "/b?delete", "DeleteObject"),
        ("GET", "/b?versions&key-marker=a", "ListBucketVersions"),
        ("GET", "/b?session", "CreateSession"),
        ("GET", "/b/k", "GetObject"),
        ("HEAD", "/b/k?partNumber=1", "GetObject"),
        ("GET", "/b/k?versionId=1&x-id=GetObject", "GetObjectVersion"),
        ("GET", "/b/k?response-content-type=a%2Fb", "GetObject"),
        ("PUT", "/b/k", "PutObject"),
        ("PUT", "/b/k?partNumber=1&uploadId=x", "PutObject"),
        ("POST", "/b/k?uploads", "PutObject"),
        ("POST", "/b/k?uploadId=x", "PutObject"),
        ("GET", "/b/k?uploadId=x", "ListMultipartUploadParts"),
        ("DELETE", "/b/k?uploadId=x", "AbortMultipartUpload"),
        ("DELETE", "/b/k", "DeleteObject"),
        ("DELETE", "/b/k?versionId=1", "DeleteObjectVersion"),
        ("PUT", "/b/k?acl", "PutObjectAcl"),
        ("GET", "/b/k?tagging&versionId=1", "GetObjectVersionTagging"),
        ("GET", "/b/k?attributes", "GetObject GetObjectAttributes"),
        ("POST", "/b/k?select&select-type=2", "GetObject"),
        ("POST", "/b/k?restore", "RestoreObject"),
    ] {
        assert_eq!(actions(method, target, &[]), expected, "{method} {target}");
    }
}

#[test]
fn a_field_that_needs_an_action_of_its_own_adds_it() {
    for (field, expected) in [
        ((COPY_SOURCE, "o/k"), "GetObject PutObject"),
        (
            (COPY_SOURCE, "o/k?versionId=1"),
            "GetObjectVersion PutObject",
        ),
        (
            (
                COPY_SOURCE,
                "arn:aws:s3:us-east-1:1:accesspoint/ap/object/k",
            ),
            "GetObject PutObject",
        ),
        (
            ("x-amz-rename-source", "b/k"),
            "DeleteObject GetObject PutObject",
        ),
        (("x-amz-acl", "public-read"), "PutObject PutObjectAcl"),
        (("x-amz-grant-read", "id=1"), "PutObject PutObjectAcl"),
        (("x-amz-tagging", "a=b"), "PutObject PutObjectTagging"),
        (
            ("x-amz-object-lock-mode", "GOVERNANCE"),
            "PutObject PutObjectRetention",
        ),
        (
            ("x-amz-object-lock-legal-hold", "ON"),
            "PutObject PutObjectLegalHold",
        ),
        (("x-amz-meta-a", "b"), "PutObject"),
    ] {
        assert_eq!(actions("PUT", "/b/k", &[field]), expected);
    }
    for acl in ["x-amz-acl", "X-Amz-Acl"] {
        let target = format!("/b/k?{acl}=public-read&X-Amz-Date=1");
        assert_eq!(actions("PUT", &target, &[]), "PutObject PutObjectAcl");
    }
    assert_eq!(
        actions("PUT", "/b/k?X-Amz-Copy-Source=o%2Fk", &[]),
        "GetObject PutObject"
    );
    assert_eq!(actions("PUT", "/b/k", &[("x_amz_copy_source", "o/k")]), "?");
    let bucket = actions("PUT", "/b", &[("x-amz-acl", "private")]);
    assert_eq!(bucket, "CreateBucket PutBucketAcl");
}

#[test]
fn what_is_not_known_is_not_told() {
    for (method, target) in [
        ("GET", "/b/k?unheard"),
        ("GET", "/b/k?acl&tagging"),
        ("GET", "/b/k?%61cl"),
        ("GET", "/b/k?acl&uploadId=x"),
        ("POST", "/b/k"),
        ("POST", "/b"),
        ("PUT", "/b?versions"),
        ("PATCH", "/b/k"),
        ("PUT", "/"),
        ("PUT", "/b/k?versionId=1"),
        ("PUT", "/b/k?renameObject"),
    ] {
        assert_eq!(actions(method, target, &[]), "?", "{method} {target}");
    }
}

#[test]
fn credentials_of_s3_are_told_in_any_spelling() {
    let mints = |host: &str, path: &str, query: Option<&str>| {
        let headers = HeaderMap::new();
        S3Request {
            method: &Method::GET,
            host,
            path,
            query,
            headers: &headers,
        }
        .mints()
    };
    for query in [
        "session",
        "session=",
        "a=b&session",
        "%73ession",
        "a;session",
    ] {
        assert_eq!(
            mints(REGIONAL, "/b", Some(query)),
            Some("CreateSession"),
            "{query}"
        );
    }
    let control = "1.s3-control.us-east-1.amazonaws.com";
    let path = "/v20180820/accessgrantsinstance/dataaccess";
    assert_eq!(
        mints(control, path, Some("target=x")),
        Some("GetDataAccess")
    );
    assert_eq!(mints(REGIONAL, "/b/session", Some("prefix=session")), None);
}
