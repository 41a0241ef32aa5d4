//! `virtctl memory-dump`.

mod claim;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::claim::ClaimFlags;
use super::Session;
use crate::argument;
use crate::cluster::{Cluster, Kind};
use crate::failure::Failure;
use crate::report;

/// Dump the memory of a running virtual machine into a claim.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Dump the memory of 'myvm' into the claim 'dumps':
  virtctl memory-dump get myvm --claim-name=dumps

  # Make the claim, too:
  virtctl memory-dump get myvm --claim-name=dumps --create-claim

  # Part the claim from the virtual machine:
  virtctl memory-dump remove myvm")]
pub(crate) struct MemoryDump {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Take a dump
    Get(Box<Get>),
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
        #[command(flatten)]
        download: Download,
    },
}

#[derive(Debug, Args)]
struct Get {
    /// Virtual machine
    #[arg(value_name = "VM", value_parser = argument::machine)]
    name: String,
    #[command(flatten)]
    claim: ClaimFlags,
    #[command(flatten)]
    download: Download,
}

/// Where a dump goes; there is nothing yet that it can be downloaded from.
#[derive(Debug, Args)]
#[group(skip)]
struct Download {
    /// File to write
    #[arg(long, value_name = "FILE")]
    output: Option<String>,
    /// gzip or raw
    #[arg(long, hide = true)]
    format: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    port_forward: Option<bool>,
    #[arg(long, hide = true)]
    local_port: Option<String>,
}

impl MemoryDump {
    /// Asks for it.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        match &self.action {
            Action::Get(get) => get.run(session).await,
            Action::Remove { name } => {
                let cluster = session.cluster().await?;
                ask(
                    &cluster,
                    name,
                    "removememorydump",
                    &json!({}),
                    "error removing memory dump association,",
                )
                .await?;
                report::line(&format!(
                    "Successfully submitted remove memory dump association of VM {name}"
                ))
            }
            Action::Download { name, download } => {
                Err(no_download(name, download.output.as_deref()))
            }
        }
    }
}

impl Get {
    async fn run(&self, session: &Session) -> Result<(), Failure> {
        let name = &self.name;
        if self.download.output.is_some() {
            return Err(no_download(name, self.download.output.as_deref()));
        }
        let cluster = session.cluster().await?;
        let made = self.claim.make(&cluster, name).await?;
        let claim = self.claim.name().unwrap_or_default();
        let body = json!({"claimName": claim, "phase": ""});
        let attempt = "error dumping vm memory,";
        let asked = ask(&cluster, name, "memorydump", &body, attempt).await;
        if asked.is_err()
            && let Some(made) = made
        {
            made.take_back(&cluster).await;
        }
        asked?;
        report::line(&format!(
            "Successfully submitted memory dump request of VM {name}"
        ))
    }
}

async fn ask(
    cluster: &Cluster,
    name: &str,
    action: &str,
    body: &Value,
    attempt: &str,
) -> Result<(), Failure> {
    let path = cluster.action(Kind::Machine, name, action);
    let answer = cluster.put(&path, body).await;
    answer.map(drop).map_err(|refusal| refusal.of(attempt))
}

fn no_download(name: &str, output: Option<&str>) -> Failure {
    Failure::Argument(format!(
        "dumps cannot be downloaded, as there is no VirtualMachineExport: mount the claim with the dump of {name} \
         in a pod, and copy it with `kubectl cp` to {}",
        output.unwrap_or("a file")
    ))
}
