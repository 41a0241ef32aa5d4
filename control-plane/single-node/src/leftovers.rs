//! What a node that crashed left running.

use anyhow::Context;

use crate::pods;
use crate::state::State;

/// Ends all pods that run without a node, and removes what they have. Blocks.
///
/// # Errors
///
/// Fails when something cannot be removed.
pub(crate) fn end_all(state: &State) -> anyhow::Result<()> {
    if !state.kubelet().exists() {
        return Ok(());
    }
    let options = pods::Options::new("", state.path());
    pods::runner::remove_all(&options).context("remove what pods left")
}
