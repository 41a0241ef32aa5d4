//! The command line of `virt-handler`.

mod devices;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use api::duration;
use api::error_chain::chain;
use clap::{ArgAction, Parser, ValueEnum};
use proto::node::NodeFacts;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use self::devices::{Command, DeviceArgs};
use crate::config::{HostPaths, Patience};
use crate::heartbeat;
use crate::run::{self, Options};

/// Where the node's facts are unless the command line says.
const NODE_FACTS: &str = "/var/lib/kubevirt-node-labeller/node-facts.json";

/// Looks after the KubeVirt virtual machines of one Kubernetes node.
///
/// It watches the VirtualMachineInstances with the label kubevirt.io/nodeName of this node, drives their
/// virt-launchers, keeps their status, and serves consoles and metrics. The arguments of KubeVirt's DaemonSet are
/// accepted as they are. Machines run on while it is stopped, restarted or replaced.
#[derive(Clone, Debug, Parser)]
#[command(name = "virt-handler", version, verbatim_doc_comment)]
pub struct Cli {
    /// Name of this node
    #[arg(long, env = "NODE_NAME", value_name = "NODE", help_heading = "Cluster")]
    pub hostname_override: Option<String>,

    /// Address of this pod, announced to other nodes
    #[arg(long, env = "MY_POD_IP", value_name = "IP", help_heading = "Cluster")]
    pub pod_ip_address: Option<IpAddr>,

    /// Configuration of the API server's client [default: the pod's service account, else $KUBECONFIG or ~/.kube/config]
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,

