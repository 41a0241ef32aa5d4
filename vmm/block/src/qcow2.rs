//! The qcow2 format, versions 2 and 3, as QEMU's `docs/interop/qcow2` specifies it.
//!
//! Tables are looked up under one lock; data moves without it. A write to a cluster that has no
//! place of its own reserves one, fills it, and only then makes the tables point to it:
//!
//! ```text
//! L2 entry: old ──reserve──▶ old, cluster busy ──data written──▶ publish ──▶ new, old is freed
//!                                    └──────────data failed──────▶ abandon ─▶ old
//! ```
//!
//! Changed tables stay in memory until a flush, which writes refcounts, then the refcount table, then
//! the mapping, with a sync between them. Whatever the tables on disk refer to is therefore counted
//! and complete, and a crash costs at most leaked clusters. A freed cluster loses its reference only
//! after the mapping without it is durable and no request can still be using it.
//!
//! Locks, in the order in which they are taken: `growing`, `retired`, `metadata`, then those inside
//! [`InFlight`] and [`Inflated`], which are never held together.

mod allocate;
mod cache;
mod compressed;
mod create;
mod flush;
mod geometry;
mod grow;
mod header;
mod in_flight;
mod mapping;
mod metadata;
mod refcount;
#[cfg(test)]
mod tests;
mod zstd;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskError, check_range, read_zero_extended};
use crate::host_file::HostFile;
use crate::open::OpenError;
use crate::width::{to_u64, to_usize};
use compressed::Inflated;
use flush::Retired;
use geometry::Geometry;
use in_flight::InFlight;
use mapping::{Clear, Cleared, Reservation, Source, WritePlan};
use metadata::Metadata;

pub(crate) use create::{Layout, create};
pub(crate) use header::{Backing, Header, MAGIC};

/// How many zero bytes are written at a time where no table can say that there are zeroes.
const ZERO_CHUNK_BYTES: u64 = 64 << 10;

/// What the opener decides about an image, beside what its header says.
pub(crate) struct Setup {
    /// What lies below unallocated clusters.
    pub(crate) backing: Option<Arc<dyn Disk>>,
    /// Refuses every change.
    pub(crate) read_only: bool,
    /// Flushes after every change.
    pub(crate) writethrough: bool,
    /// How many images stand on this one.
    pub(crate) depth: usize,
}

impl Setup {
    /// Returns how many bytes of a disk have something of the backing file below them.
    fn backed_bytes(&self, len_bytes: u64) -> u64 {
        let below = self.backing.as_ref().map_or(0, |disk| disk.len_bytes());
        below.min(len_bytes)
    }
}

/// A qcow2 image.
pub(crate) struct Qcow2Disk {
    file: Arc<HostFile>,
    geometry: Geometry,
    setup: Setup,
    /// Size of the disk.
    len_bytes: AtomicU64,
    /// How many bytes of the disk have something of the backing file below them.
    backed_bytes: AtomicU64,
    /// Held while the disk grows.
    growing: Mutex<()>,
    metadata: Mutex<Metadata>,
    /// Signalled when clusters stop being busy.
    settled: Condvar,
    in_flight: InFlight,
    inflated: Inflated,
    /// Held during a flush, of which there is one at a time.
    retired: Mutex<Retired>,
}

