//! Executable snippets: one guest instruction with renamed registers and a return.
//!
//! The snippets of the process lie in one memory file that is mapped twice, writable and executable, so
//! that no page is ever both. There are some thousands of different ones at most: the instructions are
//! those of the tables, their registers are fixed, and only an 8-bit immediate varies.

#![expect(unsafe_code, reason = "makes and runs machine code")]

use std::arch::asm;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

/// Bytes a snippet has: the longest instruction and a return.
const SLOT: usize = 16;
/// Snippets at most: 29 instructions with an immediate, 256 of each, and 1000 without fit twice.
const SLOTS: usize = 16 * 1024;

/// A snippet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stub(*const u8);

/// The registers that a snippet works on.
#[derive(Clone, Copy, Default)]
#[repr(C, align(16))]
pub(super) struct Frame {
    /// The memory operand, at RDI.
    pub(super) memory: u128,
    /// ModRM.reg as XMM2.
    pub(super) reg: u128,
    /// ModRM.rm as XMM1.
    pub(super) rm: u128,
    /// XMM0, where it is an implicit operand.
    pub(super) xmm0: u128,
    /// The general register operand, as RSI.
    pub(super) gpr: u64,
    pub(super) rax: u64,
    pub(super) rdx: u64,
    pub(super) rcx: u64,
    /// Status flags in the form of [`crate::flags`].
    pub(super) status: u32,
}

struct Arena {
    writable: NonNull<u8>,
    executable: NonNull<u8>,
    known: HashMap<[u8; SLOT], usize>,
}

// SAFETY: the pointers are to mappings that live as long as the process.
unsafe impl Send for Arena {}

static ARENA: Mutex<Option<Arena>> = Mutex::new(None);

impl Arena {
    fn new() -> nix::Result<Self> {
        let file = memfd_create(c"ferrovirt-stubs", MFdFlags::MFD_CLOEXEC)?;
        nix::unistd::ftruncate(&file, (SLOT * SLOTS) as i64)?;
        Ok(Self {
            writable: map(&file, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?,
            executable: map(&file, ProtFlags::PROT_READ | ProtFlags::PROT_EXEC)?,
            known: HashMap::new(),
        })
    }

    fn stub(&mut self, bytes: [u8; SLOT]) -> Option<Stub> {
        let count = self.known.len();
        let slot = *self.known.entry(bytes).or_insert(count);
        if slot >= SLOTS {
            self.known.remove(&bytes);
            return None;
        }
        let offset = slot * SLOT;
        if slot == count {
            // SAFETY: slot `slot` is inside the mapping.
            let place = unsafe { self.writable.add(offset) };
            // SAFETY: nobody runs this slot before this function has given it out.
            unsafe { place.copy_from_nonoverlapping(NonNull::from(&bytes).cast(), SLOT) };
        }
        Some(Stub(self.executable.as_ptr().wrapping_add(offset)))
    }
}

fn map(file: &OwnedFd, protection: ProtFlags) -> nix::Result<NonNull<u8>> {
    let len = NonZeroUsize::new(SLOT * SLOTS).expect("the arena has a size");
    // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
    unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, file, 0) }.map(NonNull::cast)
}

/// The snippet that runs `insn`, which must be an instruction of the tables with the registers that
/// [`run`] loads. `None` when the host gives no executable memory.
pub(super) fn stub(insn: &[u8]) -> Option<Stub> {
    let mut bytes = [0xcc; SLOT];
    bytes.get_mut(..insn.len())?.copy_from_slice(insn);
    *bytes.get_mut(insn.len())? = 0xc3;
    let mut arena = ARENA.lock().unwrap_or_else(PoisonError::into_inner);
    if arena.is_none() {
        *arena = Arena::new()
            .inspect_err(|error| tracing::error!(%error, "no executable memory for SIMD"))
            .ok();
    }
    arena.as_mut()?.stub(bytes)
}

impl Stub {
    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits as *const u8)
    }

    pub(super) fn bits(self) -> u64 {
        self.0 as u64
    }
}

/// Runs a snippet on `frame`.
pub(super) fn run(stub: Stub, frame: &mut Frame) {
    // SAFETY: the snippet is one instruction on the registers below, or on the first 16 bytes of
    // `frame` (x87, MMX), or on the x87 registers, which no Rust code uses, and a return.
    unsafe {
        asm!(
            "movdqa xmm2, [rdi + 16]",
            "movdqa xmm1, [rdi + 32]",
            "movdqa xmm0, [rdi + 48]",
            "mov rsi, [rdi + 64]",
            "mov rax, [rdi + 72]",
            "mov rdx, [rdi + 80]",
            "mov rcx, [rdi + 88]",
            "call r8",
            "movdqa [rdi + 16], xmm2",
            "movdqa [rdi + 32], xmm1",
            "movdqa [rdi + 48], xmm0",
            "mov [rdi + 64], rsi",
            "mov [rdi + 88], rcx",
            "lahf",
            "seto al",
            "mov [rdi + 96], eax",
            in("rdi") std::ptr::from_mut(frame),
            in("r8") stub.0,
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _,
        );
    }
}

/// Runs a snippet of an x87 instruction, whose memory operand is `memory`.
pub(super) fn run_x87(stub: Stub, memory: &mut [u8; 16], status: u32) -> u32 {
    let status_out: u32;
    // SAFETY: the snippet is one x87 instruction on the host's x87 registers, which hold the guest's, and
    // on `memory`, and a return.
    unsafe {
        asm!(
            "add al, 0x7f",
            "sahf",
            "call r8",
            "lahf",
            "seto al",
            in("rdi") std::ptr::from_mut(memory),
            in("r8") stub.0,
            inout("eax") status => status_out,
        );
    }
    status_out
}
