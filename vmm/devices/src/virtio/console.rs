//! The console device with several ports (virtio 1.3 §5.3).
//!
//! Port 0 is a console inside this process; it need not exist. The other ports have names, and the
//! host's side of each is a Unix socket that one client at a time connects to. Nothing is buffered
//! between socket and ring: a slow client holds the guest's writes in its ring, a guest that does
//! not read holds the client's in the socket. What a guest writes while no client is there is lost.

mod control;
mod endpoint;
mod port;
mod worker;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use self::endpoint::{Endpoint, InProcess, SocketEndpoint};
use self::port::Port;
use self::worker::ConsoleWorker;
use super::signal::ConfigChange;
use super::{DeviceType, VirtioDevice, WorkerPlan, read_config};
use crate::lock::Lock;
use crate::uart::ConsoleOut;

const F_SIZE: u64 = 1 << 0;
const F_MULTIPORT: u64 = 1 << 1;

const QUEUE_SIZE: u16 = 64;
/// Most ports besides port 0: with it they fill 64 queues and two for control.
const MAX_PORTS: usize = 31;
/// Most bytes of a port's name; it must fit a page with its message, and a file name in the guest.
const MAX_NAME_BYTES: usize = 255;
/// Most bytes of input that wait for the guest to read port 0.
const MAX_INPUT_BYTES: usize = 64 << 10;

/// Learns the name of a port that a program in the guest has opened (`true`) or closed. It is called on the worker's
/// thread and must not block.
pub type OnPort = Arc<dyn Fn(&str, bool) + Send + Sync>;

/// A named port.
#[derive(Clone)]
pub struct PortOptions {
    /// The port's name, which a Linux guest shows in `/dev/virtio-ports`.
    pub name: String,
    /// The path of the Unix socket on which the host's side listens.
    pub socket: PathBuf,
    /// Learns when the guest opens or closes the port; a port starts closed, and a reset closes it.
    pub on_port: OnPort,
}

impl PortOptions {
    /// Makes options of a port whose opening and closing nobody learns of.
    pub fn new(name: &str, socket: &Path) -> Self {
        Self {
            name: name.to_owned(),
            socket: socket.to_owned(),
            on_port: Arc::new(|_, _| {}),
        }
    }
}

impl fmt::Debug for PortOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortOptions")
            .field("name", &self.name)
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// Why a console cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// There are too many ports.
    #[error("build the console: {count} ports are more than {MAX_PORTS}")]
    TooManyPorts {
        /// How many were asked for.
        count: usize,
    },
    /// A name is empty, too long, or another port's.
    #[error("build the console: the port name {name:?} is empty, too long or taken")]
    Name {
        /// The name.
        name: String,
    },
    /// The socket cannot be made.
    #[error("listen on {} for the console port {name}", path.display())]
    Listen {
        /// The port's name.
        name: String,
        /// The socket's path.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The host gives no event counters.
    #[error("build the console: create an event")]
    Event(#[source] io::Error),
}

/// What the owner of port 0 and its worker share.
struct Shared {
    state: Lock<SharedState>,
    wake: EventFd,
}

#[derive(Default)]
struct SharedState {
    input: VecDeque<u8>,
    size: Option<(u16, u16)>,
    size_changed: bool,
    change: Option<ConfigChange>,
}

impl Shared {
    fn wake(&self) {
        if let Err(error) = self.wake.write(1) {
            tracing::debug!(%error, "the console was woken already");
        }
    }
}

/// The owner's side of port 0.
#[derive(Clone)]
pub struct ConsoleHandle(Arc<Shared>);

impl ConsoleHandle {
    /// Gives input to the guest; returns how many bytes there was room for. Does not block.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let taken = {
            let mut state = self.0.state.get();
            let taken = bytes.len().min(MAX_INPUT_BYTES - state.input.len());
            state.input.extend(&bytes[..taken]);
            taken
        };
        self.0.wake();
        taken
    }

    /// Tells the guest the size of the terminal.
    pub fn resize(&self, cols: u16, rows: u16) {
        let change = {
            let mut state = self.0.state.get();
            state.size = Some((cols, rows));
            state.size_changed = true;
            state.change.clone()
        };
        if let Some(change) = change {
            change.report();
        }
        self.0.wake();
    }
}

