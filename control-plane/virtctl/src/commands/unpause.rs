//! `virtctl unpause`.

use api::options::UnpauseOptions;
use clap::Args;
use serde_json::json;

use super::{DryRun, Session};
use crate::argument::Subject;
use crate::cluster::Kind;
use crate::failure::Failure;
use crate::report;

/// Unpause a virtual machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Unpause a virtual machine called 'myvm':
  virtctl unpause vm myvm

  # Unpause an instance that no virtual machine stands behind:
  virtctl unpause vmi myvmi")]
pub(crate) struct Unpause {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Unpause {
    /// Asks for it.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let (kind, name) = self.subject.object()?;
        let cluster = session.cluster().await?;
        let options = UnpauseOptions {
            dry_run: self.dry_run.values()?,
        };
        if kind == Kind::Machine {
            super::check_machine(&cluster, &name, "unpausing").await?;
        }
        let path = cluster.action(Kind::Instance, &name, "unpause");
        let answer = cluster.put(&path, &json!(options)).await;
        answer.map_err(|refusal| {
            refusal.of(format!("Error unpausing VirtualMachineInstance {name}:"))
        })?;
        report::line(&format!("VMI {name} was scheduled to unpause"))
    }
}
