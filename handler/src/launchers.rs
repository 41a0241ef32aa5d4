//! The launchers of this node: where they are, what is asked of them, what they tell.
//!
//! ```text
//!   on record --start--> adopted ----> attached --process gone, final event told--> ended ---+
//!                 |                     ^    |                                               +--forget--> nothing
//!                 |      one socket ----+    +--process gone without, or silent------> lost -+
//!                 +--nobody there, or silent for the watchdog's time-----------------> lost -+
//! ```
//!
//! A launcher speaks on a socket in its own pod, so what it says counts for its own instance and no other. It is
//! asked for a sign of life every 11 s, for its domain every 300 s and whenever what it said made no sense. Its
//! process is held by a descriptor, whose end costs no waiting.

mod adopt;
mod call;
mod launcher;
mod minder;
mod node;
mod notify;
mod outbox;
mod pipe;
mod process;
mod records;
mod socket;
mod view;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use proto::domain::Domain;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_util::sync::DropGuard;

use self::adopt::adopt;
pub use self::call::CommandError;
pub use self::launcher::Launcher;
use self::node::Node;
pub(crate) use self::records::pods_on_record;
use self::records::{Ghost, Records};
use crate::config::{HostPaths, Patience};
use crate::key::VmiKey;

/// An instance, as far as it must be known to find its launcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmiIdentity {
    /// Namespace and name.
    pub key: VmiKey,
    /// UID of the VirtualMachineInstance.
    pub uid: String,
    /// UIDs of its pods on this node (`status.activePods`).
    pub pod_uids: Vec<String>,
}

/// What the launchers tell, in order for each of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// The domain as it is now. When the receiver is slow, states in between are left out.
    Domain {
        /// Whose domain.
        key: VmiKey,
        /// UID of the VirtualMachineInstance that the launcher was made for.
        uid: String,
        /// The domain.
        domain: Arc<Domain>,
    },
    /// The launcher has no domain, or none any more.
    NoDomain {
        /// Whose launcher.
        key: VmiKey,
        /// UID of the VirtualMachineInstance that the launcher was made for.
        uid: String,
    },
    /// A Kubernetes event (`v1.Event`) that the launcher asks to record on its instance.
    Event {
        /// Whose launcher.
        key: VmiKey,
        /// The event as the launcher wrote it; it is about this instance.
        event: serde_json::Value,
    },
    /// The launcher is given up: it does not answer any more, or its process is gone without having told how its
    /// domain ended.
    Lost {
        /// Whose launcher.
        key: VmiKey,
        /// UID of the VirtualMachineInstance that the launcher was made for.
        uid: String,
        /// What happened, for the instance's user.
        reason: String,
    },
}

/// Why the launchers of this node cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum LaunchersError {
    /// The folder of the ghost records is of no use.
    #[error("keep records of launchers in {}", path.display())]
    Records {
        /// The folder.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
}