    /// Address to serve metrics on
    #[arg(
        long,
        default_value = "0.0.0.0",
        value_name = "IP",
        help_heading = "Servers"
    )]
    pub listen: IpAddr,

    /// Port of metrics and health
    #[arg(
        long,
        default_value_t = 8185,
        value_name = "PORT",
        help_heading = "Servers"
    )]
    pub port: u16,

    /// Port of consoles and lifecycle requests
    #[arg(
        long,
        default_value_t = 8186,
        value_name = "PORT",
        help_heading = "Servers"
    )]
    pub console_server_port: u16,

    /// Port of machines' statistics
    #[arg(
        long,
        default_value_t = 8187,
        value_name = "PORT",
        help_heading = "Servers"
    )]
    pub vmstats_server_port: u16,

    /// Requests for metrics that are served at once
    #[arg(long, default_value_t = 3, value_name = "N", help_heading = "Servers")]
    pub max_metric_requests: usize,

    /// Certificate of the servers
    #[arg(
        long,
        default_value = "/etc/virt-handler/servercertificates/tls.crt",
        value_name = "FILE",
        help_heading = "Servers"
    )]
    pub tls_cert_file: PathBuf,

    /// Key of the servers
    #[arg(
        long,
        default_value = "/etc/virt-handler/servercertificates/tls.key",
        value_name = "FILE",
        help_heading = "Servers"
    )]
    pub tls_key_file: PathBuf,

    /// Certificates of the authority that clients must have theirs from [default: the config map kubevirt-ca]
    #[arg(long, value_name = "FILE", help_heading = "Servers")]
    pub client_ca_file: Option<PathBuf>,

    /// Namespace of the installation, which holds the config map kubevirt-ca
    #[arg(
        long,
        env = "POD_NAMESPACE",
        default_value = "kubevirt",
        value_name = "NAMESPACE",
        help_heading = "Cluster"
    )]
    pub install_namespace: String,

    /// After this long without an answer a launcher is given up
    #[arg(long, default_value = "30s", value_parser = duration::parse, value_name = "DURATION", help_heading = "Machines")]
    pub watchdog_timeout: Duration,

    /// After this long without a launcher a scheduled instance has failed
    #[arg(long, default_value = "3m", value_parser = duration::parse, value_name = "DURATION", help_heading = "Machines")]
    pub launcher_start_timeout: Duration,

    /// Every machine is looked at at least this often
    #[arg(
        long,
        default_value_t = 300,
        value_name = "SECONDS",
        help_heading = "Machines"
    )]
    pub domain_resync_period_seconds: u64,

    /// Time to end when asked to
    #[arg(
        long,
        default_value_t = 315,
        value_name = "SECONDS",
        help_heading = "Machines"
    )]
    pub graceful_shutdown_seconds: u64,

    /// What the launchers run processors with, for the condition SoftwareEmulation: what the probe says (auto), KVM
    /// (kvm), or the software CPU (soft)
    #[arg(long, value_enum, default_value_t = Accel::Auto, help_heading = "Machines")]
    pub accel: Accel,

    /// What `virt-launcher --node-facts` wrote about this node [default:
    /// /var/lib/kubevirt-node-labeller/node-facts.json, where that is]
    #[arg(long, value_name = "FILE", help_heading = "Machines")]
    pub node_facts: Option<PathBuf>,

    /// Common names in certificates that migrations are taken from, comma-separated
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "kubevirt.io:system:client:migration",
        value_name = "NAMES",
        help_heading = "Machines"
    )]
    pub migration_cn_types: Vec<String>,

    /// Folder of the kubelet
    #[arg(
        long,
        default_value = "/var/lib/kubelet",
        value_name = "DIR",
        help_heading = "Folders"
    )]
    pub kubelet_root: PathBuf,

    /// Folder of the kubelet's pods on the host [default: pods below the kubelet's]
    #[arg(long, value_name = "DIR", help_heading = "Folders")]
    pub kubelet_pods_dir: Option<PathBuf>,

    /// The same folder under a name short enough for the paths of sockets [default: /pods, where that is, else the
    /// kubelet's]
    #[arg(long, value_name = "DIR", help_heading = "Folders")]
    pub pods_dir: Option<PathBuf>,

    /// Folder shared with the node's other components
    #[arg(
        long,
        default_value = "/var/run/kubevirt",
        value_name = "DIR",
        help_heading = "Folders"
    )]
    pub kubevirt_share_dir: PathBuf,

    /// Folder of the handler's own records
    #[arg(
        long,
        global = true,
        default_value = "/var/run/kubevirt-private",
        value_name = "DIR",
        help_heading = "Folders"
    )]
    pub kubevirt_private_dir: PathBuf,

    /// Process file system of the host
    #[arg(
        long,
        default_value = "/proc",
        value_name = "DIR",
        help_heading = "Folders"
    )]
    pub proc_dir: PathBuf,

    /// Where control groups are mounted
    #[arg(
        long,
        default_value = "/sys/fs/cgroup",
        value_name = "DIR",
        help_heading = "Folders"
    )]
    pub cgroup_dir: PathBuf,

    /// sysfs of the host
    #[arg(
        long,
        default_value = "/sys",
        value_name = "DIR",
        help_heading = "Folders"
    )]
    pub sys_dir: PathBuf,

    /// Devices
    #[command(flatten)]
    pub devices: DeviceArgs,

    /// How much is logged, from 0 to 9; above 2 is debug, above 5 is trace
    #[arg(short, default_value_t = 2, value_name = "LEVEL", help_heading = "Log")]
    pub verbosity: u8,

    /// What is logged to standard error, in place of -v: a level, or levels of modules such as `info,handler=debug`
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", help_heading = "Log")]
    pub log: Option<String>,

    /// Arguments of upstream's that mean nothing here
    #[command(flatten)]
    pub ignored: IgnoredArgs,

    /// What to do other than to look after the node
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Arguments that upstream's binary takes and that mean nothing here.
#[derive(Clone, Debug, clap::Args)]
pub struct IgnoredArgs {
    /// Where glog would write
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    logtostderr: Option<String>,
    /// The name of the host is the node's
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    alsologtostderr: Option<String>,
    /// Address of the API server, which the kubeconfig has
    #[arg(long, hide = true)]
    master: Option<String>,
    /// A pod's name
    #[arg(long, hide = true, action = ArgAction::Set)]
    simulate_crash: Option<bool>,
}

/// What runs the processors of machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// KVM where it is usable
    Auto,
    /// KVM
    Kvm,
    /// The software CPU
    Soft,
}

