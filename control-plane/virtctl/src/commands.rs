//! One file for each command.

mod absent;
mod add_volume;
mod completion;
mod console;
mod create;
mod evacuate_cancel;
mod expand;
mod expose;
mod fs_list;
mod guest_os_info;
mod image_upload;
mod memory_dump;
mod migrate;
mod migrate_cancel;
mod object_graph;
mod pause;
mod permitted_devices;
mod port_forward;
mod remove_volume;
mod reset;
mod restart;
mod scp;
mod soft_reboot;
mod ssh;
mod start;
mod stop;
mod unpause;
mod user_list;
mod version;
mod vnc;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use self::absent::Which;
use crate::cli::{Cli, Program};
use crate::cluster::{Cluster, Kind};
use crate::connection::ConnectionFlags;
use crate::failure::Failure;
use crate::report;

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Start(start::Start),
    Stop(stop::Stop),
    Restart(restart::Restart),
    Pause(pause::Pause),
    Unpause(unpause::Unpause),
    SoftReboot(soft_reboot::SoftReboot),
    Reset(reset::Reset),
    Migrate(migrate::Migrate),
    MigrateCancel(migrate_cancel::MigrateCancel),
    EvacuateCancel(evacuate_cancel::EvacuateCancel),
    Console(console::Console),
    Vnc(vnc::Vnc),
    Ssh(ssh::Ssh),
    Scp(scp::Scp),
    PortForward(port_forward::PortForward),
    Expose(expose::Expose),
    Create(create::Create),
    Expand(expand::Expand),
    #[command(name = "addvolume")]
    AddVolume(add_volume::AddVolume),
    #[command(name = "removevolume")]
    RemoveVolume(remove_volume::RemoveVolume),
    MemoryDump(memory_dump::MemoryDump),
    ImageUpload(image_upload::ImageUpload),
    #[command(name = "guestosinfo")]
    GuestOsInfo(guest_os_info::GuestOsInfo),
    #[command(name = "userlist")]
    UserList(user_list::UserList),
    #[command(name = "fslist")]
    FsList(fs_list::FsList),
    #[command(name = "objectgraph")]
    ObjectGraph(object_graph::ObjectGraph),
    PermittedDevices(permitted_devices::PermittedDevices),
    Version(version::Version),
    Completion(completion::Completion),
    /// Print the flags of all commands
    #[command(hide = true)]
    Options,
    #[command(hide = true)]
    Adm(absent::Absent),
    #[command(hide = true)]
    Credentials(absent::Absent),
    #[command(hide = true)]
    Guestfs(absent::Absent),
    #[command(hide = true)]
    Template(absent::Absent),
    #[command(hide = true)]
    Usbredir(absent::Absent),
    #[command(hide = true)]
    Vmexport(absent::Absent),
}

/// What commands know beside their own arguments.
pub(crate) struct Session {
    /// Name the program goes by.
    pub(crate) program: Program,
    /// Which cluster is meant.
    pub(crate) connection: ConnectionFlags,
}

impl Session {
    /// Returns the cluster that is meant.
    ///
    /// # Errors
    ///
    /// Fails when there is no configuration or it is wrong.
    pub(crate) async fn cluster(&self) -> Result<Cluster, Failure> {
        Cluster::connect(&self.connection).await
    }
}

