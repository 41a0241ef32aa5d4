//! A CPU from outside: its whole state as one value, power-on, INIT and start-up.

use crate::cpu::{CS, Cpu, FS, GS, RDX, SS, Vcpu, cr, rflags};
use crate::fpu::Fpu;
use crate::paging::PHYS_BITS;
use crate::seg::load::is_canonical;
use crate::seg::{attr, descriptor::kind};
use crate::state::{CpuState, Segment, StateError, TableRegister};
use crate::system::{control, msr, processor};

/// Family 6, as CPUID says, in RDX after power-on.
const RDX_RESET: u64 = 0x600;

/// Runs `work` as inside [`Vcpu::run`], where the host's floating-point registers are the guest's.
fn with_host_registers<R>(fpu: &mut Fpu, work: impl FnOnce(&mut Fpu) -> R) -> R {
    fpu.enter_run();
    let result = work(fpu);
    fpu.leave_run();
    result
}

impl CpuState {
    /// The state after power-on (SDM vol. 3 §10.1.1): real mode, 16 bytes below 4 GiB.
    #[must_use]
    pub fn power_on() -> Self {
        let segment = |selector, base, attributes| Segment {
            selector,
            base,
            limit: 0xffff,
            attributes,
            unusable: false,
        };
        let data = segment(0, 0, attr::DATA_SEGMENT);
        let table = TableRegister {
            base: 0,
            limit: 0xffff,
        };
        let mut gpr = [0; 16];
        gpr[RDX] = RDX_RESET;
        let code = segment(0xf000, 0xffff_0000, attr::CODE_SEGMENT);
        Self {
            gpr,
            rip: 0xfff0,
            rflags: rflags::FIXED,
            segments: [data, code, data, data, data, data],
            ldtr: segment(0, 0, attr::P | kind::LDT),
            tr: segment(0, 0, attr::P | kind::TSS_BUSY),
            gdtr: table,
            idtr: table,
            cr0: cr::CR0_ET | cr::CR0_NW | cr::CR0_CD,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            cr8: 0,
            xcr0: 1,
            dr: [0, 0, 0, 0, control::DR6_ONES, control::DR7_ONES],
            efer: 0,
            msrs: vec![(msr::PAT, msr::PAT_RESET)],
            xsave: with_host_registers(&mut Fpu::new(), Fpu::save_xsave),
            halted: false,
            interrupt_shadow: false,
            nmi_blocked: false,
        }
    }
}

impl Vcpu {
    /// The state between two instructions. CR8 is the board's: it reads as 0 here. The MSRs are those that
    /// the core holds, the time stamp counter among them.
    pub fn state(&mut self) -> CpuState {
        let cpu = &mut *self.cpu;
        let mut gpr = [0; 16];
        gpr.copy_from_slice(&cpu.regs[..16]);
        let [dr0, dr1, dr2, dr3] = cpu.dr;
        CpuState {
            gpr,
            rip: cpu.rip,
            rflags: cpu.flags(),
            segments: cpu.segs,
            ldtr: cpu.ldtr,
            tr: cpu.tr,
            gdtr: cpu.gdtr,
            idtr: cpu.idtr,
            cr0: cpu.cr0,
            cr2: cpu.cr2,
            cr3: cpu.cr3,
            cr4: cpu.cr4,
            cr8: 0,
            xcr0: cpu.xcr0,
            dr: [dr0, dr1, dr2, dr3, cpu.dr6, cpu.dr7],
            efer: cpu.msr.efer,
            msrs: cpu.held_msrs(),
            xsave: with_host_registers(&mut cpu.fpu, Fpu::save_xsave),
            halted: cpu.halted,
            interrupt_shadow: cpu.shadow,
            nmi_blocked: cpu.nmi_blocked,
        }
    }

