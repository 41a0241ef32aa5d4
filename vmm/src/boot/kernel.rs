//! Direct boot of a kernel: places it, its initial RAM disk and its parameters.

use std::path::{Path, PathBuf};

use x86::CpuState;

use super::bzimage::{self, BzImage};
use super::elf::{self, Elf, Extent};
use super::linux::{self, ZeroPage};
use super::{BootError, decompress, e820, file, long_mode, pvh};
use crate::memory::{MemoryError, Ram};

const KERNEL_MAX_BYTES: u64 = 512 << 20;
const INITRD_MAX_BYTES: u64 = 1 << 30;
const CMDLINE_GPA: u32 = 0x2_0000;
/// What a kernel without a header of its own takes.
const CMDLINE_MAX: usize = 2047;
/// Nothing of a kernel may lie below: our tables do.
const KERNEL_MIN_GPA: u64 = 0x10_0000;
const INITRD_MAX_GPA: u64 = 0x7fff_ffff;
const ENTRY_64: u64 = 0x200;
const PAGE_BYTES: u64 = 4096;

/// A kernel in guest RAM.
struct Placed<'a> {
    entry: Entry<'a>,
    end_gpa: u64,
    initrd_max_gpa: u64,
    cmdline_max: usize,
}

enum Entry<'a> {
    /// The 64-bit boot protocol, with the bzImage's header.
    Linux(u64, Option<&'a [u8]>),
    Pvh(u32),
}

struct Loader<'a> {
    path: PathBuf,
    ram: &'a Ram,
}

/// Loads a kernel; returns the boot processor's state at its entry.
pub(super) fn load(
    kernel: &Path,
    initrd: Option<&Path>,
    cmdline: &str,
    ram: &Ram,
    rsdp_gpa: u64,
) -> Result<CpuState, BootError> {
    let bytes = file::read("kernel", kernel, KERNEL_MAX_BYTES)?;
    let loader = Loader {
        path: kernel.to_owned(),
        ram,
    };
    let placed = loader.place(&bytes)?;
    let initrd = initrd
        .map(|initrd| place_initrd(initrd, &placed, ram))
        .transpose()?;
    write_cmdline(cmdline, placed.cmdline_max, ram)?;
    let map = e820::map(ram);
    match placed.entry {
        Entry::Linux(entry_gpa, header) => {
            let zero_page = ZeroPage {
                header,
                rsdp_gpa,
                cmdline_gpa: CMDLINE_GPA,
                initrd,
                map: &map,
            };
            let zero_page_gpa = linux::write(ram, &zero_page)?;
            Ok(long_mode::enter(ram, entry_gpa, zero_page_gpa)?)
        }
        Entry::Pvh(entry) => {
            let info = pvh::Info {
                cmdline_gpa: u64::from(CMDLINE_GPA),
                rsdp_gpa,
                initrd: initrd.map(|(gpa, len)| (u64::from(gpa), u64::from(len))),
                map: &map,
            };
            let info_gpa = pvh::write(ram, &info)?;
            Ok(long_mode::enter_pvh(ram, u64::from(entry), info_gpa)?)
        }
    }
}