impl fmt::Debug for ConsoleHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConsoleHandle")
    }
}

/// A console device.
pub struct Console {
    has_main: bool,
    ports: usize,
    shared: Arc<Shared>,
    plans: Lock<Vec<WorkerPlan>>,
}

impl Console {
    /// Makes a console with the named `ports`, numbered from 1, and with port 0 if `main` is given
    /// to take its output. The sockets listen from now on.
    ///
    /// # Errors
    /// If there are too many ports, a name cannot be, or a socket cannot be made.
    pub fn new(
        main: Option<Box<dyn ConsoleOut>>,
        ports: &[PortOptions],
    ) -> Result<Self, ConsoleError> {
        check(ports)?;
        let wake = EventFd::new(EFD_NONBLOCK).map_err(ConsoleError::Event)?;
        let state = Lock::new(SharedState::default());
        let shared = Arc::new(Shared { state, wake });
        let has_main = main.is_some();
        let main = main.map(|out| {
            let endpoint = InProcess::new(out, Arc::clone(&shared));
            Port::new(0, String::new(), Endpoint::InProcess(endpoint), None)
        });
        let named = (1..).zip(ports).map(|(id, options)| {
            let socket =
                SocketEndpoint::listen(&options.socket).map_err(|source| ConsoleError::Listen {
                    name: options.name.clone(),
                    path: options.socket.clone(),
                    source,
                })?;
            Ok(Port::new(
                id,
                options.name.clone(),
                Endpoint::Socket(socket),
                Some(Arc::clone(&options.on_port)),
            ))
        });
        let all: Vec<Port> = main
            .into_iter()
            .map(Ok)
            .chain(named)
            .collect::<Result<_, ConsoleError>>()?;
        let queues = 2 * (ports.len() + 2);
        let plan = WorkerPlan {
            suffix: "ports".to_owned(),
            queues: (0..).take(queues).collect(),
            worker: Box::new(ConsoleWorker::new(all, Arc::clone(&shared))),
            thread: None,
        };
        Ok(Self {
            has_main,
            ports: ports.len(),
            shared,
            plans: Lock::new(vec![plan]),
        })
    }

    /// Returns the owner's side of port 0.
    pub fn handle(&self) -> ConsoleHandle {
        ConsoleHandle(Arc::clone(&self.shared))
    }
}

fn check(ports: &[PortOptions]) -> Result<(), ConsoleError> {
    if ports.len() > MAX_PORTS {
        return Err(ConsoleError::TooManyPorts { count: ports.len() });
    }
    for (at, PortOptions { name, .. }) in ports.iter().enumerate() {
        let taken = ports[..at].iter().any(|other| other.name == *name);
        if taken || name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(ConsoleError::Name { name: name.clone() });
        }
    }
    Ok(())
}

impl VirtioDevice for Console {
    fn device_type(&self) -> DeviceType {
        DeviceType::CONSOLE
    }

    fn class(&self) -> [u8; 3] {
        [0x07, 0x80, 0x00]
    }

    fn features(&self) -> u64 {
        F_MULTIPORT | if self.has_main { F_SIZE } else { 0 }
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2 * (self.ports + 2)]
    }

    fn take_workers(&self) -> Vec<WorkerPlan> {
        std::mem::take(&mut *self.plans.get())
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let (cols, rows) = self.shared.state.get().size.unwrap_or_default();
        let ports = u32::try_from(self.ports + 1).unwrap_or(u32::MAX);
        let mut config = [0; 12];
        config[0..2].copy_from_slice(&cols.to_le_bytes());
        config[2..4].copy_from_slice(&rows.to_le_bytes());
        config[4..8].copy_from_slice(&ports.to_le_bytes());
        read_config(&config, offset, data);
    }

    fn set_config_change(&self, change: ConfigChange) {
        self.shared.state.get().change = Some(change);
    }
}

#[cfg(test)]
mod tests;
