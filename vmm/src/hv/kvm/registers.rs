//! Translates between [`CpuState`] and the forms in which KVM takes registers.

use kvm_bindings::{kvm_debugregs, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use x86::{CpuState, Segment, TableRegister};

/// MSRs that move with a vCPU beside those that `kvm_sregs` holds. A KVM that lacks one gives none behind it, so those
/// that are the least needed come last.
pub(super) const MSRS: [u32; 41] = [
    0x10,        // time-stamp counter
    0x174,       // SYSENTER_CS
    0x175,       // SYSENTER_ESP
    0x176,       // SYSENTER_EIP
    0x1a0,       // MISC_ENABLE
    0x277,       // PAT
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0xc000_0102, // KERNEL_GS_BASE
    0x4b56_4d00, // wall clock
    0x4b56_4d01, // system time
    // Memory types (SDM vol. 3 §12.11), which KVM keeps though its list of MSRs names none: the default, the fixed
    // ranges, and base and mask of the eight variable ranges that its MTRRCAP tells of.
    0x2ff, //
    0x250,
    0x258,
    0x259, //
    0x268,
    0x269,
    0x26a,
    0x26b,
    0x26c,
    0x26d,
    0x26e,
    0x26f, //
    0x200,
    0x201,
    0x202,
    0x203,
    0x204,
    0x205,
    0x206,
    0x207, //
    0x208,
    0x209,
    0x20a,
    0x20b,
    0x20c,
    0x20d,
    0x20e,
    0x20f, //
];

/// Those of [`MSRS`] that a reset leaves as they are: the counter runs on, and what hardware offers is KVM's to say.
const KEPT: [u32; 2] = [0x10, 0x1a0];

/// Adds to the `msrs` of a vCPU's first state the others that a reset clears. KVM keeps them over one; a clock page that
/// it went on writing would lie in the next kernel's memory.
pub(super) fn clear_others(msrs: &mut Vec<(u32, u64)>) {
    for index in MSRS {
        if !KEPT.contains(&index) && msrs.iter().all(|(other, _)| *other != index) {
            msrs.push((index, 0));
        }
    }
}

fn bits(attributes: u16, at: u32, count: u32) -> u8 {
    let mask = (1 << count) - 1;
    (attributes >> at & mask).to_le_bytes()[0]
}

fn segment(segment: &Segment) -> kvm_segment {
    let attributes = segment.attributes;
    kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: bits(attributes, 0, 4),
        s: bits(attributes, 4, 1),
        dpl: bits(attributes, 5, 2),
        present: bits(attributes, 7, 1),
        avl: bits(attributes, 12, 1),
        l: bits(attributes, 13, 1),
        db: bits(attributes, 14, 1),
        g: bits(attributes, 15, 1),
        unusable: segment.unusable.into(),
        padding: 0,
    }
}

fn from_segment(from: &kvm_segment) -> Segment {
    let field = |value: u8, at: u32| u16::from(value) << at;
    Segment {
        selector: from.selector,
        base: from.base,
        limit: from.limit,
        attributes: field(from.type_ & 0xf, 0)
            | field(from.s & 1, 4)
            | field(from.dpl & 3, 5)
            | field(from.present & 1, 7)
            | field(from.avl & 1, 12)
            | field(from.l & 1, 13)
            | field(from.db & 1, 14)
            | field(from.g & 1, 15),
        unusable: from.unusable != 0,
    }
}

fn table(table: TableRegister) -> kvm_dtable {
    kvm_dtable {
        base: table.base,
        limit: table.limit,
        padding: [0; 3],
    }
}

fn from_table(from: &kvm_dtable) -> TableRegister {
    TableRegister {
        base: from.base,
        limit: from.limit,
    }
}

/// Returns the general registers.
pub(super) fn regs(state: &CpuState) -> kvm_regs {
    let [
        rax,
        rcx,
        rdx,
        rbx,
        rsp,
        rbp,
        rsi,
        rdi,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
    ] = state.gpr;
    kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip: state.rip,
        rflags: state.rflags,
    }
}

/// Takes the general registers.
pub(super) fn take_regs(state: &mut CpuState, from: &kvm_regs) {
    state.gpr = [
        from.rax, from.rcx, from.rdx, from.rbx, from.rsp, from.rbp, from.rsi, from.rdi, from.r8,
        from.r9, from.r10, from.r11, from.r12, from.r13, from.r14, from.r15,
    ];
    state.rip = from.rip;
    state.rflags = from.rflags;
}

/// Returns the system registers; the APIC base, which no [`CpuState`] has, is kept.
pub(super) fn sregs(state: &CpuState, apic_base: u64) -> kvm_sregs {
    let [es, cs, ss, ds, fs, gs] = state.segments.each_ref().map(segment);
    kvm_sregs {
        cs,
        ds,
        es,
        fs,
        gs,
        ss,
        tr: segment(&state.tr),
        ldt: segment(&state.ldtr),
        gdt: table(state.gdtr),
        idt: table(state.idtr),
        cr0: state.cr0,
        cr2: state.cr2,
        cr3: state.cr3,
        cr4: state.cr4,
        cr8: state.cr8,
        efer: state.efer,
        apic_base,
        interrupt_bitmap: [0; 4],
    }
}

/// Takes the system registers.
pub(super) fn take_sregs(state: &mut CpuState, from: &kvm_sregs) {
    state.segments = [&from.es, &from.cs, &from.ss, &from.ds, &from.fs, &from.gs].map(from_segment);
    state.tr = from_segment(&from.tr);
    state.ldtr = from_segment(&from.ldt);
    state.gdtr = from_table(&from.gdt);
    state.idtr = from_table(&from.idt);
    (state.cr0, state.cr2, state.cr3) = (from.cr0, from.cr2, from.cr3);
    (state.cr4, state.cr8, state.efer) = (from.cr4, from.cr8, from.efer);
}

/// Returns the debug registers.
pub(super) fn debug(state: &CpuState) -> kvm_debugregs {
    let [dr0, dr1, dr2, dr3, dr6, dr7] = state.dr;
    kvm_debugregs {
        db: [dr0, dr1, dr2, dr3],
        dr6,
        dr7,
        ..kvm_debugregs::default()
    }
}

/// Takes the debug registers.
pub(super) fn take_debug(state: &mut CpuState, from: &kvm_debugregs) {
    let [dr0, dr1, dr2, dr3] = from.db;
    state.dr = [dr0, dr1, dr2, dr3, from.dr6, from.dr7];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_clears_what_the_first_state_does_not_name() {
        let mut msrs = vec![(0x277, 7), (0xdead, 1)];
        clear_others(&mut msrs);
        assert_eq!(msrs[..2], [(0x277, 7), (0xdead, 1)]);
        assert!(msrs.contains(&(0x4b56_4d01, 0)) && msrs.contains(&(0x2ff, 0)));
        assert_eq!(msrs.len(), 2 + MSRS.len() - 1 - KEPT.len());
    }

    #[test]
    fn registers_survive_the_way_there_and_back() {
        let mut state = CpuState::power_on();
        state.gpr = std::array::from_fn(|n| 0x100 + n as u64);
        state.segments[2].attributes = 0xc0f3;
        state.dr[0] = 0x1234;
        let mut back = CpuState::power_on();
        take_regs(&mut back, &regs(&state));
        take_sregs(&mut back, &sregs(&state, 0));
        take_debug(&mut back, &debug(&state));
        assert_eq!(back, state);
    }
}
