//! `virtctl userlist`.

use clap::Args;

use super::Session;
use crate::argument;
use crate::cluster::Kind;
use crate::failure::Failure;

/// Print the users that are logged in to the guest.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # The instance is called 'myvmi', and its guest runs qemu-guest-agent:
  virtctl userlist myvmi")]
pub(crate) struct UserList {
    /// Instance, or the virtual machine of that name
    #[arg(value_name = "VMI", value_parser = argument::instance)]
    name: String,
}

impl UserList {
    /// Prints the answer in JSON.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let cluster = session.cluster().await?;
        let path = cluster.action(Kind::Instance, &self.name, "userlist");
        let answer = cluster.get(&path).await;
        let answer = answer.map_err(|refusal| {
            refusal.of(format!(
                "Error listing users of VirtualMachineInstance {},",
                self.name
            ))
        })?;
        super::print_json(&answer)
    }
}
