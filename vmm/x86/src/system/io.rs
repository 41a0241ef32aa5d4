//! Port I/O (SDM vol. 1 chapter 19): privilege, the TSS permission bitmap, string forms.

use crate::cpu::{Cpu, ES, RAX, RCX, RDI, RDX, RSI, rflags};
use crate::fault::Fault;
use crate::op::{Done, Op};

/// Iterations of a REP INS or OUTS between two looks at the doorbell's owner, the dispatcher.
const ITERATIONS_MAX: u32 = 1024;

/// Flag in [`Op::extra`]: the port is an immediate, in `imm`. The low bits hold the size in bytes.
pub(crate) const IMMEDIATE: u8 = 0x40;
/// Flag in [`Op::extra`]: there is a REP prefix.
pub(crate) const REP: u8 = 0x20;

impl Cpu {
    /// Whether ports may be reached at the current privilege (SDM vol. 1 §19.5).
    fn check_port(&mut self, port: u16, size: u8) -> Done {
        if !self.is_protected() || self.cpl <= self.iopl() && !self.is_v86() {
            return Ok(());
        }
        let limit = u64::from(self.tr.limit);
        let wide = self.tr.attributes & 8 != 0;
        if self.tr.unusable || !wide || limit < 0x67 {
            return Err(Fault::GP0);
        }
        let map = u64::from(self.read_sys::<u16>(self.wrap_la(self.tr.base + 0x66))?);
        let at = map + u64::from(port / 8);
        if at + 1 > limit {
            return Err(Fault::GP0);
        }
        let bits = self.read_sys::<u16>(self.wrap_la(self.tr.base + at))?;
        let wanted = ((1u16 << size) - 1) << (port % 8);
        if bits & wanted == 0 {
            Ok(())
        } else {
            Err(Fault::GP0)
        }
    }

    fn port(&self, op: &Op) -> u16 {
        if op.extra & IMMEDIATE != 0 {
            op.imm as u16
        } else {
            self.regs[RDX] as u16
        }
    }
}

/// IN.
pub(crate) fn input(cpu: &mut Cpu, op: &Op) -> Done {
    let (port, size) = (cpu.port(op), op.extra & 7);
    cpu.check_port(port, size)?;
    let value = cpu.on_board(|bus| bus.port_in(port, size));
    match size {
        1 => cpu.set_reg(RAX as u8, value as u8),
        2 => cpu.set_reg(RAX as u8, value as u16),
        _ => cpu.set_reg32(RAX as u8, value),
    }
    Ok(())
}

/// OUT.
pub(crate) fn output(cpu: &mut Cpu, op: &Op) -> Done {
    let (port, size) = (cpu.port(op), op.extra & 7);
    cpu.check_port(port, size)?;
    let value = cut(cpu.regs[RAX] as u32, size);
    cpu.on_board(|bus| bus.port_out(port, size, value));
    Ok(())
}

fn cut(value: u32, size: u8) -> u32 {
    match size {
        1 => value & 0xff,
        2 => value & 0xffff,
        _ => value,
    }
}

/// INS.
pub(crate) fn input_string(cpu: &mut Cpu, op: &Op) -> Done {
    repeat(cpu, op, RDI, |cpu, op, size| {
        let port = cpu.regs[RDX] as u16;
        let la = cpu.string_address(op, ES, RDI, size, true)?;
        // The store must not fault after the port was read: it is probed first.
        cpu.probe_write(la, ES, size)?;
        let value = cpu.on_board(|bus| bus.port_in(port, size));
        match size {
            1 => cpu.write(la, ES, value as u8),
            2 => cpu.write(la, ES, value as u16),
            _ => cpu.write(la, ES, value),
        }
    })
}

/// OUTS.
pub(crate) fn output_string(cpu: &mut Cpu, op: &Op) -> Done {
    repeat(cpu, op, RSI, |cpu, op, size| {
        let port = cpu.regs[RDX] as u16;
        let seg = usize::from(op.seg);
        let la = cpu.string_address(op, seg, RSI, size, false)?;
        let value = match size {
            1 => u32::from(cpu.read::<u8>(la, seg)?),
            2 => u32::from(cpu.read::<u16>(la, seg)?),
            _ => cpu.read(la, seg)?,
        };
        cpu.on_board(|bus| bus.port_out(port, size, value));
        Ok(())
    })
}

impl Cpu {
    fn string_address(
        &mut self,
        op: &Op,
        seg: usize,
        register: usize,
        size: u8,
        write: bool,
    ) -> Done<u64> {
        let offset = self.regs[register] & address_mask(op);
        self.segment_address(seg, offset, u64::from(size), write)
    }

    /// Makes sure that a store at `la` will not fault.
    fn probe_write(&mut self, la: u64, seg: usize, size: u8) -> Done {
        self.pointer_for_update(la, seg, u64::from(size))?;
        Ok(())
    }

    /// Adds to a register in the width of an address size.
    fn step_register(&mut self, op: &Op, register: usize, by: u64) {
        let sum = self.regs[register].wrapping_add(by);
        let mask = address_mask(op);
        self.regs[register] = match op.address_bits {
            16 => self.regs[register] & !mask | sum & mask,
            _ => sum & mask,
        };
    }
}

fn address_mask(op: &Op) -> u64 {
    match op.address_bits {
        64 => u64::MAX,
        32 => 0xffff_ffff,
        _ => 0xffff,
    }
}

/// Runs `one` once, or as often as RCX says; comes back to the instruction when there is more to do.
fn repeat(
    cpu: &mut Cpu,
    op: &Op,
    register: usize,
    one: impl Fn(&mut Cpu, &Op, u8) -> Done,
) -> Done {
    let size = op.extra & 7;
    cpu.check_port(cpu.regs[RDX] as u16, size)?;
    let back = cpu.rflags & rflags::DF != 0;
    let by = if back {
        u64::from(size).wrapping_neg()
    } else {
        u64::from(size)
    };
    if op.extra & REP == 0 {
        one(cpu, op, size)?;
        cpu.step_register(op, register, by);
        return Ok(());
    }
    let most = match cpu.rflags & rflags::TF {
        0 => ITERATIONS_MAX,
        _ => 1,
    };
    for _ in 0..most {
        if cpu.regs[RCX] & address_mask(op) == 0 {
            return Ok(());
        }
        one(cpu, op, size)?;
        cpu.step_register(op, register, by);
        cpu.step_register(op, RCX, u64::MAX);
        cpu.budget -= 1;
    }
    if cpu.regs[RCX] & address_mask(op) != 0 {
        cpu.rip = cpu.rip_of(op);
    }
    Ok(())
}
