//! MSI-X: capability, vector table and pending bits (PCI 3.0 §6.8.2).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::config_space::{ConfigSpace, LayoutError};
use crate::interrupt::{MsiMessage, MsiSink};
use crate::lifecycle::RestoreError;
use crate::lock::Lock;

/// Capability ID of MSI-X.
pub const CAPABILITY_ID: u8 = 0x11;
/// Most vectors that a function may have.
pub const MAX_VECTORS: u16 = 2048;

const CONTROL_ENABLE: u16 = 1 << 15;
const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
const ENTRY_BYTES: u64 = 16;
const ENTRY_MASKED: u32 = 1;

/// Where table and pending bits lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixPlacement {
    /// Base address register of the table.
    pub table_bar: u8,
    /// Offset of the table in its region, a multiple of 8.
    pub table_offset: u32,
    /// Base address register of the pending bits.
    pub pba_bar: u8,
    /// Offset of the pending bits in their region, a multiple of 8.
    pub pba_offset: u32,
}

/// A table entry: address low, address high, data, vector control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry([u32; 4]);

impl Entry {
    const FRESH: Self = Self([0, 0, 0, ENTRY_MASKED]);

    fn message(self) -> MsiMessage {
        let [low, high, data, _] = self.0;
        MsiMessage {
            address: u64::from(high) << 32 | u64::from(low),
            data,
        }
    }

    fn is_masked(self) -> bool {
        self.0[3] & ENTRY_MASKED != 0
    }
}

#[derive(Debug)]
struct Table {
    control: u16,
    entries: Vec<Entry>,
    pending: Vec<bool>,
}

impl Table {
    /// Takes the messages whose vectors are pending and no longer masked.
    fn take_due(&mut self) -> Vec<MsiMessage> {
        if self.control & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK) != CONTROL_ENABLE {
            return Vec::new();
        }
        let vectors = self.entries.iter().zip(&mut self.pending);
        vectors
            .filter(|(entry, pending)| **pending && !entry.is_masked())
            .map(|(entry, pending)| {
                *pending = false;
                entry.message()
            })
            .collect()
    }

    fn trigger(&mut self, vector: u16) -> Option<MsiMessage> {
        if self.control & CONTROL_ENABLE == 0 {
            return None;
        }
        let entry = *self.entries.get(usize::from(vector))?;
        if self.control & CONTROL_FUNCTION_MASK != 0 || entry.is_masked() {
            self.pending[usize::from(vector)] = true;
            return None;
        }
        Some(entry.message())
    }
}

/// The MSI-X half of a function; has its own lock and sends messages with none held.
pub struct Msix {
    table: Lock<Table>,
    sink: Arc<dyn MsiSink>,
}

/// The saved form of an [`Msix`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MsixState {
    control: u16,
    entries: Vec<[u32; 4]>,
    pending: Vec<u16>,
}

impl Msix {
    /// Makes `vectors` masked vectors, 1 to [`MAX_VECTORS`]; a number outside is moved inside.
    pub fn new(vectors: u16, sink: Arc<dyn MsiSink>) -> Self {
        let count = usize::from(vectors.clamp(1, MAX_VECTORS));
        let table = Table {
            control: 0,
            entries: vec![Entry::FRESH; count],
            pending: vec![false; count],
        };
        Self {
            table: Lock::new(table),
            sink,
        }
    }

    /// Returns the number of vectors.
    pub fn vectors(&self) -> u16 {
        u16::try_from(self.table.get().entries.len()).unwrap_or(MAX_VECTORS)
    }

    /// Adds the capability to the function's configuration space; returns its offset.
    ///
    /// After each configuration write, give [`Msix::set_control`] the word at that offset plus 2.
    ///
    /// # Errors
    /// If the capability list is full.
    pub fn add_capability(
        &self,
        config: &mut ConfigSpace,
        at: MsixPlacement,
    ) -> Result<u16, LayoutError> {
        let mut body = [0; 10];
        body[0..2].copy_from_slice(&(self.vectors() - 1).to_le_bytes());
        let table = at.table_offset & !7 | u32::from(at.table_bar & 7);
        body[2..6].copy_from_slice(&table.to_le_bytes());
        let pba = at.pba_offset & !7 | u32::from(at.pba_bar & 7);
        body[6..10].copy_from_slice(&pba.to_le_bytes());
        config.add_capability(CAPABILITY_ID, &body, &[0, 0xc0])
    }

