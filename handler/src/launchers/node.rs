//! Which launchers there are, and how one more is attached to.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::domain::Domain;
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::call::CommandError;
use super::launcher::{Launcher, SHORT, Told};
use super::minder::mind;
use super::outbox::Outbox;
use super::pipe::{self, Pipe};
use super::process::Process;
use super::records::{Ghost, Records};
use super::view::View;
use super::{AttachError, Seen, VmiIdentity, on_disk, socket};
use crate::config::{HostPaths, Patience};
use crate::key::VmiKey;
use crate::pod_files;

/// The longest time that is waited for anything.
const TIME_MAX: Duration = Duration::from_secs(86_400);
/// The versions of the command protocol that are spoken, best first.
const COMMAND_VERSIONS: [u32; 1] = [1];

/// A launcher that was on record and is no more.
#[derive(Debug)]
struct Gone {
    key: VmiKey,
    pod_uid: String,
    reason: String,
    domain: Option<Arc<Domain>>,
}

/// The launchers of a node, by UID of the instance.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) paths: HostPaths,
    pub(super) patience: Patience,
    pub(super) records: Records,
    outbox: Arc<Outbox>,
    /// Cancelled when nobody holds the launchers any more.
    pub(super) stop: CancellationToken,
    // None of the following locks is held while another is taken, or across an await.
    views: Mutex<HashMap<String, Arc<View>>>,
    gone: Mutex<HashMap<String, Gone>>,
    turns: Mutex<HashMap<String, Arc<AsyncMutex<()>>>>,
}

impl Node {
    pub(super) fn new(paths: HostPaths, patience: Patience, records: Records) -> Self {
        // Times that neither keep a core busy nor overflow a clock.
        let patience = Patience {
            watchdog: patience
                .watchdog
                .clamp(Duration::from_millis(100), TIME_MAX),
            resync: patience.resync.clamp(Duration::from_secs(1), TIME_MAX),
            ..patience
        };
        Self {
            paths,
            patience,
            records,
            outbox: Arc::default(),
            stop: CancellationToken::new(),
            views: Mutex::default(),
            gone: Mutex::default(),
            turns: Mutex::default(),
        }
    }

    /// Starts to tell what is seen.
    pub(super) fn deliver(&self, seen: mpsc::Sender<Seen>) {
        let (outbox, stop) = (Arc::clone(&self.outbox), self.stop.clone());
        tokio::spawn(async move {
            let _ = stop.run_until_cancelled(outbox.deliver(seen)).await;
        });
    }

