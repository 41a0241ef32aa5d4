//! `virtctl start`.

use api::options::StartOptions;
use clap::Args;
use serde_json::json;

use super::{DryRun, Session};
use crate::argument;
use crate::cluster::Kind;
use crate::failure::Failure;
use crate::report;

/// Start a virtual machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Start a virtual machine called 'myvm':
  virtctl start myvm

  # Start it with its processors stopped, and let them run:
  virtctl start myvm --paused
  virtctl unpause vm myvm")]
pub(crate) struct Start {
    /// Virtual machine
    #[arg(value_name = "VM", value_parser = argument::machine)]
    name: String,
    /// Leave its processors stopped
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, value_name = "BOOL")]
    paused: bool,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Start {
    /// Asks for the start.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let cluster = session.cluster().await?;
        let options = StartOptions {
            paused: self.paused.then_some(true),
            dry_run: self.dry_run.values()?,
        };
        let path = cluster.action(Kind::Machine, &self.name, "start");
        let answer = cluster.put(&path, &json!(options)).await;
        answer.map_err(|refusal| refusal.of("Error starting VirtualMachine"))?;
        report::line(&format!("VM {} was scheduled to start", self.name))
    }
}
