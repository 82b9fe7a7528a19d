//! The stack under test, the upstream that records what reaches it, and the two checks that end a story.

pub(crate) mod api;
pub(crate) mod aws;
pub(crate) mod canary;
pub(crate) mod custody;
pub(crate) mod ends;
pub(crate) mod finish;
pub(crate) mod fleet;
pub(crate) mod h2;
pub(crate) mod identity_provider;
pub(crate) mod node;
pub(crate) mod process;
pub(crate) mod scene;
pub(crate) mod stack;
pub(crate) mod token_endpoint;
pub(crate) mod tunnel;
pub(crate) mod upstream;
pub(crate) mod wait;
pub(crate) mod wire;

pub(crate) use custody::Custody;
pub(crate) use ends::Ends;
pub(crate) use fleet::Fleet;
pub(crate) use scene::Access;
pub(crate) use stack::Stack;
pub(crate) use upstream::Upstream;
pub(crate) use wire::{Reply, Wire};

/// A count for the long run that `tests/run soak` makes, and the one for every other run.
pub(crate) fn soak<T>(long: T, usual: T) -> T {
    if std::env::var_os("CLAVIGER_SOAK").is_some() {
        long
    } else {
        usual
    }
}

/// A random number below `end`.
pub(crate) fn chance(end: usize) -> usize {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).expect("the system's generator works");
    u32::from_le_bytes(bytes) as usize % end
}
