//! The data plane: interception, the request path, refusals.