/// Takes a lock. Nothing here panics while it holds one, so a poisoned lock protects sound data.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Qcow2Disk {
    /// Makes a disk of an image whose header was read.
    pub(crate) fn new(file: HostFile, header: &Header, setup: Setup) -> Result<Self, OpenError> {
        if !setup.read_only {
            header.check_writable(&file)?;
        }
        let path = file.path().to_owned();
        Self::assemble(file, header, setup).map_err(|source| OpenError::Access { path, source })
    }

    fn assemble(file: HostFile, header: &Header, setup: Setup) -> Result<Self, DiskError> {
        if !setup.read_only {
            header.clear_autoclear(&file)?;
        }
        let file = Arc::new(file);
        Ok(Self {
            geometry: Geometry::new(header),
            len_bytes: AtomicU64::new(header.len_bytes),
            backed_bytes: AtomicU64::new(setup.backed_bytes(header.len_bytes)),
            growing: Mutex::default(),
            metadata: Mutex::new(Metadata::new(Arc::clone(&file), header, setup.depth)?),
            settled: Condvar::new(),
            in_flight: InFlight::default(),
            inflated: Inflated::default(),
            retired: Mutex::default(),
            setup,
            file,
        })
    }

    fn backed_bytes(&self) -> u64 {
        self.backed_bytes.load(Ordering::Acquire)
    }

    fn check_change(&self, offset: u64, len_bytes: u64) -> Result<(), DiskError> {
        check_range(offset, len_bytes, self.len_bytes())?;
        if self.setup.read_only {
            Err(DiskError::ReadOnly)
        } else {
            Ok(())
        }
    }

    fn after_change(&self) -> Result<(), DiskError> {
        if self.setup.writethrough {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn read_from(&self, source: Source, pos: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        match (source, &self.setup.backing) {
            (Source::Backing, Some(backing)) => read_zero_extended(&**backing, pos, buf)?,
            (Source::Backing, None) | (Source::Zero, _) => buf.fill(0),
            (Source::File(host), _) => {
                // The last cluster may lack an end that was never written.
                let got = self.file.read_up_to(host, buf)?;
                buf[got..].fill(0);
            }
            (Source::Compressed(compressed), _) => {
                let bytes = self
                    .inflated
                    .cluster(&self.file, &self.geometry, compressed)?;
                let inside = to_usize(self.geometry.in_cluster(pos));
                buf.copy_from_slice(&bytes[inside..][..buf.len()]);
            }
        }
        Ok(())
    }

    /// Decides how to write from `pos` on, after other writes to the same cluster settled.
    fn plan_write(&self, pos: u64, max_bytes: u64) -> Result<WritePlan, DiskError> {
        let mut metadata = locked(&self.metadata);
        loop {
            match metadata.plan_write(pos, max_bytes)? {
                WritePlan::Busy => metadata = self.wait(metadata),
                plan => return Ok(plan),
            }
        }
    }

    fn wait<'a>(&self, metadata: MutexGuard<'a, Metadata>) -> MutexGuard<'a, Metadata> {
        self.settled
            .wait(metadata)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the first bytes of `buf` at `pos` and returns how many.
    fn write_some(&self, pos: u64, buf: &[u8]) -> Result<usize, DiskError> {
        self.write_back_if_crowded()?;
        let request = self.in_flight.enter();
        let plan = self.plan_write(pos, to_u64(buf.len()));
        match plan {
            Ok(WritePlan::InPlace { host, len_bytes }) => {
                let len = to_usize(len_bytes);
                self.file.write_all(host, &buf[..len]).map(|()| len)
            }
            Ok(WritePlan::Move(reservation)) => self.write_moved(pos, buf, &reservation),
            // A full host may hold clusters that only wait for a flush to become free.
            Err(DiskError::NoSpace { .. }) if locked(&self.metadata).has_freed() => {
                drop(request);
                self.write_back()?;
                Ok(0)
            }
            Err(error) => Err(error),
            Ok(WritePlan::Busy) => Ok(0),
        }
    }

    fn write_moved(
        &self,
        pos: u64,
        buf: &[u8],
        reservation: &Reservation,
    ) -> Result<usize, DiskError> {
        let bytes = reservation.run.clusters << self.geometry.cluster_bits;
        let room = to_usize(bytes - self.geometry.in_cluster(pos));
        let buf = &buf[..buf.len().min(room)];
        let filled = self.fill(pos, buf, reservation);
        let mut metadata = locked(&self.metadata);
        let published = match filled {
            Ok(()) => metadata.publish(reservation),
            Err(error) => {
                metadata.abandon(reservation);
                Err(error)
            }
        };
        drop(metadata);
        self.settled.notify_all();
        published.map(|()| buf.len())
    }

    /// Writes `buf` to its new place, and around it what the first and last cluster held so far.
    fn fill(&self, pos: u64, buf: &[u8], reservation: &Reservation) -> Result<(), DiskError> {
        let bits = self.geometry.cluster_bits;
        let (guest, host) = (reservation.guest << bits, reservation.run.first << bits);
        let end = pos + to_u64(buf.len());
        let guest_end = guest + (reservation.run.clusters << bits);
        let last = reservation.old.len() - 1;
        self.copy_old(guest, pos, reservation.old[0], host, reservation.run.zeroed)?;
        self.file.write_all(host + (pos - guest), buf)?;
        let host_end = host + (end - guest);
        self.copy_old(
            end,
            guest_end,
            reservation.old[last],
            host_end,
            reservation.run.zeroed,
        )
    }

    /// Copies the bytes from `pos` to `end`, which lie in one cluster, to their new place.
    fn copy_old(
        &self,
        pos: u64,
        end: u64,
        entry: u64,
        host: u64,
        zeroed: bool,
    ) -> Result<(), DiskError> {
        if pos == end {
            return Ok(());
        }
        let source = locked(&self.metadata).source_of(entry, self.geometry.in_cluster(pos))?;
        let is_zero =
            source == Source::Zero || source == Source::Backing && pos >= self.backed_bytes();
        if is_zero {
            return if zeroed {
                Ok(())
            } else {
                self.file.zero(host, end - pos, false)
            };
        }
        let mut old = vec![0; to_usize(end - pos)];
        self.read_from(source, pos, &mut old)?;
        self.file.write_all(host, &old)
    }

    fn write_all(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        let mut done = 0;
        while done < buf.len() {
            done += self.write_some(offset + to_u64(done), &buf[done..])?;
        }
        Ok(())
    }

    /// Makes a range read as zeroes that is no whole cluster, or that no table can express.
    fn write_zero_bytes(&self, offset: u64, end: u64) -> Result<(), DiskError> {
        let zeroes = vec![0; to_usize((end - offset).min(ZERO_CHUNK_BYTES))];
        let mut pos = offset;
        while pos < end {
            let extent = locked(&self.metadata).extent(pos, (end - pos).min(ZERO_CHUNK_BYTES))?;
            let is_zero = match extent.source {
                Source::Zero => true,
                Source::Backing => pos >= self.backed_bytes(),
                Source::File(_) | Source::Compressed(_) => false,
            };
            if !is_zero {
                self.write_all(pos, &zeroes[..to_usize(extent.len_bytes)])?;
            }
            pos += extent.len_bytes;
        }
        Ok(())
    }

    /// Clears the whole clusters from `pos` to `end`.
    fn clear(&self, mut pos: u64, end: u64, how: Clear) -> Result<(), DiskError> {
        while pos < end {
            self.write_back_if_crowded()?;
            match self.clear_some(pos, end, how)? {
                Cleared::Bytes(bytes) => pos += bytes,
                Cleared::WriteZeroes => {
                    let next = pos + self.geometry.cluster_bytes();
                    self.write_zero_bytes(pos, next)?;
                    pos = next;
                }
                Cleared::Busy => {}
            }
        }
        Ok(())
    }

    /// Makes a range read as zeroes: the whole clusters in it by the tables, its ends by writing.
    fn zero_range(
        &self,
        offset: u64,
        end: u64,
        (first, last): (u64, u64),
        how: Clear,
    ) -> Result<(), DiskError> {
        self.write_zero_bytes(offset, first.min(end))?;
        self.clear(first, last, how)?;
        self.write_zero_bytes(last.max(offset).min(end), end)
    }

    fn clear_some(&self, pos: u64, end: u64, how: Clear) -> Result<Cleared, DiskError> {
        let mut metadata = locked(&self.metadata);
        loop {
            match metadata.clear(pos, end, how, self.backed_bytes())? {
                Cleared::Busy => metadata = self.wait(metadata),
                step => return Ok(step),
            }
        }
    }

    /// Keeps the disk from growing while a range up to its end is cleared, if that end lies inside a cluster: the whole
    /// cluster goes, and nobody may write behind the old end meanwhile.
    fn hold_end(&self, end: u64) -> Option<MutexGuard<'_, ()>> {
        let is_inside = !end.is_multiple_of(self.geometry.cluster_bytes());
        (is_inside && end == self.len_bytes()).then(|| locked(&self.growing))
    }

    /// Returns the whole clusters inside a range; the last of the disk may be a part of one.
    fn whole_clusters(&self, offset: u64, end: u64) -> (u64, u64) {
        let size = self.geometry.cluster_bytes();
        let first = offset.next_multiple_of(size);
        let to_the_end = end == self.len_bytes();
        let last = if to_the_end {
            end.next_multiple_of(size)
        } else {
            end / size * size
        };
        (first, last.max(first))
    }
}

