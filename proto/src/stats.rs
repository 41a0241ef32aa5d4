//! The counters of a machine: the JSON in `GetDomainStats`.
//!
//! Go's structure says of each value in a second field, its name followed by `Set`, whether the value is
//! known. Here that is an [`Option`]; on the wire both keys are always there. Times are nanoseconds,
//! amounts of memory KiB, unless said otherwise. Bounds are as for [`crate::domain`].

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::list;

#[cfg(test)]
mod tests;

/// A structure of plain fields, and of values that travel with a twin that says whether they are known.
macro_rules! with_twins {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$plain_doc:meta])* $plain:ident: $plain_type:ty = $plain_key:literal,)*
    } values {
        $($(#[$value_doc:meta])* $value:ident: $value_type:ty = $value_key:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $name {
            $($(#[$plain_doc])* pub $plain: $plain_type,)*
            $($(#[$value_doc])* pub $value: Option<$value_type>,)*
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                $(map.serialize_entry($plain_key, &self.$plain)?;)*
                $(
                    map.serialize_entry(concat!($value_key, "Set"), &self.$value.is_some())?;
                    let value = self.$value.clone().unwrap_or_default();
                    map.serialize_entry($value_key, &value)?;
                )*
                map.end()
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;

                impl<'de> Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("the fields of ", stringify!($name)))
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let mut fields = $name::default();
                        $(let mut $value = false;)*
                        while let Some(key) = map.next_key::<String>()? {
                            match key.as_str() {
                                $($plain_key => {
                                    fields.$plain = map.next_value()?;
                                })*
                                $($value_key => fields.$value = map.next_value()?,)*
                                $(key if key.strip_suffix("Set") == Some($value_key) => {
                                    $value = map.next_value()?;
                                })*
                                _ => {
                                    map.next_value::<IgnoredAny>()?;
                                }
                            }
                        }
                        $(if !$value {
                            fields.$value = None;
                        } else if fields.$value.is_none() {
                            fields.$value = Some(Default::default());
                        })*
                        Ok(fields)
                    }
                }

                deserializer.deserialize_map(Fields)
            }
        }
    };
}

/// The counters of a machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DomainStats {
    /// Name of the domain.
    pub name: String,
    /// UUID of the domain.
    #[serde(rename = "UUID")]
    pub uuid: String,
    /// Time used by all of the machine.
    pub cpu: Option<CpuStats>,
    /// Memory of the guest and of the process.
    pub memory: Option<MemoryStats>,
    /// Progress of a migration.
    pub migrate_domain_job_info: Option<MigrationJob>,
    /// Each vCPU, by its number.
    #[serde(deserialize_with = "list::bounded")]
    pub vcpu: Vec<VcpuStats>,
    /// Each network interface.
    #[serde(deserialize_with = "list::bounded")]
    pub net: Vec<NetStats>,
    /// Each disk.
    #[serde(deserialize_with = "list::bounded")]
    pub block: Vec<BlockStats>,
    /// Whether the map of CPUs is known.
    #[serde(rename = "CPUMapSet")]
    pub cpu_map_set: bool,
    /// Which CPUs of the host each vCPU may run on: a row for each vCPU.
    #[serde(rename = "CPUMap", deserialize_with = "list::bounded")]
    pub cpu_map: Vec<Vec<bool>>,
    /// How fast the guest writes memory.
    pub dirty_rate: Option<DirtyRate>,
    /// The guest's load averages.
    pub load: Option<Load>,
}

with_twins! {
    /// Time used by all of a machine, in nanoseconds.
    CpuStats {} values {
        /// In all.
        time: u64 = "Time",
        /// Outside the kernel.
        user: u64 = "User",
        /// In the kernel.
        system: u64 = "System",
    }
}

/// What a vCPU is doing (libvirt `virVcpuState`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VcpuState(pub i64);

impl VcpuState {
    /// It is not plugged in.
    pub const OFFLINE: Self = Self(0);
    /// It runs.
    pub const RUNNING: Self = Self(1);
    /// It waits for an interrupt.
    pub const BLOCKED: Self = Self(2);
}

with_twins! {
    /// A vCPU; times in nanoseconds.
    VcpuStats {} values {
        /// What it is doing.
        state: VcpuState = "State",
        /// Time it ran.
        time: u64 = "Time",
        /// Time it waited for input and output.
        wait: u64 = "Wait",
        /// Time it was ready to run and no CPU was free.
        delay: u64 = "Delay",
    }
}

