//! Commands on blocks (SBC-3).

use std::sync::Arc;

use block::Disk;

use super::request::Cdb;
use super::sense::Sense;
use super::spec::{MAX_TRANSFER_BYTES, MAX_UNMAP_BYTES, MAX_UNMAP_DESCRIPTORS, op};
use super::unit::Unit;
use crate::memory::GuestMemory;
use crate::virtio::chain::Segments;
use crate::virtio::disk::{Operation, Range};
use crate::virtio::ring::RingError;

const UNMAP_HEADER_BYTES: usize = 8;
const UNMAP_DESCRIPTOR_BYTES: usize = 16;

/// How a command goes on after its CDB was understood.
pub(super) enum Step {
    /// It is done.
    Done,
    /// It gives these data, cut to the allocation length, to the driver.
    Give(Vec<u8>),
    /// It asks this of the medium.
    Disk {
        disk: Arc<dyn Disk>,
        operation: Operation,
        /// Bytes of its buffers that are used.
        moved_bytes: usize,
    },
}

/// Why a command is not done.
pub(super) enum Refusal {
    /// The unit says why.
    Check(Sense),
    /// The buffers are shorter than the CDB says.
    Overrun,
    /// The chain is not what it was when it was walked.
    Ring(RingError),
}

impl From<Sense> for Refusal {
    fn from(sense: Sense) -> Self {
        Self::Check(sense)
    }
}

impl From<RingError> for Refusal {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

/// A command for a unit, with its buffers.
pub(super) struct Command<'a> {
    pub(super) unit: &'a Unit,
    pub(super) cdb: Cdb,
    pub(super) memory: &'a GuestMemory,
    pub(super) data_out: Segments,
    pub(super) data_in: Segments,
}

/// Blocks that a CDB names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    lba: u64,
    blocks: u64,
}

impl Extent {
    /// Finds the logical block address and the transfer length by the command's size.
    fn of(cdb: &Cdb) -> Self {
        let (lba, blocks) = match cdb.op() >> 5 {
            0 => {
                let lba = cdb.u32(0) & 0x1f_ffff;
                let blocks = cdb.byte(4);
                let blocks = if blocks == 0 { 256 } else { blocks.into() };
                (lba.into(), blocks)
            }
            1 | 2 => (cdb.u32(2).into(), cdb.u16(7).into()),
            4 => (cdb.u64(2), cdb.u32(10).into()),
            _ => (cdb.u32(2).into(), cdb.u32(6).into()),
        };
        Self { lba, blocks }
    }
}

