//! The software x86-64 CPU.
//!
//! Guest code is decoded once into *traces*: runs of fixed-size records (`op::Op`) that hold a
//! handler and its operands. A handler does its work and calls the next record's handler in tail
//! position. Traces are cached by physical address and mode, linked to each other inside a page, and
//! found through a jump cache elsewhere. Data accesses go through a direct-mapped TLB that holds host
//! pointers. Arithmetic, flags, SIMD and x87 come from the same instruction of the host.
//!
//! The CPU calls into the board through [`Bus`]; it knows no devices and no clock but the host's TSC.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    reason = "a CPU reinterprets and truncates the same bits at every operand width"
)]

pub mod bus;
pub mod code_map;
pub mod cpuid;
#[doc(hidden)]
pub mod fuzz;
pub mod memory;
#[doc(hidden)]
pub mod tiny_guests;

mod cpu;
#[cfg(any(test, feature = "differential"))]
pub mod differential;
mod dispatch;
mod fault;
mod flags;
mod fpu;
mod int;
mod lower;
mod mem;
mod op;
mod paging;
mod seg;
mod state;
mod system;
mod tlb;
mod trace;
mod vcpu;

pub use bus::{Bus, Exit};
pub use cpu::Vcpu;
pub use state::{CpuState, Segment, StateError, TableRegister};
