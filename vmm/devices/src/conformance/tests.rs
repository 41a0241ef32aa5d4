use std::sync::Arc;

use vm_memory::GuestAddress;

use super::{Random, check};
use crate::acpi_pm::{AcpiPm, TimerWidth};
use crate::apic::{ApicBus, GuestTsc, LocalApic, LocalApicConfig};
use crate::bus::{Mmio, MmioBus, PortBus, PortIo};
use crate::clock::ManualClock;
use crate::debug_ports::DebugPorts;
use crate::fuzz::{Bench, Sink};
use crate::fw_cfg::{FwCfg, FwCfgItems};
use crate::interrupt::{IrqLine, IrqSink, Wake};
use crate::ioapic::Ioapic;
use crate::keyboard::Keyboard;
use crate::lifecycle::{Device, SavedDevice};
use crate::memory::GuestMemory;
use crate::pci::host::{HostBridge, PciConfigPorts};
use crate::pci::lpc::Lpc;
use crate::pci::{PciBus, PciFunction};
use crate::pic::Pic;
use crate::pit::Pit;
use crate::pvpanic::{Pvpanic, PvpanicPci};
use crate::reset_control::ResetControl;
use crate::rtc::{CmosConfig, Rtc};
use crate::uart::Uart;
use crate::virtio::{NOTIFY_BAR, Rng, VirtioDevice, VirtioPci, VirtioPciOptions, scsi_host};

struct Ignore;

impl IrqSink for Ignore {
    fn set_irq(&self, _gsi: u32, _level: bool) {}
}

impl Wake for Ignore {
    fn wake(&self) {}
}

impl GuestTsc for Ignore {
    fn ns_when(&self, tsc: u64) -> u64 {
        tsc
    }
}

fn line() -> IrqLine {
    IrqLine::new(Arc::new(Ignore), 5)
}

/// Makes one access of 1, 2 or 4 bytes to one of `ports`.
fn touch_port<D: PortIo + ?Sized>(device: &D, ports: &[u16], random: &mut Random) {
    let number = random.next();
    let port = ports[usize::try_from(number >> 8).unwrap() % ports.len()];
    let len = [1, 1, 2, 4][usize::try_from(number >> 4 & 3).unwrap()];
    if number & 3 == 0 {
        device.port_read(port, &mut vec![0; len]);
    } else {
        device.port_write(port, &random.bytes(len));
    }
}

fn touch_memory<D: Mmio + ?Sized>(device: &D, len_bytes: u64, random: &mut Random) {
    let number = random.next();
    let offset = ((number >> 8) % len_bytes) & !0xf;
    if number & 3 == 0 {
        device.mmio_read(offset, &mut [0; 4]);
    } else {
        device.mmio_write(offset, &random.bytes(4));
    }
}

fn touch_config<D: PciFunction + ?Sized>(device: &D, random: &mut Random) {
    let number = random.next();
    let reg = u16::try_from(number >> 8 & 0xfc).unwrap();
    if number & 3 == 0 {
        device.config_read(reg, &mut [0; 4]);
    } else {
        device.config_write(reg, &random.bytes(4));
    }
}

#[test]
fn pic_conforms() {
    let ports = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1];
    let touch = |pic: &Pic, random: &mut Random| {
        let irq = random.next().to_be_bytes()[0];
        pic.set_irq(irq & 15, irq & 16 != 0);
        if irq & 0x60 == 0 {
            pic.acknowledge();
        }
        touch_port(pic, &ports, random);
    };
    check(|_| Arc::new(Pic::new()), touch, &[]);
}

#[test]
fn ioapic_conforms() {
    let touch = |ioapic: &Ioapic, random: &mut Random| {
        let number = random.next();
        ioapic.set_irq(usize::try_from(number % 24).unwrap(), number & 0x100 != 0);
        ioapic.mmio_write(0, &random.bytes(4));
        touch_memory(ioapic, 0x50, random);
    };
    check(|_| Arc::new(Ioapic::new(Arc::new(Sink))), touch, &[]);
}

