//! The firmware configuration device (QEMU docs/specs/fw_cfg): selector and data ports, DMA.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use crate::bus::{PortIo, read_ports};
use crate::guest_log::GuestLog;
use crate::lifecycle::{Device, RestoreError, SaveError, SavedDevice};
use crate::lock::Lock;
use crate::memory::GuestMemory;

/// The selector port, 16 bits, write only.
pub const SELECTOR: u16 = 0x510;
/// The data port.
pub const DATA: u16 = 0x511;
/// The DMA address register, eight ports, big-endian; its low half starts the transfer.
pub const DMA: u16 = 0x514;

/// Keys of items that are no files.
pub mod key {
    /// "QEMU".
    pub const SIGNATURE: u16 = 0x00;
    /// Which interfaces there are.
    pub const ID: u16 = 0x01;
    /// Size of the memory.
    pub const RAM_SIZE: u16 = 0x03;
    /// Whether there is no display.
    pub const NO_GRAPHIC: u16 = 0x04;
    /// Number of processors at start.
    pub const CPUS: u16 = 0x05;
    /// NUMA nodes.
    pub const NUMA: u16 = 0x0d;
    /// Whether to show a boot menu.
    pub const BOOT_MENU: u16 = 0x0e;
    /// Largest number of processors.
    pub const MAX_CPUS: u16 = 0x0f;
    /// The directory of files.
    pub const FILE_DIRECTORY: u16 = 0x19;
    /// The first file.
    pub const FIRST_FILE: u16 = 0x20;
    /// Whether interrupt 0 goes to pin 2 of the I/O APIC.
    pub const IRQ0_OVERRIDE: u16 = 0x8002;
}

const KIND: &str = "fw-cfg";
const VERSION: u32 = 1;
const SIGNATURE: &[u8] = b"QEMU";
/// Ports and DMA.
const ID: u32 = 3;
const DMA_SIGNATURE: u64 = 0x5145_4d55_2043_4647;
const NAME_BYTES: usize = 56;
/// Files fit between the first file's key and the architecture's own keys; firmware needs dozens.
const MAX_FILES: usize = 256;
/// Most bytes of one transfer past the end of its item, which read as zero: they cost time and say
/// nothing.
const MAX_ZEROES: u64 = 1 << 20;
/// Bytes that one copy into guest memory moves.
const CHUNK: usize = 64 << 10;

const DMA_ERROR: u32 = 1 << 0;
const DMA_READ: u32 = 1 << 1;
const DMA_SKIP: u32 = 1 << 2;
const DMA_SELECT: u32 = 1 << 3;
const DMA_WRITE: u32 = 1 << 4;

/// Why an item was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FwCfgError {
    /// The name is empty, too long or holds a zero.
    #[error("add file {name:?}: the name must have 1 to 55 bytes and no zero")]
    Name {
        /// The name.
        name: String,
    },
    /// The name is taken.
    #[error("add file {name:?}: there is one already")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// There are as many files as may be.
    #[error("add file {name:?}: there are {MAX_FILES} already")]
    Full {
        /// The name.
        name: String,
    },
    /// The content is larger than the directory can tell.
    #[error("add file {name:?}: {len_bytes} bytes are too many")]
    Size {
        /// The name.
        name: String,
        /// The content's length.
        len_bytes: usize,
    },
}

/// What the device offers: items by key and files by name.
#[derive(Clone, Debug, Default)]
pub struct FwCfgItems {
    fixed: Vec<(u16, Arc<[u8]>)>,
    files: Vec<(String, Arc<[u8]>)>,
}

impl FwCfgItems {
    /// Makes an offer of nothing but what the device itself must tell.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the item of a fixed key.
    pub fn set(&mut self, key: u16, bytes: impl Into<Arc<[u8]>>) {
        self.fixed.retain(|(other, _)| *other != key);
        self.fixed.push((key, bytes.into()));
    }

