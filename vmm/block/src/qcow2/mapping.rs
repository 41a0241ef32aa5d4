//! From positions of the disk to clusters of the file (qcow2 specification, "Cluster mapping").

use std::ops::Range;

use super::allocate::Run;
use super::cache::Stage;
use super::geometry::Geometry;
use super::metadata::Metadata;
use crate::disk::DiskError;
use crate::width::{to_u64, to_usize};

/// Offsets in L1 and L2 entries have 56 bits.
pub(super) const HOST_OFFSET_LIMIT: u64 = 1 << 56;

const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const OFFSET_MASK: u64 = (HOST_OFFSET_LIMIT - 1) & !0x1ff;
const ZERO: u64 = 1;

/// An L2 entry, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cluster {
    /// The backing file decides.
    Unallocated,
    /// Reads as zeroes; may keep a place in the file.
    Zero { host: Option<u64>, copied: bool },
    /// Lies in the file at `host`; nothing else refers to that if `copied`.
    Data { host: u64, copied: bool },
    /// Lies compressed in the file.
    Compressed(Compressed),
}

/// Where the compressed bytes of a cluster lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Compressed {
    pub(super) host: u64,
    /// At least as long as the compressed bytes.
    pub(super) len_bytes: u64,
}

/// Where bytes of the disk come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The backing file.
    Backing,
    /// Nowhere: they are zero.
    Zero,
    /// The file, at this offset.
    File(u64),
    /// A compressed cluster.
    Compressed(Compressed),
}

/// Bytes of the disk that all come from one source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) source: Source,
    pub(super) len_bytes: u64,
}

/// How a write reaches the file.
#[derive(Debug)]
pub(super) enum WritePlan {
    /// Straight to the file at `host`.
    InPlace { host: u64, len_bytes: u64 },
    /// To clusters that take the place of what was there.
    Move(Reservation),
    /// Another write is moving the cluster.
    Busy,
}

/// New places for clusters of the disk, which are busy until it is published or abandoned.
#[derive(Debug)]
pub(super) struct Reservation {
    /// The first cluster of the disk.
    pub(super) guest: u64,
    /// The places.
    pub(super) run: Run,
    /// The entries that will be replaced.
    pub(super) old: Vec<u64>,
    /// The one place is that which the cluster had.
    same_place: bool,
}

/// Takes an L2 entry apart; an error says what is wrong with it.
pub(super) fn parse(geometry: &Geometry, entry: u64) -> Result<Cluster, &'static str> {
    if entry & COMPRESSED != 0 {
        let size_bits = geometry.cluster_bits - 8;
        let host = entry & ((1 << (62 - size_bits)) - 1);
        let sectors = ((entry & !(COPIED | COMPRESSED)) >> (62 - size_bits)) + 1;
        let len_bytes = sectors * 512 - host % 512;
        return Ok(Cluster::Compressed(Compressed { host, len_bytes }));
    }
    let (host, copied) = (entry & OFFSET_MASK, entry & COPIED != 0);
    if geometry.in_cluster(host) != 0 {
        return Err("is not the start of a cluster");
    }
    if entry & ZERO != 0 && geometry.version >= 3 {
        return Ok(Cluster::Zero {
            host: Some(host).filter(|h| *h != 0),
            copied,
        });
    }
    Ok(if host == 0 {
        Cluster::Unallocated
    } else {
        Cluster::Data { host, copied }
    })
}

impl Metadata {
    /// Returns the L2 table for a position, and whether only the active L1 table refers to it.
    fn l2_table(&mut self, pos: u64) -> Result<Option<(u64, bool)>, DiskError> {
        let entry = self.cache.entry(self.l1_entry_offset(pos))?;
        let offset = entry & OFFSET_MASK;
        if offset == 0 {
            return Ok(None);
        }
        if self.geometry.in_cluster(offset) != 0 || offset >= self.file_bytes {
            let problem = "is not a cluster of the file";
            return Err(self.corrupt("L1 entry", offset, problem));
        }
        Ok(Some((offset, entry & COPIED != 0)))
    }

    /// Returns the L2 entries from `pos` on that lie in one slice, at most `wanted` of them.
    fn l2_entries(&mut self, pos: u64, wanted: u64) -> Result<Vec<u64>, DiskError> {
        let Some((table, _)) = self.l2_table(pos)? else {
            let left = self.entries_left_in_slice(pos);
            return Ok(vec![0; to_usize(wanted.min(left))]);
        };
        let offset = table + self.geometry.in_l2_table(pos);
        let slice = self.cache.read(offset)?.chunks_exact(8);
        let entry = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
        Ok(slice.take(to_usize(wanted)).map(entry).collect())
    }