#[test]
fn local_apic_conforms() {
    let bus = ApicBus::new();
    let make = |clock: &Arc<ManualClock>| {
        let (clock, tsc, wake) = (clock.clone(), Arc::new(Ignore), Arc::new(Ignore));
        LocalApic::new(
            LocalApicConfig {
                id: 3,
                is_bsp: true,
                clock,
                tsc,
                wake,
            },
            &bus,
        )
    };
    let touch = |apic: &LocalApic, random: &mut Random| {
        // The interconnect has many APICs of this number: keep interrupts between them out.
        let number = random.next();
        let offset = ((number >> 8) % 0x400) & !0xf;
        match number & 7 {
            0 => apic.mmio_read(offset, &mut [0; 4]),
            1 => drop(apic.acknowledge()),
            2 => apic.mmio_write(0xf0, &0x1ffu32.to_le_bytes()),
            3 => apic.fire(number >> 16),
            _ if offset == 0x300 => apic.mmio_write(0x300, &[0x41, 0, 4, 0]),
            _ => apic.mmio_write(offset, &random.bytes(4)),
        }
    };
    check(make, touch, &[]);
}

#[test]
fn pit_conforms() {
    let make =
        |clock: &Arc<ManualClock>| Arc::new(Pit::new(clock.clone(), Arc::new(Ignore), line()));
    let ports = [0x40, 0x41, 0x42, 0x43, 0x61];
    check(
        make,
        |pit: &Pit, random| touch_port(pit, &ports, random),
        &[],
    );
}

#[test]
fn rtc_conforms() {
    let make = |clock: &Arc<ManualClock>| {
        let cmos = CmosConfig::default();
        Arc::new(Rtc::new(
            &cmos,
            clock.clone(),
            clock.clone(),
            Arc::new(Ignore),
            line(),
        ))
    };
    // The battery keeps time and memory over a reset.
    let kept = ["ram", "offset_ns", "seen_second", "seen_period"];
    check(
        make,
        |rtc: &Rtc, random| touch_port(rtc, &[0x70, 0x71], random),
        &kept,
    );
}

#[test]
fn acpi_pm_conforms() {
    let make = |clock: &Arc<ManualClock>| {
        let (wake, sink) = (Arc::new(Ignore), Arc::new(Sink));
        Arc::new(AcpiPm::new(
            TimerWidth::Bits24,
            clock.clone(),
            wake,
            line(),
            sink,
        ))
    };
    let ports: Vec<u16> = (0x600..0x680).collect();
    check(
        make,
        |pm: &AcpiPm, random| touch_port(pm, &ports, random),
        &[],
    );
}

#[test]
fn uart_conforms() {
    let make = |_: &_| Arc::new(Uart::new("serial0", 0x3f8, line(), Box::new(Sink)));
    let ports: Vec<u16> = (0x3f8..0x400).collect();
    let touch = |uart: &Uart, random: &mut Random| {
        uart.push_input(&random.bytes(3));
        touch_port(uart, &ports, random);
    };
    check(make, touch, &[]);
}

#[test]
fn keyboard_conforms() {
    let make = |_: &_| Arc::new(Keyboard::new(line(), Arc::new(Sink)));
    check(
        make,
        |keyboard: &Keyboard, random| touch_port(keyboard, &[0x60, 0x64], random),
        &[],
    );
}

#[test]
fn reset_control_conforms() {
    let make = |_: &_| Arc::new(ResetControl::new(Arc::new(Sink)));
    check(
        make,
        |reset: &ResetControl, random| touch_port(reset, &[0x92, 0xcf9], random),
        &[],
    );
}

#[test]
fn fw_cfg_conforms() {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
    let make = |_: &_| Arc::new(FwCfg::new(FwCfgItems::new(), memory.clone()));
    let ports = [0x510, 0x511, 0x514, 0x518];
    check(
        make,
        |fw_cfg: &FwCfg, random| touch_port(fw_cfg, &ports, random),
        &[],
    );
}

#[test]
fn debug_ports_and_pvpanic_conform() {
    let debug = |_: &_| Arc::new(DebugPorts::new(Box::new(Sink), Arc::new(Sink)));
    check(
        debug,
        |ports: &DebugPorts, random| touch_port(ports, &[0x80, 0xe9], random),
        &[],
    );
    let panic = |_: &_| Arc::new(Pvpanic::new(Arc::new(Sink)));
    check(
        panic,
        |panic: &Pvpanic, random| touch_port(panic, &[0x505], random),
        &[],
    );
    let function = |_: &_| Arc::new(PvpanicPci::new(Arc::new(Sink)));
    check(
        function,
        |panic: &PvpanicPci, random| touch_config(panic, random),
        &[],
    );
}

