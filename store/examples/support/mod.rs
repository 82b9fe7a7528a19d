//! The request that the ledger's benchmarks make, and how it ends.

use store::{Outcome, RecordedUse, RequestFacts, UseRequest};

/// What the audit trail tells of a request.
pub(crate) fn facts() -> RequestFacts {
    RequestFacts {
        request_id: "01998bd4-0000-7000-8000-000000000000".to_owned(),
        client_ip: [127, 0, 0, 1].into(),
        method: "POST".to_owned(),
        scheme: "https",
        host: "api.openai.com".into(),
        port: 443,
        address: Some([192, 0, 2, 1].into()),
        path: "/v1/chat/completions".to_owned(),
    }
}

/// It went well.
pub(crate) fn outcome(request: &UseRequest, recorded: &RecordedUse) -> Outcome {
    Outcome {
        use_id: recorded.use_id().clone(),
        org: request.org.clone(),
        lease: request.lease.clone(),
        agent: request.agent.clone(),
        set: request.set.clone(),
        grant: request.grant.clone(),
        request_id: request.request.request_id.clone(),
        status: Some(200),
        error: None,
        bytes_up: 512,
        bytes_down: 2_048,
        duration_ms: 140,
        attempts: 1,
        spent: None,
        reflections: 0,
        address: request.request.address,
    }
}
