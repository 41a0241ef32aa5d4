use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{
    ApicBus, ApicEvents, EoiSink, ExternalInterrupts, GpFault, GuestTsc, LocalApic,
    LocalApicConfig, MSR_APIC_BASE, MSR_TSC_DEADLINE,
};
use crate::bus::Mmio;
use crate::clock::{Clock, ManualClock};
use crate::interrupt::{MsiMessage, MsiSink, Wake};
use crate::lifecycle::Device;

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A counter at 2 GHz that starts with the clock.
struct TwoPerNs;

impl GuestTsc for TwoPerNs {
    fn ns_when(&self, tsc: u64) -> u64 {
        tsc.div_ceil(2)
    }
}

struct Machine {
    bus: Arc<ApicBus>,
    clock: Arc<ManualClock>,
    apics: Vec<Arc<LocalApic>>,
    wakes: Vec<Arc<Wakes>>,
}

fn machine(count: u32) -> Machine {
    let bus = ApicBus::new();
    let clock = Arc::new(ManualClock::new(1000));
    let wakes: Vec<_> = (0..count).map(|_| Arc::new(Wakes::default())).collect();
    let apics = (0..count)
        .zip(&wakes)
        .map(|(id, wake)| {
            let config = LocalApicConfig {
                id,
                is_bsp: id == 0,
                clock: clock.clone(),
                tsc: Arc::new(TwoPerNs),
                wake: wake.clone(),
            };
            LocalApic::new(config, &bus)
        })
        .collect();
    Machine {
        bus,
        clock,
        apics,
        wakes,
    }
}

fn write(apic: &LocalApic, offset: u64, value: u32) {
    apic.mmio_write(offset, &value.to_le_bytes());
}

fn read(apic: &LocalApic, offset: u64) -> u32 {
    let mut data = [0; 4];
    apic.mmio_read(offset, &mut data);
    u32::from_le_bytes(data)
}

/// Software-enables an APIC and gives it a flat logical name.
fn enable(apic: &LocalApic) {
    write(apic, 0xf0, 0x1ff);
    write(apic, 0xd0, 1 << (24 + apic.id()));
}

fn enable_x2apic(apic: &LocalApic) {
    apic.set_apic_base(apic.apic_base() | 0xc00).unwrap();
    apic.msr_write(0x80f, 0x1ff).unwrap();
}

fn fixed(machine: &Machine, to: u64, vector: u32) {
    machine.bus.send_msi(MsiMessage {
        address: 0xfee0_0000 | to << 12,
        data: vector,
    });
}

#[test]
fn registers_read_as_after_power_on() {
    let machine = machine(2);
    let apic = &machine.apics[1];
    assert_eq!(read(apic, 0x20), 0x0100_0000);
    assert_eq!(read(apic, 0x30), 0x0005_0014);
    assert_eq!(read(apic, 0xe0), 0xffff_ffff);
    assert_eq!(read(apic, 0xf0), 0xff);
    for lvt in [0x320, 0x330, 0x340, 0x350, 0x360, 0x370] {
        assert_eq!(read(apic, lvt), 0x1_0000);
    }
    assert_eq!(machine.apics[0].apic_base(), 0xfee0_0900);
    assert_eq!(apic.apic_base(), 0xfee0_0800);
}

#[test]
fn a_fixed_interrupt_goes_from_requested_to_in_service_to_ended() {
    let machine = machine(1);
    let apic = &machine.apics[0];
    enable(apic);
    fixed(&machine, 0, 0x41);
    assert!(machine.wakes[0].0.load(Ordering::SeqCst) > 0);
    assert_eq!(read(apic, 0x220), 2);
    assert_eq!(apic.pending_vector(), Some(0x41));
    assert_eq!(apic.acknowledge(), Some(0x41));
    assert_eq!((read(apic, 0x120), read(apic, 0x220)), (2, 0));
    assert_eq!(read(apic, 0xa0), 0x40);
    write(apic, 0xb0, 0);
    assert_eq!(read(apic, 0x120), 0);
    assert_eq!(apic.acknowledge(), None);
}