#[test]
fn bridges_conform() {
    let bridge = |_: &_| {
        let (ports, mmio) = (Arc::new(PortBus::new()), Arc::new(MmioBus::new()));
        Arc::new(HostBridge::new(&PciBus::new(&ports, &mmio), &mmio, true))
    };
    check(
        bridge,
        |bridge: &HostBridge, random| touch_config(bridge, random),
        &[],
    );
    let lpc = |clock: &Arc<ManualClock>| {
        let (wake, sink) = (Arc::new(Ignore), Arc::new(Sink));
        let pm = AcpiPm::new(TimerWidth::Bits24, clock.clone(), wake, line(), sink);
        Arc::new(Lpc::new(
            Arc::new(Ignore),
            Arc::new(pm),
            &Arc::new(PortBus::new()),
        ))
    };
    let touch = |lpc: &Lpc, random: &mut Random| {
        let number = random.next();
        lpc.set_irq(u32::try_from(number >> 8 & 0xff).unwrap(), number & 1 != 0);
        touch_config(lpc, random);
    };
    check(lpc, touch, &[]);
    let config_ports = |_: &_| {
        let bus = PciBus::new(&Arc::new(PortBus::new()), &Arc::new(MmioBus::new()));
        Arc::new(PciConfigPorts::new(
            bus,
            Arc::new(ResetControl::new(Arc::new(Sink))),
        ))
    };
    let ports: Vec<u16> = (0xcf8..0xd00).collect();
    check(
        config_ports,
        |device: &PciConfigPorts, random| touch_port(device, &ports, random),
        &[],
    );
}

/// Puts a virtio device on a bus of its own. It is paused, for its state moves while it runs.
fn virtio(device: Arc<dyn VirtioDevice>) -> Arc<VirtioPci> {
    let options = VirtioPciOptions {
        name: "virtio".to_owned(),
        memory: GuestMemory::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap(),
        msi: Arc::new(Sink),
        line: line(),
    };
    let function = VirtioPci::new(device, options).unwrap();
    function.pause();
    function
}

#[test]
fn virtio_devices_conform() {
    // Registers and the device's configuration lie in the first three pages.
    let touch = |function: &VirtioPci, random: &mut Random| {
        let number = random.next();
        let page = [0, 0, 0, 0x1000, 0x2000, 0x4000][usize::try_from(number >> 8).unwrap() % 6];
        let offset = page + (number >> 16 & 0x3f);
        match number & 7 {
            0 => function.bar_read(NOTIFY_BAR, offset, &mut [0; 4]),
            1 => touch_config(function, random),
            2 => function.bar_write(NOTIFY_BAR, offset, &random.bytes(4)),
            // The device status moves on in small steps.
            3 => function.bar_write(NOTIFY_BAR, 0x14, &[random.bytes(1)[0] & 0xf]),
            _ => function.bar_write(NOTIFY_BAR, offset, &random.bytes(2)),
        }
    };
    check(|_| virtio(scsi_host()), touch, &[]);
    check(|_| virtio(Arc::new(Rng)), touch, &[]);
}

fn states(bench: &Bench) -> Vec<SavedDevice> {
    bench
        .chipset
        .devices()
        .iter()
        .map(|device| device.save().unwrap())
        .collect()
}

#[test]
fn a_whole_board_moves_to_a_fresh_one() {
    for seed in 1..30 {
        let bench = Bench::new().unwrap();
        bench.drive(&Random::new(seed).bytes(20_000));
        let saved = states(&bench);
        let fresh = Bench::new().unwrap();
        let late_ns = crate::clock::Clock::now_ns(&*bench.clock);
        fresh
            .clock
            .advance_ns(late_ns - crate::clock::Clock::now_ns(&*fresh.clock));
        for (device, state) in fresh.chipset.devices().iter().zip(&saved) {
            device.restore(state).unwrap();
        }
        fresh.chipset.pci.follow_all_bars();
        assert_eq!(states(&fresh), saved, "seed {seed}");
    }
}

#[test]
fn every_number_of_a_state_is_damaged_once() {
    let mut state = serde_json::json!({ "a": 1, "b": [2, { "c": 3 }], "d": "text", "e": null });
    assert_eq!(super::count_numbers(&state), 3);
    for at in 0..3 {
        super::replace_number(&mut state, at, 70 + u64::try_from(at).unwrap());
    }
    let damaged = serde_json::json!({ "a": 70, "b": [71, { "c": 72 }], "d": "text", "e": null });
    assert_eq!(state, damaged);
}