impl Command<'_> {
    /// Returns the range of an extent, which must lie on the medium and be no longer than `most`.
    fn range(&self, disk: &dyn Disk, extent: Extent, most_bytes: u32) -> Result<Range, Sense> {
        let Extent { lba, blocks } = extent;
        let block_bytes = u64::from(self.unit.identity.block_bytes);
        if blocks.saturating_mul(block_bytes) > u64::from(most_bytes) {
            return Err(Sense::INVALID_FIELD_IN_CDB);
        }
        match lba.checked_add(blocks) {
            Some(end) if end <= self.unit.blocks(disk) => Ok(Range {
                offset: lba * block_bytes,
                len_bytes: blocks * block_bytes,
                unmap: false,
            }),
            _ => Err(Sense::OUT_OF_RANGE),
        }
    }

    /// Returns the medium of a command that changes it.
    fn writable_medium(&self) -> Result<Arc<dyn Disk>, Sense> {
        let disk = self.unit.medium()?;
        if self.unit.is_read_only(disk.as_ref()) {
            return Err(Sense::WRITE_PROTECTED);
        }
        Ok(disk)
    }

    /// Refuses protection information, which no unit has (SBC-3 §4.22). READ 6 and WRITE 6 have no
    /// such field.
    fn check_protect(&self) -> Result<(), Sense> {
        let has_field = self.cdb.op() >> 5 != 0;
        if has_field && self.cdb.byte(1) >> 5 != 0 {
            return Err(Sense::INVALID_FIELD_IN_CDB);
        }
        Ok(())
    }

    /// Cuts a buffer to what the command uses.
    fn buffer(mut all: Segments, len_bytes: u64) -> Result<Segments, Refusal> {
        let len_bytes = usize::try_from(len_bytes).map_err(|_| Refusal::Overrun)?;
        if all.len_bytes() < len_bytes {
            return Err(Refusal::Overrun);
        }
        drop(all.split_off(len_bytes));
        Ok(all)
    }

    pub(super) fn read(self) -> Result<Step, Refusal> {
        self.check_protect()?;
        let disk = self.unit.medium()?;
        let range = self.range(&*disk, Extent::of(&self.cdb), MAX_TRANSFER_BYTES)?;
        let to = Self::buffer(self.data_in, range.len_bytes)?;
        if to.len_bytes() == 0 {
            return Ok(Step::Done);
        }
        Ok(Step::Disk {
            disk,
            moved_bytes: to.len_bytes(),
            operation: Operation::Read {
                offset: range.offset,
                to,
            },
        })
    }

    pub(super) fn write(self) -> Result<Step, Refusal> {
        self.check_protect()?;
        let disk = self.writable_medium()?;
        let range = self.range(&*disk, Extent::of(&self.cdb), MAX_TRANSFER_BYTES)?;
        let verifies = matches!(
            self.cdb.op(),
            op::WRITE_AND_VERIFY_10 | op::WRITE_AND_VERIFY_16
        );
        let forces = self.cdb.op() != op::WRITE_6 && self.cdb.bit(1, 3);
        let from = Self::buffer(self.data_out, range.len_bytes)?;
        if from.len_bytes() == 0 {
            return Ok(Step::Done);
        }
        Ok(Step::Disk {
            disk,
            moved_bytes: from.len_bytes(),
            operation: Operation::Write {
                offset: range.offset,
                from,
                durable: forces || verifies,
            },
        })
    }

    /// Does VERIFY: reads the medium, or compares it with the driver's data (BYTCHK 01b).
    pub(super) fn verify(self) -> Result<Step, Refusal> {
        self.check_protect()?;
        let disk = self.unit.medium()?;
        let range = self.range(&*disk, Extent::of(&self.cdb), MAX_TRANSFER_BYTES)?;
        match self.cdb.byte(1) >> 1 & 3 {
            _ if range.len_bytes == 0 => Ok(Step::Done),
            0 => Ok(Step::Disk {
                disk,
                operation: Operation::Verify(range),
                moved_bytes: 0,
            }),
            1 => {
                let with = Self::buffer(self.data_out, range.len_bytes)?;
                Ok(Step::Disk {
                    disk,
                    moved_bytes: with.len_bytes(),
                    operation: Operation::Compare {
                        offset: range.offset,
                        with,
                    },
                })
            }
            _ => Err(Sense::INVALID_FIELD_IN_CDB.into()),
        }
    }

    /// Does SYNCHRONIZE CACHE, of the whole medium whatever the extent.
    pub(super) fn synchronize(self) -> Result<Step, Refusal> {
        let disk = self.unit.medium()?;
        self.range(
            &*disk,
            Extent {
                blocks: 0,
                ..Extent::of(&self.cdb)
            },
            0,
        )?;
        Ok(Step::Disk {
            disk,
            operation: Operation::Flush,
            moved_bytes: 0,
        })
    }

    /// Does WRITE SAME. Zeroes become a hole where UNMAP asks for that (SBC-3 §5.51).
    pub(super) fn write_same(self) -> Result<Step, Refusal> {
        self.check_protect()?;
        let cdb = &self.cdb;
        let (anchor, unmap) = (cdb.bit(1, 4), cdb.bit(1, 3));
        let no_data = cdb.op() == op::WRITE_SAME_16 && cdb.bit(1, 0);
        let is_odd = cdb.bit(1, 1) || cdb.bit(1, 2) || cdb.bit(1, 0) != no_data;
        if anchor || is_odd || unmap && !self.unit.identity.discards {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let disk = self.writable_medium()?;
        let extent = Extent::of(cdb);
        // The limits page says that a zero does not mean the rest of the medium.
        if extent.blocks == 0 {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let range = self.range(&*disk, extent, MAX_TRANSFER_BYTES)?;
        let block = self.pattern(no_data)?;
        let moved_bytes = if no_data { 0 } else { block.len() };
        let operation = if block.iter().all(|byte| *byte == 0) {
            Operation::WriteZeroes {
                ranges: vec![Range { unmap, ..range }],
                durable: false,
            }
        } else {
            Operation::Fill {
                range,
                block,
                durable: false,
            }
        };
        Ok(Step::Disk {
            disk,
            operation,
            moved_bytes,
        })
    }

    /// Returns the block that WRITE SAME writes.
    fn pattern(&self, no_data: bool) -> Result<Vec<u8>, Refusal> {
        let block_bytes = usize::try_from(self.unit.identity.block_bytes);
        let mut block = vec![0; block_bytes.map_err(|_| Refusal::Overrun)?];
        if no_data {
            return Ok(block);
        }
        if self.data_out.len_bytes() < block.len() {
            return Err(Refusal::Overrun);
        }
        self.data_out.read(self.memory, 0, &mut block)?;
        Ok(block)
    }

    /// Does UNMAP (SBC-3 §5.28).
    pub(super) fn unmap(self) -> Result<Step, Refusal> {
        if !self.unit.identity.discards {
            return Err(Sense::INVALID_OPCODE.into());
        }
        if self.cdb.bit(1, 0) {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let disk = self.writable_medium()?;
        let list_bytes = usize::from(self.cdb.u16(7));
        if list_bytes == 0 {
            return Ok(Step::Done);
        }
        if self.data_out.len_bytes() < list_bytes {
            return Err(Refusal::Overrun);
        }
        if list_bytes < UNMAP_HEADER_BYTES {
            return Err(Sense::LIST_LENGTH.into());
        }
        let mut list = vec![0; list_bytes];
        self.data_out.read(self.memory, 0, &mut list)?;
        let ranges = self.unmap_ranges(&*disk, &list)?;
        Ok(Step::Disk {
            disk,
            operation: Operation::Discard(ranges),
            moved_bytes: list_bytes,
        })
    }

    fn unmap_ranges(&self, disk: &dyn Disk, list: &[u8]) -> Result<Vec<Range>, Sense> {
        let (header, descriptors) = list.split_at(UNMAP_HEADER_BYTES);
        let said_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let descriptors = &descriptors[..descriptors.len().min(said_bytes)];
        let (descriptors, _) = descriptors.as_chunks::<UNMAP_DESCRIPTOR_BYTES>();
        if descriptors.len() > usize::try_from(MAX_UNMAP_DESCRIPTORS).unwrap_or(usize::MAX) {
            return Err(Sense::INVALID_FIELD_IN_LIST);
        }
        let mut left_bytes = u64::from(MAX_UNMAP_BYTES);
        let mut ranges = Vec::with_capacity(descriptors.len());
        for descriptor in descriptors {
            let [lba @ .., b0, b1, b2, b3, _, _, _, _] = *descriptor;
            let extent = Extent {
                lba: u64::from_be_bytes(lba),
                blocks: u32::from_be_bytes([b0, b1, b2, b3]).into(),
            };
            let bytes = extent.blocks * u64::from(self.unit.identity.block_bytes);
            left_bytes = left_bytes
                .checked_sub(bytes)
                .ok_or(Sense::INVALID_FIELD_IN_LIST)?;
            ranges.push(self.range(disk, extent, u32::MAX)?);
        }
        Ok(ranges)
    }

    /// Does READ CAPACITY 10 (SBC-3 §5.15).
    pub(super) fn read_capacity_10(&self) -> Result<Step, Refusal> {
        let disk = self.unit.medium()?;
        let last = self.unit.blocks(&*disk).saturating_sub(1);
        let last = u32::try_from(last).unwrap_or(u32::MAX);
        let block_bytes = self.unit.identity.block_bytes;
        Ok(Step::Give(
            [last.to_be_bytes(), block_bytes.to_be_bytes()].concat(),
        ))
    }

    /// Does READ CAPACITY 16 (SBC-3 §5.16).
    pub(super) fn read_capacity_16(&self) -> Result<Step, Refusal> {
        if self.cdb.byte(1) & 0x1f != op::READ_CAPACITY_16 {
            return Err(Sense::INVALID_FIELD_IN_CDB.into());
        }
        let disk = self.unit.medium()?;
        let identity = &self.unit.identity;
        let mut data = vec![0; 32];
        let last = self.unit.blocks(&*disk).saturating_sub(1);
        data[..8].copy_from_slice(&last.to_be_bytes());
        data[8..12].copy_from_slice(&identity.block_bytes.to_be_bytes());
        data[13] = identity.physical_exponent;
        // LBPME: the unit has logical block provisioning management.
        data[14] = if identity.discards { 0x80 } else { 0 };
        Ok(Step::Give(cut(data, self.cdb.u32(10))))
    }
}

/// Cuts data to an allocation length.
pub(super) fn cut(mut data: Vec<u8>, allocation_bytes: u32) -> Vec<u8> {
    data.truncate(usize::try_from(allocation_bytes).unwrap_or(usize::MAX));
    data
}