#[test]
fn only_a_higher_priority_class_interrupts_a_handler() {
    let machine = machine(1);
    let apic = &machine.apics[0];
    enable(apic);
    fixed(&machine, 0, 0x51);
    assert_eq!(apic.acknowledge(), Some(0x51));
    fixed(&machine, 0, 0x5f);
    assert_eq!(apic.pending_vector(), None);
    fixed(&machine, 0, 0x60);
    assert_eq!(apic.acknowledge(), Some(0x60));
    write(apic, 0xb0, 0);
    write(apic, 0xb0, 0);
    assert_eq!(apic.pending_vector(), Some(0x5f));
}

#[test]
fn task_priority_and_cr8_are_one() {
    let machine = machine(1);
    let apic = &machine.apics[0];
    enable(apic);
    apic.set_cr8(5);
    assert_eq!(read(apic, 0x80), 0x50);
    fixed(&machine, 0, 0x5f);
    assert_eq!(apic.pending_vector(), None);
    write(apic, 0x80, 0x4f);
    assert_eq!(apic.cr8(), 4);
    assert_eq!(apic.pending_vector(), Some(0x5f));
}

#[test]
fn a_software_disabled_apic_takes_no_fixed_interrupts_and_masks_its_table() {
    let machine = machine(1);
    let apic = &machine.apics[0];
    enable(apic);
    write(apic, 0x320, 0x40);
    write(apic, 0xf0, 0xff);
    assert_eq!(read(apic, 0x320), 0x1_0040);
    write(apic, 0x320, 0x40);
    assert_eq!(read(apic, 0x320), 0x1_0040);
    fixed(&machine, 0, 0x41);
    assert_eq!(apic.pending_vector(), None);
}

#[derive(Default)]
struct Ended(Mutex<Vec<u8>>);

impl EoiSink for Ended {
    fn eoi(&self, vector: u8) {
        self.0.lock().unwrap().push(vector);
    }
}

#[test]
fn the_end_of_a_level_interrupt_reaches_the_ioapic() {
    let machine = machine(1);
    let apic = &machine.apics[0];
    let ended = Arc::new(Ended::default());
    let weak: std::sync::Weak<dyn EoiSink> = Arc::downgrade(&(ended.clone() as Arc<dyn EoiSink>));
    machine.bus.connect_ioapic(weak);
    enable(apic);
    machine.bus.send_msi(MsiMessage {
        address: 0xfee0_0000,
        data: 0xc051,
    });
    fixed(&machine, 0, 0x41);
    assert_eq!(apic.acknowledge(), Some(0x51));
    write(apic, 0xb0, 0);
    assert_eq!(apic.acknowledge(), Some(0x41));
    write(apic, 0xb0, 0);
    assert_eq!(*ended.0.lock().unwrap(), [0x51]);
}

#[test]
fn init_and_startup_reach_the_named_processor() {
    let machine = machine(2);
    let boot = &machine.apics[0];
    write(boot, 0x310, 1 << 24);
    write(boot, 0x300, 0x0000_c500);
    write(boot, 0x300, 0x0000_8500);
    let init = ApicEvents {
        init: true,
        ..ApicEvents::default()
    };
    assert_eq!(machine.apics[1].take_events(), init);
    write(boot, 0x300, 0x0000_069a);
    let startup = ApicEvents {
        sipi: Some(0x9a),
        ..ApicEvents::default()
    };
    assert_eq!(machine.apics[1].take_events(), startup);
    assert_eq!(boot.take_events(), ApicEvents::default());
}

#[test]
fn shorthands_name_oneself_everyone_and_the_others() {
    let machine = machine(3);
    machine.apics.iter().for_each(|apic| enable(apic));
    let pending = || {
        machine
            .apics
            .iter()
            .map(|apic| apic.acknowledge())
            .collect::<Vec<_>>()
    };
    write(&machine.apics[1], 0x300, 0x4_4041);
    assert_eq!(pending(), [None, Some(0x41), None]);
    write(&machine.apics[1], 0x300, 0x8_4051);
    assert_eq!(pending(), [Some(0x51); 3]);
    write(&machine.apics[1], 0x300, 0xc_4061);
    assert_eq!(pending(), [Some(0x61), None, Some(0x61)]);
    write(&machine.apics[1], 0x300, 0xc_4400);
    assert!(machine.apics[2].take_events().nmi);
}

