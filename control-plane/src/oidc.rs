//! OpenID Connect: whom an identity provider vouches for, a person or an agent.
//!
//! Discovery, keys and the exchange of a code go through [`crate::outbound`]; tokens are verified with the JWT library that this
//! plane's own tokens are made with, by this plane's clock. A client library of OpenID Connect would bring a second one of each,
//! and would not check all that is checked here (the authorised party, the bounds of keys, agents' tokens).

mod agent;
mod claims;
mod code;
mod discovery;
mod flow;
mod issuer;
mod keys;
mod options;
mod token;

pub use issuer::{InvalidIssuer, Issuer};
pub use options::{InvalidRedirect, OidcOptions, OidcSignUp, RedirectUrl};

pub(crate) use agent::identify as identify_agent;
pub(crate) use claims::Claims;
pub(crate) use code::{CodeError, redeem};
pub(crate) use discovery::{Provider, ProviderError, Providers};
pub(crate) use flow::Flow;
pub(crate) use options::is_terminal;
pub(crate) use token::{Expected, SKEW, head, verify};
