//! Random numbers for RDRAND and RDSEED.

#![expect(unsafe_code, reason = "the host's own instruction")]

use std::arch::asm;
use std::fs::File;
use std::io::Read;

/// How often the host's instruction is tried (SDM vol. 1 §7.3.17.1 suggests 10).
const TRIES: u32 = 10;

/// A random word: from the host's instruction, else from the kernel.
pub(crate) fn word() -> Option<u64> {
    if std::arch::is_x86_feature_detected!("rdrand") {
        (0..TRIES).find_map(|_| from_host())
    } else {
        from_kernel()
    }
}

fn from_host() -> Option<u64> {
    let (value, good): (u64, u8);
    // SAFETY: the host has the instruction.
    unsafe {
        asm!("rdrand {v}", "setc {c}", v = out(reg) value, c = out(reg_byte) good,
             options(nomem, nostack));
    }
    (good != 0).then_some(value)
}

fn from_kernel() -> Option<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .ok()?;
    Some(u64::from_le_bytes(bytes))
}
