//! What a node that crashed left running.

use std::sync::Arc;

use anyhow::Context;
use kube::{Client, Config};

use crate::images::Images;
use crate::pods::{self, HostDevices, KubeCluster};
use crate::state::State;

/// Ends all pods that run without a node, and removes what they have. Blocks.
///
/// # Errors
///
/// Fails when something cannot be removed.
pub fn end_all(state: &State) -> anyhow::Result<()> {
    if !state.kubelet().exists() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.context("start the runtime")?.block_on(async {
        let options = pods::Options::new("", state.path());
        // No API server runs, and none is asked: what is to go is in files.
        let nobody = Client::try_from(Config::new(http::Uri::from_static("http://127.0.0.1:9")))?;
        let images = Images::open(&state.images()).context("open the image store")?;
        let cluster = Arc::new(KubeCluster::new(nobody));
        pods::runner::clean(options, cluster, Arc::new(images), Arc::new(HostDevices))
            .context("remove what pods left")
    })
}
