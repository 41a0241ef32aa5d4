//! Guest RAM: where it lies in the guest's address map and what backs it on the host.
//!
//! ```text
//! 0            low RAM          0x8000_0000 at least, 0xb000_0000 at most
//! 0xb000_0000  MMCONFIG, PCI window, IOAPIC, local APICs, firmware
//! 4 GiB        high RAM         up to 1 TiB in all
//! ```

#![expect(
    unsafe_code,
    reason = "the software CPU is handed the addresses of guest RAM, and the host is asked which of its pages are there"
)]

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use devices::{GuestMemory, WriteLog, WriteSink};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MmapAdvise, madvise};
use nix::unistd::{Whence, lseek};
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};
use vm_memory::{GuestRegionMmap, MmapRegion};

use crate::config::MemoryConfig;

/// First guest physical address that is never RAM: MMCONFIG starts there.
pub const HOLE_GPA: u64 = 0xb000_0000;
/// First guest physical address above the hole.
pub const HIGH_GPA: u64 = 1 << 32;
/// Low RAM of a machine that has high RAM; huge pages of 1 GiB divide it.
const LOW_LEN_BYTES: u64 = 0x8000_0000;

const HOST_PAGE_BYTES: usize = 4096;
/// RAM of which every page is looked at: it takes the host some hundred microseconds.
const COUNTED_BYTES: u64 = 128 << 20;

/// Why guest RAM cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host has less RAM than the guest should get.
    #[error(
        "use memory.len_bytes: the guest asks for {asked_mib} MiB and the host has {host_mib}; give it less"
    )]
    TooMuch {
        /// What the guest asks for, in MiB.
        asked_mib: u64,
        /// What the host has, in MiB.
        host_mib: u64,
    },
    /// The host refused the mapping.
    #[error(
        "map {len_bytes} bytes of guest RAM at {gpa:#x} (memory.hugepage_bytes: are enough huge pages reserved?)"
    )]
    Map {
        /// Where it would be in the guest.
        gpa: u64,
        /// Its length.
        len_bytes: u64,
        /// The host's answer.
        source: MmapRegionError,
    },
    /// The host refused an anonymous file.
    #[error("create a memory file of {len_bytes} bytes")]
    File {
        /// Its length.
        len_bytes: u64,
        /// The host's answer.
        source: io::Error,
    },
    /// A region does not fit in the address map.
    #[error("place {len_bytes} bytes of guest RAM at {gpa:#x}")]
    Place {
        /// Where it would be.
        gpa: u64,
        /// Its length.
        len_bytes: u64,
    },
    /// The firmware image cannot be read.
    #[error("read the firmware image {}", path.display())]
    Firmware {
        /// The image.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// An access left guest RAM.
    #[error("access {len_bytes} bytes of guest RAM at {gpa:#x}")]
    Access {
        /// First address.
        gpa: u64,
        /// Length.
        len_bytes: usize,
    },
}

/// A piece of the address map that is RAM or ROM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamRange {
    /// First guest physical address.
    pub gpa: u64,
    /// Length in bytes.
    pub len_bytes: u64,
    /// Whether the guest may only read.
    pub read_only: bool,
}

/// Divides `len_bytes` of RAM around the hole below 4 GiB.
#[must_use]
pub fn layout(len_bytes: u64) -> Vec<RamRange> {
    let range = |gpa, len_bytes| RamRange {
        gpa,
        len_bytes,
        read_only: false,
    };
    if len_bytes <= HOLE_GPA {
        return vec![range(0, len_bytes)];
    }
    vec![
        range(0, LOW_LEN_BYTES),
        range(HIGH_GPA, len_bytes - LOW_LEN_BYTES),
    ]
}

/// Passes writes on to whoever keeps track of them: the software CPU, the dirty log.
#[derive(Debug, Default)]
struct WriteRelay {
    sink: OnceLock<Arc<dyn WriteSink>>,
}

impl WriteSink for WriteRelay {
    fn written(&self, gpa: u64, len_bytes: usize) {
        if let Some(sink) = self.sink.get() {
            sink.written(gpa, len_bytes);
        }
    }
}

