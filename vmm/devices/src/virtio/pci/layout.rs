//! Where the transport's structures lie, and the capabilities that say so (virtio 1.3 §4.1.4).

use super::Inner;
use crate::pci::config_space::Identity;
use crate::pci::{BarKind, ConfigSpace, LayoutError, Msix, MsixPlacement, Pin};
use crate::virtio::VirtioDevice;
use crate::virtio::spec::{DEVICE_BASE, REVISION, SUBSYSTEM_BASE, VENDOR, capability, common};

/// The only base address register: every structure has its page, so that a back end can map or
/// trap each by itself.
pub(super) const BAR: usize = 0;
const BAR_BYTES: u64 = 0x8000;
const PAGE: u64 = 0x1000;
const COMMON: u32 = 0;
const ISR: u32 = 0x1000;
const DEVICE: u32 = 0x2000;
const NOTIFY: u32 = 0x3000;
const MSIX_TABLE: u32 = 0x4000;
const MSIX_PENDING: u32 = 0x5000;
/// Distance of the notification registers of two queues in bytes.
pub(super) const NOTIFY_MULTIPLIER: u64 = 4;

/// A structure in the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    Common,
    Isr,
    Device,
    Notify,
    MsixTable,
    MsixPending,
}

/// Finds the structure at `offset` of the region, and the offset in it.
pub(super) fn window(offset: u64) -> Option<(Window, u64)> {
    let window = match offset / PAGE {
        0 => Window::Common,
        1 => Window::Isr,
        2 => Window::Device,
        3 => Window::Notify,
        4 => Window::MsixTable,
        5 => Window::MsixPending,
        _ => return None,
    };
    Some((window, offset % PAGE))
}

/// Returns the offset in the region of the notification register of queue `index`.
pub(super) fn notify_offset(index: u64) -> u64 {
    u64::from(NOTIFY) + index * NOTIFY_MULTIPLIER
}

/// Where the capability for access through configuration space lies (§4.1.4.9).
#[derive(Clone, Copy, Debug)]
pub(super) struct PciCfg {
    capability: u16,
}

impl Inner {
    /// Returns offset and length of the access to the region that touching `reg` stands for.
    pub(super) fn pci_cfg_access(&self, reg: u16) -> Option<(u64, usize)> {
        let at = self.pci_cfg.capability;
        let mut bar = [0];
        self.config.read(at + 4, &mut bar);
        let offset = u64::from(self.config.read_u32(at + 8));
        let len = usize::try_from(self.config.read_u32(at + 12)).ok()?;
        let fits = matches!(len, 1 | 2 | 4) && offset % 4 + u64::try_from(len).ok()? <= 4;
        let touched = reg == at + 16;
        (touched && fits && usize::from(bar[0]) == BAR && offset < BAR_BYTES)
            .then_some((offset, len))
    }

    pub(super) fn pci_cfg_data(&self) -> [u8; 4] {
        self.config
            .read_u32(self.pci_cfg.capability + 16)
            .to_le_bytes()
    }

    pub(super) fn set_pci_cfg_data(&mut self, data: [u8; 4]) {
        self.config.set(self.pci_cfg.capability + 16, &data);
    }
}

/// Makes the configuration space; also returns the offset of the MSI-X capability.
pub(super) fn config_space(
    device: &dyn VirtioDevice,
    msix: &Msix,
) -> Result<(ConfigSpace, u16, PciCfg), LayoutError> {
    let device_type = device.device_type().0;
    let mut config = ConfigSpace::new(Identity {
        vendor: VENDOR,
        device: DEVICE_BASE + device_type,
        revision: REVISION,
        class: device.class(),
        subsystem_vendor: VENDOR,
        subsystem: SUBSYSTEM_BASE + device_type,
    });
    config.set_pin(Pin::A);
    config.add_bar(BAR, BarKind::Memory32, BAR_BYTES)?;
    let placement = MsixPlacement {
        table_bar: 0,
        table_offset: MSIX_TABLE,
        pba_bar: 0,
        pba_offset: MSIX_PENDING,
    };
    let msix_reg = msix.add_capability(&mut config, placement)?;
    add(&mut config, capability::COMMON, COMMON, common::LEN, &[])?;
    add(&mut config, capability::ISR, ISR, 1, &[])?;
    add(&mut config, capability::DEVICE, DEVICE, 0x1000, &[])?;
    let multiplier = [4, 0, 0, 0];
    add(&mut config, capability::NOTIFY, NOTIFY, 0x1000, &multiplier)?;
    let at = add(&mut config, capability::PCI_CFG, 0, 0, &[0; 4])?;
    // Region, offset, length and data of the access can be written.
    config.allow(usize::from(at) + 4, &[0xff]);
    config.allow(usize::from(at) + 8, &[0xff; 12]);
    Ok((config, msix_reg, PciCfg { capability: at }))
}

/// Adds `struct virtio_pci_cap` (§4.1.4) with what follows it.
fn add(
    config: &mut ConfigSpace,
    cfg_type: u8,
    offset: u32,
    length: u32,
    tail: &[u8],
) -> Result<u16, LayoutError> {
    let len = if tail.is_empty() { 16 } else { 20 };
    let mut body = vec![len, cfg_type, 0, 0, 0, 0];
    body.extend(offset.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(tail);
    config.add_capability(capability::ID, &body, &[])
}
