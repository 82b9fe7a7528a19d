//! What AWS's services answer, as far as their SDKs look at it.

use serde_json::json;

use super::{Answer, Recorded};

/// The answer of a service below `amazonaws.com`; none for what has no answer of its own here.
pub(super) fn answer(request: &Recorded) -> Option<Answer> {
    if !request.authority.ends_with(".amazonaws.com") {
        return None;
    }
    let query = request
        .target
        .split_once('?')
        .map_or("", |(_, query)| query);
    let is_form = request
        .fields("content-type")
        .iter()
        .any(|value| value.contains("form"));
    let body = String::from_utf8_lossy(&request.body()).into_owned();
    let is_s3 = request.authority.contains("s3.");
    let form = if is_form { body.as_str() } else { query };
    match request.method.as_str() {
        "POST" if is_s3 && query.starts_with("uploads") => Some(xml(
            "<InitiateMultipartUploadResult><UploadId>upload-1</UploadId></InitiateMultipartUploadResult>",
        )),
        "POST" if is_s3 => Some(xml(
            "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>",
        )),
        "PUT" if is_s3 && !request.fields("x-amz-copy-source").is_empty() => Some(xml(
            "<CopyObjectResult><ETag>\"copy\"</ETag></CopyObjectResult>",
        )),
        "PUT" if is_s3 => Some(Answer::Full {
            status: 200,
            fields: vec![("etag".into(), "\"part\"".into())],
            body: Vec::new(),
        }),
        "GET" if query.contains("list-type=2") => Some(xml("<ListBucketResult/>")),
        _ if form.contains("Action=DescribeInstances") => Some(xml(
            "<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>",
        )),
        _ if form.contains("Action=GetCallerIdentity") => Some(xml(
            "<GetCallerIdentityResponse><GetCallerIdentityResult><Account>123456789012</Account>\
             </GetCallerIdentityResult></GetCallerIdentityResponse>",
        )),
        _ if !request.fields("x-amz-target").is_empty() => Some(Answer::json(200, &json!({}))),
        _ => None,
    }
}

fn xml(text: &str) -> Answer {
    Answer::Full {
        status: 200,
        fields: vec![("content-type".into(), "application/xml".into())],
        body: text.as_bytes().to_vec(),
    }
}