/// All RAM (and ROM) of a machine. Clones share it; it is unmapped with the last one.
#[derive(Clone, Debug)]
pub struct Ram {
    guest: GuestMemory,
    ranges: Arc<Vec<RamRange>>,
    relay: Arc<WriteRelay>,
}

impl Ram {
    /// Maps RAM as the configuration says.
    ///
    /// # Errors
    /// If the host has too little or refuses.
    pub fn new(config: &MemoryConfig) -> Result<Self, MemoryError> {
        check_host(config.len_bytes)?;
        Self::map(layout(config.len_bytes), config)
    }

    /// Maps RAM with a firmware image of `rom_bytes` bytes below 4 GiB. The image is still to be written.
    ///
    /// # Errors
    /// If the host has too little or refuses.
    pub fn with_rom(config: &MemoryConfig, rom_bytes: u64) -> Result<Self, MemoryError> {
        check_host(config.len_bytes)?;
        let mut ranges = layout(config.len_bytes);
        ranges.push(RamRange {
            gpa: HIGH_GPA - rom_bytes,
            len_bytes: rom_bytes,
            read_only: true,
        });
        ranges.sort_by_key(|range| range.gpa);
        Self::map(ranges, config)
    }

    fn map(ranges: Vec<RamRange>, config: &MemoryConfig) -> Result<Self, MemoryError> {
        let relay = Arc::new(WriteRelay::default());
        let regions = ranges
            .iter()
            .map(|range| map_range(*range, config, Arc::clone(&relay)))
            .collect::<Result<Vec<_>, _>>()?;
        let guest = GuestMemory::from_regions(regions).map_err(|_| MemoryError::Place {
            gpa: 0,
            len_bytes: config.len_bytes,
        })?;
        Ok(Self {
            guest,
            ranges: Arc::new(ranges),
            relay,
        })
    }

    /// Returns guest memory as devices see it.
    #[must_use]
    pub fn guest(&self) -> GuestMemory {
        self.guest.clone()
    }

    /// Returns where RAM and ROM lie, by rising address.
    #[must_use]
    pub fn ranges(&self) -> &[RamRange] {
        &self.ranges
    }

    /// Returns the end of RAM below the hole.
    #[must_use]
    pub fn low_end_gpa(&self) -> u64 {
        self.ranges.first().map_or(0, |range| range.len_bytes)
    }

    /// Returns the end of RAM above 4 GiB, or 4 GiB where there is none.
    #[must_use]
    pub fn high_end_gpa(&self) -> u64 {
        let end = self.ranges.last().map_or(0, |r| r.gpa + r.len_bytes);
        end.max(HIGH_GPA)
    }