    /// Replaces the whole state. MSRs that are not named take their power-on values, but for the time stamp
    /// counter, which goes on; MSRs that the core does not hold are left to the board, as CR8 is. After an
    /// error the CPU is as it was.
    ///
    /// # Errors
    /// [`StateError`] names the field that no CPU could hold.
    pub fn set_state(&mut self, state: &CpuState) -> Result<(), StateError> {
        validate(state)?;
        let cpu = &mut *self.cpu;
        let before = (cpu.msr.clone(), cpu.tsc_offset);
        if let Err(index) = cpu.set_held_msrs(&state.msrs) {
            (cpu.msr, cpu.tsc_offset) = before;
            return Err(StateError::Msr(index));
        }
        if !with_host_registers(&mut cpu.fpu, |fpu| fpu.load_xsave(&state.xsave)) {
            (cpu.msr, cpu.tsc_offset) = before;
            return Err(StateError::Field("xsave"));
        }
        cpu.regs[..16].copy_from_slice(&state.gpr);
        cpu.rip = state.rip;
        cpu.segs = state.segments;
        (cpu.ldtr, cpu.tr) = (state.ldtr, state.tr);
        (cpu.gdtr, cpu.idtr) = (state.gdtr, state.idtr);
        (cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4) = (state.cr0, state.cr2, state.cr3, state.cr4);
        cpu.xcr0 = state.xcr0;
        cpu.dr.copy_from_slice(&state.dr[..4]);
        cpu.set_dr6(state.dr[4]);
        cpu.set_dr7(state.dr[5]);
        cpu.msr.efer = state.efer;
        cpu.halted = state.halted;
        cpu.shadow = state.interrupt_shadow;
        cpu.nmi_blocked = state.nmi_blocked;
        cpu.set_flags(state.rflags);
        cpu.take_over();
        Ok(())
    }

    /// Returns to the state after power-on; the time stamp counter goes on.
    ///
    /// # Panics
    /// Never: the state after power-on is valid.
    pub fn reset(&mut self) {
        self.set_state(&CpuState::power_on())
            .expect("the power-on state is valid");
    }

    /// INIT (SDM vol. 3 §10.1.1): as after power-on, but MSRs, FPU state and the cache bits of CR0 stay. The
    /// CPU then waits for [`Vcpu::sipi`]; until then [`Vcpu::run`] returns [`crate::Exit::Halt`].
    ///
    /// # Panics
    /// Never: the state after INIT is valid.
    pub fn init(&mut self) {
        let mut state = CpuState::power_on();
        let now = self.state();
        state.msrs = now.msrs;
        state.xsave = now.xsave;
        state.xcr0 = now.xcr0;
        let caches = cr::CR0_NW | cr::CR0_CD;
        state.cr0 = state.cr0 & !caches | now.cr0 & caches;
        self.set_state(&state)
            .expect("the state after INIT is valid");
        self.cpu.wait_for_sipi = true;
    }

    /// The start-up message: starts a CPU that waits for it in real mode at page `vector`.
    pub fn sipi(&mut self, vector: u8) {
        let cpu = &mut *self.cpu;
        if !std::mem::take(&mut cpu.wait_for_sipi) {
            return;
        }
        cpu.rip = 0;
        cpu.segs[CS].selector = u16::from(vector) << 8;
        cpu.segs[CS].base = u64::from(vector) << 12;
        cpu.take_over();
    }

    /// Whether the CPU waits for a start-up message.
    #[must_use]
    pub fn waits_for_sipi(&self) -> bool {
        self.cpu.wait_for_sipi
    }

    /// Whether the CPU waits in HLT.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.cpu.halted
    }

    /// Whether [`Vcpu::release_code`] is worth its price.
    #[must_use]
    pub fn holds_much_code(&self) -> bool {
        self.cpu.traces.is_large()
    }

    /// Forgets all decoded code and gives its memory back: for a CPU that has nothing to do. Code that runs
    /// again is decoded anew.
    pub fn release_code(&mut self) {
        self.cpu.traces.release();
    }

    /// The time stamp counter.
    #[must_use]
    pub fn tsc(&self) -> u64 {
        self.cpu.tsc()
    }

    /// Sets the time stamp counter, behind the guest's back: TSC_ADJUST stays.
    pub fn set_tsc(&mut self, value: u64) {
        self.cpu.tsc_offset = value.wrapping_sub(processor::host_tsc());
    }

    /// The guest's time stamp counter minus the host's, modulo 2^64.
    #[must_use]
    pub fn tsc_offset(&self) -> u64 {
        self.cpu.tsc_offset
    }

    /// Whether the core itself holds the MSR; all others are the board's.
    #[must_use]
    pub fn holds_msr(index: u32) -> bool {
        msr::held().any(|held| held == index)
    }
}

