//! Attenuation: the holder narrows a lease offline, without a key and without a server.

use biscuit_auth::{UnverifiedBiscuit, builder::BlockBuilder, error};
use ipnet::IpNet;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    block::{self, ShapeError},
    glob::PathGlob,
    host::HostPattern,
    limit::Limit,
    net,
    scope::{Scope, ScopeError},
    token::{PresentedToken, Token},
    verify::MAX_BLOCKS,
};

/// What a narrower lease is limited to. An empty list is no further limit.
///
/// A limit that is wider than the lease's own does no harm: all of them hold together.
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
    /// Until when. Cut to whole seconds.
    pub expires_at: Option<OffsetDateTime>,
}

/// Why a lease is not narrowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttenuateError {
    /// The text is a lease in form only.
    #[error("the lease cannot be read: {0}")]
    Unreadable(String),
    /// It was sealed, or it has as many blocks as a lease may have.
    #[error("the lease cannot be narrowed further: it is sealed, or has {MAX_BLOCKS} blocks")]
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
    /// Limits whose checks a verifier would refuse: too many patterns with wildcards, or too long ones.
    #[error("the narrower lease would be refused ({0}); name fewer or simpler patterns")]
    Bounds(String),
    /// More than a token may hold.
    #[error("the narrower lease would be too large ({size} bytes); name fewer or shorter limits")]
    TooLarge {
        /// Bytes of the Biscuit.
        size: usize,
    },
}

/// Appends a block that narrows the lease.
///
/// The signatures are not looked at, for lack of a key: a forged lease gives a forged narrower one.
///
/// # Errors
/// [`AttenuateError`].
pub fn attenuate(
    token: &PresentedToken,
    narrowing: &Narrowing,
    now: OffsetDateTime,
) -> Result<Token, AttenuateError> {
    let limits = limits(narrowing, now)?;
    let contents = block::check_container(token.bytes())
        .and_then(|container| block::read(&container))
        .map_err(unreadable)?;
    if contents.is_sealed || contents.narrowings.len() + 1 >= MAX_BLOCKS {
        return Err(AttenuateError::Final);
    }
    let narrower = UnverifiedBiscuit::from(token.bytes())
        .and_then(|biscuit| {
            biscuit.append(BlockBuilder {
                checks: limits.iter().map(Limit::write).collect(),
                ..BlockBuilder::default()
            })
        })
        .map_err(|error| match error {
            error::Token::AppendOnSealed => AttenuateError::Final,
            error => unreadable(error),
        })?;
    let bytes = Zeroizing::new(narrower.to_vec().map_err(unreadable)?);
    let narrower =
        Token::from_bytes(&bytes).map_err(|_| AttenuateError::TooLarge { size: bytes.len() })?;
    // Read back as a verifier will, so that nobody is handed a lease that is refused later.
    match block::check_container(&bytes).and_then(|container| block::read(&container)) {
        Ok(_) => Ok(narrower),
        Err(ShapeError::Bounds { source, .. }) => Err(AttenuateError::Bounds(source.to_string())),
        Err(error) => Err(unreadable(error)),
    }
}

fn unreadable(error: impl std::fmt::Display) -> AttenuateError {
    AttenuateError::Unreadable(error.to_string())
}

fn limits(narrowing: &Narrowing, now: OffsetDateTime) -> Result<Vec<Limit>, AttenuateError> {
    let Narrowing {
        hosts,
        methods,
        paths,
        cidrs,
        expires_at,
    } = narrowing.clone();
    let scope = Scope {
        hosts,
        methods,
        paths,
        cidrs: cidrs.into_iter().map(net::canonical).collect(),
        ..Scope::default()
    };
    scope.check()?;
    let mut limits = Vec::new();
    let mut limit = |limit, is_limited: bool| {
        if is_limited {
            limits.push(limit);
        }
    };
    let is_limited = [
        !scope.hosts.is_empty(),
        !scope.methods.is_empty(),
        !scope.paths.is_empty(),
        !scope.cidrs.is_empty(),
    ];
    limit(Limit::Hosts(scope.hosts), is_limited[0]);
    limit(Limit::Methods(scope.methods), is_limited[1]);
    limit(Limit::Paths(scope.paths), is_limited[2]);
    limit(Limit::Clients(scope.cidrs), is_limited[3]);
    if let Some(end) = expires_at {
        let end = OffsetDateTime::from_unix_timestamp(end.unix_timestamp())
            .map_err(|_| AttenuateError::Ended)?;
        if end <= now {
            return Err(AttenuateError::Ended);
        }
        limits.push(Limit::Before(end));
    }
    if limits.is_empty() {
        return Err(AttenuateError::Nothing);
    }
    Ok(limits)
}

#[cfg(test)]
mod tests;