    /// Writes bytes, ROM included.
    ///
    /// # Errors
    /// If the bytes do not all lie in RAM.
    pub fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        self.guest
            .write_slice(bytes, GuestAddress(gpa))
            .map_err(|_| MemoryError::Access {
                gpa,
                len_bytes: bytes.len(),
            })
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// If the bytes do not all lie in RAM.
    pub fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let len_bytes = bytes.len();
        self.guest
            .read_slice(bytes, GuestAddress(gpa))
            .map_err(|_| MemoryError::Access { gpa, len_bytes })
    }

    /// Returns the size of RAM without ROM, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        let ram = self.ranges.iter().filter(|range| !range.read_only);
        ram.map(|range| range.len_bytes).sum()
    }

    /// Returns how much of RAM without ROM is in the host's memory, in bytes: counted up to 128 MiB, and beyond that
    /// estimated from windows at even distances, so that it takes less than a millisecond.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let stride = usize::try_from(self.len_bytes().div_ceil(COUNTED_BYTES)).unwrap_or(1);
        let window_bytes = if stride == 1 { 16 << 20 } else { 256 << 10 };
        let (mut looked, mut resident) = (0, 0);
        for (range, host) in self.mappings().filter(|(range, _)| !range.read_only) {
            let len_bytes = usize::try_from(range.len_bytes).unwrap_or(0);
            for at in (0..len_bytes).step_by(window_bytes * stride) {
                let window_bytes = window_bytes.min(len_bytes - at);
                looked += window_bytes / HOST_PAGE_BYTES;
                resident += resident_pages(host.wrapping_add(at), window_bytes);
            }
        }
        let share = u128::try_from(resident).unwrap_or(0) * u128::from(self.len_bytes());
        let looked = u128::try_from(looked.max(1)).unwrap_or(1);
        u64::try_from(share / looked).unwrap_or(u64::MAX)
    }

    /// Has the host give memory to a range that is about to be written, which is quicker at once than page by page. A
    /// host that cannot does it page by page.
    pub(crate) fn populate(&self, gpa: u64, len_bytes: u64) {
        let Ok(len) = usize::try_from(len_bytes) else {
            return;
        };
        let Ok(slice) = self.guest.get_slice(GuestAddress(gpa), len) else {
            return;
        };
        let host = slice.ptr_guard_mut().as_ptr();
        let offset = host.align_offset(HOST_PAGE_BYTES).min(len);
        let Some(first) = NonNull::new(host.wrapping_add(offset)) else {
            return;
        };
        let advice = MmapAdvise::MADV_POPULATE_WRITE;
        // SAFETY: the range is mapped while `self` lives, and populating it leaves its contents as they are.
        let done = unsafe { madvise(first.cast(), len - offset, advice) };
        if let Err(error) = done {
            tracing::debug!(%error, "guest RAM comes page by page");
        }
    }

    /// Returns the first stretch of RAM from `gpa` to at most `end_gpa`, inside one range, that may hold something but
    /// zeroes. Reading the rest would make the host give it memory, where RAM is a file.
    pub(crate) fn next_data(&self, gpa: u64, end_gpa: u64) -> Option<(u64, u64)> {
        if gpa >= end_gpa {
            return None;
        }
        let region = self.guest.find_region(GuestAddress(gpa))?;
        let Some(backing) = region.file_offset() else {
            return Some((gpa, end_gpa));
        };
        let base_gpa = region.start_addr().0;
        let seek = |from: u64, whence| {
            let from = i64::try_from(from).ok()?;
            let found = lseek(backing.file(), from, whence).ok()?;
            u64::try_from(found).ok()
        };
        let first = seek(gpa - base_gpa, Whence::SeekData)?;
        let last = seek(first, Whence::SeekHole)?;
        let first_gpa = base_gpa + first;
        (first_gpa < end_gpa).then(|| (first_gpa, end_gpa.min(base_gpa + last)))
    }

    /// Returns each range with the address of its mapping in this process.
    pub(crate) fn mappings(&self) -> impl Iterator<Item = (RamRange, *mut u8)> + '_ {
        self.ranges
            .iter()
            .zip(self.guest.iter())
            .map(|(range, region)| (*range, region.as_ptr()))
    }

    /// Describes RAM to `cpus` software CPUs, and tells them of every write from elsewhere.
    ///
    /// The caller keeps a clone of `self` beside whatever holds the answer.
    pub(crate) fn for_software_cpus(&self, cpus: usize) -> Arc<x86::memory::Memory> {
        let regions = self
            .mappings()
            .map(|(range, host)| x86::memory::RamRegion {
                gpa: range.gpa,
                len_bytes: range.len_bytes,
                host,
                read_only: range.read_only,
            })
            .collect();
        // SAFETY: the mappings are readable and writable, the callers keep a `Ram` (and thus the
        // mappings) as long as the answer, and guest memory is only reached by volatile accesses.
        let memory = unsafe { x86::memory::Memory::new(regions, cpus) };
        let sink: Arc<dyn WriteSink> = Arc::new(CodeWatch(Arc::clone(&memory)));
        self.relay.sink.get_or_init(|| sink);
        memory
    }
}

