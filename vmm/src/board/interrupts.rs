//! The wiring of interrupt lines: to the PIC pair and to the I/O APIC.

use std::sync::Arc;

use devices::IrqSink;
use devices::ioapic::Ioapic;
use devices::pic::Pic;

use super::map::GSI_PIT;

/// First line that only the I/O APIC has.
const ISA_LINES: u32 = 16;

/// Drives both controllers. Lines 0 to 15 are ISA interrupts, those from 16 on come from PCI.
pub(super) struct Lines {
    pub(super) pic: Arc<Pic>,
    pub(super) ioapic: Arc<Ioapic>,
}

impl IrqSink for Lines {
    fn set_irq(&self, line: u32, level: bool) {
        // The timer is on pin 2 of the I/O APIC, where the PIC has its cascade.
        let pin = if line == 0 { GSI_PIT } else { line };
        if let Some(irq) = u8::try_from(line).ok().filter(|_| line < ISA_LINES) {
            self.pic.set_irq(irq, level);
        }
        self.ioapic
            .set_irq(usize::try_from(pin).unwrap_or(usize::MAX), level);
    }
}
