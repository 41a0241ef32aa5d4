//! What a machine has used so far.

/// What a machine has used since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineStats {
    /// vCPUs, by number.
    pub vcpus: Vec<VcpuStats>,
    /// Disks, in the order of the configuration.
    pub disks: Vec<DiskStats>,
    /// Guest RAM.
    pub memory: MemoryStats,
}

/// What a vCPU has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuStats {
    /// Whether the guest has halted it and it waits for an interrupt.
    pub halted: bool,
    /// Host CPU time of its thread, in nanoseconds.
    pub cpu_time_ns: u64,
}

/// What a disk has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// The disk's name.
    pub name: String,
    /// Read requests that are done.
    pub read_requests: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Time spent on read requests, in nanoseconds.
    pub read_ns: u64,
    /// Write requests that are done.
    pub write_requests: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Time spent on write requests, in nanoseconds.
    pub write_ns: u64,
    /// Flush requests that are done.
    pub flush_requests: u64,
    /// Time spent on flush requests, in nanoseconds.
    pub flush_ns: u64,
    /// Requests that the host refused.
    pub errors: u64,
    /// Size that the guest sees, in bytes.
    pub capacity_bytes: u64,
    /// Room that the image takes on the host, in bytes.
    pub allocated_bytes: u64,
}

/// Guest RAM and how much of it the host holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Size in bytes.
    pub len_bytes: u64,
    /// How much of it is in the host's RAM, in bytes; of RAM above 256 MiB this is an estimate from samples.
    pub resident_bytes: u64,
}