/// Counts the pages of a mapping that are in memory; none of a range that is not mapped.
fn resident_pages(host: *mut u8, len_bytes: usize) -> usize {
    let mut pages = vec![0_u8; len_bytes.div_ceil(HOST_PAGE_BYTES)];
    // SAFETY: the kernel checks the range and writes one byte for each of its pages, which is the vector's length.
    let result = unsafe { nix::libc::mincore(host.cast(), len_bytes, pages.as_mut_ptr()) };
    if result < 0 {
        return 0;
    }
    pages.iter().filter(|page| **page & 1 != 0).count()
}

/// Tells software CPUs that code of theirs may have been overwritten.
#[derive(Debug)]
struct CodeWatch(Arc<x86::memory::Memory>);

impl WriteSink for CodeWatch {
    fn written(&self, gpa: u64, len_bytes: usize) {
        self.0.written(gpa, len_bytes);
    }
}

fn check_host(len_bytes: u64) -> Result<(), MemoryError> {
    let Some(host_bytes) = host_ram_bytes() else {
        return Ok(());
    };
    if len_bytes <= host_bytes {
        return Ok(());
    }
    Err(MemoryError::TooMuch {
        asked_mib: len_bytes >> 20,
        host_mib: host_bytes >> 20,
    })
}

fn host_ram_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

fn map_range(
    range: RamRange,
    config: &MemoryConfig,
    relay: Arc<WriteRelay>,
) -> Result<GuestRegionMmap<WriteLog>, MemoryError> {
    let place = MemoryError::Place {
        gpa: range.gpa,
        len_bytes: range.len_bytes,
    };
    let Ok(size) = usize::try_from(range.len_bytes) else {
        return Err(place);
    };
    let log = WriteLog::new(range.gpa, relay);
    let builder = MmapRegionBuilder::new_with_bitmap(size, log)
        .with_mmap_prot(libc_prot())
        .with_mmap_flags(mmap_flags(range, config));
    let builder = if config.shared && !range.read_only {
        builder.with_file_offset(FileOffset::new(memory_file(range, config)?, 0))
    } else {
        builder
    };
    let region: MmapRegion<WriteLog> = builder.build().map_err(|source| MemoryError::Map {
        gpa: range.gpa,
        len_bytes: range.len_bytes,
        source,
    })?;
    GuestRegionMmap::new(region, GuestAddress(range.gpa)).ok_or(place)
}

fn libc_prot() -> i32 {
    use nix::sys::mman::ProtFlags;
    (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).bits()
}

fn mmap_flags(range: RamRange, config: &MemoryConfig) -> i32 {
    use nix::sys::mman::MapFlags;
    let mut flags = if config.shared && !range.read_only {
        MapFlags::MAP_SHARED
    } else {
        MapFlags::MAP_PRIVATE | MapFlags::MAP_ANONYMOUS
    };
    if config.prefault && !range.read_only {
        flags |= MapFlags::MAP_POPULATE;
    }
    match config.hugepage_bytes.filter(|_| !range.read_only) {
        None => (flags | MapFlags::MAP_NORESERVE).bits(),
        Some(_) if config.shared => flags.bits(),
        Some(size) => (flags | MapFlags::MAP_HUGETLB).bits() | huge_page_code(size),
    }
}

/// Encodes a page size as `mmap` and `memfd_create` want it: its binary logarithm from bit 26 on.
fn huge_page_code(size_bytes: u64) -> i32 {
    i32::try_from(size_bytes.trailing_zeros() << 26).unwrap_or(0)
}

fn memory_file(range: RamRange, config: &MemoryConfig) -> Result<File, MemoryError> {
    let refused = |source| MemoryError::File {
        len_bytes: range.len_bytes,
        source,
    };
    let mut flags = MFdFlags::MFD_CLOEXEC;
    if let Some(size) = config.hugepage_bytes {
        let code = huge_page_code(size).cast_unsigned();
        flags |= MFdFlags::MFD_HUGETLB | MFdFlags::from_bits_retain(code);
    }
    let file = memfd_create(c"guest-ram", flags)
        .map(File::from)
        .map_err(|errno| refused(errno.into()))?;
    file.set_len(range.len_bytes).map_err(refused)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