    fn entries_left_in_slice(&self, pos: u64) -> u64 {
        let slice = self.cache.slice_bytes();
        (slice - self.geometry.in_l2_table(pos) % slice) / 8
    }

    /// Takes the entry for `pos` apart and checks that it stays inside the file.
    fn cluster(&self, entry: u64) -> Result<Cluster, DiskError> {
        let cluster = parse(&self.geometry, entry);
        let cluster = cluster.map_err(|problem| self.corrupt("L2 entry", entry, problem))?;
        let host = match cluster {
            Cluster::Data { host, .. } | Cluster::Compressed(Compressed { host, .. }) => host,
            Cluster::Zero { host, .. } => host.unwrap_or(0),
            Cluster::Unallocated => 0,
        };
        if host < self.file_bytes {
            return Ok(cluster);
        }
        Err(self.corrupt("cluster", host, "lies beyond the end of the file"))
    }

    /// Returns how many clusters the `len_bytes` from `pos` on touch.
    fn clusters_touched(&self, pos: u64, len_bytes: u64) -> u64 {
        (self.geometry.in_cluster(pos) + len_bytes).div_ceil(self.geometry.cluster_bytes())
    }

    /// Tells where the bytes from `pos` on come from, at most `max_bytes` and at least one of them.
    pub(super) fn extent(&mut self, pos: u64, max_bytes: u64) -> Result<Extent, DiskError> {
        let entries = self.l2_entries(pos, self.clusters_touched(pos, max_bytes))?;
        let (inside, size) = (self.geometry.in_cluster(pos), self.geometry.cluster_bytes());
        let source = self.source(self.cluster(entries[0])?, inside);
        let mut clusters = 1;
        for entry in &entries[1..] {
            let next = self.source(self.cluster(*entry)?, 0);
            let follows = match source {
                Source::Backing | Source::Zero => next == source,
                Source::File(host) => next == Source::File(host - inside + clusters * size),
                Source::Compressed(_) => false,
            };
            if !follows {
                break;
            }
            clusters += 1;
        }
        Ok(Extent {
            source,
            len_bytes: (clusters * size - inside).min(max_bytes),
        })
    }

    /// Tells where the byte `inside` a cluster comes from according to an entry.
    pub(super) fn source_of(&self, entry: u64, inside: u64) -> Result<Source, DiskError> {
        Ok(self.source(self.cluster(entry)?, inside))
    }

    fn source(&self, cluster: Cluster, inside: u64) -> Source {
        match cluster {
            Cluster::Unallocated => Source::Backing,
            Cluster::Zero { .. } => Source::Zero,
            Cluster::Data { host, .. } => Source::File(host + inside),
            Cluster::Compressed(compressed) => Source::Compressed(compressed),
        }
    }

    /// Decides how the bytes from `pos` on are written, at most `max_bytes` of them.
    pub(super) fn plan_write(&mut self, pos: u64, max_bytes: u64) -> Result<WritePlan, DiskError> {
        let entries = self.l2_entries(pos, self.clusters_touched(pos, max_bytes))?;
        let l2_is_ours = matches!(self.l2_table(pos)?, Some((_, true)));
        match self.cluster(entries[0])? {
            Cluster::Data { host, copied: true } if l2_is_ours => {
                self.write_in_place(pos, host, &entries, max_bytes)
            }
            _ => self.reserve(pos, &entries),
        }
    }

    fn write_in_place(
        &self,
        pos: u64,
        host: u64,
        entries: &[u64],
        max_bytes: u64,
    ) -> Result<WritePlan, DiskError> {
        let size = self.geometry.cluster_bytes();
        let expected = |i: usize| COPIED | (host + to_u64(i) * size);
        let clusters = (0..entries.len())
            .take_while(|i| entries[*i] == expected(*i))
            .count();
        let end = host + to_u64(clusters.max(1)) * size;
        self.check_not_table(host..end)?;
        let inside = self.geometry.in_cluster(pos);
        let len_bytes = (end - host - inside).min(max_bytes);
        Ok(WritePlan::InPlace {
            host: host + inside,
            len_bytes,
        })
    }

    /// Keeps an image whose L2 entries point into its own tables from having them overwritten.
    fn check_not_table(&self, host: Range<u64>) -> Result<(), DiskError> {
        let l1 = self.l1_offset;
        let counts = self.count_table_offset;
        let tables = [
            0..self.geometry.cluster_bytes(),
            l1..l1 + self.l1_entries * 8,
            counts..counts + self.count_table_entries * 8,
        ];
        if tables
            .iter()
            .any(|table| host.start < table.end && table.start < host.end)
        {
            return Err(self.corrupt("L2 entry", host.start, "points into another table"));
        }
        Ok(())
    }

