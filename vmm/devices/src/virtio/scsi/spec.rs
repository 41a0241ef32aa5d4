//! Numbers of the virtio SCSI host (virtio 1.3 §5.6) and of the SCSI command sets.

/// Feature: the device reports targets that come and go.
pub(super) const F_HOTPLUG: u64 = 1 << 1;
/// Feature: the device reports changed parameters, such as the capacity.
pub(super) const F_CHANGE: u64 = 1 << 2;

/// Targets of a host.
pub(super) const MAX_TARGETS: usize = 64;
/// The highest target number.
pub(super) const MAX_TARGET: u16 = 63;
/// Length of `struct virtio_scsi_event`.
pub(super) const EVENT_BYTES: u32 = 16;
/// `sense_size` after a reset.
pub(super) const DEFAULT_SENSE_BYTES: u32 = 96;
/// `cdb_size` after a reset.
pub(super) const DEFAULT_CDB_BYTES: u32 = 32;

/// Most bytes of one transfer, verification or pattern: a command takes no longer than that, and
/// nobody who waits for its end.
pub(super) const MAX_TRANSFER_BYTES: u32 = 32 << 20;
/// Most bytes that one UNMAP command names.
pub(super) const MAX_UNMAP_BYTES: u32 = 1 << 30;
/// Most descriptors of one UNMAP command.
pub(super) const MAX_UNMAP_DESCRIPTORS: u32 = 255;

/// Answers of the host (§5.6.6.1).
pub(super) mod response {
    pub(crate) const OK: u8 = 0;
    pub(crate) const OVERRUN: u8 = 1;
    pub(crate) const BAD_TARGET: u8 = 3;
    pub(crate) const FAILURE: u8 = 9;
    pub(crate) const FUNCTION_REJECTED: u8 = 11;
    pub(crate) const INCORRECT_LUN: u8 = 12;
}

/// Requests of the control queue (§5.6.6.2).
pub(super) mod control {
    pub(crate) const TMF: u32 = 0;
    pub(crate) const AN_QUERY: u32 = 1;
    pub(crate) const AN_SUBSCRIBE: u32 = 2;

    pub(crate) const ABORT_TASK: u32 = 0;
    pub(crate) const ABORT_TASK_SET: u32 = 1;
    pub(crate) const CLEAR_TASK_SET: u32 = 3;
    pub(crate) const I_T_NEXUS_RESET: u32 = 4;
    pub(crate) const LOGICAL_UNIT_RESET: u32 = 5;
    pub(crate) const QUERY_TASK: u32 = 6;
    pub(crate) const QUERY_TASK_SET: u32 = 7;

    /// Asynchronous notification: the medium changed.
    pub(crate) const MEDIA_CHANGE: u32 = 16;
}

/// Events (§5.6.6.3).
pub(super) mod event {
    pub(crate) const EVENTS_MISSED: u32 = 0x8000_0000;
    pub(crate) const NO_EVENT: u32 = 0;
    pub(crate) const TRANSPORT_RESET: u32 = 1;
    pub(crate) const ASYNC_NOTIFY: u32 = 2;
    pub(crate) const PARAM_CHANGE: u32 = 3;

    pub(crate) const RESCAN: u32 = 1;
    pub(crate) const REMOVED: u32 = 2;
}

/// Status of a command (SAM-5 §5.3).
pub(super) mod status {
    pub(crate) const GOOD: u8 = 0;
    pub(crate) const CHECK_CONDITION: u8 = 2;
}

/// Operation codes (SPC-4, SBC-3, MMC-6).
pub(super) mod op {
    pub(crate) const TEST_UNIT_READY: u8 = 0x00;
    pub(crate) const REQUEST_SENSE: u8 = 0x03;
    pub(crate) const READ_6: u8 = 0x08;
    pub(crate) const WRITE_6: u8 = 0x0a;
    pub(crate) const INQUIRY: u8 = 0x12;
    pub(crate) const MODE_SENSE_6: u8 = 0x1a;
    pub(crate) const START_STOP_UNIT: u8 = 0x1b;
    pub(crate) const PREVENT_ALLOW_MEDIUM_REMOVAL: u8 = 0x1e;
    pub(crate) const READ_CAPACITY_10: u8 = 0x25;
    pub(crate) const READ_10: u8 = 0x28;
    pub(crate) const WRITE_10: u8 = 0x2a;
    pub(crate) const WRITE_AND_VERIFY_10: u8 = 0x2e;
    pub(crate) const VERIFY_10: u8 = 0x2f;
    pub(crate) const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub(crate) const WRITE_SAME_10: u8 = 0x41;
    pub(crate) const UNMAP: u8 = 0x42;
    pub(crate) const READ_TOC: u8 = 0x43;
    pub(crate) const GET_CONFIGURATION: u8 = 0x46;
    pub(crate) const GET_EVENT_STATUS_NOTIFICATION: u8 = 0x4a;
    pub(crate) const READ_DISC_INFORMATION: u8 = 0x51;
    pub(crate) const MODE_SENSE_10: u8 = 0x5a;
    pub(crate) const READ_16: u8 = 0x88;
    pub(crate) const WRITE_16: u8 = 0x8a;
    pub(crate) const WRITE_AND_VERIFY_16: u8 = 0x8e;
    pub(crate) const VERIFY_16: u8 = 0x8f;
    pub(crate) const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub(crate) const WRITE_SAME_16: u8 = 0x93;
    pub(crate) const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub(crate) const REPORT_LUNS: u8 = 0xa0;
    pub(crate) const READ_12: u8 = 0xa8;
    pub(crate) const WRITE_12: u8 = 0xaa;
    pub(crate) const VERIFY_12: u8 = 0xaf;
    pub(crate) const MECHANISM_STATUS: u8 = 0xbd;

    /// Service action of [`SERVICE_ACTION_IN_16`].
    pub(crate) const READ_CAPACITY_16: u8 = 0x10;
}
