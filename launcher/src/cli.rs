//! The command line of `virt-launcher`, which answers to other names too.

mod cluster;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use clap::{Parser, ValueEnum};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use vmm::config::Accel;
use vmm::error_chain;

pub use self::cluster::{AgentArgs, ClusterArgs, DirArgs, IgnoredArgs};
use crate::{node_facts, programs, server, standalone};

/// Runs one KubeVirt virtual machine in this process.
///
/// In a pod it takes commands from virt-handler on /var/run/kubevirt/sockets/launcher-sock, as the pod's
/// first process or another, and accepts the arguments of KubeVirt's controller (--name, --uid and more).
/// It ends after its machine. Called virt-launcher-monitor it does the same; called virt-probe,
/// virt-freezer, virt-tail or container-disk it is that program of the pod.
///
/// Without a cluster, give it a manifest:
///
///   virt-launcher --standalone vmi.yaml --image-dir images/
///
/// The terminal becomes the machine's serial console; Ctrl-] presses its power button, a second Ctrl-]
/// switches it off. The exit status is 0 when the guest powers off.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "virt-launcher",
    version,
    verbatim_doc_comment,
    args_override_self = true
)]
pub struct Cli {
    /// Runs the VirtualMachineInstance (or the template of the VirtualMachine) of this manifest, YAML or
    /// JSON; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub standalone: Option<PathBuf>,

    /// The manifest itself, or the name of its file, for when --standalone is not given
    #[arg(
        long = "standalone-vmi",
        env = "STANDALONE_VMI",
        value_name = "MANIFEST",
        hide = true,
        hide_env_values = true
    )]
    pub standalone_vmi: Option<String>,

    /// Folder in which the images of containerDisk and kernelBoot are looked up: OCI image layouts, OCI
    /// or Docker archives (.tar), or plain folders named like the image
    #[arg(long, value_name = "DIR")]
    pub image_dir: Option<PathBuf>,

    /// Folder that stands for the cluster's objects: one folder per config map or secret with a file per
    /// key, one per claim with its disk.img
    #[arg(long, value_name = "DIR")]
    pub volume_dir: Option<PathBuf>,

    /// Folder for the machine's own files: console socket, overlays, empty disks. They go when the
    /// machine stops [default: a private temporary folder]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Folder in which files taken from images are kept between runs [default: the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,

    /// BIOS image that boots machines without kernelBoot [default: the installed SeaBIOS]
    #[arg(long, value_name = "FILE")]
    pub bios: Option<PathBuf>,

    /// What runs the machine's processors: KVM where it is usable (auto), KVM whatever the probe says
    /// (kvm), or the software CPU (soft)
    #[arg(long, default_value = "auto", value_parser = accel())]
    pub accel: Accel,

    /// Writes what machines on this node can be made of (back end, CPU models, machine types) as JSON to a file, or to
    /// standard output when it is `-`, and ends: virt-handler labels the node with it
    #[arg(long, value_name = "FILE")]
    pub node_facts: Option<PathBuf>,

    /// Where the serial console is, beside its Unix socket
    #[arg(long, value_enum, default_value_t = ConsoleChoice::Terminal)]
    pub console: ConsoleChoice,

    /// What is logged to standard error: a level, or levels of modules such as `info,vmm=debug`
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// What upstream's controller passes.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Where the serial console is, beside its Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConsoleChoice {
    /// Standard input and output
    Terminal,
    /// Nowhere else
    Socket,
}

fn accel() -> impl TypedValueParser<Value = Accel> {
    PossibleValuesParser::new(["auto", "kvm", "soft"]).map(|name| match name.as_str() {
        "kvm" => Accel::Kvm,
        "soft" => Accel::Soft,
        _ => Accel::Auto,
    })
}

/// Runs the command and returns its exit status: 0, 1 after an error, 2 for a wrong command line.
///
/// The first argument names the program: `virt-launcher`, or one of [`programs`].
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let program = arguments.first().map(PathBuf::from).unwrap_or_default();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    if let Some(status) = programs::run(&name, arguments.get(1..).unwrap_or_default()) {
        return status;
    }
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _unprintable = error.print();
            return if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    if let Err(error) = log_to_stderr(&cli.log) {
        return fail(&error);
    }
    let has_manifest = cli.standalone.is_some() || cli.standalone_vmi.is_some();
    // A controller always says whose launcher it is; a user who says nothing wants to know how.
    let in_pod = cli.cluster.uid.is_some() || cli.cluster.name.is_some();
    let done = if let Some(path) = &cli.node_facts {
        node_facts::write(cli.accel, path).map_err(|error| error_chain(&error))
    } else if in_pod && !has_manifest {
        server::run(&cli).map_err(|error| error_chain(&error))
    } else {
        standalone::run(&cli).map_err(|error| error_chain(&error))
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(message: &str) -> ExitCode {
    let _unprintable = writeln!(std::io::stderr(), "error: {message}");
    ExitCode::FAILURE
}

fn log_to_stderr(filter: &str) -> Result<(), String> {
    let filter: Targets = filter.parse().map_err(|error| {
        format!("--log: {filter:?} is no filter: {error}: use a level such as info")
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::{CommandFactory, Parser};

    use super::{Accel, Cli, ConsoleChoice};

    fn parse(arguments: &str) -> Cli {
        Cli::try_parse_from(std::iter::once("virt-launcher").chain(arguments.split_whitespace()))
            .unwrap()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_upstreams_controller_passes_is_accepted() {
        let cli = parse(
            "--qemu-timeout 331s --name vm --uid 1-2 --namespace default \
             --kubevirt-share-dir /var/run/kubevirt --ephemeral-disk-dir /var/run/kubevirt-ephemeral-disks \
             --container-disk-dir /var/run/kubevirt/container-disks --grace-period-seconds 45 \
             --hook-sidecars 0 --ovmf-path /usr/share/OVMF --disk-memory-limit 2097152000 \
             --run-as-nonroot --allow-emulation=true --hypervisor kvm --keep-after-failure -v 2 \
             --hotplug-disk-dir /x --image-volume --libvirt-log-filters 3:remote",
        );
        assert_eq!(cli.cluster.grace_period_seconds, Some(45));
        assert_eq!(cli.cluster.qemu_timeout.as_secs(), 331);
        assert!(cli.cluster.keep_after_failure && cli.cluster.image_volume);
        assert_eq!(cli.cluster.ignored.allow_emulation, Some(true));
        let paths = cli.cluster.dirs.paths();
        assert_eq!(paths.hotplug_disk_dir, PathBuf::from("/x"));
        assert_eq!(paths.share_dir, PathBuf::from("/var/run/kubevirt"));
    }

    #[test]
    fn accel_and_console_have_defaults_and_choices() {
        let cli = parse("");
        assert_eq!(
            (cli.accel, cli.console),
            (Accel::Auto, ConsoleChoice::Terminal)
        );
        let cli = parse("--accel soft --console socket");
        assert_eq!(
            (cli.accel, cli.console),
            (Accel::Soft, ConsoleChoice::Socket)
        );
        assert!(Cli::try_parse_from(["virt-launcher", "--accel", "tcg"]).is_err());
    }
}
