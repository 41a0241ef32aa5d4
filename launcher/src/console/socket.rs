//! The console on a Unix socket, for one connection at a time: who connects takes over from whoever was
//! connected, as with QEMU's console under KubeVirt.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use tracing::Span;

use super::Console;

/// A console socket, listening.
#[derive(Debug)]
pub struct ConsoleSocket {
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens at `path` and connects the latest of those who come with the console.
    ///
    /// # Errors
    ///
    /// Fails when the host refuses the socket or the thread.
    pub fn listen(path: &Path, console: &Console) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let console = console.clone();
        let span = Span::current();
        thread::Builder::new()
            .name("console-accept".to_owned())
            .spawn(move || span.in_scope(|| accept(&listener, &console)))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Returns where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn accept(listener: &UnixListener, console: &Console) {
    let mut connected: Option<HangUp> = None;
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if connected.take().is_some() {
            // A guest that reads nothing would hold the thread that types to it, and one per connection.
            console.input().discard();
            tracing::debug!("console connection taken over");
        }
        match serve(stream, console) {
            Ok(stream) => connected = Some(stream),
            Err(error) => tracing::warn!(%error, "console connection dropped"),
        }
    }
}

/// Returns what ends the connection when dropped.
fn serve(stream: UnixStream, console: &Console) -> io::Result<HangUp> {
    let connected = HangUp(stream.try_clone()?);
    let input = stream.try_clone()?;
    let (output, _thread) = console.view("console-client-out", HangUp(stream))?;
    let console = console.clone();
    thread::Builder::new()
        .name("console-client-in".to_owned())
        .spawn(move || {
            console.feed(&input);
            output.close();
        })?;
    Ok(connected)
}

/// A connection whose both directions end with this value.
struct HangUp(UnixStream);

impl Write for HangUp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for HangUp {
    fn drop(&mut self) {
        let _gone_already = self.0.shutdown(Shutdown::Both);
    }
}
