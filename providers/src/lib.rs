#![doc = include_str!("../README.md")]

pub mod address;
pub mod catalog;
pub mod copy;
pub mod deny;
pub mod exchange;
pub mod gateway;
pub mod host;
pub mod inject;
pub mod load;
pub mod method;
pub mod path;
pub mod placeholder;
pub mod prices;
pub mod scrub;
pub mod template;
pub mod usage;

pub use catalog::{Catalog, CatalogError};
pub use deny::{Denial, Denied};
pub use exchange::Recipe;
pub use host::{Authority, Host, HostError, HostRule, Scheme};
pub use inject::sigv4;
pub use inject::{BodyNeed, ClientCertificate, Cookies, Plan, PrepareError, RewrittenQuery};
pub use load::{CustomSpec, Mistake, TemplateErrors, parse_template};
pub use prices::Prices;
pub use scrub::{BodyDecoder, DecodeError, ScrubStream, Scrubber};
pub use template::{Inject, Injection, KeyUse, Preset, Template};
pub use usage::Meter;
