//! The command line of `ferrovirt`.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use handler::devices::{self, Format, ShowError};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::images::cli::ImageArgs;
use crate::kubectl::{ApplyArgs, DeleteArgs, GetArgs};
use crate::state::State;
use crate::{down, images, kubectl, up};

/// Runs KubeVirt virtual machines on this machine, without a cluster.
///
/// `ferrovirt up` is a whole Kubernetes node in one process: API server, KubeVirt control plane, node agent, images and
/// volumes. kubectl and virtctl work with it as they are.
#[derive(Clone, Debug, Parser)]
#[command(name = "ferrovirt", version, verbatim_doc_comment)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the node in the foreground, until Ctrl-C
    Up(UpArgs),
    /// Shut down the machines and stop the node
    Down(StateArgs),
    /// Tell what the node runs
    Status(StateArgs),
    /// Stop the node and delete all that it has: machines, volumes, images
    Reset(ResetArgs),
    /// Show the devices that the node offers to machines, who has them, and why others are missing
    Devices(DevicesArgs),
    /// Bring images onto the node, list and remove them
    Image(ImageArgs),
    /// Create objects of a manifest or change them, as kubectl does
    Apply(ApplyArgs),
    /// Show objects, as kubectl does
    Get(GetArgs),
    /// Delete objects, as kubectl does
    Delete(DeleteArgs),
}

/// Where the state is.
#[derive(Clone, Debug, Args)]
pub struct StateArgs {
    /// Folder of the node's state [default: /var/lib/ferrovirt, or ~/.local/share/ferrovirt when not root]
    #[arg(long, env = "FERROVIRT_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

impl StateArgs {
    pub(crate) fn state(&self) -> State {
        State::new(self.state_dir.as_deref())
    }
}

/// How to run the node.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Ctrl-C shuts down the machines and stops. SIGTERM, like a crash, ends this process alone: machines \
run on, and the next `ferrovirt up` with the same state takes them up again."
)]
pub struct UpArgs {
    /// Where the state is
    #[command(flatten)]
    pub state: StateArgs,

    /// Address of the API server [default: 127.0.0.1:6443, or a free port where that is taken]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,

    /// Name of the node [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// What runs the processors of machines
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    pub accel: Accel,

    /// USB devices that machines may have, beside those of the KubeVirt object: resource;vendor;product, several with
    /// commas between, such as `kubevirt.io/wifi-dongle;0bda;0811`
    #[arg(
        long,
        env = "USB_LIST",
        default_value = "",
        hide_default_value = true,
        value_name = "LIST"
    )]
    pub usb_list: String,

    /// Bind PCI functions that the KubeVirt object permits to vfio-pci; without this only those that are bound already
    /// are offered
    #[arg(long)]
    pub bind_vfio: bool,

    /// What is logged to standard error: warn, info, debug, or levels of modules such as `info,handler=debug`
    #[arg(long, env = "RUST_LOG", default_value = "warn", value_name = "FILTER")]
    pub log: String,
}

/// What runs the processors of machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// KVM where it was measured to be usable
    Auto,
    /// KVM
    Kvm,
    /// The software CPU
    Soft,
}

/// How to show devices.
#[derive(Clone, Debug, Args)]
pub struct DevicesArgs {
    /// Where the state is
    #[command(flatten)]
    pub state: StateArgs,

    /// How
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
}

/// How to delete everything.
#[derive(Clone, Debug, Args)]
pub struct ResetArgs {
    /// Where the state is
    #[command(flatten)]
    pub state: StateArgs,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Runs a command and returns its exit status: 0, 1 after an error, 2 for a wrong command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _unprintable = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _unprintable = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => {
            log_to_stderr(&args.log)?;
            up::main(args)
        }
        Command::Down(args) => down::down(&args.state()),
        Command::Status(args) => down::status(&args.state()),
        Command::Reset(args) => down::reset(&args.state.state(), args.yes),
        Command::Devices(args) => show_devices(args),
        Command::Image(args) => images::cli::main(args),
        Command::Apply(args) => kubectl::apply(args),
        Command::Get(args) => kubectl::get(args),
        Command::Delete(args) => kubectl::delete(args),
    }
}

fn show_devices(args: &DevicesArgs) -> anyhow::Result<()> {
    let state = args.state.state();
    let shown = devices::show(&state.agent("private"), args.output);
    let shown = shown.map_err(|error| match error {
        ShowError::Absent { .. } => anyhow::anyhow!(
            "no node runs in {}: start it with `ferrovirt up`, or name another with --state-dir",
            state.path().display()
        ),
        unreadable @ ShowError::Unreadable(_) => unreadable.into(),
    })?;
    // Whoever reads may have had enough.
    let _unprintable = std::io::stdout().write_all(shown.as_bytes());
    Ok(())
}

fn log_to_stderr(filter: &str) -> anyhow::Result<()> {
    let filter: Targets = filter.parse().map_err(|error| {
        anyhow::anyhow!("--log: {filter:?} is no filter: {error}: use warn, info or debug")
    })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .init();
    Ok(())
}
