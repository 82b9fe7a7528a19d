//! Attenuation: the holder narrows a lease offline, without a key and without a server.

use ipnet::IpNet;
use time::OffsetDateTime;

use crate::{
    glob::PathGlob,
    host::HostPattern,
    scope::ScopeError,
    token::{PresentedToken, Token},
    verify::MAX_BLOCKS,
};

/// What a narrower lease is limited to. An empty list is no further limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// Hosts.
    pub hosts: Vec<HostPattern>,
    /// Methods.
    pub methods: Vec<String>,
    /// Paths.
    pub paths: Vec<PathGlob>,
    /// Networks of the client.
    pub cidrs: Vec<IpNet>,
    /// Until when.
    pub expires_at: Option<OffsetDateTime>,
}

/// Why a lease is not narrowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttenuateError {
    /// The text is a lease in form only.
    #[error("the lease cannot be read: {0}")]
    Unreadable(String),
    /// It was sealed, or it has as many blocks as a lease may have.
    #[error("the lease can not be narrowed further: it is sealed, or has {MAX_BLOCKS} blocks")]
    Final,
    /// Nothing was limited.
    #[error("nothing to narrow; name a host, method, path, network or time to live")]
    Nothing,
    /// An end that has passed.
    #[error("the narrower lease would have ended already")]
    Ended,
    /// A limit that cannot be written.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// More than a token may hold.
    #[error("the narrower lease would be too large ({size} bytes); name fewer or shorter limits")]
    TooLarge {
        /// Bytes of the Biscuit.
        size: usize,
    },
}

/// Appends a block that narrows the lease.
///
/// # Errors
/// [`AttenuateError`].
pub fn attenuate(
    token: &PresentedToken,
    narrowing: &Narrowing,
    now: OffsetDateTime,
) -> Result<Token, AttenuateError> {
    let _ = (token, narrowing, now);
    unimplemented!()
}
