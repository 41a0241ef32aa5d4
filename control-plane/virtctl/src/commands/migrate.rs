//! `virtctl migrate`.

use std::collections::BTreeMap;

use api::options::MigrateOptions;
use clap::Args;
use serde_json::json;

use super::{DryRun, Session};
use crate::argument;
use crate::cluster::Kind;
use crate::failure::Failure;
use crate::report;

/// Move a running virtual machine to another node.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Move a virtual machine called 'myvm' to a node that the scheduler chooses:
  virtctl migrate myvm

  # Move it to a node with a label:
  virtctl migrate myvm --addedNodeSelector=disk=ssd")]
pub(crate) struct Migrate {
    /// Virtual machine
    #[arg(value_name = "VM", value_parser = argument::machine)]
    name: String,
    /// Labels that the new node must have, beside those that the virtual machine asks for
    #[arg(long = "addedNodeSelector", value_name = "KEY=VALUE,...", value_delimiter = ',', value_parser = argument::label)]
    added_node_selector: Vec<(String, String)>,
    #[command(flatten)]
    dry_run: DryRun,
}

impl Migrate {
    /// Asks for the migration.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let cluster = session.cluster().await?;
        let options = MigrateOptions {
            added_node_selector: BTreeMap::from_iter(self.added_node_selector.clone()),
            dry_run: self.dry_run.values()?,
        };
        let path = cluster.action(Kind::Machine, &self.name, "migrate");
        let answer = cluster.put(&path, &json!(options)).await;
        answer.map_err(|refusal| refusal.of("Error migrating VirtualMachine"))?;
        report::line(&format!("VM {} was scheduled to migrate", self.name))
    }
}
