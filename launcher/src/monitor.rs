//! The duties of a pod's first process: orphans are reaped, and containers with disk images are let go
//! however the launcher ends.

use std::panic;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::pod::PodPaths;

/// Signals that ask for an orderly end (upstream's monitor passes each of them on as SIGTERM).
#[derive(Debug)]
pub struct EndSignals {
    signals: [Signal; 4],
}

impl EndSignals {
    /// Catches the signals from now on. To be called on a tokio runtime.
    ///
    /// # Errors
    ///
    /// Fails when the host refuses.
    pub fn catch() -> std::io::Result<Self> {
        let [a, b, c, d] = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
            SignalKind::quit(),
        ]
        .map(signal);
        Ok(Self {
            signals: [a?, b?, c?, d?],
        })
    }

    /// Waits for the next of them.
    pub async fn next(&mut self) {
        let [a, b, c, d] = &mut self.signals;
        tokio::select! {
            _ = a.recv() => {}
            _ = b.recv() => {}
            _ = c.recv() => {}
            _ = d.recv() => {}
        }
    }
}

/// Reaps every child that ends, from now on, when this is the pod's first process: those who are run in
/// the pod (probes, backup hooks) leave their orphans to it. The launcher has no children of its own.
///
/// # Errors
///
/// Fails when the host refuses the signal.
pub fn reap_orphans() -> std::io::Result<()> {
    if std::process::id() != 1 {
        return Ok(());
    }
    let mut ended = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while ended.recv().await.is_some() {
            reap();
        }
    });
    Ok(())
}

fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

/// Lets containers with disk images go when the launcher panics: its pod could not end otherwise.
pub fn release_on_panic(paths: &PodPaths) {
    let paths = paths.clone();
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        paths.release_container_disks();
    }));
}