with_twins! {
    /// Memory of the guest and of the process, in KiB.
    MemoryStats {} values {
        /// Free in the guest, caches not counted.
        unused: u64 = "Unused",
        /// Used by the guest for caches that it can give up.
        cached: u64 = "Cached",
        /// All that the guest's kernel can use.
        available: u64 = "Available",
        /// What the balloon leaves to the guest.
        actual_balloon: u64 = "ActualBalloon",
        /// Resident on the host.
        rss: u64 = "RSS",
        /// Swapped in by the guest.
        swap_in: u64 = "SwapIn",
        /// Swapped out by the guest.
        swap_out: u64 = "SwapOut",
        /// How many faults of the guest needed its disk.
        major_fault: u64 = "MajorFault",
        /// How many faults of the guest did not.
        minor_fault: u64 = "MinorFault",
        /// What the guest could use without swapping.
        usable: u64 = "Usable",
        /// What the machine has.
        total: u64 = "Total",
    }
}

with_twins! {
    /// Progress of a migration, in bytes.
    MigrationJob {} values {
        /// In all.
        data_total: u64 = "DataTotal",
        /// Sent.
        data_processed: u64 = "DataProcessed",
        /// Bytes a second.
        memory_bps: u64 = "MemoryBps",
        /// Still to send.
        data_remaining: u64 = "DataRemaining",
        /// Pages a second that the guest writes.
        mem_dirty_rate: u64 = "MemDirtyRate",
    }
}

with_twins! {
    /// A network interface, as the host counts: received is what the guest received.
    NetStats {} values {
        /// Name of the tap device.
        name: String = "Name",
        /// Name in the specification.
        alias: String = "Alias",
        /// Bytes received.
        rx_bytes: u64 = "RxBytes",
        /// Packets received.
        rx_pkts: u64 = "RxPkts",
        /// Errors while receiving.
        rx_errs: u64 = "RxErrs",
        /// Packets dropped while receiving.
        rx_drop: u64 = "RxDrop",
        /// Bytes sent.
        tx_bytes: u64 = "TxBytes",
        /// Packets sent.
        tx_pkts: u64 = "TxPkts",
        /// Errors while sending.
        tx_errs: u64 = "TxErrs",
        /// Packets dropped while sending.
        tx_drop: u64 = "TxDrop",
    }
}

with_twins! {
    /// A disk; times in nanoseconds, sizes in bytes.
    BlockStats {
        /// Name of the volume; the one value without a twin.
        alias: String = "Alias",
    } values {
        /// Name of the device ("vda").
        name: String = "Name",
        /// Place in the chain of images, 0 for none.
        backing_index: u64 = "BackingIndex",
        /// Path of the file or device.
        path: String = "Path",
        /// How many reads.
        rd_reqs: u64 = "RdReqs",
        /// Bytes read.
        rd_bytes: u64 = "RdBytes",
        /// Time spent reading.
        rd_times: u64 = "RdTimes",
        /// How many writes.
        wr_reqs: u64 = "WrReqs",
        /// Bytes written.
        wr_bytes: u64 = "WrBytes",
        /// Time spent writing.
        wr_times: u64 = "WrTimes",
        /// How many flushes.
        fl_reqs: u64 = "FlReqs",
        /// Time spent flushing.
        fl_times: u64 = "FlTimes",
        /// How many failures.
        errors: u64 = "Errors",
        /// Highest byte in use.
        allocation: u64 = "Allocation",
        /// Size that the guest sees.
        capacity: u64 = "Capacity",
        /// Size of the file.
        physical: u64 = "Physical",
    }
}

with_twins! {
    /// How fast a guest writes memory.
    DirtyRate {} values {
        /// 0 not measured, 1 under way, 2 measured (libvirt `virDomainDirtyRateStatus`).
        calc_status: i64 = "CalcStatus",
        /// When the measurement began, in seconds of the host's uptime.
        calc_start_time: i64 = "CalcStartTime",
        /// How long it took, in seconds.
        calc_period: i64 = "CalcPeriod",
        /// MiB a second.
        megabytes_per_second: i64 = "MegabytesPerSecond",
    }
}

with_twins! {
    /// The guest's load averages.
    Load {} values {
        /// Over a minute.
        load_1m: f64 = "Load1m",
        /// Over five minutes.
        load_5m: f64 = "Load5m",
        /// Over a quarter of an hour.
        load_15m: f64 = "Load15m",
    }
}