    /// Returns what must be locked while the launcher of an instance is attached to or forgotten.
    pub(super) fn turn(&self, uid: &str) -> Arc<AsyncMutex<()>> {
        let mut turns = lock(&self.turns);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(uid.to_owned()).or_default())
    }

    /// Returns what is known of an instance's launcher; of two with the same name, the one that lives.
    pub(super) fn view(&self, key: &VmiKey) -> Option<Arc<View>> {
        let views = lock(&self.views);
        let of_key = views.values().filter(|view| view.launcher.key == *key);
        of_key.min_by_key(|view| view.launcher.has_ended()).cloned()
    }

    pub(super) fn launchers(&self) -> Vec<Launcher> {
        lock(&self.views)
            .values()
            .map(|view| view.launcher.clone())
            .collect()
    }

    /// Returns the domain of an instance whose launcher was gone before it was attached to.
    pub(super) fn last_domain(&self, key: &VmiKey) -> Option<Arc<Domain>> {
        let gone = lock(&self.gone);
        gone.values().find(|gone| gone.key == *key)?.domain.clone()
    }

    /// Returns the launcher of an instance when it was attached to, or why it cannot be any more. One that ended in a
    /// pod which is not the instance's any more does not count.
    pub(super) fn known(&self, vmi: &VmiIdentity) -> Option<Result<Launcher, AttachError>> {
        let lost = |pod_uid: &String, reason: &String| {
            let key = vmi.key.clone();
            let reason = reason.clone();
            vmi.pod_uids
                .contains(pod_uid)
                .then_some(Err(AttachError::Lost { key, reason }))
        };
        if let Some(gone) = lock(&self.gone).get(&vmi.uid) {
            return lost(&gone.pod_uid, &gone.reason);
        }
        let view = lock(&self.views).get(&vmi.uid).cloned()?;
        match view.end() {
            None => Some(Ok(view.launcher.clone())),
            Some(reason) => lost(&view.launcher.pod_uid, &reason),
        }
    }

    /// Returns the pod in which the one launcher of an instance is.
    pub(super) async fn find(&self, vmi: &VmiIdentity) -> Result<String, AttachError> {
        let mut pods = vmi.pod_uids.clone();
        pods.sort_unstable();
        pods.dedup();
        let mut found = Vec::new();
        for pod in pods {
            if self.has_command_socket(&pod).await? {
                found.push(pod);
            }
        }
        match found.as_slice() {
            [] => Err(AttachError::NotYet(vmi.key.clone())),
            [pod] => Ok(pod.clone()),
            several => Err(AttachError::Several {
                key: vmi.key.clone(),
                sockets: several.iter().map(|pod| self.socket(pod)).collect(),
            }),
        }
    }

    async fn has_command_socket(&self, pod_uid: &str) -> Result<bool, AttachError> {
        let (paths, pod) = (self.paths.clone(), pod_uid.to_owned());
        let opened = on_disk(move || socket::open_command_socket(&paths, &pod)).await;
        let opened = opened.map_err(|source| AttachError::Connect {
            socket: self.socket(pod_uid),
            source,
        })?;
        Ok(opened.is_some())
    }

    fn socket(&self, pod_uid: &str) -> PathBuf {
        socket::command_socket(&self.paths, pod_uid)
    }

    /// Attaches to a launcher. The caller has its turn.
    pub(super) async fn attach(&self, ghost: &Ghost) -> Result<Launcher, AttachError> {
        let (launcher, process) = self.meet(ghost).await?;
        let notifications = self.bind_pipe(&ghost.pod_uid).await?;
        let view = Arc::new(View::new(
            launcher.clone(),
            self.records.clone(),
            Arc::clone(&self.outbox),
        ));
        let answer = view
            .ask()
            .await
            .map_err(|error| self.misspoke(ghost, error))?;
        if let Told::Foreign(found) = answer.told {
            return Err(AttachError::Foreign {
                key: ghost.key.clone(),
                socket: self.socket(&ghost.pod_uid),
                found,
            });
        }
        if self.keep_ghost(ghost).await? {
            view.expect_nothing_more();
        }
        let pipe = Pipe::serve(notifications, Arc::clone(&view))
            .map_err(|source| self.unprepared(&ghost.pod_uid, source))?;
        lock(&self.gone).remove(&ghost.uid);
        lock(&self.views).insert(ghost.uid.clone(), Arc::clone(&view));
        let taken = view.take_answer(answer).await;
        taken.map_err(|error| self.misspoke(ghost, error))?;
        tracing::info!(vmi = %ghost.key, uid = ghost.uid, pid = launcher.pid, "attached to launcher");
        tokio::spawn(mind(view, process, pipe, self.paths.clone(), self.patience));
        Ok(launcher)
    }

    /// Finds out who is behind a command socket, and that it speaks our language.
    async fn meet(&self, ghost: &Ghost) -> Result<(Launcher, Process), AttachError> {
        let socket = self.socket(&ghost.pod_uid);
        let (paths, pod) = (self.paths.clone(), ghost.pod_uid.clone());
        if on_disk(move || Ok(socket::is_unresponsive(&paths, &pod)))
            .await
            .unwrap_or(false)
        {
            return Err(AttachError::Silent { socket });
        }
        let pid = self.peer(ghost, &socket).await?;
        let process = Process::hold(pid).map_err(|error| AttachError::Peer {
            socket: socket.clone(),
            reason: format!("process {pid}: {error}"),
        })?;
        let launcher = Launcher::new(&self.paths, ghost, pid, self.stop.child_token());
        // Who answers now is who listens; so the process with that number was held, and not a later one.
        let versions = launcher
            .command_versions(SHORT.min(self.patience.watchdog))
            .await;
        let offered = versions.map_err(|error| self.misspoke(ghost, error))?;
        if !offered
            .iter()
            .any(|version| COMMAND_VERSIONS.contains(version))
        {
            let offered = offered.into_iter().take(8).collect();
            return Err(AttachError::Versions { socket, offered });
        }
        Ok((launcher, process))
    }

    /// Returns the number of the process that listens on a command socket (`SO_PEERCRED`).
    async fn peer(&self, ghost: &Ghost, path: &Path) -> Result<i32, AttachError> {
        let failed = |source| AttachError::Connect {
            socket: path.to_owned(),
            source,
        };
        let opened = socket::open_command_socket(&self.paths, &ghost.pod_uid).map_err(failed)?;
        let opened = opened.ok_or_else(|| AttachError::NotYet(ghost.key.clone()))?;
        let silent = |_| AttachError::Silent {
            socket: path.to_owned(),
        };
        let connected = timeout(SHORT, pod_files::connect(&opened))
            .await
            .map_err(silent)?;
        let peer = connected
            .and_then(|stream| stream.peer_cred())
            .map_err(failed)?;
        peer.pid()
            .filter(|pid| *pid > 0)
            .ok_or_else(|| AttachError::Peer {
                socket: path.to_owned(),
                reason: "it is not visible here: the handler must run in the host's pid namespace \
                     (hostPID)"
                    .to_owned(),
            })
    }

    fn misspoke(&self, ghost: &Ghost, error: CommandError) -> AttachError {
        let socket = self.socket(&ghost.pod_uid);
        match error {
            CommandError::TimedOut { .. } => AttachError::Silent { socket },
            source => AttachError::Command { socket, source },
        }
    }

    async fn bind_pipe(
        &self,
        pod_uid: &str,
    ) -> Result<std::os::unix::net::UnixListener, AttachError> {
        let (paths, pod) = (self.paths.clone(), pod_uid.to_owned());
        let bound = on_disk(move || pipe::bind(&paths, &pod)).await;
        bound.map_err(|source| self.unprepared(pod_uid, source))
    }

    fn unprepared(&self, pod_uid: &str, source: io::Error) -> AttachError {
        let path = pipe::path(&self.paths, pod_uid);
        AttachError::Prepare { path, source }
    }

    async fn keep_ghost(&self, ghost: &Ghost) -> Result<bool, AttachError> {
        let socket = self.socket(&ghost.pod_uid);
        let (records, kept) = (self.records.clone(), ghost.clone());
        let kept = on_disk(move || records.keep_ghost(&kept, &socket)).await;
        kept.map_err(|source| AttachError::Prepare {
            path: self.records.ghost_path(&ghost.uid),
            source,
        })
    }

    /// Notes that a launcher on record is no more, and tells how its domain ended as far as that is known.
    pub(super) async fn bury(&self, ghost: &Ghost, reason: String) {
        let (records, uid) = (self.records.clone(), ghost.uid.clone());
        let domain = on_disk(move || Ok(records.final_domain(&uid))).await;
        let domain = domain.ok().flatten().map(Arc::new);
        let (key, uid) = (ghost.key.clone(), ghost.uid.clone());
        tracing::info!(vmi = %key, uid, reason, was_final = domain.is_some(), "launcher on record is gone");
        let gone = Gone {
            key: key.clone(),
            pod_uid: ghost.pod_uid.clone(),
            reason: reason.clone(),
            domain: domain.clone(),
        };
        lock(&self.gone).insert(uid.clone(), gone);
        let seen = match domain {
            Some(domain) => Seen::Domain { key, uid, domain },
            None => Seen::Lost { key, uid, reason },
        };
        self.outbox.push(&ghost.uid, seen);
    }

    /// Forgets a launcher. The caller has its turn.
    pub(super) async fn forget(&self, uid: &str) {
        let view = lock(&self.views).remove(uid);
        lock(&self.gone).remove(uid);
        if let Some(view) = &view {
            view.launcher.ended().cancel();
        }
        self.outbox.forget(uid);
        let (records, paths, uid) = (self.records.clone(), self.paths.clone(), uid.to_owned());
        let removed = on_disk(move || {
            records.forget(&uid);
            match view {
                Some(view) => pipe::remove(&paths, &view.launcher.pod_uid),
                None => Ok(()),
            }
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "notify socket of a launcher cannot be removed");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