    /// Reserves new places for the clusters from `pos` on that cannot be written where they are.
    fn reserve(&mut self, pos: u64, entries: &[u64]) -> Result<WritePlan, DiskError> {
        let guest = self.geometry.cluster_of(pos);
        if self.busy.contains(&guest) {
            return Ok(WritePlan::Busy);
        }
        self.own_l2_table(pos)?;
        let mut old = vec![entries[0]];
        let (run, same_place) = match self.cluster(entries[0])? {
            Cluster::Zero {
                host: Some(host),
                copied: true,
            } => {
                self.check_not_table(host..host + self.geometry.cluster_bytes())?;
                let first = self.geometry.cluster_of(host);
                (
                    Run {
                        first,
                        clusters: 1,
                        zeroed: false,
                    },
                    true,
                )
            }
            _ => {
                for (entry, guest) in entries[1..].iter().zip(guest + 1..) {
                    if self.busy.contains(&guest) || !self.must_move(*entry)? {
                        break;
                    }
                    old.push(*entry);
                }
                (self.allocate(to_u64(old.len()))?, false)
            }
        };
        old.truncate(to_usize(run.clusters));
        self.busy.extend(guest..guest + run.clusters);
        Ok(WritePlan::Move(Reservation {
            guest,
            run,
            old,
            same_place,
        }))
    }

    /// Tells whether a write to the cluster needs a newly allocated one.
    fn must_move(&self, entry: u64) -> Result<bool, DiskError> {
        Ok(match self.cluster(entry)? {
            Cluster::Unallocated | Cluster::Compressed(_) => true,
            Cluster::Zero { host, copied } => host.is_none() || !copied,
            Cluster::Data { copied, .. } => !copied,
        })
    }

    /// Makes the tables point to the new places, whose content is complete.
    pub(super) fn publish(&mut self, reservation: &Reservation) -> Result<(), DiskError> {
        let bits = self.geometry.cluster_bits;
        let entries = |run: Run| (run.first..run.first + run.clusters).map(|c| c << bits | COPIED);
        let pos = reservation.guest << bits;
        if let Err(error) = self.set_l2_entries(pos, entries(reservation.run)) {
            self.abandon(reservation);
            return Err(error);
        }
        self.unmark_busy(reservation);
        if !reservation.same_place {
            reservation
                .old
                .iter()
                .for_each(|entry| self.free_entry(*entry));
        }
        Ok(())
    }

    /// Gives the new places back; the tables stay as they are.
    pub(super) fn abandon(&mut self, reservation: &Reservation) {
        self.unmark_busy(reservation);
        if !reservation.same_place {
            self.release(reservation.run);
        }
    }

    fn unmark_busy(&mut self, reservation: &Reservation) {
        for guest in reservation.guest..reservation.guest + reservation.run.clusters {
            self.busy.remove(&guest);
        }
    }

    /// Takes the reference of an entry that no table holds any more.
    fn free_entry(&mut self, entry: u64) {
        let bits = self.geometry.cluster_bits;
        match parse(&self.geometry, entry) {
            Ok(
                Cluster::Data { host, .. }
                | Cluster::Zero {
                    host: Some(host), ..
                },
            ) => {
                self.free(host >> bits..(host >> bits) + 1);
            }
            Ok(Cluster::Compressed(Compressed { host, len_bytes })) => {
                self.free(host >> bits..((host + len_bytes - 1) >> bits) + 1);
            }
            // A wrong entry was refused before it could be replaced.
            Ok(Cluster::Zero { host: None, .. } | Cluster::Unallocated) | Err(_) => {}
        }
    }

    /// Sets entries of one slice of the L2 table for `pos`, which must be ours.
    fn set_l2_entries(
        &mut self,
        pos: u64,
        entries: impl Iterator<Item = u64>,
    ) -> Result<(), DiskError> {
        let table = self.own_l2_table(pos)?;
        let offset = table + self.geometry.in_l2_table(pos);
        let slice = self.cache.change(offset, Stage::Mapping)?;
        for (place, entry) in slice.chunks_exact_mut(8).zip(entries) {
            place.copy_from_slice(&entry.to_be_bytes());
        }
        Ok(())
    }

