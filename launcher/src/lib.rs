//! virt-launcher: one VMI, one process, one machine.