/// Runs a command; the exit code is its own or that of a program it runs.
///
/// # Errors
///
/// Fails when it is not done.
pub(crate) async fn run(program: Program, cli: Cli) -> Result<ExitCode, Failure> {
    let session = Session {
        program,
        connection: cli.global.connection,
    };
    let session = &session;
    match cli.command {
        Command::Start(command) => command.run(session).await?,
        Command::Stop(command) => command.run(session).await?,
        Command::Restart(command) => command.run(session).await?,
        Command::Pause(command) => command.run(session).await?,
        Command::Unpause(command) => command.run(session).await?,
        Command::SoftReboot(command) => command.run(session).await?,
        Command::Reset(command) => command.run(session).await?,
        Command::Migrate(command) => command.run(session).await?,
        Command::MigrateCancel(command) => command.run(session).await?,
        Command::EvacuateCancel(command) => command.run(session).await?,
        Command::Console(command) => return command.run(session).await,
        Command::Vnc(command) => command.run(session).await?,
        Command::Ssh(command) => return command.run(session).await,
        Command::Scp(command) => return command.run(session).await,
        Command::PortForward(command) => command.run(session).await?,
        Command::Expose(command) => command.run(session).await?,
        Command::Create(command) => command.run(session)?,
        Command::Expand(command) => command.run(session).await?,
        Command::AddVolume(command) => command.run(session).await?,
        Command::RemoveVolume(command) => command.run(session).await?,
        Command::MemoryDump(command) => command.run(session).await?,
        Command::ImageUpload(command) => command.run(session)?,
        Command::GuestOsInfo(command) => command.run(session).await?,
        Command::UserList(command) => command.run(session).await?,
        Command::FsList(command) => command.run(session).await?,
        Command::ObjectGraph(command) => command.run(session).await?,
        Command::PermittedDevices(command) => command.run(session).await?,
        Command::Version(command) => command.run(session).await?,
        Command::Completion(command) => command.run(session)?,
        Command::Options => {
            let help = crate::cli::description(program).render_long_help();
            report::text(&help.to_string())?;
        }
        Command::Adm(command) => command.run(session, Which::LogVerbosity)?,
        Command::Credentials(command) => command.run(session, Which::Credentials)?,
        Command::Guestfs(command) => command.run(session, Which::Guestfs)?,
        Command::Template(command) => command.run(session, Which::Template)?,
        Command::Usbredir(command) => command.run(session, Which::Usbredir)?,
        Command::Vmexport(command) => command.run(session, Which::Export)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether anything is changed.
#[derive(Clone, Copy, Debug, Args)]
struct DryRun {
    /// Only ask whether it would be done
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        hide_default_value = true,
        value_name = "BOOL"
    )]
    dry_run: bool,
}

impl DryRun {
    /// Says that nothing is going to be changed, and returns the value of `dryRun`.
    fn values(self) -> Result<Vec<String>, Failure> {
        if !self.dry_run {
            return Ok(Vec::new());
        }
        report::line("Dry Run execution")?;
        Ok(vec![api::options::DRY_RUN_ALL.to_owned()])
    }
}

/// Looks whether there is a machine before its instance is changed, as the answer then names what the user did.
async fn check_machine(cluster: &Cluster, name: &str, doing: &str) -> Result<(), Failure> {
    let vm = cluster.get(&cluster.object(Kind::Machine, name)).await;
    let vm = vm.map_err(|refusal| refusal.of(format!("Error getting VirtualMachine {name}:")))?;
    let is_halted = vm["spec"]["runStrategy"] == "Halted" || vm["spec"]["running"] == false;
    if is_halted && vm["status"]["created"] != true {
        return Err(Failure::Argument(format!(
            "Error {doing} VirtualMachineInstance {name}. VirtualMachine {name} is not set to run"
        )));
    }
    Ok(())
}

/// Plugs or unplugs a volume of a machine, or of an instance that has none.
async fn change_volumes(
    cluster: &Cluster,
    name: &str,
    change: &str,
    options: &Value,
) -> Result<(), Failure> {
    let action = format!("{change}volume");
    let path = |kind| cluster.action(kind, name, &action);
    let answer = match cluster.put(&path(Kind::Machine), options).await {
        Err(refusal) if refusal.code() == 404 => cluster.put(&path(Kind::Instance), options).await,
        answer => answer,
    };
    let doing = if change == "add" {
        "adding"
    } else {
        "removing"
    };
    match answer {
        Ok(_) => Ok(()),
        Err(refusal) => Err(refusal.of(format!("error {doing} volume,"))),
    }
}

/// Prints an answer in JSON as people read it.
fn print_json(value: &Value) -> Result<(), Failure> {
    report::line(&format!("{value:#}"))
}
