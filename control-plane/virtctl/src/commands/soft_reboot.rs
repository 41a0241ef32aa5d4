//! `virtctl soft-reboot`.

use clap::Args;
use serde_json::json;

use super::Session;
use crate::argument;
use crate::cluster::Kind;
use crate::failure::Failure;
use crate::report;

/// Ask the guest of a virtual machine instance to reboot, by its agent or the power button.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # The instance is called 'myvmi':
  virtctl soft-reboot myvmi")]
pub(crate) struct SoftReboot {
    /// Instance, or the virtual machine of that name
    #[arg(value_name = "VMI", value_parser = argument::instance)]
    name: String,
}

impl SoftReboot {
    /// Asks for it.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let cluster = session.cluster().await?;
        let name = &self.name;
        let path = cluster.action(Kind::Instance, name, "softreboot");
        let answer = cluster.put(&path, &json!({})).await;
        answer.map_err(|refusal| {
            refusal.of(format!(
                "Error soft rebooting VirtualMachineInstance {name}:"
            ))
        })?;
        report::line(&format!("VMI {name} was scheduled to soft-reboot"))
    }
}