#[test]
fn flat_and_cluster_names_select_processors() {
    let machine = machine(3);
    machine.apics.iter().for_each(|apic| enable(apic));
    let logical = |to: u64, vector| {
        machine.bus.send_msi(MsiMessage {
            address: 0xfee0_0004 | to << 12,
            data: vector,
        });
        machine
            .apics
            .iter()
            .map(|apic| apic.acknowledge().is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(logical(0x05, 0x31), [true, false, true]);
    for (apic, name) in machine.apics.iter().zip([0x11, 0x12, 0x21]) {
        write(apic, 0xe0, 0x0fff_ffff);
        write(apic, 0xd0, name << 24);
    }
    assert_eq!(logical(0x13, 0x41), [true, true, false]);
    assert_eq!(logical(0x21, 0x51), [false, false, true]);
    assert_eq!(logical(0xff, 0x61), [true, true, true]);
}

#[test]
fn lowest_priority_picks_one_idle_processor() {
    let machine = machine(3);
    machine.apics.iter().for_each(|apic| enable(apic));
    machine.apics[0].set_cr8(3);
    for _ in 0..4 {
        machine.bus.send_msi(MsiMessage {
            address: 0xfee0_7004,
            data: 0x0151,
        });
        let taken: Vec<_> = machine
            .apics
            .iter()
            .map(|apic| apic.acknowledge())
            .collect();
        assert_eq!(taken[0], None);
        assert_eq!(taken.iter().flatten().count(), 1);
        for apic in &machine.apics {
            write(apic, 0xb0, 0);
        }
    }
}

#[test]
fn base_transitions_follow_the_state_diagram() {
    let machine = machine(1);
    let apic = &machine.apics[0];
    assert_eq!(apic.msr_read(0x802), None);
    assert_eq!(apic.set_apic_base(0xfee0_0500), Err(GpFault));
    apic.set_apic_base(0xfee0_0d00).unwrap();
    assert_eq!(apic.set_apic_base(0xfee0_0900), Err(GpFault));
    apic.set_apic_base(0xfee0_0100).unwrap();
    assert_eq!(apic.msr_write(MSR_APIC_BASE, 0xfee0_0d00), Err(GpFault));
    apic.msr_write(MSR_APIC_BASE, 0xfee0_0900).unwrap();
    assert_eq!(apic.msr_write(MSR_APIC_BASE, 0xfee0_0901), Err(GpFault));
    assert_eq!(apic.msr_read(MSR_APIC_BASE), Some(0xfee0_0900));
}

#[test]
fn x2apic_registers_are_model_specific() {
    let machine = machine(18);
    machine.apics.iter().for_each(|apic| enable_x2apic(apic));
    let apic = &machine.apics[17];
    assert_eq!(apic.msr_read(0x802), Some(17));
    assert_eq!(apic.msr_read(0x80d), Some(0x0001_0002));
    assert_eq!(apic.msr_read(0x80b), None);
    assert_eq!(apic.msr_read(0x80e), None);
    assert_eq!(apic.msr_read(0x831), None);
    assert_eq!(read(apic, 0x20), u32::MAX);
    assert_eq!(apic.msr_write(0x808, 0x100), Err(GpFault));
    assert_eq!(apic.msr_write(0x80b, 1), Err(GpFault));
    assert_eq!(apic.msr_write(0x802, 1), Err(GpFault));
    assert_eq!(apic.msr_write(0x839, 1), Err(GpFault));
    // Logical destination: cluster 1, members 0 and 1.
    machine.apics[0]
        .msr_write(0x830, 0x0001_0003_0000_0841)
        .unwrap();
    assert_eq!(machine.apics[16].acknowledge(), Some(0x41));
    assert_eq!(apic.acknowledge(), Some(0x41));
    apic.msr_write(0x83f, 0x61).unwrap();
    assert_eq!(apic.acknowledge(), Some(0x61));
    machine.apics[0]
        .msr_write(0x830, 0xffff_ffff_0000_0051)
        .unwrap();
    assert!(
        machine.apics[1..16]
            .iter()
            .all(|apic| apic.acknowledge() == Some(0x51))
    );
}

#[test]
fn a_one_shot_timer_counts_down_and_fires_once() {
    let machine = machine(1);
    let apic = &machine.apics[0];
    enable(apic);
    write(apic, 0x320, 0x40);
    write(apic, 0x3e0, 0x3);
    write(apic, 0x380, 100);
    assert_eq!(apic.next_deadline_ns(), Some(1000 + 1600));
    machine.clock.advance_ns(800);
    assert_eq!(read(apic, 0x390), 50);
    apic.fire(machine.clock.now_ns());
    assert_eq!(apic.pending_vector(), None);
    machine.clock.advance_ns(800);
    apic.fire(machine.clock.now_ns());
    assert_eq!(apic.acknowledge(), Some(0x40));
    assert_eq!((apic.next_deadline_ns(), read(apic, 0x390)), (None, 0));
}

#[test]
fn a_periodic_timer_keeps_its_phase() {
    let machine = machine(1);
    let apic = &machine.apics[0];
    enable(apic);
    write(apic, 0x3e0, 0xb);
    write(apic, 0x320, 0x2_0040);
    write(apic, 0x380, 1_000_000);
    machine.clock.advance_ns(2_300_000);
    apic.fire(machine.clock.now_ns());
    assert_eq!(apic.acknowledge(), Some(0x40));
    assert_eq!(apic.next_deadline_ns(), Some(3_001_000));
    write(apic, 0x320, 0x3_0040);
    assert_eq!(apic.next_deadline_ns(), None);
}

#[test]
fn the_tsc_deadline_fires_once_and_only_in_its_mode() {
    let machine = machine(1);
    let apic = &machine.apics[0];
    enable(apic);
    apic.msr_write(MSR_TSC_DEADLINE, 5000).unwrap();
    assert_eq!(apic.msr_read(MSR_TSC_DEADLINE), Some(0));
    write(apic, 0x320, 0x4_0040);
    apic.msr_write(MSR_TSC_DEADLINE, 5000).unwrap();
    assert_eq!(apic.next_deadline_ns(), Some(2500));
    apic.fire(2499);
    assert_eq!(apic.pending_vector(), None);
    apic.fire(2500);
    assert_eq!(apic.acknowledge(), Some(0x40));
    assert_eq!(apic.msr_read(MSR_TSC_DEADLINE), Some(0));
    assert_eq!(apic.next_deadline_ns(), None);
}

struct OneExternal(Mutex<Option<u8>>);

impl ExternalInterrupts for OneExternal {
    fn peek(&self) -> Option<u8> {
        *self.0.lock().unwrap()
    }
    fn acknowledge(&self) -> Option<u8> {
        self.0.lock().unwrap().take()
    }
}

#[test]
fn the_virtual_wire_delivers_the_pic_to_the_boot_processor() {
    let machine = machine(2);
    let pic = Arc::new(OneExternal(Mutex::new(Some(0x08))));
    machine.bus.connect_pic(pic.clone());
    assert_eq!(machine.apics[1].pending_vector(), None);
    assert_eq!(machine.apics[0].pending_vector(), Some(0x08));
    assert_eq!(machine.apics[0].acknowledge(), Some(0x08));
    *pic.0.lock().unwrap() = Some(0x09);
    enable(&machine.apics[0]);
    write(&machine.apics[0], 0x350, 0x1_0700);
    assert_eq!(machine.apics[0].acknowledge(), None);
}

#[test]
fn illegal_vectors_and_registers_show_in_the_error_status() {
    let machine = machine(1);
    let apic = &machine.apics[0];
    enable(apic);
    write(apic, 0x370, 0xfe);
    fixed(&machine, 0, 0x05);
    write(apic, 0x300, 0x0000_4003);
    assert_eq!(read(apic, 0x40), 0);
    assert_eq!(read(apic, 0x280), 0);
    write(apic, 0x280, 0);
    assert_eq!(read(apic, 0x280), 0xe0);
    assert_eq!(apic.acknowledge(), Some(0xfe));
    write(apic, 0x280, 0);
    assert_eq!(read(apic, 0x280), 0);
}

#[test]
fn state_moves_to_a_fresh_apic_of_the_same_processor() {
    let machine = machine(2);
    let apic = &machine.apics[0];
    enable(apic);
    write(apic, 0x320, 0x2_0040);
    write(apic, 0x380, 5_000_000);
    fixed(&machine, 0, 0x61);
    let saved = apic.save().unwrap();
    let other = self::machine(1);
    other.apics[0].restore(&saved).unwrap();
    assert_eq!(other.apics[0].save().unwrap(), saved);
    assert_eq!(other.apics[0].acknowledge(), Some(0x61));
    assert!(machine.apics[1].restore(&saved).is_err());
    apic.reset();
    assert_eq!(
        apic.save().unwrap(),
        self::machine(1).apics[0].save().unwrap()
    );
}
