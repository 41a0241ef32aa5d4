//! What the block device and the SCSI disks share: the medium behind them, how requests are done on
//! it, what becomes of those that the host refuses, and what is counted.

mod counters;
mod engine;
#[cfg(test)]
pub(super) mod fake;

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;

use block::{Disk, DiskError};

use crate::guest_log::GuestLog;
use crate::lock::Lock;

pub use counters::{DiskCounters, DiskCounts};
pub(super) use engine::{Engine, Operation, Outcome, Range};

/// What a disk was asked when the host refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskAction {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Flushing.
    Flush,
    /// Discarding.
    Discard,
    /// Writing zeroes.
    WriteZeroes,
}

/// A request that the host refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskEvent {
    /// The name of the disk.
    pub device: String,
    /// What was asked.
    pub action: DiskAction,
    /// Offset on the disk in bytes.
    pub offset: u64,
    /// The error with its causes.
    pub error: String,
    /// The host has no space left.
    pub no_space: bool,
    /// The request is kept and the guest waits: the machine must be paused. When the device is
    /// resumed it tries the request again.
    pub stopped: bool,
}

/// What becomes of a request that the host refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorPolicy {
    /// The guest gets an I/O error.
    #[default]
    Report,
    /// The request is kept until the device is paused and resumed.
    Stop,
    /// As [`ErrorPolicy::Stop`] when the host has no space left, else [`ErrorPolicy::Report`].
    StopOnEnospc,
    /// The guest is told that all is well.
    Ignore,
}

/// Learns of refused requests, on the worker's thread.
///
/// It must not block or call the device: pausing waits for the worker.
pub type OnDiskError = Arc<dyn Fn(DiskEvent) + Send + Sync>;

/// What is to be done with a request that the host refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Report,
    Ignore,
    Keep,
}

/// A place for a medium, and how to treat what is asked of it.
pub(super) struct Drive {
    name: String,
    policy: ErrorPolicy,
    on_error: OnDiskError,
    counters: Arc<DiskCounters>,
    medium: Lock<Option<Arc<dyn Disk>>>,
    log: GuestLog,
}

impl Drive {
    pub(super) fn new(
        name: String,
        policy: ErrorPolicy,
        on_error: OnDiskError,
        medium: Option<Arc<dyn Disk>>,
    ) -> Self {
        Self {
            name,
            policy,
            on_error,
            counters: Arc::default(),
            medium: Lock::new(medium),
            log: GuestLog::default(),
        }
    }

    /// Returns the medium if there is one.
    pub(super) fn medium(&self) -> Option<Arc<dyn Disk>> {
        self.medium.get().clone()
    }

    fn set_medium(&self, medium: Option<Arc<dyn Disk>>) {
        let old = std::mem::replace(&mut *self.medium.get(), medium);
        // Closing an image may write: not under the lock.
        drop(old);
    }

    /// Reports the error and decides what becomes of the request.
    fn refused(&self, action: DiskAction, offset: u64, error: &DiskError) -> Verdict {
        let no_space = matches!(error, DiskError::NoSpace { .. });
        let verdict = match self.policy {
            ErrorPolicy::Report => Verdict::Report,
            ErrorPolicy::Ignore => Verdict::Ignore,
            ErrorPolicy::StopOnEnospc if !no_space => Verdict::Report,
            ErrorPolicy::Stop | ErrorPolicy::StopOnEnospc => Verdict::Keep,
        };
        let device = self.name.clone();
        let error = with_causes(error);
        self.counters.count_error();
        if let Some(count) = self.log.admit() {
            tracing::warn!(
                device,
                ?action,
                offset,
                count,
                error,
                "the host refused a disk request"
            );
        }
        (self.on_error)(DiskEvent {
            device,
            action,
            offset,
            error,
            no_space,
            stopped: verdict == Verdict::Keep,
        });
        verdict
    }
}