impl Loader<'_> {
    fn refuse(&self, problem: impl Into<String>) -> BootError {
        BootError::NoKernel {
            path: self.path.clone(),
            problem: problem.into(),
        }
    }

    fn check_fit(&self, end_gpa: u64) -> Result<(), BootError> {
        let low_end_gpa = self.ram.low_end_gpa();
        if end_gpa <= low_end_gpa {
            return Ok(());
        }
        Err(BootError::KernelFit {
            path: self.path.clone(),
            end_gpa,
            low_end_gpa,
        })
    }

    fn place<'b>(&self, bytes: &'b [u8]) -> Result<Placed<'b>, BootError> {
        if bzimage::is_bzimage(bytes) {
            let image = bzimage::parse(bytes).map_err(|problem| self.refuse(problem))?;
            return self.place_bzimage(&image);
        }
        if !elf::is_elf(bytes) {
            return Err(self.refuse("neither a bzImage nor ELF"));
        }
        let elf = elf::parse(bytes).map_err(|problem| self.refuse(problem))?;
        let end_gpa = self.place_elf(&elf)?;
        Ok(Placed {
            entry: match elf.pvh_entry {
                Some(entry) => Entry::Pvh(entry),
                None => Entry::Linux(elf.entry_gpa, None),
            },
            end_gpa,
            initrd_max_gpa: INITRD_MAX_GPA,
            cmdline_max: CMDLINE_MAX,
        })
    }

    fn place_bzimage<'b>(&self, image: &BzImage<'b>) -> Result<Placed<'b>, BootError> {
        let least_end_gpa = image.preferred_gpa.saturating_add(image.init_len_bytes);
        self.check_fit(least_end_gpa)?;
        let (entry_gpa, end_gpa) = match self.place_unpacked(image)? {
            Some(placed) => placed,
            None => self.place_packed(image)?,
        };
        Ok(Placed {
            entry: Entry::Linux(entry_gpa, Some(image.header)),
            end_gpa: end_gpa.max(least_end_gpa),
            initrd_max_gpa: image.initrd_max_gpa,
            cmdline_max: image.cmdline_max.min(0xffff),
        })
    }

    /// Unpacks the kernel on the host; returns entry and end, or nothing if the guest has to.
    fn place_unpacked(&self, image: &BzImage<'_>) -> Result<Option<(u64, u64)>, BootError> {
        let Some(payload) = image.payload else {
            return Ok(None);
        };
        let mut placing = Placing {
            loader: self,
            preferred_gpa: image.preferred_gpa,
            plan: None,
            done_bytes: 0,
        };
        let is_whole = decompress::unpack(payload, &mut |piece| placing.take(piece))?;
        let placed = placing.finish()?.filter(|_| is_whole);
        if placed.is_some() {
            tracing::debug!(
                len_bytes = placing.done_bytes,
                "unpacked the kernel on the host"
            );
        }
        Ok(placed)
    }

    /// Places the kernel for its own decompressor.
    fn place_packed(&self, image: &BzImage<'_>) -> Result<(u64, u64), BootError> {
        if !image.has_64_bit_entry {
            return Err(self.refuse("its decompressor has no 64-bit entry"));
        }
        let gpa = image.preferred_gpa.max(KERNEL_MIN_GPA);
        let len_bytes = u64::try_from(image.protected.len()).unwrap_or(u64::MAX);
        let end_gpa = gpa.saturating_add(len_bytes);
        self.check_fit(end_gpa)?;
        self.ram.write(gpa, image.protected)?;
        tracing::debug!("the guest unpacks its kernel: the payload's format is not known here");
        Ok((gpa + ENTRY_64, end_gpa))
    }

    /// Checks the place of a segment; returns its end.
    fn check_segment(&self, gpa: u64, memory_len_bytes: u64) -> Result<u64, BootError> {
        if gpa < KERNEL_MIN_GPA {
            return Err(self.refuse("a segment lies below 1 MiB"));
        }
        let end_gpa = gpa.saturating_add(memory_len_bytes);
        self.check_fit(end_gpa)?;
        Ok(end_gpa)
    }

    /// Copies segments to where they belong; returns their end.
    fn place_elf(&self, elf: &Elf<'_>) -> Result<u64, BootError> {
        let mut end_gpa = 0;
        for segment in &elf.segments {
            let segment_end_gpa = self.check_segment(segment.gpa, segment.memory_len_bytes)?;
            self.ram.write(segment.gpa, segment.bytes)?;
            let len_bytes = u64::try_from(segment.bytes.len()).unwrap_or(u64::MAX);
            clear(self.ram, segment.gpa + len_bytes, segment_end_gpa)?;
            end_gpa = end_gpa.max(segment_end_gpa);
        }
        Ok(end_gpa)
    }
}

/// A kernel that is placed as it is unpacked.
struct Placing<'a> {
    loader: &'a Loader<'a>,
    preferred_gpa: u64,
    /// Entry point and segments, once the first piece has told them.
    plan: Option<(u64, Vec<Extent>)>,
    /// How much of the file has come.
    done_bytes: u64,
}

