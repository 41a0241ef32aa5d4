//! `virt-probe`: the exec probe of a pod.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Parser};
use proto::cmd::v1::{ExecRequest, GuestPingRequest};

use super::FAILED;
use super::commands::{COMMAND_SOCKET, Client, CommandError, Commands, accepted};

/// What the launcher needs beyond the time that the guest is given.
const MARGIN: Duration = Duration::from_secs(5);

/// Asks the guest whether it is well.
///
/// Either runs a command in the guest, prints what it wrote to its standard output and ends with its exit status, or waits
/// for a sign of life of the guest agent. A failure of the probe itself ends with status 1.
#[derive(Debug, Parser)]
#[command(name = "virt-probe", version)]
#[command(group = ArgGroup::new("what").required(true).args(["ping", "command"]))]
pub(super) struct Arguments {
    /// Socket on which the launcher takes commands
    #[arg(long, value_name = "PATH", default_value = COMMAND_SOCKET)]
    socket: PathBuf,

    /// Name of the domain: NAMESPACE_NAME of the VMI
    #[arg(long = "domainName", value_name = "NAME", default_value = "")]
    domain_name: String,

    /// Seconds that the guest may take
    #[arg(
        long = "timeoutSeconds",
        value_name = "SECONDS",
        default_value_t = 1,
        value_parser = clap::value_parser!(i32).range(1..)
    )]
    timeout_seconds: i32,

    /// Waits for a sign of life of the guest agent
    #[arg(long = "guestAgentPing")]
    ping: bool,

    /// Runs this command in the guest
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,

    /// Arguments of the command
    #[arg(last = true)]
    args: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, CommandError> {
    let commands = Commands::connect(&arguments.socket)?;
    match &arguments.command {
        Some(command) => exec(&commands, command, arguments),
        None => ping(&commands, arguments),
    }
}

fn ping(commands: &Commands, arguments: &Arguments) -> Result<ExitCode, CommandError> {
    let request = GuestPingRequest {
        domain_name: arguments.domain_name.clone(),
        timeout_seconds: arguments.timeout_seconds,
    };
    let name = "GuestPing";
    let ping = async |mut client: Client| client.guest_ping(request).await;
    let answer = commands.call(name, arguments.timeout(), ping)?;
    accepted(name, answer.response)?;
    Ok(ExitCode::SUCCESS)
}

fn exec(
    commands: &Commands,
    command: &str,
    arguments: &Arguments,
) -> Result<ExitCode, CommandError> {
    let request = ExecRequest {
        domain_name: arguments.domain_name.clone(),
        command: command.to_owned(),
        args: arguments.args.clone(),
        timeout_seconds: arguments.timeout_seconds,
    };
    let name = "Exec";
    let exec = async |mut client: Client| client.exec(request).await;
    let answer = commands.call(name, arguments.timeout(), exec)?;
    // Whoever does not read the output still wants the status.
    let _unread = std::io::stdout().write_all(answer.std_out.as_bytes());
    if answer.exit_code == 0 {
        accepted(name, answer.response)?;
    }
    Ok(ExitCode::from(status(answer.exit_code)))
}

/// The exit status as a process can have it; what does not fit is a failure still.
fn status(exit_code: i32) -> u8 {
    u8::try_from(exit_code).unwrap_or(FAILED)
}

impl Arguments {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.unsigned_abs().into()) + MARGIN
    }
}