fn with_causes(error: &DiskError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// How a device tells its guest what the host did to a disk.
pub(super) trait TellGuest: Send + Sync {
    /// The disk has another size.
    fn resized(&self);

    /// Tells whether the medium can be taken out.
    fn is_removable(&self) -> bool;

    /// The drive has another medium, or none.
    fn medium_changed(&self);
}

/// Why a disk could not be changed under the guest's eyes.
#[derive(Debug, thiserror::Error)]
pub enum DiskChangeError {
    /// The disk is none whose medium can be taken out.
    #[error("change the medium of {name}: it is no CD-ROM drive")]
    Fixed {
        /// The disk's name.
        name: String,
    },
    /// There is nothing to be resized.
    #[error("resize {name}: the drive is empty")]
    Empty {
        /// The disk's name.
        name: String,
    },
    /// The image does not tell its size.
    #[error("resize {name}")]
    Size {
        /// The disk's name.
        name: String,
        /// The image's answer.
        source: DiskError,
    },
}

/// The host's side of a disk in a device. Its methods may be called from any thread at any time and
/// wait for no request.
#[derive(Clone)]
pub struct DiskHandle {
    drive: Arc<Drive>,
    guest: Arc<dyn TellGuest>,
}

impl DiskHandle {
    pub(super) fn new(drive: Arc<Drive>, guest: Arc<dyn TellGuest>) -> Self {
        Self { drive, guest }
    }

    /// Returns the disk's name.
    pub fn name(&self) -> &str {
        &self.drive.name
    }

    /// Returns what the disk has done so far.
    pub fn counters(&self) -> Arc<DiskCounters> {
        Arc::clone(&self.drive.counters)
    }

    /// Returns the size of the disk in bytes, zero for an empty drive.
    pub fn capacity_bytes(&self) -> u64 {
        self.drive.medium().map_or(0, |disk| disk.len_bytes())
    }

    /// Returns the room that the disk takes on the host in bytes, without its backing files.
    pub fn allocated_bytes(&self) -> u64 {
        let medium = self.drive.medium();
        medium.map_or(0, |disk| disk.allocated_bytes())
    }

    /// Looks at the size of the image again and tells the guest if it is another one; returns it.
    ///
    /// # Errors
    /// If the drive is empty or the host does not tell the size.
    pub fn resize(&self) -> Result<u64, DiskChangeError> {
        self.change_size(|disk| disk.refresh_len())
    }

    /// Makes the disk at least `len_bytes` long, for which its image must be able to grow, and tells
    /// the guest; returns its length.
    ///
    /// # Errors
    /// If the drive is empty or the image cannot grow that much.
    pub fn grow(&self, len_bytes: u64) -> Result<u64, DiskChangeError> {
        self.change_size(|disk| {
            disk.grow(len_bytes)?;
            Ok(disk.len_bytes())
        })
    }

    fn change_size(
        &self,
        change: impl FnOnce(&dyn Disk) -> Result<u64, DiskError>,
    ) -> Result<u64, DiskChangeError> {
        let name = || self.drive.name.clone();
        let empty = || DiskChangeError::Empty { name: name() };
        let disk = self.drive.medium().ok_or_else(empty)?;
        let old_bytes = disk.len_bytes();
        let refused = |source| DiskChangeError::Size {
            name: name(),
            source,
        };
        let len_bytes = change(disk.as_ref()).map_err(refused)?;
        if len_bytes != old_bytes {
            self.guest.resized();
        }
        Ok(len_bytes)
    }

    /// Takes the medium out of a CD-ROM drive, even if the guest locked it in, and puts `medium` in.
    ///
    /// # Errors
    /// If the disk is no CD-ROM drive.
    pub fn change_medium(&self, medium: Option<Arc<dyn Disk>>) -> Result<(), DiskChangeError> {
        if !self.guest.is_removable() {
            let name = self.drive.name.clone();
            return Err(DiskChangeError::Fixed { name });
        }
        self.drive.set_medium(medium);
        self.guest.medium_changed();
        Ok(())
    }
}

impl fmt::Debug for DiskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DiskHandle").field(&self.drive.name).finish()
    }
}
