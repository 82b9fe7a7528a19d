//! What concerns the service itself: health, its certificate, metrics, its own description, and why a request would be refused.

pub(crate) mod ca;
pub(crate) mod explain;
pub(crate) mod health;
pub(crate) mod injector;
pub(crate) mod metrics;
pub(crate) mod openapi;