impl Placing<'_> {
    /// Copies what segments hold of the next piece; tells whether this is a kernel that can be placed.
    fn take(&mut self, piece: &[u8]) -> Result<bool, BootError> {
        if self.plan.is_none() {
            let Ok((entry_gpa, extents)) = elf::extents(piece) else {
                return Ok(false);
            };
            // A kernel linked elsewhere than it prefers to be would need its relocations.
            if extents.iter().map(|extent| extent.gpa).min() != Some(self.preferred_gpa) {
                return Ok(false);
            }
            for extent in &extents {
                let loader = self.loader;
                loader.check_segment(extent.gpa, extent.memory_len_bytes)?;
                loader.ram.populate(extent.gpa, extent.file_len_bytes);
            }
            self.plan = Some((entry_gpa, extents));
        }
        let first = self.done_bytes;
        self.done_bytes += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        let Some((_, extents)) = &self.plan else {
            return Ok(false);
        };
        for extent in extents {
            let from = extent.file_at.max(first);
            let to = (extent.file_at + extent.file_len_bytes).min(self.done_bytes);
            if from < to {
                let at = |offset: u64| usize::try_from(offset - first).unwrap_or(usize::MAX);
                let gpa = extent.gpa + (from - extent.file_at);
                self.loader.ram.write(gpa, &piece[at(from)..at(to)])?;
            }
        }
        Ok(true)
    }

    /// Returns entry and end of a kernel that has come as a whole.
    fn finish(&self) -> Result<Option<(u64, u64)>, BootError> {
        let Some((entry_gpa, extents)) = &self.plan else {
            return Ok(None);
        };
        let mut end_gpa = 0;
        for extent in extents {
            if extent.file_at + extent.file_len_bytes > self.done_bytes {
                return Ok(None);
            }
            let extent_end_gpa = extent.gpa + extent.memory_len_bytes;
            let zeroes_gpa = extent.gpa + extent.file_len_bytes;
            clear(self.loader.ram, zeroes_gpa, extent_end_gpa)?;
            end_gpa = end_gpa.max(extent_end_gpa);
        }
        Ok(Some((*entry_gpa, end_gpa)))
    }
}

/// Fills a range with zeroes.
fn clear(ram: &Ram, mut gpa: u64, end_gpa: u64) -> Result<(), MemoryError> {
    let zeroes = [0; 64 << 10];
    while gpa < end_gpa {
        let len = usize::try_from(end_gpa - gpa)
            .unwrap_or(usize::MAX)
            .min(zeroes.len());
        ram.write(gpa, &zeroes[..len])?;
        gpa += u64::try_from(len).unwrap_or(u64::MAX);
    }
    Ok(())
}

/// Places the initial RAM disk as high as the kernel allows; returns address and length.
fn place_initrd(path: &Path, kernel: &Placed<'_>, ram: &Ram) -> Result<(u32, u32), BootError> {
    let bytes = file::read("initrd", path, INITRD_MAX_BYTES)?;
    let len_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let to_gpa = ram
        .low_end_gpa()
        .min(kernel.initrd_max_gpa.saturating_add(1));
    let from_gpa = kernel.end_gpa.next_multiple_of(PAGE_BYTES);
    let refused = BootError::InitrdFit {
        path: path.to_owned(),
        len_bytes,
        from_gpa,
        to_gpa,
    };
    let gpa = to_gpa.saturating_sub(len_bytes) & !(PAGE_BYTES - 1);
    if gpa < from_gpa {
        return Err(refused);
    }
    let (Ok(gpa_32), Ok(len_32)) = (u32::try_from(gpa), u32::try_from(len_bytes)) else {
        return Err(refused);
    };
    ram.write(gpa, &bytes)?;
    Ok((gpa_32, len_32))
}

fn write_cmdline(cmdline: &str, most: usize, ram: &Ram) -> Result<(), BootError> {
    if cmdline.len() > most {
        return Err(BootError::CmdlineFit {
            len_bytes: cmdline.len(),
            most,
        });
    }
    let mut bytes = cmdline.as_bytes().to_vec();
    bytes.push(0);
    ram.write(u64::from(CMDLINE_GPA), &bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests;
