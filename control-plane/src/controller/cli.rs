//! The command line of `virt-controller`.

use std::ffi::OsString;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use api::error_chain::chain;
use clap::{ArgAction, Parser};
use tracing::info;

use super::{ControllerError, Options, run, serve};
use crate::program::{self, ProgramError};

/// Runs the controllers of KubeVirt virtual machines.
///
/// They make the pods of VirtualMachineInstances, keep VirtualMachines and replica sets as they
/// should be, and watch over nodes. The arguments of KubeVirt's Deployment are accepted as they are.
/// Several may run: one acts, the others wait.
#[derive(Clone, Debug, Parser)]
#[command(name = "virt-controller", version, verbatim_doc_comment)]
pub struct Cli {
    /// Configuration of the API server's client [default: the pod's service account, else $KUBECONFIG or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Address of the API server in place of the configuration's
    #[arg(long, value_name = "URL")]
    pub master: Option<String>,

    /// Namespace of the installation, which holds the KubeVirt object and the lease
    #[arg(
        long,
        env = "POD_NAMESPACE",
        default_value = "kubevirt",
        value_name = "NAMESPACE"
    )]
    pub namespace: String,

    /// Name of this process among controllers [default: $POD_NAME, else the host's name]
    #[arg(
        long,
        env = "POD_NAME",
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub identity: String,

    /// Image of launchers
    #[arg(long, default_value = super::LAUNCHER_IMAGE, value_name = "IMAGE")]
    pub launcher_image: String,

    /// Whether to act only while holding the lease
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub leader_elect: bool,

    /// Address to serve health and metrics on
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    pub listen: IpAddr,

    /// Port of health and metrics
    #[arg(long, default_value_t = 8443, value_name = "PORT")]
    pub port: u16,

    /// What is logged to standard error: a level, or levels of modules such as `info,kube=debug`
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// What upstream's operator passes and this one needs not.
    #[command(flatten)]
    pub ignored: Ignored,
}

/// Declares accepted arguments without meaning.
macro_rules! ignored {
    ($($name:ident)*) => {
        /// Arguments that are accepted and do nothing.
        #[derive(Clone, Debug, Default, clap::Args)]
        pub struct Ignored {
            $(
                #[doc = "Accepted without effect."]
                #[arg(long, hide = true, allow_hyphen_values = true, num_args = 0..=1, default_missing_value = "")]
                pub $name: Option<String>,
            )*
            /// Verbosity.
            #[arg(short = 'v', long = "v", hide = true)]
            pub verbosity: Option<String>,
        }
    };
}

ignored! {
    launcher_qemu_timeout image_pull_secret exporter_image sidecar_shim_image kubevirt_share_dir ephemeral_disk_dir
    container_disk_dir hotplug_disk_dir node_controller_threads vmi_controller_threads rs_controller_threads
    pool_controller_threads vm_controller_threads migration_controller_threads evacuation_controller_threads
    disruption_budget_controller_threads snapshot_controller_threads snapshot_controller_resync_period
    vm_export_controller_threads clone_controller_threads restore_controller_threads launcher_subgid
    launcher_seccomp_profile shutdown_grace_period leader_elect_lease_duration leader_elect_renew_deadline
    leader_elect_retry_period leader_elect_resource_lock leader_elect_resource_name leader_elect_resource_namespace
    tls_cert_file tls_private_key_file tls_min_version pprof_port
}

/// Why the program ends with a failure.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// It does not start.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The port is taken.
    #[error("serve health and metrics on {address}")]
    Serve {
        address: std::net::SocketAddr,
        source: std::io::Error,
    },
    /// The controllers ended.
    #[error(transparent)]
    Controller(#[from] ControllerError),
}

/// Runs the command and returns its exit status: 0 after SIGTERM or SIGINT, 1 after an error, 2 for a wrong command line.
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
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _unprintable = writeln!(std::io::stderr(), "error: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> Result<(), CliError> {
    program::log_to_stderr(&cli.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(ProgramError::Start)?;
    runtime.block_on(serve_until_stopped(cli))
}

async fn serve_until_stopped(cli: Cli) -> Result<(), CliError> {
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    let stop = program::stop_on_signals()?;
    let address = (cli.listen, cli.port).into();
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.map_err(|source| CliError::Serve { address, source })?;
    let client = program::client(cli.kubeconfig.as_deref(), cli.master.as_deref());
    let client = Box::pin(client).await?;
    tokio::spawn(serve::serve(listener, stop.clone()));
    info!(
        version = env!("CARGO_PKG_VERSION"),
        namespace = cli.namespace,
        "virt-controller starts"
    );
    Box::pin(run(client, options(&cli), stop)).await?;
    Ok(())
}

fn options(cli: &Cli) -> Options {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let identity = match cli.identity.as_str() {
        "" => format!("{}-{}", host.trim(), std::process::id()),
        identity => identity.to_owned(),
    };
    Options {
        namespace: cli.namespace.clone(),
        identity,
        leader_election: cli.leader_elect,
        launcher_image: cli.launcher_image.clone(),
        launcher_arguments: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_upstreams_operator_passes_is_accepted() {
        let arguments = "virt-controller --launcher-image quay.io/kubevirt/virt-launcher:v1 \
            --exporter-image e --port 8443 --image-pull-secret s -v 2 --leader-elect=false \
            --leader-elect-lease-duration=30s --launcher-qemu-timeout 240";
        let cli = Cli::try_parse_from(arguments.split_whitespace()).unwrap();
        assert_eq!(cli.launcher_image, "quay.io/kubevirt/virt-launcher:v1");
        assert!(!cli.leader_elect);
        assert!(
            Cli::try_parse_from(["virt-controller"])
                .unwrap()
                .leader_elect
        );
    }
}
