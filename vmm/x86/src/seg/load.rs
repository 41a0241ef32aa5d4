//! Loading segment registers (SDM vol. 2, MOV and LDS; vol. 3 §3.4 and §5.5): all checks first, then the
//! register.

use crate::cpu::{CS, Cpu, SS};
use crate::fault::Fault;
use crate::seg::attr;
use crate::seg::descriptor::{Descriptor, is_null, kind, rpl};
use crate::state::{Segment, TableRegister};

impl Cpu {
    /// Loads ES, SS, DS, FS or GS as an instruction does.
    pub(crate) fn load_segment(&mut self, seg: usize, selector: u16) -> Result<(), Fault> {
        let segment = self.segment_for(seg, selector)?;
        self.set_data(seg, segment);
        Ok(())
    }

    /// The checked value of ES, SS, DS, FS or GS for a selector.
    pub(crate) fn segment_for(&mut self, seg: usize, selector: u16) -> Result<Segment, Fault> {
        if !self.uses_descriptors() {
            return Ok(self.real_segment(seg, selector));
        }
        if seg != SS {
            return self.data_segment(selector);
        }
        let null_allowed = self.mode.bits == 64 && self.cpl < 3 && rpl(selector) == self.cpl;
        if is_null(selector) && null_allowed {
            return Ok(null_stack(self.cpl));
        }
        self.stack_segment(selector, self.cpl, Fault::gp)
    }

    /// Sets ES, SS, DS, FS or GS to a value that was checked.
    pub(crate) fn set_data(&mut self, seg: usize, segment: Segment) {
        self.segs[seg] = segment;
        if seg == SS {
            self.mode_changed();
        } else {
            self.base_changed(seg);
        }
    }

    /// A segment of real or virtual-8086 mode. Real mode keeps limit and attributes, so that "big real
    /// mode" works; CS falls back to 16 bits.
    pub(crate) fn real_segment(&self, seg: usize, selector: u16) -> Segment {
        let mut segment = self.segs[seg];
        if self.is_v86() {
            return v86_segment(selector);
        }
        if seg == CS {
            segment.attributes = attr::CODE_SEGMENT;
        }
        Segment {
            selector,
            base: u64::from(selector) << 4,
            unusable: false,
            ..segment
        }
    }

    fn data_segment(&mut self, selector: u16) -> Result<Segment, Fault> {
        if is_null(selector) {
            return Ok(Segment::null(selector));
        }
        let found = self.descriptor(selector, Fault::gp)?;
        let privilege = self.cpl.max(rpl(selector));
        if !found.is_readable() || !found.is_conforming_code() && found.dpl() < privilege {
            return Err(Fault::gp(selector));
        }
        if !found.is_present() {
            return Err(Fault::np(selector));
        }
        self.mark_accessed(&found)?;
        Ok(found.segment(selector))
    }

    /// A stack segment for code of privilege `cpl`; what does not fit is `bad`.
    pub(crate) fn stack_segment(
        &mut self,
        selector: u16,
        cpl: u8,
        bad: fn(u16) -> Fault,
    ) -> Result<Segment, Fault> {
        if is_null(selector) {
            return Err(bad(0));
        }
        let found = self.descriptor(selector, bad)?;
        if rpl(selector) != cpl || found.dpl() != cpl || !found.is_writable() {
            return Err(bad(selector));
        }
        if !found.is_present() {
            return Err(Fault::ss(selector));
        }
        self.mark_accessed(&found)?;
        Ok(found.segment(selector))
    }

    /// Checks a code segment for use at the level `rpl` of a selector that a return or a task switch
    /// loads.
    pub(crate) fn code_for_return(
        &mut self,
        selector: u16,
        bad: fn(u16) -> Fault,
    ) -> Result<Segment, Fault> {
        if is_null(selector) {
            return Err(bad(0));
        }
        let found = self.descriptor(selector, bad)?;
        let level = rpl(selector);
        let fits = if found.is_conforming_code() {
            found.dpl() <= level
        } else {
            found.is_code() && found.dpl() == level
        };
        if !fits {
            return Err(bad(selector));
        }
        self.finish_code(&found, selector, bad)
    }

    /// The last checks of any code segment: size bits and presence.
    pub(crate) fn finish_code(
        &mut self,
        found: &Descriptor,
        selector: u16,
        bad: fn(u16) -> Fault,
    ) -> Result<Segment, Fault> {
        let both = attr::L | attr::DB;
        if self.is_long() && found.attributes() & both == both {
            return Err(bad(selector));
        }
        if !found.is_present() {
            return Err(Fault::np(selector));
        }
        self.mark_accessed(found)?;
        Ok(found.segment(selector))
    }

