//! Signs that something changed: the kernel's messages about devices (uevents), and changes of folders (inotify).
//!
//! Neither says what there is now. They only say that it is time to look. Either may be missing, as it is in some
//! sandboxes: folders show most of what the kernel tells, and without folders everything is looked at again and again.

mod folders;
mod uevent;

use std::future::pending;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use folders::Folders;
use uevent::Uevents;

/// How often the kubelet's folder is looked at where changes of folders cannot be seen.
const BLIND: Duration = Duration::from_secs(1);

/// What may have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// The devices.
    pub(crate) devices: bool,
    /// The kubelet's folder of device plugins: sockets.
    pub(crate) sockets: bool,
    /// Who has which device: the kubelet's record, or its pods.
    pub(crate) holders: bool,
}

impl Change {
    /// Everything.
    const ALL: Self = Self {
        devices: true,
        sockets: true,
        holders: true,
    };

    /// Whether anything may have changed.
    fn is_any(self) -> bool {
        self != Self::default()
    }

    fn and(self, other: Self) -> Self {
        Self {
            devices: self.devices || other.devices,
            sockets: self.sockets || other.sockets,
            holders: self.holders || other.holders,
        }
    }
}

/// A folder to be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Nodes of devices come and go there.
    Devices,
    /// Nodes of devices come and go there and in its folders.
    DevicesBelow,
    /// The kubelet's folder of device plugins.
    Plugins,
    /// The kubelet's folder of pods.
    Pods,
}

/// The signs.
#[derive(Debug)]
pub(crate) struct Events {
    kernel: Option<Uevents>,
    folders: Option<Folders>,
    blind: Option<Interval>,
    period: Duration,
    ticks: u32,
}

impl Events {
    /// Begins to listen to the kernel's messages about devices. Says why they cannot be had.
    pub(crate) fn open() -> (Self, Option<String>) {
        let opened = Uevents::open();
        let fault = opened.as_ref().err().map(|error| {
            format!("{error}; devices that have no node of their own are noticed late, or with the next change")
        });
        (Self::from_kernel(opened.ok(), BLIND), fault)
    }

    fn from_kernel(kernel: Option<Uevents>, period: Duration) -> Self {
        Self {
            kernel,
            folders: None,
            blind: None,
            period,
            ticks: 0,
        }
    }

    /// Watches these folders from now on, and no others. Of one that is missing, its nearest ancestor that exists is
    /// watched until it appears. Says what may have changed before it was watched, and why some cannot be watched.
    pub(crate) fn watch(&mut self, targets: Vec<(PathBuf, Kind)>) -> (Change, Option<String>) {
        let watched = self.watching().map(|folders| folders.watch(targets));
        self.mind_blindness();
        watched.unwrap_or_else(|error| {
            let cure = "is fs.inotify.max_user_instances used up? Looks every second instead";
            (Change::default(), Some(format!("{error}; {cure}")))
        })
    }

    fn watching(&mut self) -> io::Result<&mut Folders> {
        match &mut self.folders {
            Some(folders) => Ok(folders),
            none => Ok(none.insert(Folders::open()?)),
        }
    }

    /// Sees to it that time passes where folders cannot be watched.
    fn mind_blindness(&mut self) {
        let is_blind = self.folders.as_ref().is_none_or(Folders::is_blind);
        if !is_blind {
            self.blind = None;
        } else if self.blind.is_none() {
            let mut blind = interval(self.period);
            blind.set_missed_tick_behavior(MissedTickBehavior::Delay);
            self.blind = Some(blind);
        }
    }

    /// Waits until something may have changed. Can be dropped at any time.
    pub(crate) async fn next(&mut self) -> Change {
        loop {
            let change = tokio::select! {
                change = kernel(&mut self.kernel) => change,
                change = folders(&mut self.folders) => change,
                () = tick(&mut self.blind) => self.passed(),
            };
            self.mind_blindness();
            if change.is_any() {
                return change;
            }
        }
    }

    /// What is looked at when time has passed: devices, if nothing else tells of them, every other time.
    fn passed(&mut self) -> Change {
        self.ticks = self.ticks.wrapping_add(1);
        Change {
            devices: self.kernel.is_none() && self.ticks.is_multiple_of(2),
            ..Change::ALL
        }
    }
}

async fn kernel(uevents: &mut Option<Uevents>) -> Change {
    let Some(listening) = uevents else {
        return pending().await;
    };
    match listening.next().await {
        Ok(devices) => Change {
            devices,
            ..Change::default()
        },
        Err(error) => {
            tracing::warn!(%error, "messages of the kernel about devices come no more");
            *uevents = None;
            Change::ALL
        }
    }
}

async fn folders(folders: &mut Option<Folders>) -> Change {
    let Some(watching) = folders else {
        return pending().await;
    };
    match watching.next().await {
        Ok(change) => change,
        Err(error) => {
            tracing::warn!(%error, "messages of the kernel about folders come no more");
            *folders = None;
            Change::ALL
        }
    }
}

async fn tick(blind: &mut Option<Interval>) {
    match blind {
        Some(blind) => {
            blind.tick().await;
        }
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Change, Events, Kind};

    fn blind() -> Events {
        let mut events = Events::from_kernel(None, Duration::from_millis(1));
        events.mind_blindness();
        events
    }

    #[tokio::test]
    async fn without_any_sign_all_is_looked_at_again_and_again() {
        let mut events = blind();
        let mut of_devices = 0;
        for _ in 0..10 {
            let change = events.next().await;
            assert!(change.sockets && change.holders, "{change:?}");
            of_devices += u32::from(change.devices);
        }
        assert_eq!(of_devices, 5, "every other time");
    }

    #[tokio::test]
    async fn folders_that_can_be_watched_end_the_blindness() {
        let dir = tempfile::TempDir::new().unwrap();
        let mut events = blind();
        assert!(events.blind.is_some());
        let target = (dir.path().to_owned(), Kind::Plugins);
        let (unseen, fault) = events.watch(vec![target]);
        let expected = Change {
            sockets: true,
            holders: true,
            devices: false,
        };
        assert_eq!((unseen, fault), (expected, None));
        assert!(events.blind.is_none());
    }
}