impl Disk for Qcow2Disk {
    fn len_bytes(&self) -> u64 {
        self.len_bytes.load(Ordering::Acquire)
    }

    fn allocated_bytes(&self) -> u64 {
        self.file.allocated_bytes().unwrap_or(0)
    }

    fn note(&self) -> Option<String> {
        self.file.note()
    }

    fn grow(&self, len_bytes: u64) -> Result<(), DiskError> {
        self.grow_to(len_bytes)
    }

    fn is_read_only(&self) -> bool {
        self.setup.read_only
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        check_range(offset, to_u64(buf.len()), self.len_bytes())?;
        let _request = self.in_flight.enter();
        let mut done = 0;
        while done < buf.len() {
            let (pos, left) = (offset + to_u64(done), to_u64(buf.len() - done));
            let extent = locked(&self.metadata).extent(pos, left)?;
            let len = to_usize(extent.len_bytes);
            self.read_from(extent.source, pos, &mut buf[done..done + len])?;
            done += len;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        self.check_change(offset, to_u64(buf.len()))?;
        self.write_all(offset, buf)?;
        self.after_change()
    }

    fn flush(&self) -> Result<(), DiskError> {
        if self.setup.read_only {
            Ok(())
        } else {
            self.write_back()
        }
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> Result<(), DiskError> {
        self.check_change(offset, len_bytes)?;
        let end = offset + len_bytes;
        let held = self.hold_end(end);
        let (first, last) = self.whole_clusters(offset, end);
        self.clear(first, last, Clear::Discard)?;
        drop(held);
        self.after_change()
    }

    fn write_zeroes(&self, offset: u64, len_bytes: u64, may_unmap: bool) -> Result<(), DiskError> {
        self.check_change(offset, len_bytes)?;
        let end = offset + len_bytes;
        let how = if may_unmap {
            Clear::ZeroAndUnmap
        } else {
            Clear::Zero
        };
        let held = self.hold_end(end);
        self.zero_range(offset, end, self.whole_clusters(offset, end), how)?;
        drop(held);
        self.after_change()
    }
}

impl Drop for Qcow2Disk {
    fn drop(&mut self) {
        if !self.setup.read_only {
            self.close();
        }
    }
}
