//! The operations, one file each: request, response, handler and tests together.

pub(crate) mod agents;
pub(crate) mod approvals;
pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod bindings;
pub(crate) mod grants;
pub(crate) mod keys;
pub(crate) mod kill_switch;
pub(crate) mod leases;
pub(crate) mod org;
pub(crate) mod policies;
pub(crate) mod providers;
pub(crate) mod proxy;
pub(crate) mod secret_sets;
pub(crate) mod secrets;
pub(crate) mod security;
pub(crate) mod shares;
pub(crate) mod system;
pub(crate) mod usage;
pub(crate) mod vaults;
pub(crate) mod webhooks;
