//! `virtctl memory-dump`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Session;
use crate::argument;
use crate::cluster::Kind;
use crate::failure::Failure;
use crate::report;

/// Dump the memory of a running virtual machine into a claim.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Dump the memory of 'myvm' into the claim 'dumps':
  virtctl memory-dump get myvm --claim-name=dumps

  # Part the claim from the virtual machine:
  virtctl memory-dump remove myvm")]
pub(crate) struct MemoryDump {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Take a dump
    Get {
        /// Virtual machine
        #[arg(value_name = "VM", value_parser = argument::machine)]
        name: String,
        /// Claim that takes the dump [default: the one of the last dump]
        #[arg(long, value_name = "CLAIM", value_parser = argument::name)]
        claim_name: Option<String>,
    },
    /// Part the claim with the dump from the virtual machine
    Remove {
        /// Virtual machine
        #[arg(value_name = "VM", value_parser = argument::machine)]
        name: String,
    },
    /// Download the last dump
    Download {
        /// Virtual machine
        #[arg(value_name = "VM", value_parser = argument::machine)]
        name: String,
        /// File to write
        #[arg(long, value_name = "FILE")]
        output: Option<String>,
    },
}

impl MemoryDump {
    /// Asks for it.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let (name, action, body, done) = match &self.action {
            Action::Get { name, claim_name } => {
                let claim = claim_name.as_deref().unwrap_or_default();
                let body = json!({"claimName": claim, "phase": ""});
                (name, "memorydump", body, "dump memory")
            }
            Action::Remove { name } => (name, "removememorydump", json!({}), "remove memory dump"),
            Action::Download { name, output } => return Err(no_download(name, output.as_deref())),
        };
        let cluster = session.cluster().await?;
        let answer: Result<Value, _> = cluster
            .put(&cluster.action(Kind::Machine, name, action), &body)
            .await;
        answer
            .map_err(|refusal| refusal.of(format!("error with request to {done} of VM {name}:")))?;
        report::line(&format!(
            "Successfully submitted {done} request of VM {name}"
        ))
    }
}

fn no_download(name: &str, output: Option<&str>) -> Failure {
    Failure::Argument(format!(
        "dumps cannot be downloaded, as there is no VirtualMachineExport: mount the claim with the dump of {name} \
         in a pod, and copy it with `kubectl cp` to {}",
        output.unwrap_or("a file")
    ))
}