/// Why there is no launcher to talk to.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No pod of the instance has a command socket yet.
    #[error("find the launcher of {0}: no pod of it serves a command socket yet")]
    NotYet(VmiKey),
    /// More than one pod of the instance serves commands.
    #[error(
        "find the launcher of {key}: several command sockets: {}",
        list(sockets)
    )]
    Several {
        /// Whose launcher was looked for.
        key: VmiKey,
        /// The sockets.
        sockets: Vec<PathBuf>,
    },
    /// The socket takes connections and nobody answers, or the launcher was given up before.
    #[error("attach to the launcher at {}: it does not answer", socket.display())]
    Silent {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket cannot be connected to: its process is gone, or it is no socket.
    #[error("attach to the launcher at {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The launcher's process cannot be told.
    #[error("tell the process behind {}: {reason}", socket.display())]
    Peer {
        /// The socket.
        socket: PathBuf,
        /// Why, and what would help.
        reason: String,
    },
    /// The launcher speaks no version of the command protocol that is spoken here.
    #[error("attach to the launcher at {}: it speaks versions {offered:?} of the command protocol, and only 1 is known here", socket.display())]
    Versions {
        /// The socket.
        socket: PathBuf,
        /// What the launcher speaks.
        offered: Vec<u32>,
    },
    /// The launcher runs the domain of another instance.
    #[error("attach to the launcher at {}: it says to run {found}, not {key}", socket.display())]
    Foreign {
        /// Whose launcher was looked for.
        key: VmiKey,
        /// The socket.
        socket: PathBuf,
        /// Whose launcher it says to be.
        found: String,
    },
    /// The launcher was lost before; an instance has no second one.
    #[error("attach to the launcher of {key}: it is lost: {reason}")]
    Lost {
        /// Whose launcher was looked for.
        key: VmiKey,
        /// How it was lost.
        reason: String,
    },
    /// The launcher answers, and badly.
    #[error("attach to the launcher at {}", socket.display())]
    Command {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        source: CommandError,
    },
    /// The launcher cannot be remembered, or cannot be given a socket for what it has to tell.
    #[error("prepare {}", path.display())]
    Prepare {
        /// The file or socket.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    paths.join(", ")
}

/// The launchers of this node. Clones are handles of the same; with the last one everything stops.
#[derive(Clone, Debug)]
pub struct Launchers {
    node: Arc<Node>,
    _stop: Arc<DropGuard>,
}

impl Launchers {
    /// Starts to look after launchers, first of all after those on record from before. What `seen` has no room for
    /// waits; of states, only the newest.
    ///
    /// # Errors
    ///
    /// Fails when the folder of the records cannot be made or read.
    pub async fn start(
        paths: HostPaths,
        patience: Patience,
        seen: mpsc::Sender<Seen>,
    ) -> Result<Self, LaunchersError> {
        let opened = paths.clone();
        let read = move || {
            let read = Records::open(&opened).and_then(|records| Ok((records.ghosts()?, records)));
            Ok(read)
        };
        let (ghosts, records) = on_disk(read)
            .await
            .map_err(|error| (paths.private_dir.clone(), error))
            .flatten()
            .map_err(|(path, source)| LaunchersError::Records { path, source })?;
        let node = Arc::new(Node::new(paths, patience, records));
        let launchers = Self {
            _stop: Arc::new(node.stop.clone().drop_guard()),
            node,
        };
        launchers.node.deliver(seen);
        for ghost in ghosts {
            tokio::spawn(adopt(Arc::clone(&launchers.node), ghost));
        }
        Ok(launchers)
    }

    /// Returns the launcher of an instance, after it was connected to, remembered and given a socket for
    /// notifications, if that was not done before.
    ///
    /// # Errors
    ///
    /// Fails when there is not exactly one launcher, or it cannot be worked with.
    pub async fn attach(&self, vmi: &VmiIdentity) -> Result<Launcher, AttachError> {
        let turn = self.node.turn(&vmi.uid);
        let _turn = turn.lock().await;
        if let Some(found) = self.node.known(vmi) {
            return found;
        }
        let pod_uid = self.node.find(vmi).await?;
        let ghost = Ghost {
            key: vmi.key.clone(),
            uid: vmi.uid.clone(),
            pod_uid,
        };
        self.node.attach(&ghost).await
    }

    /// Returns the launcher of an instance when it was attached to. It may have ended.
    #[must_use]
    pub fn get(&self, key: &VmiKey) -> Option<Launcher> {
        self.node.view(key).map(|view| view.launcher.clone())
    }

    /// Returns the domain of an instance as its launcher told last, be the launcher there or not.
    #[must_use]
    pub fn domain(&self, key: &VmiKey) -> Option<Arc<Domain>> {
        match self.node.view(key) {
            Some(view) => view.domain(),
            None => self.node.last_domain(key),
        }
    }

    /// Returns every launcher that was attached to and is not forgotten.
    #[must_use]
    pub fn all(&self) -> Vec<Launcher> {
        self.node.launchers()
    }

    /// Forgets the launcher of the instance with this UID: its records, its notify socket, its watch, and what it
    /// told and nobody has read yet.
    pub async fn forget(&self, uid: &str) {
        let turn = self.node.turn(uid);
        let _turn = turn.lock().await;
        self.node.forget(uid).await;
    }
}

/// Runs what waits for a disk where nothing else waits for it.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}
