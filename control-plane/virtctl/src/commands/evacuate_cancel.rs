//! `virtctl evacuate-cancel`.

use api::options::EvacuateCancelOptions;
use clap::Args;
use serde_json::json;

use super::{DryRun, Session};
use crate::argument::Subject;
use crate::cluster::Kind;
use crate::failure::Failure;
use crate::report;

/// Let a virtual machine stay on a node that was to be left.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Cancel the evacuation of a virtual machine called 'myvm':
  virtctl evacuate-cancel vm myvm")]
pub(crate) struct EvacuateCancel {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    dry_run: DryRun,
}

impl EvacuateCancel {
    /// Asks for it.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let (kind, name) = self.subject.object()?;
        let cluster = session.cluster().await?;
        let what = format!(
            "{} {}/{name}",
            kind.short().to_uppercase(),
            cluster.namespace
        );
        let vmi = cluster.get(&cluster.object(Kind::Instance, &name)).await;
        let vmi = vmi.map_err(|refusal| {
            refusal.of(format!(
                "error retrieving VMI for evacuation cancel for {what}:"
            ))
        })?;
        let node = vmi["status"]["nodeName"].as_str().unwrap_or_default();
        if node.is_empty() {
            return Err(Failure::Argument(format!(
                "{what} is on no node yet: there is no evacuation to cancel"
            )));
        }
        let options = EvacuateCancelOptions {
            evacuation_node_name: node.to_owned(),
            dry_run: self.dry_run.values()?,
        };
        let path = cluster.action(kind, &name, "evacuate/cancel");
        let answer = cluster.put(&path, &json!(options)).await;
        answer.map_err(|refusal| refusal.of(format!("error canceling evacuation for {what}:")))?;
        report::line(&format!("{what} was canceled evacuation"))
    }
}
