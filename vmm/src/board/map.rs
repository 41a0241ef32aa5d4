//! Where things lie in the guest's address spaces.

use devices::pci::Pin;

/// First address of the PCI configuration window.
pub const MMCONFIG_GPA: u64 = 0xb000_0000;
/// Last bus that the window covers.
pub const MMCONFIG_LAST_BUS: u8 = 255;
/// First address of the PCI window below 4 GiB.
pub const LOW_WINDOW_FIRST_GPA: u32 = 0xc000_0000;
/// Last address of the PCI window below 4 GiB; the I/O APIC follows.
pub const LOW_WINDOW_LAST_GPA: u32 = 0xfebf_ffff;
/// Length of the PCI window above RAM.
pub const HIGH_WINDOW_LEN_BYTES: u64 = 64 << 30;
/// Lowest place of the PCI window above RAM.
const HIGH_WINDOW_MIN_GPA: u64 = 64 << 30;

/// Global system interrupt of the interval timer.
pub const GSI_PIT: u32 = 2;
/// Global system interrupt of the ACPI registers.
pub const GSI_SCI: u32 = 9;

/// Returns where the PCI window above RAM starts.
#[must_use]
pub fn high_window_gpa(high_end_gpa: u64) -> u64 {
    high_end_gpa
        .next_multiple_of(1 << 30)
        .max(HIGH_WINDOW_MIN_GPA)
}

/// Returns the global system interrupt of a device's interrupt pin, 0 for INTA#.
#[must_use]
pub fn pci_gsi(slot: u8, pin: u8) -> u32 {
    let pin = match pin {
        0 => Pin::A,
        1 => Pin::B,
        2 => Pin::C,
        _ => Pin::D,
    };
    devices::pci::lpc::gsi_of(slot, pin)
}
