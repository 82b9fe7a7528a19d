//! The stack under test, the upstream that records what reaches it, and the two checks that end a story.

pub(crate) mod api;
pub(crate) mod canary;
pub(crate) mod finish;
pub(crate) mod h2;
pub(crate) mod process;
pub(crate) mod scene;
pub(crate) mod stack;
pub(crate) mod tunnel;
pub(crate) mod upstream;
pub(crate) mod wait;
pub(crate) mod wire;

pub(crate) use scene::Access;
pub(crate) use stack::Stack;
pub(crate) use upstream::Upstream;
pub(crate) use wire::{Reply, Wire};
