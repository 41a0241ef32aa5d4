//! Numbers of the virtio specification, version 1.3.

/// PCI vendor ID of virtio devices (§4.1.2).
pub(super) const VENDOR: u16 = 0x1af4;
/// PCI device ID of a virtio device is this plus its type (§4.1.2).
pub(super) const DEVICE_BASE: u16 = 0x1040;
/// PCI revision of a device without the legacy interface (§4.1.2.1).
pub(super) const REVISION: u8 = 1;
/// Least PCI subsystem ID of a device without the legacy interface (§4.1.2.1).
pub(super) const SUBSYSTEM_BASE: u16 = 0x40;

/// Device status bits (§2.1).
pub(super) mod status {
    /// The driver has noticed the device.
    #[cfg(test)]
    pub(crate) const ACKNOWLEDGE: u8 = 1;
    /// The driver knows how to drive it.
    #[cfg(test)]
    pub(crate) const DRIVER: u8 = 2;
    /// The driver is ready.
    pub(crate) const DRIVER_OK: u8 = 4;
    /// The features are agreed on.
    pub(crate) const FEATURES_OK: u8 = 8;
    /// The device met an error that it cannot recover from.
    pub(crate) const NEEDS_RESET: u8 = 0x40;
    /// The driver gave up.
    pub(crate) const FAILED: u8 = 0x80;
}

/// Feature bits of rings and transport (§6).
pub(super) mod feature {
    /// Chains may continue in an indirect table.
    pub(crate) const RING_INDIRECT_DESC: u64 = 1 << 28;
    /// `used_event` and `avail_event` are in use.
    pub(crate) const RING_EVENT_IDX: u64 = 1 << 29;
    /// The device follows this specification.
    pub(crate) const VERSION_1: u64 = 1 << 32;
    /// A queue can be reset by itself.
    pub(crate) const RING_RESET: u64 = 1 << 40;
}

/// The vector number that stands for none (§4.1.5.1.2).
pub(super) const NO_VECTOR: u16 = 0xffff;
/// ISR status bit: a queue was used (§4.1.4.5).
pub(super) const ISR_QUEUE: u8 = 1;
/// ISR status bit: the device configuration changed (§4.1.4.5).
pub(super) const ISR_CONFIG: u8 = 2;

/// PCI capability types (§4.1.4).
pub(super) mod capability {
    /// Vendor-specific PCI capability.
    pub(crate) const ID: u8 = 0x09;
    /// Common configuration.
    pub(crate) const COMMON: u8 = 1;
    /// Notifications.
    pub(crate) const NOTIFY: u8 = 2;
    /// ISR status.
    pub(crate) const ISR: u8 = 3;
    /// Device-specific configuration.
    pub(crate) const DEVICE: u8 = 4;
    /// Access through configuration space.
    pub(crate) const PCI_CFG: u8 = 5;
}

/// Offsets in the common configuration structure (§4.1.4.3).
pub(super) mod common {
    pub(crate) const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub(crate) const DEVICE_FEATURE: u64 = 0x04;
    pub(crate) const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub(crate) const DRIVER_FEATURE: u64 = 0x0c;
    pub(crate) const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub(crate) const NUM_QUEUES: u64 = 0x12;
    pub(crate) const DEVICE_STATUS: u64 = 0x14;
    pub(crate) const CONFIG_GENERATION: u64 = 0x15;
    pub(crate) const QUEUE_SELECT: u64 = 0x16;
    pub(crate) const QUEUE_SIZE: u64 = 0x18;
    pub(crate) const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub(crate) const QUEUE_ENABLE: u64 = 0x1c;
    pub(crate) const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub(crate) const QUEUE_DESC: u64 = 0x20;
    pub(crate) const QUEUE_DRIVER: u64 = 0x28;
    pub(crate) const QUEUE_DEVICE: u64 = 0x30;
    pub(crate) const QUEUE_NOTIF_CONFIG_DATA: u64 = 0x38;
    pub(crate) const QUEUE_RESET: u64 = 0x3a;
    /// Length of the structure in bytes.
    pub(crate) const LEN: u32 = 0x40;
}
