//! Descriptors in the GDT, the LDT and the IDT (SDM vol. 3 §3.4.5, §3.5 and §6.11).

use crate::cpu::Cpu;
use crate::fault::Fault;
use crate::seg::attr;
use crate::state::Segment;

/// System descriptor types (SDM vol. 3 table 3-2).
pub(crate) mod kind {
    pub(crate) const TSS16: u16 = 1;
    pub(crate) const LDT: u16 = 2;
    pub(crate) const TSS16_BUSY: u16 = 3;
    pub(crate) const CALL_GATE16: u16 = 4;
    pub(crate) const TASK_GATE: u16 = 5;
    pub(crate) const INTERRUPT_GATE16: u16 = 6;
    pub(crate) const TRAP_GATE16: u16 = 7;
    pub(crate) const TSS: u16 = 9;
    pub(crate) const TSS_BUSY: u16 = 11;
    pub(crate) const CALL_GATE: u16 = 12;
    pub(crate) const INTERRUPT_GATE: u16 = 14;
    pub(crate) const TRAP_GATE: u16 = 15;
    /// The bit that tells busy task states from available ones.
    pub(crate) const BUSY: u8 = 2;
}

/// A descriptor as it lies in its table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    /// The first eight bytes.
    pub(crate) low: u64,
    /// The other eight of a system descriptor in long mode, else zero.
    pub(crate) high: u64,
    /// Linear address.
    pub(crate) la: u64,
}

impl Descriptor {
    pub(crate) fn attributes(&self) -> u16 {
        (self.low >> 40) as u16 & 0xf0ff
    }

    /// The type of a system descriptor.
    pub(crate) fn kind(&self) -> u16 {
        self.attributes() & 0xf
    }

    pub(crate) fn dpl(&self) -> u8 {
        (self.low >> 45) as u8 & 3
    }

    pub(crate) fn is_present(&self) -> bool {
        self.attributes() & attr::P != 0
    }

    pub(crate) fn is_system(&self) -> bool {
        self.attributes() & attr::S == 0
    }

    pub(crate) fn is_code(&self) -> bool {
        self.attributes() & (attr::S | attr::CODE) == attr::S | attr::CODE
    }

    pub(crate) fn is_conforming_code(&self) -> bool {
        self.is_code() && self.attributes() & attr::CONFORMING != 0
    }

    pub(crate) fn is_readable(&self) -> bool {
        !self.is_system() && (!self.is_code() || self.attributes() & attr::READABLE != 0)
    }

    pub(crate) fn is_writable(&self) -> bool {
        !self.is_system() && !self.is_code() && self.attributes() & attr::WRITABLE != 0
    }

    pub(crate) fn base(&self) -> u64 {
        self.low >> 16 & 0x00ff_ffff | self.low >> 32 & 0xff00_0000 | self.high << 32
    }

    pub(crate) fn limit(&self) -> u32 {
        let raw = (self.low & 0xffff | self.low >> 32 & 0xf_0000) as u32;
        if self.attributes() & attr::G != 0 {
            raw << 12 | 0xfff
        } else {
            raw
        }
    }

    /// The segment register that this descriptor makes.
    pub(crate) fn segment(&self, selector: u16) -> Segment {
        let accessed = if self.is_system() { 0 } else { attr::ACCESSED };
        Segment {
            selector,
            base: self.base(),
            limit: self.limit(),
            attributes: self.attributes() | accessed,
            unusable: false,
        }
    }

    pub(crate) fn gate_selector(&self) -> u16 {
        (self.low >> 16) as u16
    }

    pub(crate) fn gate_offset(&self) -> u64 {
        self.low & 0xffff | self.low >> 32 & 0xffff_0000 | self.high << 32
    }

    /// Number of parameters that a call gate copies.
    pub(crate) fn gate_parameters(&self) -> u64 {
        self.low >> 32 & 0x1f
    }

    /// Number of the stack that an interrupt gate of long mode switches to, or 0.
    pub(crate) fn gate_stack(&self) -> u64 {
        self.low >> 32 & 7
    }

    /// Whether a gate is of the 16-bit kind.
    pub(crate) fn is_gate16(&self) -> bool {
        self.kind() & 8 == 0
    }
}

/// Whether a selector is null, whatever its RPL.
pub(crate) fn is_null(selector: u16) -> bool {
    selector & 0xfffc == 0
}

/// Privilege level that a selector asks for.
pub(crate) fn rpl(selector: u16) -> u8 {
    selector as u8 & 3
}

impl Cpu {
    /// The descriptor that a selector names; `None` outside the table.
    pub(crate) fn find_descriptor(&mut self, selector: u16) -> Result<Option<Descriptor>, Fault> {
        let (base, limit) = if selector & 4 == 0 {
            (self.gdtr.base, u32::from(self.gdtr.limit))
        } else if self.ldtr.unusable {
            return Ok(None);
        } else {
            (self.ldtr.base, self.ldtr.limit)
        };
        let offset = u32::from(selector & 0xfff8);
        if offset + 7 > limit {
            return Ok(None);
        }
        let la = self.wrap_la(base.wrapping_add(u64::from(offset)));
        let low = self.read_sys::<u64>(la)?;
        let mut found = Descriptor { low, high: 0, la };
        if found.is_system() && self.is_long() && offset + 15 <= limit {
            found.high = self.read_sys::<u64>(la.wrapping_add(8))?;
        }
        Ok(Some(found))
    }

    /// As [`Cpu::find_descriptor`]; what is not there is `missing`.
    pub(crate) fn descriptor(
        &mut self,
        selector: u16,
        missing: fn(u16) -> Fault,
    ) -> Result<Descriptor, Fault> {
        self.find_descriptor(selector)?
            .ok_or_else(|| missing(selector))
    }

    /// Cuts a linear address to 32 bits outside long mode.
    pub(crate) fn wrap_la(&self, la: u64) -> u64 {
        if self.is_long() { la } else { la & 0xffff_ffff }
    }

    /// Sets the accessed bit of a segment descriptor in memory (SDM vol. 3 §3.4.5.1).
    pub(crate) fn mark_accessed(&mut self, found: &Descriptor) -> Result<(), Fault> {
        if found.attributes() & attr::ACCESSED == 0 {
            self.set_bits_sys(found.la.wrapping_add(5), attr::ACCESSED as u8)?;
        }
        Ok(())
    }
}