impl Cpu {
    /// Takes over state that was set from outside.
    fn take_over(&mut self) {
        self.fault = None;
        self.shutdown = false;
        self.wait_for_sipi = false;
        self.pending_debug = 0;
        self.cpl = if self.is_v86() {
            3
        } else if self.is_protected() {
            (self.segs[SS].attributes >> 5) as u8 & 3
        } else {
            0
        };
        self.tlb_tag = self.tlb.flush_all();
        self.tlb.generation += 1;
        self.fpu_changed();
        self.mode_changed();
        self.look_for_interrupts();
    }

    fn held_msrs(&self) -> Vec<(u32, u64)> {
        msr::held()
            .filter_map(|index| Some((index, self.held_msr(index)?)))
            .collect()
    }

    /// Sets the MSRs that the core holds; the index of one with a bad value is the error.
    fn set_held_msrs(&mut self, msrs: &[(u32, u64)]) -> Result<(), u32> {
        let adjust = self.msr.tsc_adjust;
        self.msr = crate::cpu::Msrs::default();
        self.msr.tsc_adjust = adjust;
        self.msr.pat = msr::PAT_RESET;
        self.msr.misc_enable = msr::MISC_ENABLE_RESET;
        for &(index, value) in msrs {
            match index {
                msr::TSC => self.tsc_offset = value.wrapping_sub(processor::host_tsc()),
                msr::TSC_ADJUST => self.msr.tsc_adjust = value,
                msr::EFER | msr::FS_BASE | msr::GS_BASE => {}
                _ if Vcpu::holds_msr(index) => self.set_held_msr(index, value).ok_or(index)?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn check(good: bool, field: &'static str) -> Result<(), StateError> {
    if good {
        Ok(())
    } else {
        Err(StateError::Field(field))
    }
}

/// Checks what the instructions that load these registers would check.
fn validate(state: &CpuState) -> Result<(), StateError> {
    let cr0 = |bit| state.cr0 & bit != 0;
    let paging = cr0(cr::CR0_PG);
    check(
        state.cr0 >> 32 == 0
            && (!paging || cr0(cr::CR0_PE))
            && (cr0(cr::CR0_CD) || !cr0(cr::CR0_NW)),
        "cr0",
    )?;
    let long = state.efer & cr::EFER_LMA != 0;
    check(
        state.efer & !control::EFER_KNOWN == 0
            && long == (paging && state.efer & cr::EFER_LME != 0),
        "efer",
    )?;
    check(
        state.cr4 & !control::CR4_KNOWN == 0
            && (!long || state.cr4 & cr::CR4_PAE != 0)
            && (long || state.cr4 & cr::CR4_PCIDE == 0),
        "cr4",
    )?;
    check(!long || state.cr3 >> PHYS_BITS == 0, "cr3")?;
    check(!long || is_canonical(state.rip), "rip")?;
    check(state.rflags & !rflags::KNOWN == 0, "rflags")?;
    check(!(long && state.rflags & rflags::VM != 0), "rflags")?;
    check(state.xcr0 & !3 == 0 && state.xcr0 & 1 != 0, "xcr0")?;
    let bases = [state.segments[FS], state.segments[GS], state.ldtr, state.tr];
    check(bases.iter().all(|s| is_canonical(s.base)), "segments")?;
    let tables = [state.gdtr, state.idtr];
    check(tables.iter().all(|t| is_canonical(t.base)), "gdtr, idtr")?;
    let code = state.segments[CS].attributes;
    check(
        code & (attr::L | attr::DB) != attr::L | attr::DB || !long,
        "segments",
    )?;
    check(state.dr[4..].iter().all(|d| d >> 32 == 0), "dr")
}

#[cfg(test)]
mod tests;
