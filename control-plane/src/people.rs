//! People who sign in: what is asked of emails, passwords and codes, and how much of it at once.

pub(crate) mod address_rules;
pub(crate) mod email;
pub(crate) mod hasher;
pub(crate) mod limits;
pub(crate) mod myself;
pub(crate) mod one_time;
pub(crate) mod password;
pub(crate) mod sign_in;
pub(crate) mod totp;
pub(crate) mod vouched;

use std::num::NonZeroU32;
use std::sync::Arc;

pub use self::email::canonical as canonical_email;
use self::hasher::Hasher;
use self::limits::SignInLimits;
use crate::oidc::OidcOptions;

/// Who may make an organisation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SignUp {
    /// Nobody from outside: the first start makes the owner, and owners and admins invite.
    #[default]
    Closed,
    /// Everybody who reaches the API.
    Open,
}

/// How people sign in.
#[derive(Debug, Clone)]
pub struct PeopleOptions {
    /// Who may make an organisation.
    pub sign_up: SignUp,
    /// Sign-ins of one address, and of one email, before they have to wait; one more each second.
    pub sign_in_burst: NonZeroU32,
    /// Passwords hashed at once. Each takes 19 MiB and a core for some tens of milliseconds.
    pub hashing: usize,
    /// The identity provider that vouches for people, if one does.
    pub oidc: Option<OidcOptions>,
}

impl Default for PeopleOptions {
    fn default() -> Self {
        Self {
            sign_up: SignUp::Closed,
            // A person who mistypes; a guesser gets 86,400 tries a day, which no password of the rules falls to.
            sign_in_burst: NonZeroU32::new(5).expect("five is not zero"),
            // Leaves a core to everything else even on a small machine.
            hashing: 2,
            oidc: None,
        }
    }
}

/// What the plane remembers and bounds of people who sign in.
#[derive(Debug)]
pub(crate) struct People {
    pub(crate) sign_up: SignUp,
    pub(crate) hasher: Hasher,
    pub(crate) limits: SignInLimits,
    pub(crate) oidc: Option<Arc<OidcOptions>>,
}

impl People {
    pub(crate) fn new(options: &PeopleOptions) -> Self {
        Self {
            sign_up: options.sign_up,
            hasher: Hasher::new(options.hashing),
            limits: SignInLimits::new(options.sign_in_burst),
            oidc: options.oidc.clone().map(Arc::new),
        }
    }
}
