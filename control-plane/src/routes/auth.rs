//! Exchange of long-lived keys for short-lived tokens.

pub(crate) mod agent_token;
