//! Requests of the request queues (virtio 1.3 §5.6.6.1).

use super::sense::Sense;
use super::spec::{response, status};
use crate::memory::GuestMemory;
use crate::virtio::chain::{Chain, Segments};
use crate::virtio::ring::RingError;

/// Length of the fields before the CDB: logical unit, identifier, task attribute, priority, CRN.
const HEADER_BYTES: usize = 19;
/// Length of the answer's fields before the sense data.
const ANSWER_BYTES: usize = 12;
/// Longest CDB that any command here has.
const CDB_BYTES: usize = 32;
/// Longest sense data that are written, whatever room the driver makes (SPC-4 §4.5.1).
const MAX_SENSE_BYTES: usize = 252;

/// The well-known logical unit for REPORT LUNS (SPC-4 §8.2).
pub(super) const REPORT_LUNS_WELL_KNOWN: u16 = 0xc101;

/// A target and one of its logical units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) target: u8,
    pub(super) lun: u16,
}

impl Address {
    /// Reads a logical unit number: 1, the target, a single level unit number and four zeroes.
    pub(super) fn parse(field: [u8; 8]) -> Option<Self> {
        let [1, target, high, low, 0, 0, 0, 0] = field else {
            return None;
        };
        let number = u16::from_be_bytes([high, low]);
        let lun = match high >> 6 {
            // Peripheral device addressing and flat space addressing (SAM-5 §4.7).
            0 | 1 => number & 0x3fff,
            _ if number == REPORT_LUNS_WELL_KNOWN => number,
            _ => return None,
        };
        Some(Self { target, lun })
    }
}

/// A command descriptor block, with zeroes behind what the driver sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cdb(pub(super) [u8; CDB_BYTES]);

impl Cdb {
    pub(super) fn op(&self) -> u8 {
        self.0[0]
    }

    pub(super) fn byte(&self, at: usize) -> u8 {
        self.0[at]
    }

    /// Tells whether a bit of a byte is set.
    pub(super) fn bit(&self, at: usize, bit: u8) -> bool {
        self.0[at] >> bit & 1 != 0
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        *self.0[at..].first_chunk().expect("fields lie in the CDB")
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.field(at))
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.field(at))
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.field(at))
    }
}

/// A request with its buffers.
#[derive(Debug)]
pub(super) struct Request {
    /// Where it goes; none if the number is none.
    pub(super) address: Option<Address>,
    pub(super) cdb: Cdb,
    pub(super) data_out: Segments,
    pub(super) data_in: Segments,
    /// Its header is cut short, or it transfers in both directions, which was not agreed on.
    pub(super) is_malformed: bool,
    pub(super) place: AnswerPlace,
}

impl Request {
    /// Reads the request in a chain.
    ///
    /// # Errors
    /// If the chain has no room for the answer: there is then no way to answer.
    pub(super) fn read(
        memory: &GuestMemory,
        chain: Chain,
        sense_bytes: u32,
        cdb_bytes: u32,
    ) -> Result<Self, RingError> {
        let Chain {
            mut readable,
            writable: mut answer,
            ..
        } = chain;
        let sense_bytes = to_usize(sense_bytes);
        let answer_bytes = ANSWER_BYTES.saturating_add(sense_bytes);
        if answer.len_bytes() < answer_bytes {
            return Err(RingError::TooShort);
        }
        let data_in = answer.split_off(answer_bytes);
        let header_bytes = HEADER_BYTES.saturating_add(to_usize(cdb_bytes));
        let is_short = readable.len_bytes() < header_bytes;
        let data_out = readable.split_off(header_bytes);
        let mut header = [0; HEADER_BYTES + CDB_BYTES];
        let len_bytes = header.len().min(readable.len_bytes());
        readable.read(memory, 0, &mut header[..len_bytes])?;
        let (fields, cdb) = header.split_at(HEADER_BYTES);
        let lun = *fields.first_chunk().expect("the header begins with it");
        let is_both = data_in.len_bytes() > 0 && data_out.len_bytes() > 0;
        Ok(Self {
            address: Address::parse(lun),
            cdb: Cdb(*cdb.first_chunk().expect("the CDB follows the header")),
            data_out,
            data_in,
            is_malformed: is_short || is_both,
            place: AnswerPlace {
                segments: answer,
                sense_bytes,
            },
        })
    }
}

/// Where the answer goes.
#[derive(Debug)]
pub(super) struct AnswerPlace {
    segments: Segments,
    sense_bytes: usize,
}

/// What the driver is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) response: u8,
    pub(super) sense: Option<Sense>,
    /// Bytes that were moved in either direction.
    pub(super) moved_bytes: usize,
    /// Bytes that were given to the driver besides the answer.
    pub(super) given_bytes: usize,
}

impl Answer {
    /// Answers what the host itself cannot do or pass on.
    pub(super) fn of_host(response: u8) -> Self {
        Self {
            response,
            sense: None,
            moved_bytes: 0,
            given_bytes: 0,
        }
    }

    /// Answers with CHECK CONDITION.
    pub(super) fn check(sense: Sense) -> Self {
        Self {
            sense: Some(sense),
            ..Self::of_host(response::OK)
        }
    }

    /// Answers with GOOD.
    pub(super) fn good(moved_bytes: usize, given_bytes: usize) -> Self {
        Self {
            moved_bytes,
            given_bytes,
            ..Self::of_host(response::OK)
        }
    }
}

impl AnswerPlace {
    /// Writes the answer; returns how many bytes of the chain were written in all.
    pub(super) fn put(
        &self,
        memory: &GuestMemory,
        answer: &Answer,
        buffer_bytes: usize,
    ) -> Result<u32, RingError> {
        let sense = answer.sense.map(Sense::fixed);
        let sense = sense.as_ref().map_or(&[][..], |data| &data[..]);
        let sense = &sense[..sense.len().min(self.sense_bytes)];
        let residual = buffer_bytes.saturating_sub(answer.moved_bytes);
        let mut fields = Vec::with_capacity(ANSWER_BYTES + MAX_SENSE_BYTES);
        fields.extend(to_u32(sense.len()).to_le_bytes());
        fields.extend(to_u32(residual).to_le_bytes());
        fields.extend([0, 0]);
        fields.push(match answer.sense {
            Some(_) => status::CHECK_CONDITION,
            None => status::GOOD,
        });
        fields.push(answer.response);
        fields.extend(sense);
        fields.resize(ANSWER_BYTES + self.sense_bytes.min(MAX_SENSE_BYTES), 0);
        self.segments.write(memory, 0, &fields)?;
        let given = self.segments.len_bytes() + answer.given_bytes;
        Ok(to_u32(if answer.given_bytes > 0 {
            given
        } else {
            fields.len()
        }))
    }
}

fn to_u32(len_bytes: usize) -> u32 {
    u32::try_from(len_bytes).unwrap_or(u32::MAX)
}

fn to_usize(len_bytes: u32) -> usize {
    usize::try_from(len_bytes).unwrap_or(usize::MAX)
}
