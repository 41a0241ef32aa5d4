//! `virtctl pause`.

use api::options::PauseOptions;
use clap::Args;
use serde_json::json;

use super::{DryRun, Session};
use crate::argument::Subject;
use crate::cluster::Kind;
use crate::failure::Failure;
use crate::report;

/// Pause a virtual machine.
///
/// Its processors stop; its memory stays as it is.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Pause a virtual machine called 'myvm':
  virtctl pause vm myvm

  # Pause an instance that no virtual machine stands behind:
  virtctl pause vmi myvmi")]
pub(crate) struct Pause {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Pause {
    /// Asks for it.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let (kind, name) = self.subject.object()?;
        let cluster = session.cluster().await?;
        let options = PauseOptions {
            dry_run: self.dry_run.values()?,
        };
        if kind == Kind::Machine {
            super::check_machine(&cluster, &name, "pausing").await?;
        }
        let path = cluster.action(Kind::Instance, &name, "pause");
        let answer = cluster.put(&path, &json!(options)).await;
        answer.map_err(|refusal| {
            refusal.of(format!("Error pausing VirtualMachineInstance {name}:"))
        })?;
        report::line(&format!("VMI {name} was scheduled to pause"))
    }
}
