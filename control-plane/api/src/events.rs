//! Events on an instance: reasons and texts that people and their tools look for.

/// Type of an event about something that went as it should.
pub const NORMAL: &str = "Normal";
/// Type of an event about something that needs attention.
pub const WARNING: &str = "Warning";

/// Reasons of events.
pub mod reason {
    /// The machine is defined.
    pub const CREATED: &str = "Created";
    /// The machine runs.
    pub const STARTED: &str = "Started";
    /// The guest was asked to shut down.
    pub const SHUTTING_DOWN: &str = "ShuttingDown";
    /// The machine is being ended.
    pub const DELETED: &str = "Deleted";
    /// The machine ended.
    pub const STOPPED: &str = "Stopped";
    /// The machine could not be made as wanted; the text says why.
    pub const SYNC_FAILED: &str = "SyncFailed";
    /// The guest was asked to reboot.
    pub const SOFT_REBOOTED: &str = "SoftRebooted";
    /// The machine runs again.
    pub const RESUMED: &str = "Resumed";
    /// The machine moved.
    pub const MIGRATED: &str = "Migrated";
    /// A place for the machine is being made.
    pub const PREPARING_TARGET: &str = "PreparingTarget";
    /// The machine is moving.
    pub const MIGRATING: &str = "Migrating";
}

/// Texts of events.
pub mod message {
    /// With [`CREATED`](super::reason::CREATED).
    pub const DEFINED: &str = "VirtualMachineInstance defined.";
    /// With [`STARTED`](super::reason::STARTED).
    pub const STARTED: &str = "VirtualMachineInstance started.";
    /// With [`SHUTTING_DOWN`](super::reason::SHUTTING_DOWN).
    pub const GRACEFUL_SHUTDOWN: &str = "Signaled Graceful Shutdown";
    /// With [`DELETED`](super::reason::DELETED), on the way of deletion.
    pub const SIGNALED_DELETION: &str = "Signaled Deletion";
    /// With [`DELETED`](super::reason::DELETED), when the machine is pulled down.
    pub const STOPPING: &str = "VirtualMachineInstance stopping";
    /// With [`STOPPED`](super::reason::STOPPED), of a machine that ended well.
    pub const SHUT_DOWN: &str = "The VirtualMachineInstance was shut down.";
    /// With [`STOPPED`](super::reason::STOPPED), of a machine that didn't.
    pub const CRASHED: &str = "The VirtualMachineInstance crashed.";
    /// With [`SOFT_REBOOTED`](super::reason::SOFT_REBOOTED).
    pub const SOFT_REBOOTED: &str = "VirtualMachineInstance soft rebooted";
    /// With [`MIGRATING`](super::reason::MIGRATING).
    pub const MIGRATING: &str = "VirtualMachineInstance is migrating.";
    /// With [`MIGRATING`](super::reason::MIGRATING), when it is being given up.
    pub const ABORTING_MIGRATION: &str = "VirtualMachineInstance is aborting migration.";
    /// With [`PREPARING_TARGET`](super::reason::PREPARING_TARGET).
    pub const TARGET_PREPARED: &str = "VirtualMachineInstance Migration Target Prepared.";
}
