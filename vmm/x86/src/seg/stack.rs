//! The stack as the processor itself pushes to it and pops from it: all or nothing, the pointer moves at
//! the end.

use crate::cpu::{Cpu, RSP, SS};
use crate::fault::Fault;
use crate::seg::attr;
use crate::state::Segment;
use crate::tlb::class;

/// A stack on its way up or down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack {
    /// Stack pointer, cut to `mask`.
    pub(crate) pointer: u64,
    mask: u64,
    segment: Option<Segment>,
    class: usize,
    overflow: Fault,
}

impl Stack {
    /// The stack in use.
    pub(crate) fn current(cpu: &Cpu) -> Self {
        let segment = (cpu.mode.bits != 64).then_some(cpu.segs[SS]);
        let mask = match (cpu.mode.bits, cpu.mode.wide_stack) {
            (64, _) => u64::MAX,
            (_, true) => 0xffff_ffff,
            (_, false) => 0xffff,
        };
        Self {
            pointer: cpu.regs[RSP] & mask,
            mask,
            segment,
            class: cpu.class(),
            overflow: Fault::SS0,
        }
    }

    /// A flat stack of 64-bit mode at `pointer`, for code of privilege `cpl`.
    pub(crate) fn flat(cpu: &Cpu, pointer: u64, cpl: u8) -> Self {
        Self {
            pointer,
            mask: u64::MAX,
            segment: None,
            class: class_for(cpu, cpl),
            overflow: Fault::SS0,
        }
    }

    /// A stack in `segment` for code of privilege `cpl`.
    pub(crate) fn inside(cpu: &Cpu, segment: Segment, pointer: u64, cpl: u8) -> Self {
        let wide = segment.attributes & attr::DB != 0;
        let mask = if wide { 0xffff_ffff } else { 0xffff };
        Self {
            pointer: pointer & mask,
            mask,
            segment: Some(segment),
            class: class_for(cpu, cpl),
            overflow: Fault::ss(segment.selector),
        }
    }

    fn address(&self, offset: u64, bytes: u64) -> Result<u64, Fault> {
        let Some(segment) = &self.segment else {
            return Ok(offset);
        };
        if segment.unusable || !segment.holds(offset, bytes) {
            return Err(self.overflow);
        }
        Ok(segment.base.wrapping_add(offset) & 0xffff_ffff)
    }

    /// Pushes the low `bytes` (2, 4 or 8) of `value`.
    pub(crate) fn push(&mut self, cpu: &mut Cpu, value: u64, bytes: u64) -> Result<(), Fault> {
        let below = self.pointer.wrapping_sub(bytes) & self.mask;
        let la = self.address(below, bytes)?;
        match bytes {
            2 => cpu.write_as(la, SS, self.class, value as u16)?,
            4 => cpu.write_as(la, SS, self.class, value as u32)?,
            _ => cpu.write_as(la, SS, self.class, value)?,
        }
        self.pointer = below;
        Ok(())
    }

    /// Pops `bytes` (2, 4 or 8).
    pub(crate) fn pop(&mut self, cpu: &mut Cpu, bytes: u64) -> Result<u64, Fault> {
        let la = self.address(self.pointer, bytes)?;
        let value = match bytes {
            2 => u64::from(cpu.read_as::<u16>(la, SS, self.class)?),
            4 => u64::from(cpu.read_as::<u32>(la, SS, self.class)?),
            _ => cpu.read_as(la, SS, self.class)?,
        };
        self.skip(bytes);
        Ok(value)
    }

    /// Pops a selector out of a slot of `bytes`.
    pub(crate) fn pop_selector(&mut self, cpu: &mut Cpu, bytes: u64) -> Result<u16, Fault> {
        Ok(self.pop(cpu, bytes)? as u16)
    }

    /// Releases `bytes` unread.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.pointer = self.pointer.wrapping_add(bytes) & self.mask;
    }

    /// Makes the pointer architectural; the bits that the stack does not use stay.
    pub(crate) fn commit(&self, cpu: &mut Cpu) {
        let kept = if self.mask == 0xffff {
            cpu.regs[RSP] & !0xffff
        } else {
            0
        };
        cpu.regs[RSP] = kept | self.pointer;
    }
}

/// The class of accesses that the processor makes for code of privilege `cpl`.
fn class_for(cpu: &Cpu, cpl: u8) -> usize {
    match (cpl, cpu.cpl) {
        (3, 3) => cpu.class(),
        (3, _) => class::USER,
        _ => class::KERNEL,
    }
}