    /// Returns the L2 table for `pos`, after making or copying it if it is missing or shared.
    fn own_l2_table(&mut self, pos: u64) -> Result<u64, DiskError> {
        let old = self.l2_table(pos)?;
        if let Some((table, true)) = old {
            return Ok(table);
        }
        let run = self.allocate(1)?;
        let table = run.first << self.geometry.cluster_bits;
        let l1_entry = self.l1_entry_offset(pos);
        let filled = self
            .fill_l2_table(run, old.map(|(table, _)| table))
            .and_then(|()| {
                self.cache
                    .set_entry(l1_entry, table | COPIED, Stage::Mapping)
            });
        if let Err(error) = filled {
            self.release(run);
            return Err(error);
        }
        if let Some((shared, _)) = old {
            let cluster = self.geometry.cluster_of(shared);
            self.free(cluster..cluster + 1);
        }
        Ok(table)
    }

    /// Writes a new L2 table to the file at once, so that it is complete before L1 points to it, and
    /// has its room on the host before a flush needs that.
    fn fill_l2_table(&mut self, run: Run, from: Option<u64>) -> Result<(), DiskError> {
        let (table, size) = (
            run.first << self.geometry.cluster_bits,
            self.geometry.cluster_bytes(),
        );
        self.cache.forget(table, size);
        let Some(from) = from else {
            return self.file.zero(table, size, false);
        };
        let mut at = 0;
        while at < size {
            let slice = self.cache.read(from + at)?.to_vec();
            self.file.write_all(table + at, &slice)?;
            at += to_u64(slice.len());
        }
        Ok(())
    }
}

/// Why clusters are cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clear {
    /// Their content is no longer needed.
    Discard,
    /// They must read as zeroes; their place in the file may be given up.
    ZeroAndUnmap,
    /// They must read as zeroes.
    Zero,
}

/// What one step of clearing did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cleared {
    /// The tables say what is wanted for so many bytes.
    Bytes(u64),
    /// The tables cannot say it for the cluster; zeroes must be written.
    WriteZeroes,
    /// A write is moving the cluster.
    Busy,
}

impl Metadata {
    /// Clears whole clusters from `pos` on: those that one slice of the L2 table maps, at most up
    /// to `end`. Bytes of the backing file lie below those that come before `backed`.
    pub(super) fn clear(
        &mut self,
        pos: u64,
        end: u64,
        how: Clear,
        backed: u64,
    ) -> Result<Cleared, DiskError> {
        let size = self.geometry.cluster_bytes();
        if self.l2_table(pos)?.is_none() && (how == Clear::Discard || pos >= backed) {
            let span = self.geometry.bytes_per_l1_entry();
            return Ok(Cleared::Bytes((span - pos % span).min(end - pos)));
        }
        let old = self.l2_entries(pos, (end - pos) / size)?;
        let mut new = Vec::new();
        for (entry, at) in old.iter().zip((pos..end).step_by(to_usize(size))) {
            let busy = self.busy.contains(&self.geometry.cluster_of(at));
            let cleared = self.cleared_entry(*entry, how, at < backed)?;
            match cleared.filter(|_| !busy) {
                Some(entry) => new.push(entry),
                None if new.is_empty() && busy => return Ok(Cleared::Busy),
                None if new.is_empty() => return Ok(Cleared::WriteZeroes),
                None => break,
            }
        }
        let old = &old[..new.len()];
        if old != new {
            self.set_l2_entries(pos, new.iter().copied())?;
        }
        for (old, new) in old.iter().zip(&new) {
            // An entry that keeps its place differs in the zero flag only.
            if (old ^ new) & !ZERO != 0 {
                self.free_entry(*old);
            }
        }
        Ok(Cleared::Bytes(to_u64(new.len()) * size))
    }

    /// Returns what an entry becomes; none if no entry can say it.
    fn cleared_entry(
        &self,
        entry: u64,
        how: Clear,
        backed: bool,
    ) -> Result<Option<u64>, DiskError> {
        let cluster = self.cluster(entry)?;
        let zero = match (self.geometry.version >= 3, backed) {
            (_, false) => Some(0),
            (true, true) => Some(ZERO),
            (false, true) if how == Clear::Discard => Some(entry),
            (false, true) => None,
        };
        Ok(match (cluster, how) {
            (Cluster::Unallocated, Clear::Discard) => Some(entry),
            (Cluster::Zero { host: None, .. }, _) | (Cluster::Zero { .. }, Clear::Zero) => {
                Some(entry)
            }
            (Cluster::Data { copied: true, .. }, Clear::Zero) if self.geometry.version >= 3 => {
                Some(entry | ZERO)
            }
            _ => zero,
        })
    }
}
