//! Model-specific registers that the core holds (SDM vol. 4; APM vol. 2 appendix A). All others are the
//! board's.

use crate::cpu::{Cpu, FS, GS, RAX, RCX, RDX};
use crate::fault::Fault;
use crate::op::{Done, Op};
use crate::seg::load::is_canonical;

pub(crate) const TSC: u32 = 0x10;
pub(crate) const TSC_ADJUST: u32 = 0x3b;
pub(crate) const SPEC_CTRL: u32 = 0x48;
pub(crate) const SYSENTER_CS: u32 = 0x174;
pub(crate) const SYSENTER_ESP: u32 = 0x175;
pub(crate) const SYSENTER_EIP: u32 = 0x176;
pub(crate) const MISC_ENABLE: u32 = 0x1a0;
pub(crate) const PAT: u32 = 0x277;
pub(crate) const MTRR_DEF_TYPE: u32 = 0x2ff;
pub(crate) const EFER: u32 = 0xc000_0080;
pub(crate) const STAR: u32 = 0xc000_0081;
pub(crate) const LSTAR: u32 = 0xc000_0082;
pub(crate) const CSTAR: u32 = 0xc000_0083;
pub(crate) const SFMASK: u32 = 0xc000_0084;
pub(crate) const FS_BASE: u32 = 0xc000_0100;
pub(crate) const GS_BASE: u32 = 0xc000_0101;
pub(crate) const KERNEL_GS_BASE: u32 = 0xc000_0102;
pub(crate) const TSC_AUX: u32 = 0xc000_0103;

/// The fixed-range MTRRs in the order of [`crate::cpu::Msrs::mtrr_fixed`] (SDM vol. 3 §12.11.2.2).
pub(crate) const MTRR_FIXED: [u32; 11] = [
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
];
/// The first of the variable-range MTRRs: base and mask of eight ranges.
pub(crate) const MTRR_VARIABLE: u32 = 0x200;

const FEATURE_CONTROL: u32 = 0x3a;
const PRED_CMD: u32 = 0x49;
const MTRR_CAP: u32 = 0xfe;
/// Eight variable ranges, the fixed ones, write combining.
const MTRR_CAP_VALUE: u64 = 0x508;
const SPEC_CTRL_KNOWN: u64 = 7;
/// PAT as it is after power-on (SDM vol. 3 §12.12.4).
pub(crate) const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// Fast strings.
pub(crate) const MISC_ENABLE_RESET: u64 = 1;
/// Locked, without VMX.
const FEATURE_CONTROL_VALUE: u64 = 1;
/// HWCR.TscFreqSel: the TSC counts at one rate.
const HWCR_VALUE: u64 = 1 << 24;
/// DE_CFG: LFENCE serialises.
const DE_CFG_VALUE: u64 = 2;
/// Update level of the microcode, in the upper half where Intel has it and in the lower where AMD has.
const MICROCODE: u64 = 0x0a00_11d1_0a00_11d1;

/// The MSRs that a CPU's state carries.
pub(crate) fn held() -> impl Iterator<Item = u32> {
    let plain = [
        TSC,
        TSC_ADJUST,
        SPEC_CTRL,
        SYSENTER_CS,
        SYSENTER_ESP,
        SYSENTER_EIP,
        MISC_ENABLE,
        PAT,
        MTRR_DEF_TYPE,
        STAR,
        LSTAR,
        CSTAR,
        SFMASK,
        KERNEL_GS_BASE,
        TSC_AUX,
    ];
    plain
        .into_iter()
        .chain(MTRR_FIXED)
        .chain(MTRR_VARIABLE..MTRR_VARIABLE + 16)
}

/// MSRs that read as a constant and ignore writes.
fn constant(index: u32) -> Option<u64> {
    Some(match index {
        // Platform identifier, microcode revision.
        0x17 => 0,
        0x8b => MICROCODE,
        // SMI count, platform information, misc features.
        0x34 | 0xce | 0x140 => 0,
        // Machine checks: no banks.
        0x179..=0x17b => 0,
        // DEBUGCTL and the last branch.
        0x1d9 | 0x1db | 0x1dc | 0x1dd | 0x1de => 0,
        // AMD: SYSCFG, HWCR, IORRs, top of memory, NB_CFG, MMIO base, P-states, C-states.
        0xc001_0010 | 0xc001_0016..=0xc001_001a | 0xc001_001d | 0xc001_001f => 0,
        0xc001_0015 => HWCR_VALUE,
        0xc001_0055 | 0xc001_0058 | 0xc001_0061..=0xc001_006b | 0xc001_0073 => 0,
        // AMD: SMM mask, VM_CR, OS-visible workarounds.
        0xc001_0112 | 0xc001_0113 | 0xc001_0114 | 0xc001_0140 | 0xc001_0141 => 0,
        // AMD: chicken bits.
        0xc001_1020..=0xc001_1028 | 0xc001_102a..=0xc001_102f | 0xc001_10e3 => 0,
        0xc001_1029 => DE_CFG_VALUE,
        _ => return None,
    })
}

