//! All plugins of a node: looks at the host when something changes, and keeps one plugin per resource.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::report::Report;
use crate::source::Host;
use crate::wanted::Wanted;

/// What the plugins of a node run with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Folders of the host.
    pub host: Host,
    /// User and group of the launchers, who own devices while they have them.
    pub launcher_id: u32,
}

/// Runs the plugins until stopped. Tells in `report` what is offered and why something is missing, on every change.
pub async fn run(
    _setup: Setup,
    _wanted: watch::Receiver<Wanted>,
    _report: watch::Sender<Arc<Report>>,
    stop: CancellationToken,
) {
    stop.cancelled().await;
}
