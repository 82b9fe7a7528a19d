//! What stands before anything listens: directory, store, vault, and the service's own keys.

use std::path::PathBuf;

use crate::commands::Context;

/// Ends the owner's key and writes another.
pub(crate) async fn reissue_admin_key(_: &Context) -> anyhow::Result<PathBuf> {
    anyhow::bail!("not wired yet")
}
