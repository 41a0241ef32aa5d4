//! The command line of `virt-launcher`.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use clap::{Args, Parser, ValueEnum};
use tracing_subscriber::EnvFilter;
use vmm::config::Accel;

use crate::standalone;

/// Runs one KubeVirt virtual machine in this process.
///
/// Without a cluster, give it a manifest:
///
///   virt-launcher --standalone vmi.yaml --image-dir images/
///
/// The terminal becomes the machine's serial console; Ctrl-] presses its power button, a second Ctrl-]
/// switches it off. The exit status is 0 when the guest powers off.
#[derive(Clone, Debug, Parser)]
#[command(name = "virt-launcher", version, verbatim_doc_comment)]
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

    /// Where the serial console is, beside its Unix socket
    #[arg(long, value_enum, default_value_t = ConsoleChoice::Terminal)]
    pub console: ConsoleChoice,

    /// What is logged to standard error: a level, or a tracing filter such as `info,vmm=debug`
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

/// Arguments that KubeVirt's controller renders into the launcher's pod. They are accepted, so that the
/// pod starts; those that only make sense with a node agent or with QEMU do nothing.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterArgs {
    /// Name of the instance.
    #[arg(long, hide = true)]
    pub name: Option<String>,
    /// Uid of the instance.
    #[arg(long, hide = true)]
    pub uid: Option<String>,
    /// Namespace of the instance.
    #[arg(long, hide = true)]
    pub namespace: Option<String>,
    /// Seconds between the power button and the pulled plug, when the instance doesn't say.
    #[arg(long, hide = true)]
    pub grace_period_seconds: Option<u64>,
    /// Arguments with a value that does nothing.
    #[command(flatten)]
    pub ignored: IgnoredArgs,
}

/// Declares accepted arguments without meaning, of both forms.
macro_rules! ignored_args {
    (values: $($value:ident)*; switches: $($switch:ident)*;) => {
        /// Arguments that are accepted and do nothing.
        #[derive(Clone, Debug, Default, Args)]
        pub struct IgnoredArgs {
            $(
                #[doc = "Accepted without effect."]
                #[arg(long, hide = true, allow_hyphen_values = true)]
                pub $value: Option<String>,
            )*
            $(
                #[doc = "Accepted without effect."]
                #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
                pub $switch: Option<bool>,
            )*
            /// Verbosity.
            #[arg(short = 'v', long = "v", hide = true)]
            pub verbosity: Option<String>,
        }
    };
}

ignored_args! {
    values:
        qemu_timeout kubevirt_share_dir ephemeral_disk_dir container_disk_dir hotplug_disk_dir
        hook_sidecars ovmf_path disk_memory_limit hypervisor libvirt_log_filters
        qemu_agent_sys_interval qemu_agent_file_interval qemu_agent_user_interval
        qemu_agent_version_interval qemu_fsfreeze_status_interval;
    switches:
        run_as_nonroot allow_emulation allow_cross_arch_emulation image_volume
        upgrade_ordinal_ifaces vgpu_dedicated_hook vm_stats_collector firmware_auto_selection
        keep_after_failure simulate_crash;
}

/// Runs the command and returns its exit status: 0, 1 after an error, 2 for a wrong command line.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
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
    match standalone::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&chain(&error)),
    }
}

fn fail(message: &str) -> ExitCode {
    let _unprintable = writeln!(std::io::stderr(), "error: {message}");
    ExitCode::FAILURE
}

fn log_to_stderr(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        format!("--log: {filter:?} is no filter: {error}: use a level such as info")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}

/// An error with everything that led to it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Accel, Cli, ConsoleChoice, chain};

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
        assert_eq!(cli.cluster.ignored.allow_emulation, Some(true));
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

    #[test]
    fn an_error_chain_is_one_line() {
        let inner = std::io::Error::other("two\nlines");
        let error = crate::images::ImageError::Read {
            path: "/x".into(),
            source: inner,
        };
        assert_eq!(chain(&error), "read /x: two lines");
    }
}
