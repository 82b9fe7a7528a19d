//! Interception: the certificate authority, the leaves it mints, and the handshake with an agent.

pub mod ca;
pub(crate) mod client;
pub(crate) mod leaf;
pub mod listener;
