//! Disk images: raw, qcow2, overlays and ISO 9660.
