//! The console on a Unix socket, for as many at once as look.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tracing::Span;

use super::Console;

/// Connections at once; each has two threads.
const MAX_CLIENTS: usize = 8;

/// A console socket, listening.
#[derive(Debug)]
pub struct ConsoleSocket {
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens at `path` and connects everyone who comes with the console.
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
    let clients = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if clients.fetch_add(1, Ordering::Relaxed) >= MAX_CLIENTS {
            clients.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(
                limit = MAX_CLIENTS,
                "console connection refused, too many are open"
            );
            continue;
        }
        if let Err(error) = serve(stream, console, &clients) {
            clients.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(%error, "console connection dropped");
        }
    }
}

fn serve(stream: UnixStream, console: &Console, clients: &Arc<AtomicUsize>) -> io::Result<()> {
    let input = stream.try_clone()?;
    let (output, _thread) = console.view("console-client-out", HangUp(stream))?;
    let console = console.clone();
    let clients = Arc::clone(clients);
    thread::Builder::new()
        .name("console-client-in".to_owned())
        .spawn(move || {
            console.feed(&input);
            output.close();
            clients.fetch_sub(1, Ordering::Relaxed);
        })?;
    Ok(())
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
