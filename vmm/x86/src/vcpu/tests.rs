//! State in and out.

use crate::memory::Memory;
use crate::state::StateError;
use crate::{CpuState, Vcpu};

#[expect(unsafe_code, reason = "a CPU without any RAM")]
fn vcpu() -> Vcpu {
    // SAFETY: there is no memory to keep alive.
    Vcpu::new(0, unsafe { Memory::new(Vec::new(), 1) })
}

/// The state without the MSRs that move by themselves.
fn at_rest(mut state: CpuState) -> CpuState {
    state.msrs.retain(|(index, _)| *index != 0x10);
    state
}

#[test]
fn a_new_cpu_is_as_after_power_on() {
    let state = vcpu().state();
    assert_eq!(state.segments[1].base + state.rip, 0xffff_fff0);
    assert_eq!(state.cr0, 0x6000_0010);
    assert_eq!(state.segments, CpuState::power_on().segments);
}

#[test]
fn state_goes_in_as_it_comes_out() {
    let mut vcpu = vcpu();
    let mut state = vcpu.state();
    state.gpr = std::array::from_fn(|n| 0x1111_1111_1111_1111 * n as u64);
    state.rflags = 0x8d7;
    state.cr2 = 0xdead_beef;
    state.dr[1] = 77;
    state.halted = true;
    for (index, value) in &mut state.msrs {
        if *index == 0xc000_0082 {
            *value = 0xffff_8000_0000_1000;
        }
    }
    vcpu.set_state(&state).unwrap();
    assert_eq!(at_rest(vcpu.state()), at_rest(state));
}

#[test]
fn what_no_cpu_could_hold_is_refused_by_name() {
    type Spoil = fn(&mut CpuState);
    let cases: [(&str, Spoil); 8] = [
        ("cr0", |s| s.cr0 = 1 << 31),
        ("efer", |s| s.efer = 1 << 10),
        ("cr4", |s| s.cr4 = 1 << 63),
        ("rflags", |s| s.rflags = 1 << 40),
        ("xcr0", |s| s.xcr0 = 6),
        ("gdtr, idtr", |s| s.gdtr.base = 1 << 60),
        ("segments", |s| s.segments[4].base = 1 << 50),
        ("xsave", |s| s.xsave.truncate(100)),
    ];
    let mut vcpu = vcpu();
    let before = at_rest(vcpu.state());
    for (field, spoil) in cases {
        let mut state = vcpu.state();
        spoil(&mut state);
        assert_eq!(vcpu.set_state(&state), Err(StateError::Field(field)));
        assert_eq!(at_rest(vcpu.state()), before, "{field}");
    }
    let mut state = vcpu.state();
    state.msrs.push((0xc000_0082, 1 << 50));
    assert_eq!(vcpu.set_state(&state), Err(StateError::Msr(0xc000_0082)));
}

#[test]
fn a_start_up_message_counts_only_after_init() {
    let mut vcpu = vcpu();
    vcpu.sipi(0x12);
    assert_eq!(vcpu.state().segments[1].selector, 0xf000);
    vcpu.init();
    assert!(vcpu.waits_for_sipi());
    vcpu.sipi(0x12);
    let state = vcpu.state();
    assert_eq!((state.segments[1].base, state.rip), (0x12000, 0));
    assert!(!vcpu.waits_for_sipi());
}

#[test]
fn the_time_stamp_counter_can_be_moved() {
    let mut vcpu = vcpu();
    vcpu.set_tsc(1000);
    assert!(vcpu.tsc() < 1_000_000_000);
    vcpu.set_tsc(u64::MAX / 2);
    assert!(vcpu.tsc() >= u64::MAX / 2);
}