    /// Checks that `offset` lies in a code segment that is about to be entered.
    pub(crate) fn check_target(&self, segment: &Segment, offset: u64) -> Result<(), Fault> {
        let good = if self.is_long() && segment.attributes & attr::L != 0 {
            is_canonical(offset)
        } else {
            offset <= u64::from(segment.limit)
        };
        if good { Ok(()) } else { Err(Fault::GP0) }
    }

    /// Makes data segments unusable that a less privileged level must not see (SDM vol. 3 §5.8.6).
    pub(crate) fn drop_privileged_segments(&mut self, cpl: u8) {
        for seg in [
            crate::cpu::ES,
            crate::cpu::DS,
            crate::cpu::FS,
            crate::cpu::GS,
        ] {
            let at = self.segs[seg];
            let conforming = attr::CODE | attr::CONFORMING;
            let dpl = (at.attributes & attr::DPL) >> 5;
            if !at.unusable && at.attributes & conforming != conforming && dpl < u16::from(cpl) {
                self.segs[seg] = Segment::null(0);
            }
        }
    }

    /// LLDT (SDM vol. 2).
    pub(crate) fn load_ldt(&mut self, selector: u16) -> Result<(), Fault> {
        self.ldtr = self.ldt_for(selector, Fault::gp)?;
        Ok(())
    }

    /// The checked value of LDTR for a selector.
    pub(crate) fn ldt_for(
        &mut self,
        selector: u16,
        bad: fn(u16) -> Fault,
    ) -> Result<Segment, Fault> {
        if is_null(selector) {
            return Ok(Segment::null(selector));
        }
        if selector & 4 != 0 {
            return Err(bad(selector));
        }
        let found = self.descriptor(selector, bad)?;
        if !found.is_system() || found.kind() != kind::LDT {
            return Err(bad(selector));
        }
        if !found.is_present() {
            return Err(Fault::np(selector));
        }
        Ok(found.segment(selector))
    }

    /// LTR (SDM vol. 2): marks the task busy.
    pub(crate) fn load_task_register(&mut self, selector: u16) -> Result<(), Fault> {
        if is_null(selector) {
            return Err(Fault::GP0);
        }
        if selector & 4 != 0 {
            return Err(Fault::gp(selector));
        }
        let found = self.descriptor(selector, Fault::gp)?;
        let fits = found.kind() == kind::TSS || found.kind() == kind::TSS16 && !self.is_long();
        if !found.is_system() || !fits {
            return Err(Fault::gp(selector));
        }
        if !found.is_present() {
            return Err(Fault::np(selector));
        }
        self.set_bits_sys(found.la.wrapping_add(5), kind::BUSY)?;
        let mut segment = found.segment(selector);
        segment.attributes |= u16::from(kind::BUSY);
        self.tr = segment;
        Ok(())
    }

    /// Limit and base as LGDT and LIDT read them, at `la`.
    pub(crate) fn read_table_register(
        &mut self,
        la: u64,
        seg: usize,
        wide: bool,
    ) -> Result<TableRegister, Fault> {
        let limit = self.read::<u16>(la, seg)?;
        let at = self.wrap_la(la.wrapping_add(2));
        if self.mode.bits == 64 {
            let base = self.read::<u64>(at, seg)?;
            if !is_canonical(base) {
                return Err(Fault::GP0);
            }
            return Ok(TableRegister { base, limit });
        }
        let mask = if wide { 0xffff_ffff } else { 0x00ff_ffff };
        let base = u64::from(self.read::<u32>(at, seg)? & mask);
        Ok(TableRegister { base, limit })
    }
}

/// Whether bits 47 to 63 are all the same (SDM vol. 1 §3.3.7.1).
pub(crate) fn is_canonical(la: u64) -> bool {
    (la as i64) << 16 >> 16 == la as i64
}

/// SS with a null selector, as 64-bit mode allows it below level 3.
pub(crate) fn null_stack(cpl: u8) -> Segment {
    let mut segment = Segment::null(u16::from(cpl));
    segment.attributes = u16::from(cpl) << 5;
    segment
}

/// A segment of virtual-8086 mode (SDM vol. 3 §21.2).
pub(crate) fn v86_segment(selector: u16) -> Segment {
    Segment {
        selector,
        base: u64::from(selector) << 4,
        limit: 0xffff,
        attributes: attr::DATA_SEGMENT | attr::DPL,
        unusable: false,
    }
}
