//! `virtctl migrate-cancel`.

use api::labels;
use clap::Args;
use serde_json::{Value, json};

use super::{DryRun, Session};
use crate::argument;
use crate::failure::Failure;
use crate::report;

/// Phases of migrations that are over.
const FINAL: [&str; 2] = ["Succeeded", "Failed"];

/// Cancel the migration of a virtual machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # The virtual machine is called 'myvm':
  virtctl migrate-cancel myvm")]
pub(crate) struct MigrateCancel {
    /// Virtual machine
    #[arg(value_name = "VM", value_parser = argument::machine)]
    name: String,
    #[command(flatten)]
    dry_run: DryRun,
}

impl MigrateCancel {
    /// Deletes the migration that is under way.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let cluster = session.cluster().await?;
        let name = &self.name;
        let dry_run = self.dry_run.values()?;
        let objects = cluster.objects("virtualmachineinstancemigrations");
        let selector = format!("{}%3D{name}", labels::VMI_NAME.replace('/', "%2F"));
        let list = cluster
            .get(&format!("{objects}?labelSelector={selector}"))
            .await;
        let list = list.map_err(|refusal| {
            refusal.of("Error fetching virtual machine instance migration list:")
        })?;
        let Some(migration) = active(&list) else {
            return Err(Failure::Argument(format!(
                "Found no migration to cancel for {name}"
            )));
        };
        let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": dry_run});
        let answer = cluster
            .delete(&format!("{objects}/{migration}"), &options)
            .await;
        answer.map_err(|refusal| {
            refusal.of(format!(
                "Error canceling migration {migration} of a VirtualMachine {name}:"
            ))
        })?;
        report::line(&format!("VM {name} was scheduled to migrate-cancel"))
    }
}

/// Returns the name of the migration in a list that is not over.
fn active(list: &Value) -> Option<&str> {
    let items = list["items"].as_array()?;
    let is_active = |item: &&Value| {
        let phase = item["status"]["phase"].as_str().unwrap_or_default();
        !FINAL.contains(&phase)
    };
    items.iter().find(is_active)?["metadata"]["name"].as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::active;

    #[test]
    fn migrations_that_are_over_are_passed_by() {
        let item = |name: &str, phase: &str| json!({"metadata": {"name": name}, "status": {"phase": phase}});
        let list =
            json!({"items": [item("a", "Failed"), item("b", "Succeeded"), item("c", "Running")]});
        assert_eq!(active(&list), Some("c"));
        assert_eq!(
            active(&json!({"items": [{"metadata": {"name": "new"}}]})),
            Some("new")
        );
        assert_eq!(active(&json!({"items": [item("a", "Failed")]})), None);
    }
}
