//! What a driver asks of a block device (virtio 1.3 §5.2.6).

use crate::memory::GuestMemory;
use crate::virtio::chain::{Chain, Segments};
use crate::virtio::disk::{Operation, Range};
use crate::virtio::ring::RingError;

const HEADER_BYTES: usize = 16;
const RANGE_BYTES: usize = 16;
const SECTOR_BYTES: u64 = 512;
/// Length of the answer to [`Operation::GetId`].
pub(super) const ID_BYTES: usize = 20;

const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const T_DISCARD: u32 = 11;
const T_WRITE_ZEROES: u32 = 13;
const RANGE_UNMAP: u32 = 1;

/// The driver's mistakes and wishes that cannot be met, and how the device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// What the driver wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Something of the disk.
    Disk(Operation),
    /// The serial number.
    GetId { to: Segments },
}

/// A request: what to do, or the answer to what cannot be done, and where the answer goes.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) wish: Result<Wish, Status>,
    pub(super) status: Segments,
}

/// What the device allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) disk_bytes: u64,
    pub(super) block_bytes: u64,
    /// Writes must be durable when they are done, for the driver cannot flush (§5.2.5.2).
    pub(super) durable: bool,
    pub(super) may_unmap: bool,
    pub(super) is_read_only: bool,
    pub(super) may_discard: bool,
    pub(super) may_write_zeroes: bool,
    pub(super) range_sectors: u32,
    pub(super) discard_segments: u32,
    pub(super) write_zeroes_segments: u32,
}

impl Request {
    /// Reads the request in a chain.
    ///
    /// # Errors
    /// If the chain has no room for header or status: there is then no way to answer.
    pub(super) fn read(
        memory: &GuestMemory,
        chain: Chain,
        limits: &Limits,
    ) -> Result<Self, RingError> {
        let Chain {
            mut readable,
            mut writable,
            ..
        } = chain;
        let mut header = [0; HEADER_BYTES];
        readable.read(memory, 0, &mut header)?;
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let kind = u32::from_le_bytes([a, b, c, d]);
        let sector = u64::from_le_bytes(sector);
        let last = writable
            .len_bytes()
            .checked_sub(1)
            .ok_or(RingError::TooShort)?;
        let status = writable.split_off(last);
        let data = readable.split_off(HEADER_BYTES);
        let durable = limits.durable;
        let wish = match kind {
            T_IN => limits.transfer(sector, &writable).map(|offset| {
                Wish::Disk(Operation::Read {
                    offset,
                    to: writable,
                })
            }),
            T_OUT if limits.is_read_only => Err(Status::IoError),
            T_OUT => limits.transfer(sector, &data).map(|offset| {
                Wish::Disk(Operation::Write {
                    offset,
                    from: data,
                    durable,
                })
            }),
            T_FLUSH => Ok(Wish::Disk(Operation::Flush)),
            T_GET_ID if writable.len_bytes() < ID_BYTES => Err(Status::IoError),
            T_GET_ID => Ok(Wish::GetId { to: writable }),
            T_DISCARD | T_WRITE_ZEROES if limits.is_read_only => Err(Status::IoError),
            T_DISCARD if limits.may_discard => limits
                .ranges(memory, &data, limits.discard_segments, 0)?
                .map(|ranges| Wish::Disk(Operation::Discard(ranges))),
            T_WRITE_ZEROES if limits.may_write_zeroes => limits
                .ranges(memory, &data, limits.write_zeroes_segments, RANGE_UNMAP)?
                .map(|ranges| Wish::Disk(Operation::WriteZeroes { ranges, durable })),
            _ => Err(Status::Unsupported),
        };
        Ok(Self { wish, status })
    }
}

impl Limits {
    /// Checks a transfer of whole blocks; returns where it starts.
    fn transfer(&self, sector: u64, data: &Segments) -> Result<u64, Status> {
        let len_bytes = u64::try_from(data.len_bytes()).map_err(|_| Status::IoError)?;
        self.inside(sector, len_bytes)
    }

    fn inside(&self, sector: u64, len_bytes: u64) -> Result<u64, Status> {
        let offset = sector.checked_mul(SECTOR_BYTES).ok_or(Status::IoError)?;
        let end = offset.checked_add(len_bytes).ok_or(Status::IoError)?;
        let whole = offset.is_multiple_of(self.block_bytes) && end.is_multiple_of(self.block_bytes);
        if whole && end <= self.disk_bytes {
            Ok(offset)
        } else {
            Err(Status::IoError)
        }
    }

    /// Reads `struct virtio_blk_discard_write_zeroes` as often as it is there.
    fn ranges(
        &self,
        memory: &GuestMemory,
        data: &Segments,
        most: u32,
        allowed_flags: u32,
    ) -> Result<Result<Vec<Range>, Status>, RingError> {
        let count = data.len_bytes() / RANGE_BYTES;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if count == 0 || count > most || !data.len_bytes().is_multiple_of(RANGE_BYTES) {
            return Ok(Err(Status::IoError));
        }
        let mut bytes = vec![0; data.len_bytes()];
        data.read(memory, 0, &mut bytes)?;
        let (entries, _) = bytes.as_chunks::<RANGE_BYTES>();
        Ok(entries
            .iter()
            .map(|entry| self.range(*entry, allowed_flags))
            .collect())
    }

    fn range(&self, entry: [u8; RANGE_BYTES], allowed_flags: u32) -> Result<Range, Status> {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = entry;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes(flags);
        if flags & !allowed_flags != 0 {
            return Err(Status::Unsupported);
        }
        if sectors > self.range_sectors {
            return Err(Status::IoError);
        }
        let len_bytes = u64::from(sectors) * SECTOR_BYTES;
        let offset = self.inside(sector, len_bytes)?;
        Ok(Range {
            offset,
            len_bytes,
            unmap: self.may_unmap && flags & RANGE_UNMAP != 0,
        })
    }
}
