//! `virtctl reset`.

use clap::Args;
use serde_json::json;

use super::Session;
use crate::argument;
use crate::cluster::Kind;
use crate::failure::Failure;
use crate::report;

/// Press the reset button of a virtual machine instance: its guest starts anew at once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # The instance is called 'myvmi':
  virtctl reset myvmi")]
pub(crate) struct Reset {
    /// Instance, or the virtual machine of that name
    #[arg(value_name = "VMI", value_parser = argument::instance)]
    name: String,
}

impl Reset {
    /// Asks for it.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let cluster = session.cluster().await?;
        let name = &self.name;
        let path = cluster.action(Kind::Instance, name, "reset");
        let answer = cluster.put(&path, &json!({})).await;
        answer.map_err(|refusal| {
            refusal.of(format!("Error resetting VirtualMachineInstance {name}:"))
        })?;
        report::line(&format!("VMI {name} was scheduled to reset"))
    }
}