impl Cpu {
    /// The value of an MSR that the core holds.
    pub(crate) fn held_msr(&self, index: u32) -> Option<u64> {
        Some(match index {
            TSC => self.tsc(),
            TSC_ADJUST => self.msr.tsc_adjust,
            SPEC_CTRL => self.msr.spec_ctrl,
            SYSENTER_CS => self.msr.sysenter_cs,
            SYSENTER_ESP => self.msr.sysenter_esp,
            SYSENTER_EIP => self.msr.sysenter_eip,
            MISC_ENABLE => self.msr.misc_enable,
            PAT => self.msr.pat,
            MTRR_DEF_TYPE => self.msr.mtrr_def_type,
            EFER => self.msr.efer,
            STAR => self.msr.star,
            LSTAR => self.msr.lstar,
            CSTAR => self.msr.cstar,
            SFMASK => self.msr.sfmask,
            FS_BASE => self.segs[FS].base,
            GS_BASE => self.segs[GS].base,
            KERNEL_GS_BASE => self.msr.kernel_gs_base,
            TSC_AUX => self.msr.tsc_aux,
            _ => {
                let variable = index.wrapping_sub(MTRR_VARIABLE) as usize;
                let fixed = || MTRR_FIXED.iter().position(|&m| m == index);
                return match self.msr.mtrr_variable.get(variable) {
                    Some(value) => Some(*value),
                    None => fixed().map(|n| self.msr.mtrr_fixed[n]),
                };
            }
        })
    }

    /// The value of an MSR; `None` is #GP.
    fn msr(&mut self, index: u32) -> Option<u64> {
        match index {
            FEATURE_CONTROL => Some(FEATURE_CONTROL_VALUE),
            MTRR_CAP => Some(MTRR_CAP_VALUE),
            PRED_CMD => None,
            _ => self
                .held_msr(index)
                .or_else(|| constant(index))
                .or_else(|| self.on_board(|bus| bus.msr_read(index))),
        }
    }

    /// Sets an MSR that the core holds, other than the time stamp counter's; `None` is #GP.
    pub(crate) fn set_held_msr(&mut self, index: u32, value: u64) -> Option<()> {
        let canonical = is_canonical(value);
        match index {
            SPEC_CTRL if value & !SPEC_CTRL_KNOWN == 0 => self.msr.spec_ctrl = value,
            SYSENTER_CS => self.msr.sysenter_cs = value & 0xffff_ffff,
            SYSENTER_ESP if canonical => self.msr.sysenter_esp = value,
            SYSENTER_EIP if canonical => self.msr.sysenter_eip = value,
            MISC_ENABLE => self.msr.misc_enable = value,
            PAT if is_pat(value) => self.msr.pat = value,
            MTRR_DEF_TYPE => self.msr.mtrr_def_type = value & 0xcff,
            EFER => return self.set_efer(value).ok(),
            STAR => self.msr.star = value,
            LSTAR if canonical => self.msr.lstar = value,
            CSTAR if canonical => self.msr.cstar = value,
            SFMASK => self.msr.sfmask = value & 0xffff_ffff,
            FS_BASE if canonical => self.set_base(FS, value),
            GS_BASE if canonical => self.set_base(GS, value),
            KERNEL_GS_BASE if canonical => self.msr.kernel_gs_base = value,
            TSC_AUX if value >> 32 == 0 => self.msr.tsc_aux = value,
            _ => {
                let variable = index.wrapping_sub(MTRR_VARIABLE) as usize;
                if let Some(slot) = self.msr.mtrr_variable.get_mut(variable) {
                    *slot = value;
                } else {
                    let n = MTRR_FIXED.iter().position(|&m| m == index)?;
                    self.msr.mtrr_fixed[n] = value;
                }
            }
        }
        Some(())
    }

    /// Sets an MSR; `None` is #GP.
    fn set_msr(&mut self, index: u32, value: u64) -> Option<()> {
        match index {
            TSC => {
                let delta = value.wrapping_sub(self.tsc());
                self.msr.tsc_adjust = self.msr.tsc_adjust.wrapping_add(delta);
                self.move_tsc(delta);
            }
            TSC_ADJUST => {
                let delta = value.wrapping_sub(self.msr.tsc_adjust);
                self.msr.tsc_adjust = value;
                self.move_tsc(delta);
            }
            // A barrier of predictors that do not exist.
            PRED_CMD if value & !1 == 0 => {}
            PRED_CMD | MTRR_CAP | FEATURE_CONTROL => return None,
            _ if self.held_msr(index).is_some() => return self.set_held_msr(index, value),
            _ if constant(index).is_some() => {}
            _ => {
                let done = self.on_board(|bus| bus.msr_write(index, value));
                self.look_for_interrupts();
                return done;
            }
        }
        Some(())
    }

    fn set_base(&mut self, seg: usize, base: u64) {
        self.segs[seg].base = base;
        self.base_changed(seg);
    }

    fn move_tsc(&mut self, delta: u64) {
        self.tsc_offset = self.tsc_offset.wrapping_add(delta);
        let offset = self.tsc_offset;
        self.on_board(|bus| bus.tsc_offset_changed(offset));
    }
}

/// Whether all eight fields name memory types (SDM vol. 3 table 12-10).
fn is_pat(value: u64) -> bool {
    value
        .to_le_bytes()
        .iter()
        .all(|t| matches!(t, 0 | 1 | 4..=7))
}

/// RDMSR.
pub(crate) fn rdmsr(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.needs_level_0()?;
    let index = cpu.regs[RCX] as u32;
    let value = cpu.msr(index).ok_or(Fault::GP0)?;
    cpu.set_edx_eax(value);
    Ok(())
}

/// WRMSR.
pub(crate) fn wrmsr(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.needs_level_0()?;
    let index = cpu.regs[RCX] as u32;
    let value = cpu.edx_eax();
    cpu.set_msr(index, value).ok_or(Fault::GP0)
}

impl Cpu {
    /// EDX:EAX.
    pub(crate) fn edx_eax(&self) -> u64 {
        self.regs[RDX] << 32 | self.regs[RAX] & 0xffff_ffff
    }

    /// Sets EDX:EAX.
    pub(crate) fn set_edx_eax(&mut self, value: u64) {
        self.regs[RAX] = value & 0xffff_ffff;
        self.regs[RDX] = value >> 32;
    }
}
