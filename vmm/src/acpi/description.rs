//! The differentiated system description, in AML.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Name, Package,
    ResourceTemplate, Scope,
};
use devices::acpi_pm::SLEEP_TYPE_S5;

use super::{Platform, bytes_of};
use crate::board::map;

const COM1_PORT: u16 = 0x3f8;
const COM1_IRQ: u32 = 4;
const RTC_PORT: u16 = 0x70;
const RTC_IRQ: u32 = 8;

/// Returns the definition block without its header.
pub(super) fn bytes(platform: &Platform) -> Vec<u8> {
    let mut bytes = system_bus(platform);
    // Soft-off, with the value for PM1a_CNT; the rest is reserved.
    let sleep = Package::new(vec![&SLEEP_TYPE_S5, &SLEEP_TYPE_S5, &0_u8, &0_u8]);
    bytes.extend(bytes_of(&Name::new("_S5_".into(), &sleep)));
    bytes
}

fn system_bus(platform: &Platform) -> Vec<u8> {
    let bridge = host_bridge(platform);
    let com1 = serial();
    let rtc = clock();
    let panic = panic_port();
    let mut devices: Vec<&dyn Aml> = vec![&bridge, &com1, &rtc];
    if platform.pvpanic {
        devices.push(&panic);
    }
    bytes_of(&Scope::new("_SB_".into(), devices))
}

/// Bytes that are AML already.
struct Ready(Vec<u8>);

impl Aml for Ready {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

fn device(name: &str, parts: Vec<&dyn Aml>) -> Ready {
    Ready(bytes_of(&Device::new(name.into(), parts)))
}

fn host_bridge(platform: &Platform) -> Ready {
    let routing = routing();
    let windows = windows(platform);
    device(
        "PCI0",
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_UID".into(), &0_u8),
            &Name::new("_BBN".into(), &0_u8),
            &windows,
            &routing,
        ],
    )
}

fn windows(platform: &Platform) -> Ready {
    let memory = |first: u32, last: u32| {
        AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, first, last, None)
    };
    let high_last = platform.high_window_gpa + map::HIGH_WINDOW_LEN_BYTES - 1;
    let buses = AddressSpace::new_bus_number(0_u16, u16::from(map::MMCONFIG_LAST_BUS));
    let config_ports = IO::new(0xcf8, 0xcf8, 1, 8);
    let low_ports = AddressSpace::new_io(0_u16, 0xcf7, None);
    let high_ports = AddressSpace::new_io(0xd00_u16, 0xffff, None);
    let low_memory = memory(map::LOW_WINDOW_FIRST_GPA, map::LOW_WINDOW_LAST_GPA);
    let high_memory = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        platform.high_window_gpa,
        high_last,
        None,
    );
    let template = ResourceTemplate::new(vec![
        &buses,
        &config_ports,
        &low_ports,
        &high_ports,
        &low_memory,
        &high_memory,
    ]);
    Ready(bytes_of(&Name::new("_CRS".into(), &template)))
}

/// Which global system interrupt each pin of each device of bus 0 drives (§6.2.13).
fn routing() -> Ready {
    let entries: Vec<Ready> = (1..32_u8)
        .flat_map(|slot| (0..4_u8).map(move |pin| (slot, pin)))
        .map(|(slot, pin)| {
            let address = u32::from(slot) << 16 | 0xffff;
            let gsi = map::pci_gsi(slot, pin);
            Ready(bytes_of(&Package::new(vec![&address, &pin, &0_u8, &gsi])))
        })
        .collect();
    let entries = entries.iter().map(|entry| entry as &dyn Aml).collect();
    Ready(bytes_of(&Name::new("_PRT".into(), &Package::new(entries))))
}

fn resources(port: u16, ports: u8, irq: Option<u32>) -> Ready {
    let io = IO::new(port, port, 1, ports);
    let irq = irq.map(|irq| Interrupt::new(true, true, false, false, irq));
    let mut parts: Vec<&dyn Aml> = vec![&io];
    if let Some(irq) = &irq {
        parts.push(irq);
    }
    Ready(bytes_of(&Name::new(
        "_CRS".into(),
        &ResourceTemplate::new(parts),
    )))
}

fn serial() -> Ready {
    device(
        "COM1",
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &0_u8),
            &resources(COM1_PORT, 8, Some(COM1_IRQ)),
        ],
    )
}

fn clock() -> Ready {
    device(
        "RTC0",
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0B00")),
            &resources(RTC_PORT, 2, Some(RTC_IRQ)),
        ],
    )
}

fn panic_port() -> Ready {
    device(
        "PEVT",
        vec![
            &Name::new("_HID".into(), &"QEMU0001"),
            &Name::new("_STA".into(), &0xf_u8),
            &resources(devices::pvpanic::PORT, 1, None),
        ],
    )
}
