//! `virtctl removevolume`.

use api::options::RemoveVolumeOptions;
use clap::Args;
use serde_json::json;

use super::add_volume::Persist;
use super::{DryRun, Session};
use crate::argument;
use crate::failure::Failure;
use crate::report;

/// Unplug a volume from a running virtual machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Unplug the volume 'data':
  virtctl removevolume myvm --volume-name=data")]
pub(crate) struct RemoveVolume {
    /// Virtual machine, or instance
    #[arg(value_name = "VM", value_parser = argument::instance)]
    name: String,
    /// Name of the volume in the virtual machine
    #[arg(long, value_name = "NAME", value_parser = argument::name)]
    volume_name: String,
    #[command(flatten)]
    persist: Persist,
    #[command(flatten)]
    dry_run: DryRun,
}

impl RemoveVolume {
    /// Asks for it.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let cluster = session.cluster().await?;
        let options = RemoveVolumeOptions {
            name: self.volume_name.clone(),
            dry_run: self.dry_run.values()?,
        };
        super::change_volumes(&cluster, &self.name, "remove", &json!(options)).await?;
        report::line(&format!(
            "Successfully submitted remove volume request to VM {} for volume {}",
            self.name, self.volume_name
        ))
    }
}
