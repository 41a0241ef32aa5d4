//! The CPU against the host: random user-mode sequences, run natively and by [`crate::Vcpu`] from the
//! same state, must leave the same registers, flags and memory.
//!
//! A [`Form`] is a row of a table: an encoding and what to know about it. Sequences are drawn from the
//! rows of one or more families; an operand that the generator does not know makes it skip the row.
//! Instructions that could fault are drawn as a group that makes them safe first. Everything lies at
//! fixed low addresses, so that both runs see the same ones.

mod forms;
mod generate;
mod model;
mod native;

use std::sync::Mutex;

use generate::Sequence;
use model::Model;
use native::Native;

pub use forms::{BIT_MANIPULATION, Form, INTEGER};

/// Where the memory operands lie: two pages, bases point to their border.
const SCRATCH: u64 = 0x2000_0000;
const SCRATCH_BYTES: usize = 0x2000;
/// Where the sequences lie.
const CODE: u64 = 0x2100_0000;
const CODE_BYTES: usize = 0x1000;
/// RFLAGS bits that are compared: CF PF AF ZF SF DF OF.
const FLAGS: u64 = 0xcd5;

/// What a sequence starts from and leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// RAX to R15 in encoding order.
    regs: [u64; 16],
    rflags: u64,
    /// x87, MMX, SSE state as FXSAVE64 stores it.
    fx: [u8; 512],
    scratch: Vec<u8>,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// Where the random numbers start.
    pub seed: u64,
    /// How many sequences to run.
    pub cases: u64,
    /// Rows to draw from.
    pub families: &'a [&'a [Form]],
    /// Groups of instructions in a sequence at most.
    pub length_max: usize,
    /// Whether x87, MMX and SSE state start at random and are compared.
    pub floating_point: bool,
}

/// A sequence on which the CPU and the host differ, cut to what is needed.
#[derive(Debug, thiserror::Error)]
#[error("case {case} differs: {differences}\n{listing}")]
pub struct Mismatch {
    /// Number of the case.
    pub case: u64,
    /// What differs, host's value first.
    pub differences: String,
    /// The instructions and their bytes.
    pub listing: String,
}

/// The fixed addresses belong to one run at a time.
static ADDRESSES: Mutex<()> = Mutex::new(());

/// Runs sequences until one differs.
///
/// # Errors
/// The first sequence that differs.
///
/// # Panics
/// When the fixed addresses are taken by something else in the process.
pub fn compare(settings: &Settings<'_>) -> Result<(), Mismatch> {
    // Declared first, so that it is given back last: after the mappings are gone.
    let _addresses = ADDRESSES
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let (mut native, mut model) = (Native::new(), Model::new());
    for case in 0..settings.cases {
        let mut random = generate::Random::new(settings.seed, case);
        let sequence = Sequence::draw(&mut random, settings);
        let state = generate::state(&mut random, settings);
        if differences(&mut native, &mut model, &sequence, &state, settings).is_some() {
            let mismatch = shrunk(&mut native, &mut model, sequence, &state, settings, case);
            return Err(mismatch);
        }
    }
    Ok(())
}

/// Leaves out groups as long as the rest still differs.
fn shrunk(
    native: &mut Native,
    model: &mut Model,
    mut sequence: Sequence,
    state: &State,
    settings: &Settings<'_>,
    case: u64,
) -> Mismatch {
    let mut at = 0;
    while at < sequence.groups() {
        let shorter = sequence.without(at);
        if differences(native, model, &shorter, state, settings).is_some() {
            sequence = shorter;
        } else {
            at += 1;
        }
    }
    let differences = differences(native, model, &sequence, state, settings).unwrap_or_default();
    let listing = format!(
        "{}from {:x?} rflags {:x}",
        sequence.listing(),
        state.regs,
        state.rflags
    );
    Mismatch {
        case,
        differences,
        listing,
    }
}

/// Runs a sequence both ways and says what differs.
fn differences(
    native: &mut Native,
    model: &mut Model,
    sequence: &Sequence,
    start: &State,
    settings: &Settings<'_>,
) -> Option<String> {
    let code = sequence.bytes();
    let host = native.run(&code, start);
    let ours = match model.run(&code, start, settings.floating_point) {
        Ok(state) => state,
        Err(stop) => return Some(stop),
    };
    let mut found = Vec::new();
    for n in 0..16 {
        if host.regs[n] != ours.regs[n] {
            found.push(format!("r{n} {:x} {:x}", host.regs[n], ours.regs[n]));
        }
    }
    if (host.rflags ^ ours.rflags) & FLAGS != 0 {
        found.push(format!(
            "rflags {:x} {:x}",
            host.rflags & FLAGS,
            ours.rflags & FLAGS
        ));
    }
    if let Some(n) = (0..SCRATCH_BYTES).find(|&n| host.scratch[n] != ours.scratch[n]) {
        found.push(format!(
            "memory at {n:#x} {:02x} {:02x}",
            host.scratch[n], ours.scratch[n]
        ));
    }
    if settings.floating_point {
        let visible = |n: &usize| !(8..24).contains(n) && !(28..32).contains(n) && *n < 416;
        let differ = |n: &usize| host.fx[*n] != ours.fx[*n];
        if let Some(n) = (0..512).filter(visible).find(differ) {
            let from = n & !15;
            found.push(format!(
                "FXSAVE image at {n:#x} {:02x?} {:02x?}",
                &host.fx[from..from + 16],
                &ours.fx[from..from + 16]
            ));
        }
    }
    (!found.is_empty()).then(|| found.join(", "))
}

#[cfg(test)]
mod tests;
