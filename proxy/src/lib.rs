#![doc = include_str!("../README.md")]

mod account;
mod answer;
mod approval;
mod authenticate;
mod aws;
mod body;
mod chunk;
mod connect;
mod context;
mod copy;
mod credential;
mod dial;
mod door;
mod exchange;
#[cfg(test)]
mod fixtures;
mod form;
#[cfg(fuzzing)]
pub mod fuzz;
mod h2;
mod handed;
mod head;
mod inject;
mod limits;
mod messages;
mod meter;
mod metrics;
mod normalize;
mod patience;
mod permit;
mod pipeline;
mod record;
pub mod refuse;
mod resend;
mod scrub;
mod served;
mod server;
mod setback;
mod spend;
mod strays;
mod stream;
pub mod tls;
mod upstream;
mod watch;

pub use dial::UpstreamProxy;
pub use handed::{Arrivals, Entrance, entrance};
pub use limits::{Limits, Share};
pub use patience::LeastRate;
pub use server::{ProxyDeps, ProxyOptions, ServeError, serve};
pub use tls::listener::{ListenerTls, ListenerTlsError};
pub use upstream::ResolverError;
