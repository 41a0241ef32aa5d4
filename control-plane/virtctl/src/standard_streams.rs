//! Standard input and output as channels.
//!
//! Both are used by threads of their own: a terminal, a pipe and a file all can be read that way, nothing is switched to
//! non-blocking for the programs that share them, and a slow terminal does not keep pings from being answered.

use std::io::{Read, Write};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::failure::Failure;
use crate::stream::WAITING_MESSAGES;

/// Bytes that are read at once.
const CHUNK_LEN_BYTES: usize = 8 << 10;
/// Time for the last output to be taken.
const FLUSH: Duration = Duration::from_secs(5);

/// Returns what comes from standard input. The thread that reads stays until the process ends.
///
/// # Errors
///
/// Fails when there can be no thread.
pub(crate) fn input() -> Result<mpsc::Receiver<Vec<u8>>, Failure> {
    let (sender, receiver) = mpsc::channel(WAITING_MESSAGES);
    spawn("stdin", move || {
        let mut chunk = vec![0; CHUNK_LEN_BYTES];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut chunk) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
                Ok(len) => {
                    if sender.blocking_send(chunk[..len].to_vec()).is_err() {
                        break;
                    }
                }
            }
        }
    })?;
    Ok(receiver)
}

/// Standard output.
pub(crate) struct Output {
    sender: mpsc::Sender<Vec<u8>>,
    done: oneshot::Receiver<()>,
}

impl Output {
    /// Opens standard output.
    ///
    /// # Errors
    ///
    /// Fails when there can be no thread.
    pub(crate) fn open() -> Result<Self, Failure> {
        let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(WAITING_MESSAGES);
        let (is_done, done) = oneshot::channel();
        spawn("stdout", move || {
            let mut stdout = std::io::stdout().lock();
            while let Some(bytes) = receiver.blocking_recv() {
                if stdout
                    .write_all(&bytes)
                    .and_then(|()| stdout.flush())
                    .is_err()
                {
                    break;
                }
            }
            let _nobody_waits = is_done.send(());
        })?;
        Ok(Self { sender, done })
    }

    /// Returns where to put what is to be written.
    pub(crate) fn sender(&self) -> &mpsc::Sender<Vec<u8>> {
        &self.sender
    }

    /// Waits until everything is written, or is not taken any more.
    pub(crate) async fn close(self) {
        drop(self.sender);
        let _taken = timeout(FLUSH, self.done).await;
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|source| Failure::Local {
        attempt: format!("start the thread of {name}"),
        source,
    })
}
