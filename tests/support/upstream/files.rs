//! A host that serves what a test gives it, to those alone who show a credential: a private registry, a private download.

use std::collections::HashMap;

use serde_json::json;

use super::{Answer, Recorded};

/// Files by their path, as they are served.
pub(super) type Files = HashMap<String, File>;

/// One file.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) content_type: String,
    pub(super) bytes: Vec<u8>,
}

/// The file that `request` asks for; 401 to a request without a credential.
pub(super) fn answer(request: &Recorded, file: &File) -> Answer {
    if request.fields("authorization").is_empty() {
        let mut answer = Answer::json(401, &json!({ "message": "credentials are required" }));
        if let Answer::Full { fields, .. } = &mut answer {
            fields.push(("www-authenticate".into(), "Basic realm=\"files\"".into()));
        }
        return answer;
    }
    Answer::Full {
        status: 200,
        fields: vec![("content-type".into(), file.content_type.clone())],
        body: file.bytes.clone(),
    }
}
