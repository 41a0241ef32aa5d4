//! The launcher's end of a console.

use std::io;
use std::path::Path;
use std::time::Duration;

use api::paths::{PRIVATE_VOLUME, SERIAL_SOCKET};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::launchers::Launcher;
use crate::pod_files;

/// Connects to the console of a launcher's machine, a socket in a folder that is called by the instance's uid.
pub(super) async fn connect(launcher: &Launcher, limit: Duration) -> io::Result<UnixStream> {
    let path = Path::new(&launcher.uid).join(SERIAL_SOCKET);
    let socket = pod_files::open_socket(&launcher.emptydir(PRIVATE_VOLUME), &path)?;
    let connected = timeout(limit, pod_files::connect(&socket)).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
