//! `virtctl restart`.

use api::options::RestartOptions;
use clap::Args;
use serde_json::json;

use super::stop::Force;
use super::{DryRun, Session};
use crate::argument;
use crate::cluster::Kind;
use crate::failure::Failure;
use crate::report;

/// Restart a virtual machine.
///
/// Its instance is stopped, and a new one is made from what the virtual machine says now.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Restart a virtual machine called 'myvm':
  virtctl restart myvm

  # Pull the plug of a guest that hangs, and start it again:
  virtctl restart myvm --force --grace-period=0")]
pub(crate) struct Restart {
    /// Virtual machine
    #[arg(value_name = "VM", value_parser = argument::machine)]
    name: String,
    #[command(flatten)]
    force: Force,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Restart {
    /// Asks for the restart.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let grace_period_seconds = self.force.grace_period()?;
        let cluster = session.cluster().await?;
        let options = RestartOptions {
            grace_period_seconds,
            dry_run: self.dry_run.values()?,
        };
        let path = cluster.action(Kind::Machine, &self.name, "restart");
        let answer = cluster.put(&path, &json!(options)).await;
        let attempt = match grace_period_seconds {
            None => "Error restarting VirtualMachine:",
            Some(_) => "Error force restarting VirtualMachine:",
        };
        answer.map_err(|refusal| refusal.of(attempt))?;
        report::line(&format!("VM {} was scheduled to restart", self.name))
    }
}
