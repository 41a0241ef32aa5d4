//! `virt-freezer`: freezes and thaws the guest's file systems around a backup.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Parser};
use proto::cmd::v1::{EmptyRequest, FreezeRequest, Vmi, VmiRequest};
use serde_json::json;

use super::commands::{COMMAND_SOCKET, Client, CommandError, Commands, accepted};

/// Freezing waits for the guest's writes to reach its disks.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(70);
const SHORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Freezes or thaws the file systems of the guest, so that a copy of its disks is consistent.
///
/// Does nothing, and says so, where no guest agent answers: a backup without it is as good as one after a power cut.
#[derive(Debug, Parser)]
#[command(name = "virt-freezer", version)]
#[command(group = ArgGroup::new("what").required(true).args(["freeze", "unfreeze"]))]
pub(super) struct Arguments {
    /// Freezes the file systems
    #[arg(long)]
    freeze: bool,

    /// Thaws them
    #[arg(long)]
    unfreeze: bool,

    /// Name of the VMI
    #[arg(long, value_name = "NAME")]
    name: String,

    /// Namespace of the VMI
    #[arg(long, value_name = "NAMESPACE")]
    namespace: String,

    /// Seconds after which frozen file systems are thawed without being told; 0 is never
    #[arg(
        long = "unfreezeTimeoutSeconds",
        value_name = "SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(i32).range(0..)
    )]
    unfreeze_timeout_seconds: i32,

    /// Socket on which the launcher takes commands
    #[arg(long, value_name = "PATH", default_value = COMMAND_SOCKET)]
    socket: PathBuf,
}

#[expect(clippy::print_stderr, reason = "says why nothing was done")]
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CommandError> {
    let commands = Commands::connect(&arguments.socket)?;
    if !has_agent(&commands)? {
        eprintln!("virt-freezer: no guest agent answers, nothing to do");
        return Ok(ExitCode::SUCCESS);
    }
    let vmi = json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": arguments.name, "namespace": arguments.namespace},
    });
    let vmi = Some(Vmi {
        vmi_json: vmi.to_string().into_bytes(),
    });
    if arguments.freeze {
        freeze(&commands, vmi, arguments.unfreeze_timeout_seconds)?;
    } else {
        unfreeze(&commands, vmi)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn has_agent(commands: &Commands) -> Result<bool, CommandError> {
    let name = "GetGuestInfo";
    let info = async |mut client: Client| client.get_guest_info(EmptyRequest {}).await;
    let answer = commands.call(name, SHORT_TIMEOUT, info)?;
    accepted(name, answer.response)?;
    let info: serde_json::Value =
        serde_json::from_str(&answer.guest_info_response).unwrap_or_default();
    let version = info["guestAgentVersion"].as_str().unwrap_or_default();
    Ok(!version.is_empty())
}

fn freeze(
    commands: &Commands,
    vmi: Option<Vmi>,
    unfreeze_timeout_seconds: i32,
) -> Result<(), CommandError> {
    let request = FreezeRequest {
        vmi,
        unfreeze_timeout_seconds,
    };
    let name = "FreezeVirtualMachine";
    let freeze = async |mut client: Client| client.freeze_virtual_machine(request).await;
    accepted(name, Some(commands.call(name, FREEZE_TIMEOUT, freeze)?))
}

fn unfreeze(commands: &Commands, vmi: Option<Vmi>) -> Result<(), CommandError> {
    let request = VmiRequest { vmi, options: None };
    let name = "UnfreezeVirtualMachine";
    let thaw = async |mut client: Client| client.unfreeze_virtual_machine(request).await;
    accepted(name, Some(commands.call(name, FREEZE_TIMEOUT, thaw)?))
}
