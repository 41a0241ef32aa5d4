//! `virtctl vnc`: the display of an instance, for a viewer on this host.

mod screenshot;

use clap::{Args, Subcommand};
use serde_json::json;
use tokio::net::TcpListener;

use super::Session;
use super::port_forward::{TCP, carry, listen_failure};
use crate::argument;
use crate::cluster::Kind;
use crate::failure::Failure;
use crate::report;
use crate::stream::{self, End};

/// Connect to the display of a virtual machine instance.
///
/// A VNC viewer of your choice is to be connected to the address that is printed. Machines without a display say so: use
/// `virtctl console` for those.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:
  # The instance is called 'myvmi':
  virtctl vnc myvmi --port=5901
  vncviewer 127.0.0.1::5901

  # A picture of what the display shows:
  virtctl vnc screenshot myvmi --file=shot.png")]
pub(crate) struct Vnc {
    #[command(subcommand)]
    other: Option<Other>,
    /// Instance, or the virtual machine of that name
    #[arg(value_name = "VMI", required = true, value_parser = argument::instance)]
    name: Option<String>,
    /// Address to listen on for the viewer
    #[arg(long, default_value = "127.0.0.1")]
    address: String,
    /// Port to listen on, 0 for any
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Print the port in JSON, for programs
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, value_name = "BOOL")]
    proxy_only: bool,
    /// Fail when another viewer is connected
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, value_name = "BOOL")]
    preserve_session: bool,
}

#[derive(Debug, Subcommand)]
enum Other {
    Screenshot(screenshot::Screenshot),
}

impl Vnc {
    /// Opens the display, and serves it to one viewer.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        match (&self.other, &self.name) {
            (Some(Other::Screenshot(screenshot)), _) => screenshot.run(session).await,
            (None, Some(name)) => self.serve(session, name).await,
            (None, None) => Err(Failure::Argument("name an instance".to_owned())),
        }
    }

    async fn serve(&self, session: &Session, name: &str) -> Result<(), Failure> {
        let cluster = session.cluster().await?;
        let mut path = cluster.action(Kind::Instance, name, "vnc");
        if self.preserve_session {
            path.push_str("?preserveSession=true");
        }
        let socket = stream::open(&cluster, &path).await;
        let socket = socket.map_err(|refusal| match refusal.code() {
            400 | 404 | 501 => Failure::Argument(format!(
                "can't access VMI {name}: {refusal} (for the serial console: virtctl console {name})"
            )),
            _ => refusal.of(format!("can't access VMI {name}:")),
        })?;
        let at = format!("{}:{}", self.address, self.port);
        let failed = |source| listen_failure(&at, source);
        let listener = TcpListener::bind((self.address.as_str(), self.port)).await;
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if self.proxy_only {
            report::line(&json!({"port": address.port()}).to_string())?;
        } else {
            report::line(&format!("Connect a VNC viewer to {address}"))?;
        }
        let (viewer, _) = listener.accept().await.map_err(failed)?;
        match carry(socket, viewer, TCP).await {
            End::Broken(words) | End::Closed { words, .. } if !words.is_empty() => Err(
                Failure::Disconnected(format!("The display of {name} is disconnected: {words}")),
            ),
            _ => Ok(()),
        }
    }
}