    /// Takes the message control word that the guest wrote, and sends what it has unmasked.
    pub fn set_control(&self, control: u16) {
        self.change(|table| table.control = control & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK));
    }

    /// Tells whether the guest has switched MSI-X on; the function must then not use its pin.
    pub fn is_enabled(&self) -> bool {
        self.table.get().control & CONTROL_ENABLE != 0
    }

    /// Sends the message of `vector`, or keeps it pending while masked. Vectors past the table and
    /// a table that is switched off send nothing.
    pub fn trigger(&self, vector: u16) {
        let message = self.table.get().trigger(vector);
        if let Some(message) = message {
            self.sink.send_msi(message);
        }
    }

    /// Returns the message of `vector` if it would be sent now, for a back end that routes events.
    pub fn message(&self, vector: u16) -> Option<MsiMessage> {
        let table = self.table.get();
        let enabled = table.control & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK) == CONTROL_ENABLE;
        let entry = table.entries.get(usize::from(vector))?;
        (enabled && !entry.is_masked()).then(|| entry.message())
    }

    /// Returns the length of the table in bytes.
    pub fn table_len_bytes(&self) -> u64 {
        u64::from(self.vectors()) * ENTRY_BYTES
    }

    /// Returns the length of the pending bits in bytes.
    pub fn pba_len_bytes(&self) -> u64 {
        u64::from(self.vectors()).div_ceil(64) * 8
    }

    /// Reads 4 or 8 aligned bytes of the table; other accesses read as zero (§6.8.2.2).
    pub fn table_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some(first) = dword_index(offset, data.len()) else {
            return;
        };
        let table = self.table.get();
        for (index, chunk) in (first..).zip(data.chunks_exact_mut(4)) {
            let entry = table.entries.get(index / 4);
            chunk.copy_from_slice(&entry.map_or(0, |entry| entry.0[index % 4]).to_le_bytes());
        }
    }

    /// Writes 4 or 8 aligned bytes of the table and sends what this has unmasked; other accesses
    /// change nothing.
    pub fn table_write(&self, offset: u64, data: &[u8]) {
        let Some(first) = dword_index(offset, data.len()) else {
            return;
        };
        self.change(|table| {
            for (index, chunk) in (first..).zip(data.chunks_exact(4)) {
                if let (Some(entry), Ok(bytes)) =
                    (table.entries.get_mut(index / 4), chunk.try_into())
                {
                    entry.0[index % 4] = u32::from_le_bytes(bytes);
                }
            }
        });
    }

    /// Reads the pending bits, one per vector.
    pub fn pba_read(&self, offset: u64, data: &mut [u8]) {
        let table = self.table.get();
        for (at, byte) in (offset..).zip(data) {
            let first = usize::try_from(at).map_or(usize::MAX, |at| at.saturating_mul(8));
            let bits = table.pending.iter().skip(first).take(8).enumerate();
            *byte = bits.fold(0, |byte, (bit, pending)| byte | u8::from(*pending) << bit);
        }
    }

    /// Masks every vector and forgets what is pending.
    pub fn reset(&self) {
        let mut table = self.table.get();
        table.control = 0;
        table.entries.fill(Entry::FRESH);
        table.pending.fill(false);
    }

    /// Returns the saved form.
    pub fn save(&self) -> MsixState {
        let table = self.table.get();
        let pending = (0u16..).zip(&table.pending);
        MsixState {
            control: table.control,
            entries: table.entries.iter().map(|entry| entry.0).collect(),
            pending: pending
                .filter(|(_, pending)| **pending)
                .map(|(vector, _)| vector)
                .collect(),
        }
    }

    /// Takes a saved form; sends nothing.
    ///
    /// # Errors
    /// If the number of vectors differs or a pending vector is past the table.
    pub fn restore(&self, state: &MsixState) -> Result<(), RestoreError> {
        let refused = |field| RestoreError::Field {
            kind: "msix".to_owned(),
            field,
        };
        let mut table = self.table.get();
        let count = table.entries.len();
        if state.entries.len() != count {
            return Err(refused("entries"));
        }
        if state
            .pending
            .iter()
            .any(|vector| usize::from(*vector) >= count)
        {
            return Err(refused("pending"));
        }
        table.control = state.control & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
        table.entries = state.entries.iter().map(|entry| Entry(*entry)).collect();
        table.pending.fill(false);
        for vector in &state.pending {
            table.pending[usize::from(*vector)] = true;
        }
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Table)) {
        let due = {
            let mut table = self.table.get();
            change(&mut table);
            table.take_due()
        };
        for message in due {
            self.sink.send_msi(message);
        }
    }
}

/// Returns the index of the first table word of an access that the specification allows.
fn dword_index(offset: u64, len: usize) -> Option<usize> {
    let allowed = matches!(len, 4 | 8) && offset.is_multiple_of(4);
    allowed.then(|| usize::try_from(offset / 4).ok()).flatten()
}

#[cfg(test)]
mod tests;
