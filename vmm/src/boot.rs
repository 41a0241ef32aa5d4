//! What a machine starts with: a kernel loaded by us, or firmware at the reset vector.
//!
//! Guest physical addresses below 1 MiB that a directly loaded kernel finds filled:
//!
//! ```text
//! 0x0500  descriptor table        0x20000  command line (64 KiB)
//! 0x6000  PVH start info          0xe0000  ACPI tables
//! 0x7000  zero page               0xf0000  SMBIOS
//! 0x9000  page tables (6 pages)
//! ```

mod bzimage;
mod decompress;
pub mod e820;
mod elf;
mod file;
mod firmware;
mod heap;
mod kernel;
mod linux;
mod long_mode;
mod mtrr;
mod pvh;

use std::io;
use std::path::PathBuf;

use x86::CpuState;

use crate::acpi::{self, Platform};
use crate::config::{BootSource, MachineConfig};
use crate::memory::{MemoryError, Ram};
use crate::smbios;

pub(crate) use firmware::items as firmware_items;
pub use firmware::rom_len_bytes;

/// Why a machine cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file cannot be read.
    #[error("read the {role} {}", path.display())]
    Read {
        /// `kernel`, `initrd` or `firmware image`.
        role: &'static str,
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// A file is longer than anything of its kind.
    #[error("load the {role} {}: {len_bytes} bytes are more than the {most} allowed", path.display())]
    TooLong {
        /// `kernel`, `initrd` or `firmware image`.
        role: &'static str,
        /// The file.
        path: PathBuf,
        /// Its length.
        len_bytes: u64,
        /// The most that is allowed.
        most: u64,
    },
    /// The file is no kernel.
    #[error("load {}: no kernel ({problem}); give a Linux bzImage or an x86-64 ELF kernel", path.display())]
    NoKernel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The kernel needs more RAM.
    #[error("load the kernel {}: it needs memory up to {end_gpa:#x} and the guest has {low_end_gpa:#x}; raise memory.len_bytes", path.display())]
    KernelFit {
        /// The kernel.
        path: PathBuf,
        /// End of what it needs.
        end_gpa: u64,
        /// End of RAM below 4 GiB.
        low_end_gpa: u64,
    },
    /// The initial RAM disk does not fit beside the kernel.
    #[error("load the initrd {}: {len_bytes} bytes do not fit between {from_gpa:#x} and {to_gpa:#x}; raise memory.len_bytes", path.display())]
    InitrdFit {
        /// The initial RAM disk.
        path: PathBuf,
        /// Its length.
        len_bytes: u64,
        /// Where there is room.
        from_gpa: u64,
        /// Where room ends.
        to_gpa: u64,
    },
    /// The command line is too long.
    #[error(
        "use boot.cmdline: {len_bytes} bytes are more than the {most} that the kernel takes; shorten it"
    )]
    CmdlineFit {
        /// Its length.
        len_bytes: usize,
        /// The most that the kernel takes.
        most: usize,
    },
    /// The firmware image has an impossible length.
    #[error("load the firmware image {}: {len_bytes} bytes are no multiple of 4096 up to 16 MiB", path.display())]
    FirmwareLength {
        /// The image.
        path: PathBuf,
        /// Its length.
        len_bytes: u64,
    },
    /// Guest RAM could not be written.
    #[error("write the boot data")]
    Memory(#[from] MemoryError),
}

/// Loads what the machine starts with and gives the memory back that this took; returns the boot
/// processor's state at its start.
///
/// A kernel finds the machine's tables in its memory; firmware makes them itself, from files that the board offers.
///
/// # Errors
/// If a file cannot be used or does not fit.
pub fn load(config: &MachineConfig, ram: &Ram) -> Result<CpuState, BootError> {
    heap::give_back_from_now_on();
    let start = match &config.boot {
        BootSource::Kernel {
            kernel,
            initrd,
            cmdline,
        } => {
            let rsdp_gpa = acpi::write(&Platform::new(config, ram), ram)?;
            smbios::write(config, ram)?;
            kernel::load(kernel, initrd.as_deref(), cmdline, ram, rsdp_gpa)
        }
        BootSource::Firmware { image } => {
            firmware::load(image, ram)?;
            Ok(CpuState::power_on())
        }
    };
    heap::give_back();
    start
}

/// Prepares the state of a vCPU that waits for its start-up message as firmware would; tells whether that changed it.
pub fn prepare_waiting(source: &BootSource, state: &mut CpuState) -> bool {
    match source {
        BootSource::Kernel { .. } => mtrr::set(state),
        BootSource::Firmware { .. } => false,
    }
}