    /// Adds a file.
    ///
    /// # Errors
    /// If the name is unusable or taken, or there is no room.
    pub fn add_file(&mut self, name: &str, bytes: impl Into<Arc<[u8]>>) -> Result<(), FwCfgError> {
        let bytes = bytes.into();
        let name = name.to_owned();
        if name.is_empty() || name.len() >= NAME_BYTES || name.contains('\0') {
            return Err(FwCfgError::Name { name });
        }
        if self.files.iter().any(|(other, _)| *other == name) {
            return Err(FwCfgError::Duplicate { name });
        }
        if self.files.len() >= MAX_FILES {
            return Err(FwCfgError::Full { name });
        }
        if u32::try_from(bytes.len()).is_err() {
            return Err(FwCfgError::Size {
                name,
                len_bytes: bytes.len(),
            });
        }
        self.files.push((name, bytes));
        // Firmware expects the directory in the order of names.
        self.files.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(())
    }

    fn directory(&self) -> Arc<[u8]> {
        let count = u32::try_from(self.files.len()).unwrap_or(0);
        let mut bytes = count.to_be_bytes().to_vec();
        for (key, (name, content)) in (key::FIRST_FILE..).zip(&self.files) {
            let len = u32::try_from(content.len()).unwrap_or(0);
            bytes.extend(len.to_be_bytes());
            bytes.extend(key.to_be_bytes());
            bytes.extend([0; 2]);
            let mut field = [0; NAME_BYTES];
            field[..name.len()].copy_from_slice(name.as_bytes());
            bytes.extend(field);
        }
        bytes.into()
    }

    fn find(&self, key: u16) -> Option<Arc<[u8]>> {
        let file = key
            .checked_sub(key::FIRST_FILE)
            .and_then(|at| self.files.get(usize::from(at)));
        match key {
            key::SIGNATURE => Some(SIGNATURE.into()),
            key::ID => Some(ID.to_le_bytes().into()),
            key::FILE_DIRECTORY => Some(self.directory()),
            _ => file.map(|(_, bytes)| Arc::clone(bytes)).or_else(|| {
                let fixed = self.fixed.iter().find(|(other, _)| *other == key);
                fixed.map(|(_, bytes)| Arc::clone(bytes))
            }),
        }
    }
}

#[derive(Clone, Debug)]
struct Chip {
    key: u16,
    item: Option<Arc<[u8]>>,
    offset: u64,
    dma_gpa: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChipState {
    key: u16,
    offset: u64,
    dma_gpa: u64,
}

/// A transfer: which bytes of which item go where.
struct Transfer {
    item: Option<Arc<[u8]>>,
    offset: u64,
    gpa: u64,
    len_bytes: u64,
}

/// The firmware configuration device on ports 0x510, 0x511 and 0x514 to 0x51b.
pub struct FwCfg {
    items: FwCfgItems,
    memory: GuestMemory,
    chip: Lock<Chip>,
    log: GuestLog,
}

impl FwCfg {
    /// Makes the device; it copies items into `memory`.
    pub fn new(items: FwCfgItems, memory: GuestMemory) -> Self {
        let chip = Chip {
            key: 0,
            item: items.find(0),
            offset: 0,
            dma_gpa: 0,
        };
        Self {
            items,
            memory,
            chip: Lock::new(chip),
            log: GuestLog::default(),
        }
    }

    fn select(&self, key: u16) {
        let item = self.items.find(key);
        let mut chip = self.chip.get();
        (chip.key, chip.item, chip.offset) = (key, item, 0);
    }

    fn next_byte(&self) -> u8 {
        let mut chip = self.chip.get();
        let at = usize::try_from(chip.offset).unwrap_or(usize::MAX);
        let byte = chip.item.as_ref().and_then(|item| item.get(at)).copied();
        chip.offset = chip.offset.saturating_add(1);
        byte.unwrap_or(0)
    }

    fn write_dma(&self, port: u16, data: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return;
        };
        let half = u64::from(u32::from_be_bytes(bytes));
        if port == DMA {
            self.chip.get().dma_gpa = half << 32;
        } else if port == DMA + 4 {
            let high = std::mem::take(&mut self.chip.get().dma_gpa);
            self.run_dma(high | half);
        }
    }

