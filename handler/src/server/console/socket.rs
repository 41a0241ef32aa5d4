//! The launcher's end of a console.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::launchers::Launcher;
use crate::pod_files;

/// The pod's volume with the folder of the socket, which is called by the instance's uid.
const VOLUME: &str = "private";
/// The socket.
const SERIAL: &str = "virt-serial0";

/// Connects to the console of a launcher's machine.
pub(super) async fn connect(launcher: &Launcher, limit: Duration) -> io::Result<UnixStream> {
    let path = Path::new(&launcher.uid).join(SERIAL);
    let socket = pod_files::open_socket(&launcher.emptydir(VOLUME), &path)?;
    let connected = timeout(limit, pod_files::connect(&socket)).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
