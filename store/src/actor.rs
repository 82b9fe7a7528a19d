//! Who does something, as the audit trail names them.

use std::net::IpAddr;

/// The kind of an [`Actor`]; `actor_type` in events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActorKind {
    /// A person, by personal key or session.
    User,
    /// An agent, by its own key or a lease.
    Agent,
    /// Claviger itself: bootstrap, expiry, recovery.
    System,
}

impl ActorKind {
    /// The word in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Agent => "agent",
            Self::System => "system",
        }
    }
}

/// Who asks for a change, and in which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// A person, an agent or Claviger itself.
    pub kind: ActorKind,
    /// The id of that person or agent.
    pub id: String,
    /// Where the request came from.
    pub client_ip: Option<IpAddr>,
    /// The request, as logs and problem bodies name it.
    pub request_id: Option<String>,
}

impl Actor {
    /// Claviger itself, for what no person and no agent asked for.
    pub fn system(id: impl Into<String>) -> Self {
        Self {
            kind: ActorKind::System,
            id: id.into(),
            client_ip: None,
            request_id: None,
        }
    }
}
