//! Keys of the service itself: kept in the key provider where it signs, else sealed in the store; taken up and followed from there.

mod chest;
mod period;
mod published;
pub(crate) mod rings;
mod signing;

pub use chest::{KeyChest, KeyChestError, NewKey, OpenedKey};
pub use period::{OVERLAP, POLL};
pub use rings::{KeyRing, MintFailure, VerifyingRing};
pub use signing::Signers;

pub(crate) use chest::bootstrap_actor;
pub(crate) use period::{Periods, Publication};
pub(crate) use published::{Published, public_name};
pub(crate) use signing::{Place, Signing, SigningKey, new_seed};

/// The key that mints leases.
pub const LEASE_ROOT: &str = "lease-root";
/// The key that signs agents' tokens.
pub const JWT: &str = "jwt";
/// The sealed keys that sign the heads of the audit chain; see [`checkpoint_key`].
pub const AUDIT_CHECKPOINT: &str = store::audit::CHECKPOINT_KEY;
/// The sealed key of the injector's certificate authority.
pub const CA: &str = "ca";

/// The name of the key by which a node signs the heads of its streams: `audit-checkpoint/<node>`, and `audit-checkpoint`
/// for the node `local`, which an embedded installation is.
pub fn checkpoint_key(node: &str) -> String {
    if node == "local" {
        AUDIT_CHECKPOINT.to_owned()
    } else {
        format!("{AUDIT_CHECKPOINT}/{node}")
    }
}
