//! The board: chipset, PCI and virtio devices.
