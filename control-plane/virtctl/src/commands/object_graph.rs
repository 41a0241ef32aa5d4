//! `virtctl objectgraph`.

use clap::Args;

use super::Session;
use crate::argument::Subject;
use crate::failure::Failure;

/// Print the objects that belong to a virtual machine: pods, volumes, secrets.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # The virtual machine is called 'myvm':
  virtctl objectgraph vm myvm")]
pub(crate) struct ObjectGraph {
    #[command(flatten)]
    subject: Subject,
}

impl ObjectGraph {
    /// Prints the answer in JSON.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let (kind, name) = self.subject.object()?;
        let cluster = session.cluster().await?;
        let answer = cluster
            .get(&cluster.action(kind, &name, "objectgraph"))
            .await;
        let answer = answer.map_err(|refusal| {
            refusal.of(format!(
                "Error getting the objects of {} {name}:",
                kind.short()
            ))
        })?;
        super::print_json(&answer)
    }
}