/// Runs the command and returns its exit status: 0, 1 after an error, 2 for a wrong command line.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _unprintable = error.print();
            let wrong = ExitCode::from(2);
            return if error.use_stderr() {
                wrong
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let done = match &cli.command {
        Some(command) => command.run(&cli.kubevirt_private_dir),
        None => cli.options().and_then(|options| start(&cli, options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _unprintable = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: &Cli, options: Options) -> Result<(), String> {
    log_to_stderr(&cli.filter())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()
        .map_err(|error| format!("start the runtime: {error}"))?;
    let done = runtime.block_on(run::run(options));
    runtime.shutdown_background();
    done.map_err(|error| chain(&error))
}

fn log_to_stderr(filter: &str) -> Result<(), String> {
    let filter: Targets = filter
        .parse()
        .map_err(|error| format!("--log: {filter:?} is no filter: {error}: use info or debug"))?;
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

impl Cli {
    /// Returns what to run with, or what is wrong with the arguments in one line.
    ///
    /// # Errors
    ///
    /// Fails when a value makes no sense on this host.
    pub fn options(&self) -> Result<Options, String> {
        let node = match &self.hostname_override {
            Some(name) => name.clone(),
            None => host_name().ok_or("--hostname-override: give the name of this node")?,
        };
        check_node(&node)?;
        if self.watchdog_timeout < Duration::from_secs(1) {
            return Err("--watchdog-timeout: give at least 1s".to_owned());
        }
        if self.domain_resync_period_seconds == 0 {
            return Err("--domain-resync-period-seconds: give at least 1".to_owned());
        }
        let paths = self.paths();
        check_directory("--pods-dir", &paths.pods_dir)?;
        check_directory("--proc-dir", &paths.proc_dir)?;
        Ok(Options {
            node,
            pod_ip: self.pod_ip_address,
            kubeconfig: self.kubeconfig.clone(),
            install_namespace: self.install_namespace.clone(),
            listen: self.listen,
            metrics_port: self.port,
            console_port: self.console_server_port,
            vmstats_port: self.vmstats_server_port,
            metric_requests_max: self.max_metric_requests.max(1),
            certificate: self.tls_cert_file.clone(),
            key: self.tls_key_file.clone(),
            client_ca: self.client_ca_file.clone(),
            paths,
            patience: Patience {
                watchdog: self.watchdog_timeout,
                resync: Duration::from_secs(self.domain_resync_period_seconds),
                launcher_start: self.launcher_start_timeout,
            },
            graceful_shutdown: Duration::from_secs(self.graceful_shutdown_seconds),
            accel: self.accel,
            devices: self.devices.flags(self.accel),
            facts: self.facts()?,
        })
    }

    fn facts(&self) -> Result<Option<NodeFacts>, String> {
        let default = PathBuf::from(NODE_FACTS);
        let path = match &self.node_facts {
            Some(path) => path.clone(),
            None if default.is_file() => default,
            None => return Ok(None),
        };
        let facts = heartbeat::read_facts(&path);
        facts
            .map(Some)
            .map_err(|error| format!("--node-facts: {}", chain(&error)))
    }

    fn paths(&self) -> HostPaths {
        let kubelet_pods = self.kubelet_pods_dir.clone();
        let kubelet_pods = kubelet_pods.unwrap_or_else(|| self.kubelet_root.join("pods"));
        let short = HostPaths::default().pods_dir;
        let pods_dir = self.pods_dir.clone();
        HostPaths {
            pods_dir: pods_dir.unwrap_or_else(|| if short.is_dir() { short } else { kubelet_pods }),
            share_dir: self.kubevirt_share_dir.clone(),
            private_dir: self.kubevirt_private_dir.clone(),
            proc_dir: self.proc_dir.clone(),
            cgroup_dir: self.cgroup_dir.clone(),
            kubelet_dir: self.kubelet_root.clone(),
            sys_dir: self.sys_dir.clone(),
            dev_dir: self.devices.dev_dir(&self.proc_dir),
        }
    }

    fn filter(&self) -> String {
        let by_level = match self.verbosity {
            // What the client complains of is told by those who use it.
            0..=2 => "info,kube_client=off",
            3..=5 => "info,handler=debug",
            _ => "debug,handler=trace",
        };
        self.log.clone().unwrap_or_else(|| by_level.to_owned())
    }
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned())
}

/// Refuses what is no value of a label, by which the instances of the node are found.
fn check_node(node: &str) -> Result<(), String> {
    let is_fit = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    if node.is_empty() || node.len() > 253 || !node.bytes().all(is_fit) {
        return Err(format!(
            "--hostname-override: {node:?} is no name of a node: use letters, digits, '-' and '.'"
        ));
    }
    Ok(())
}

fn check_directory(flag: &str, path: &Path) -> Result<(), String> {
    if path.is_dir() {
        return Ok(());
    }
    Err(format!(
        "{flag}: there is no folder {}: mount it into the pod, or name another",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory, Parser};

    use super::{Accel, Cli, Command, check_node};
    use crate::devices::{DeviceFlags, Format};

    fn parse(arguments: &str) -> Cli {
        Cli::try_parse_from(std::iter::once("virt-handler").chain(arguments.split_whitespace()))
            .unwrap()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_upstreams_daemon_set_passes_is_accepted() {
        let cli = parse(
            "--port 8443 --hostname-override node1 --pod-ip-address 10.1.2.3 --max-metric-requests 3 \
             --console-server-port 8186 --vmstats-server-port 8187 --graceful-shutdown-seconds 315 \
             --max-devices 1000 --watchdog-timeout 30s --domain-resync-period-seconds 300 \
             --kubelet-root / --kubelet-pods-dir / --pods-dir / --migration-cn-types a,b -v 2",
        );
        assert_eq!(cli.port, 8443);
        assert_eq!(cli.migration_cn_types, ["a", "b"]);
        let options = cli.options().unwrap();
        assert_eq!(options.node, "node1");
        assert_eq!(options.patience.watchdog, Duration::from_secs(30));
        assert_eq!(options.patience.launcher_start, Duration::from_secs(180));
    }

    #[test]
    fn devices_are_asked_for_by_flags() {
        let cli = parse(
            "--max-devices 5 --usb-list kubevirt.io/x;0bda;0811 --bind-vfio --accel kvm --dev-dir /d",
        );
        let flags = cli.devices.flags(cli.accel);
        assert_eq!((flags.max_devices, flags.bind_vfio), (5, true));
        assert_eq!(flags.usb_list, "kubevirt.io/x;0bda;0811");
        assert_eq!(flags.accel, Accel::Kvm);
        assert_eq!(cli.paths().dev_dir.as_os_str(), "/d");
        assert_eq!(parse("").devices.flags(Accel::Auto), DeviceFlags::default());
        let without_host = parse("--proc-dir /nonexistent").paths();
        assert_eq!(without_host.dev_dir.as_os_str(), "/dev");
        for odd in ["-1", "65537", "many"] {
            let arguments = ["virt-handler", "--max-devices", odd];
            assert!(Cli::try_parse_from(arguments).is_err(), "{odd}");
        }
    }

    #[test]
    fn devices_are_shown_by_a_command_of_its_own() {
        for arguments in [
            "devices -o wide --kubevirt-private-dir /p",
            "--kubevirt-private-dir /p devices --output wide",
        ] {
            let cli = parse(arguments);
            assert_eq!(cli.kubevirt_private_dir.as_os_str(), "/p");
            let Some(Command::Devices { output }) = cli.command else {
                panic!("{arguments}");
            };
            assert_eq!(output, Format::Wide);
        }
        assert!(parse("-v 2").command.is_none());
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        for (arguments, flag) in [
            (
                "--hostname-override a/b --pods-dir /",
                "--hostname-override",
            ),
            (
                "--hostname-override a --pods-dir /nonexistent",
                "--pods-dir",
            ),
            (
                "--hostname-override a --pods-dir / --watchdog-timeout 1ms",
                "--watchdog-timeout",
            ),
            (
                "--hostname-override a --pods-dir / --proc-dir /etc/passwd",
                "--proc-dir",
            ),
            (
                "--hostname-override a --pods-dir / --domain-resync-period-seconds 0",
                "--domain-resync-period-seconds",
            ),
        ] {
            let error = parse(arguments).options().unwrap_err();
            assert!(error.starts_with(flag) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn verbosity_is_translated_unless_a_filter_is_given() {
        assert_eq!(parse("-v 2").filter(), "info,kube_client=off");
        assert_eq!(parse("-v 4").filter(), "info,handler=debug");
        assert_eq!(parse("-v 9 --log warn").filter(), "warn");
    }

    #[test]
    fn a_node_is_named_as_a_label_can_be() {
        assert!(check_node("worker-1.example.org").is_ok());
        assert!(check_node("").is_err());
        assert!(check_node("a b").is_err());
    }
}
