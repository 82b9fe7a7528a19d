//! How each template takes the lease in gateway form: where the provider's own key would stand.

use http::HeaderMap;

use crate::template::Template;

impl Template {
    /// The lease in the provider's own slot: `authorization: Bearer <lease>`, `x-api-key: <lease>`,
    /// Basic with the lease as user or password, the access key id or the session token of SigV4.
    ///
    /// It is the text that stands there, not checked; `None` if the slots are empty.
    pub fn gateway_lease(&self, headers: &HeaderMap) -> Option<String> {
        let _ = headers;
        unimplemented!()
    }

    /// The URL that stands behind `/gateway/<provider>/`: `https://api.stripe.com`, the first host of the template.
    /// `None` if that host is a pattern.
    pub fn gateway_base(&self) -> Option<String> {
        unimplemented!()
    }
}