    /// Runs the transfer that the structure at `gpa` describes: control, length, address.
    fn run_dma(&self, gpa: u64) {
        let mut request = [0; 16];
        if self
            .memory
            .read_slice(&mut request, GuestAddress(gpa))
            .is_err()
        {
            self.complain(gpa, "the transfer's description lies outside memory");
            return;
        }
        let word = |at: usize| {
            request[at..at + 4]
                .iter()
                .fold(0, |word, byte| word << 8 | u32::from(*byte))
        };
        let address = u64::from(word(8)) << 32 | u64::from(word(12));
        let result = self.transfer(word(0), u64::from(word(4)), address);
        let control = if result { 0 } else { DMA_ERROR };
        if self
            .memory
            .write_slice(&control.to_be_bytes(), GuestAddress(gpa))
            .is_err()
        {
            self.complain(gpa, "the transfer's description is not writable");
        }
    }

    /// Does what `control` says; tells whether it went well.
    fn transfer(&self, control: u32, len_bytes: u64, gpa: u64) -> bool {
        if control & DMA_SELECT != 0 {
            let [low, high] = [control.to_be_bytes()[1], control.to_be_bytes()[0]];
            self.select(u16::from_le_bytes([low, high]));
        }
        let (item, offset) = {
            let mut chip = self.chip.get();
            let offset = chip.offset;
            if control & (DMA_READ | DMA_SKIP | DMA_WRITE) != 0 {
                chip.offset = offset.saturating_add(len_bytes);
            }
            (chip.item.clone(), offset)
        };
        if control & DMA_READ != 0 {
            return self.copy_out(&Transfer {
                item,
                offset,
                gpa,
                len_bytes,
            });
        }
        // No item can be written.
        control & DMA_WRITE == 0
    }

    fn copy_out(&self, transfer: &Transfer) -> bool {
        let item = transfer.item.as_deref().unwrap_or(&[]);
        let from = usize::try_from(transfer.offset).map_or(item.len(), |at| at.min(item.len()));
        let len = usize::try_from(transfer.len_bytes).unwrap_or(usize::MAX);
        let present = &item[from..item.len().min(from.saturating_add(len))];
        let present_bytes = u64::try_from(present.len()).unwrap_or(u64::MAX);
        let zeroes = transfer.len_bytes.saturating_sub(present_bytes);
        if zeroes > MAX_ZEROES {
            self.complain(transfer.gpa, "the transfer reaches far past its item's end");
            return false;
        }
        let zeroes = vec![0; usize::try_from(zeroes).unwrap_or(0)];
        let mut gpa = transfer.gpa;
        for chunk in present.chunks(CHUNK).chain(zeroes.chunks(CHUNK)) {
            if self.memory.write_slice(chunk, GuestAddress(gpa)).is_err() {
                self.complain(gpa, "the transfer's target lies outside memory");
                return false;
            }
            gpa = gpa.wrapping_add(u64::try_from(chunk.len()).unwrap_or(0));
        }
        true
    }

    fn complain(&self, gpa: u64, problem: &'static str) {
        if let Some(count) = self.log.admit() {
            tracing::debug!(gpa, problem, count, "the guest's fw_cfg transfer failed");
        }
    }
}

impl PortIo for FwCfg {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        match port {
            SELECTOR => data.fill(0),
            DATA => data.fill_with(|| self.next_byte()),
            _ => {
                let signature = DMA_SIGNATURE.to_be_bytes();
                read_ports(port, data, |port| {
                    let at = usize::from(port.wrapping_sub(DMA));
                    signature.get(at).copied().unwrap_or(0)
                });
            }
        }
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        match (port, data) {
            (SELECTOR, [low, high]) => self.select(u16::from_le_bytes([*low, *high])),
            (SELECTOR, [low]) => self.select(u16::from(*low)),
            (SELECTOR | DATA, _) => {}
            _ => self.write_dma(port, data),
        }
    }
}

impl Device for FwCfg {
    fn name(&self) -> &'static str {
        "fw-cfg"
    }

    fn reset(&self) {
        self.select(0);
        self.chip.get().dma_gpa = 0;
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        let state = {
            let chip = self.chip.get();
            ChipState {
                key: chip.key,
                offset: chip.offset,
                dma_gpa: chip.dma_gpa,
            }
        };
        SavedDevice::new(KIND, VERSION, &state)
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let ChipState {
            key,
            offset,
            dma_gpa,
        } = saved.open(KIND, VERSION)?;
        let item = self.items.find(key);
        *self.chip.get() = Chip {
            key,
            item,
            offset,
            dma_gpa,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
