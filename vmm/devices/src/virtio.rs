//! Virtio over PCI (virtio 1.3), modern only.
