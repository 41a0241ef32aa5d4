//! The command line of `virt-api`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use api::error_chain::chain;
use clap::Parser;
use tokio::net::TcpListener;
use tracing::info;

use super::node::HANDLER_PORT;
use super::server::{FrontProxy, Server, TlsFiles};
use super::{HandlerAddress, HandlerPlace, Identity, Options, Pem, router};
use crate::program::{self, ProgramError};

/// Key of the config map with the authority of the installation.
const BUNDLE: &str = "ca-bundle";

/// Serves the subresources of KubeVirt virtual machines, and admits KubeVirt's objects.
///
/// The API server of the cluster asks it (aggregated API subresources.kubevirt.io, admission webhooks). The arguments of
/// KubeVirt's Deployment are accepted as they are.
#[derive(Clone, Debug, Parser)]
#[command(name = "virt-api", version, verbatim_doc_comment)]
pub struct Cli {
    /// Configuration of the API server's client [default: the pod's service account, else $KUBECONFIG or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Address of the API server in place of the configuration's
    #[arg(long, value_name = "URL")]
    pub master: Option<String>,

    /// Namespace of the installation
    #[arg(
        long,
        env = "POD_NAMESPACE",
        default_value = "kubevirt",
        value_name = "NAMESPACE"
    )]
    pub namespace: String,

    /// Address to listen on
    #[arg(long, default_value = "0.0.0.0", value_name = "IP")]
    pub listen: IpAddr,

    /// Port to listen on
    #[arg(long, default_value_t = 8443, value_name = "PORT")]
    pub port: u16,

    /// Certificate to serve with, PEM; it is read anew when it changes
    #[arg(
        long,
        default_value = "/etc/virt-api/certificates/tls.crt",
        value_name = "FILE"
    )]
    pub tls_cert_file: PathBuf,

    /// Its key, PEM
    #[arg(
        long,
        default_value = "/etc/virt-api/certificates/tls.key",
        value_name = "FILE"
    )]
    pub tls_key_file: PathBuf,

    /// Port of node agents
    #[arg(long, default_value_t = HANDLER_PORT, value_name = "PORT")]
    pub console_server_port: u16,

    /// Address of the node agent of all nodes, in place of the pods' of virt-handler
    #[arg(long, value_name = "IP:PORT")]
    pub handler_address: Option<SocketAddr>,

    /// Certificate to show to node agents, PEM
    #[arg(
        long,
        default_value = "/etc/virt-handler/clientcertificates/tls.crt",
        value_name = "FILE"
    )]
    pub handler_cert_file: PathBuf,

    /// Its key, PEM
    #[arg(
        long,
        default_value = "/etc/virt-handler/clientcertificates/tls.key",
        value_name = "FILE"
    )]
    pub handler_key_file: PathBuf,

    /// Certificates of the node agents' authority, PEM, in place of those in the config map
    #[arg(long, value_name = "FILE")]
    pub handler_ca_file: Option<PathBuf>,

    /// Config map of the installation's namespace with the certificates of the node agents' authority
    #[arg(long, default_value = "kubevirt-ca", value_name = "NAME")]
    pub ca_configmap_name: String,

    /// Certificates of the API server's front proxy authority, PEM, in place of those that the cluster publishes
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,

    /// What is logged to standard error: a level, or levels of modules such as `info,kube=debug`
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// Accepted without effect: webhooks are served as well.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub subresources_only: Option<String>,

    /// Accepted without effect: chains of certificates are always followed.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub externally_managed: Option<String>,

    /// Accepted without effect: see --log.
    #[arg(short = 'v', long = "v", hide = true)]
    pub verbosity: Option<String>,
}

/// Why the program ends with a failure.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// It does not start.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The port is taken.
    #[error("listen on {address}: free the port or name another with --port")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
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
            let _unprintable = writeln!(io::stderr(), "error: {}", chain(&error));
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
    runtime.block_on(serve(cli))
}

async fn serve(cli: Cli) -> Result<(), CliError> {
    let _installed_before = rustls::crypto::ring::default_provider().install_default();
    let stop = program::stop_on_signals()?;
    let address = SocketAddr::new(cli.listen, cli.port);
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|source| CliError::Listen { address, source })?;
    let client = program::client(cli.kubeconfig.as_deref(), cli.master.as_deref());
    let client = Box::pin(client).await?;
    let router = router(Options {
        client: client.clone(),
        namespace: cli.namespace.clone(),
        handler: handler(&cli),
        authorize: true,
    });
    let server = Server {
        listener,
        files: TlsFiles {
            certificate: cli.tls_cert_file,
            key: cli.tls_key_file,
        },
        front_proxy: match cli.requestheader_client_ca_file {
            Some(path) => FrontProxy::File(path),
            None => FrontProxy::Published(client),
        },
    };
    let version = env!("CARGO_PKG_VERSION");
    info!(version, namespace = cli.namespace, %address, "virt-api starts");
    server.serve(router, stop).await;
    Ok(())
}

fn handler(cli: &Cli) -> HandlerAddress {
    let authority = match &cli.handler_ca_file {
        Some(path) => Pem::File(path.clone()),
        None => Pem::ConfigMap {
            name: cli.ca_configmap_name.clone(),
            key: BUNDLE.to_owned(),
        },
    };
    HandlerAddress {
        place: match cli.handler_address {
            Some(address) => HandlerPlace::Fixed(address),
            None => HandlerPlace::Pods {
                port: cli.console_server_port,
            },
        },
        identity: Identity::new(
            Pem::File(cli.handler_cert_file.clone()),
            Pem::File(cli.handler_key_file.clone()),
            authority,
        ),
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
        let arguments = "virt-api --port 8443 --console-server-port 8186 --subresources-only -v 2";
        let cli = Cli::try_parse_from(arguments.split_whitespace()).unwrap();
        assert_eq!((cli.port, cli.console_server_port), (8443, 8186));
        let arguments = "virt-api --externally-managed=false --ca-configmap-name ca --listen ::";
        let cli = Cli::try_parse_from(arguments.split_whitespace()).unwrap();
        assert_eq!(cli.ca_configmap_name, "ca");
    }
}
