//! Names and meanings of what is measured. Names are upstream's (`docs/observability/metrics.md`), but for those that
//! begin with `ferrovirt`.

use super::samples::Family;
use super::samples::Kind::{Counter, Gauge};

/// Makes the families; a counter's name is written without `_total`.
macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal, $help:literal;)*) => {
        $(pub(super) static $constant: Family = Family {
            name: $name,
            help: $help,
            kind: $kind,
        };)*
    };
}

families! {
    READY = Gauge "kubevirt_virt_handler_ready_status",
        "Whether the node agent knows the instances of its node";
    INFO = Gauge "kubevirt_vmi_info",
        "What an instance is; always 1";
    PHASE_COUNT = Gauge "kubevirt_vmi_phase_count",
        "Instances of the node by phase";
    CONSOLES = Gauge "kubevirt_console_active_connections",
        "Open serial consoles of an instance";
    LAST_CONNECTION = Gauge "kubevirt_vmi_last_api_connection_timestamp_seconds",
        "When somebody last came to or left an instance's console, in seconds since 1970";
    CPU_USAGE = Counter "kubevirt_vmi_cpu_usage_seconds",
        "CPU time of the machine, its vCPUs and all else";
    CPU_USER = Counter "kubevirt_vmi_cpu_user_usage_seconds",
        "CPU time of the machine outside the host's kernel";
    CPU_SYSTEM = Counter "kubevirt_vmi_cpu_system_usage_seconds",
        "CPU time of the machine in the host's kernel";
    VCPU = Counter "kubevirt_vmi_vcpu_seconds",
        "Time that a vCPU has run; the state is that of the moment";
    VCPU_WAIT = Counter "kubevirt_vmi_vcpu_wait_seconds",
        "Time that a vCPU has waited for input and output";
    VCPU_DELAY = Counter "kubevirt_vmi_vcpu_delay_seconds",
        "Time that a vCPU was ready to run and had no CPU";
    AFFINITY = Gauge "kubevirt_vmi_node_cpu_affinity",
        "Pairs of a vCPU and a CPU of the node that it may run on";
    MEMORY_DOMAIN = Gauge "kubevirt_vmi_memory_domain_bytes",
        "Memory that the machine has";
    MEMORY_RESIDENT = Gauge "kubevirt_vmi_memory_resident_bytes",
        "Memory of the machine that is resident on the node";
    MEMORY_AVAILABLE = Gauge "kubevirt_vmi_memory_available_bytes",
        "Memory that the guest's kernel can use at all";
    MEMORY_UNUSED = Gauge "kubevirt_vmi_memory_unused_bytes",
        "Memory that is free in the guest, caches not counted";
    MEMORY_USABLE = Gauge "kubevirt_vmi_memory_usable_bytes",
        "Memory that the guest could give up without swapping";
    MEMORY_CACHED = Gauge "kubevirt_vmi_memory_cached_bytes",
        "Memory that the guest uses for caches that it can give up";
    MEMORY_BALLOON = Gauge "kubevirt_vmi_memory_actual_balloon_bytes",
        "Memory that the balloon leaves to the guest";
    MEMORY_SWAP_IN = Gauge "kubevirt_vmi_memory_swap_in_traffic_bytes",
        "Memory that the guest has read back from swap";
    MEMORY_SWAP_OUT = Gauge "kubevirt_vmi_memory_swap_out_traffic_bytes",
        "Memory that the guest has written to swap";
    MAJOR_FAULTS = Counter "kubevirt_vmi_memory_pgmajfault",
        "Page faults of the guest that needed its disk";
    MINOR_FAULTS = Counter "kubevirt_vmi_memory_pgminfault",
        "Page faults of the guest that did not need its disk";
    OVERHEAD = Gauge "kubevirt_vmi_launcher_memory_overhead_bytes",
        "Memory that the launcher has resident beyond its guest's";
    STORAGE_IOPS_READ = Counter "kubevirt_vmi_storage_iops_read",
        "Reads of a disk";
    STORAGE_IOPS_WRITE = Counter "kubevirt_vmi_storage_iops_write",
        "Writes to a disk";
    STORAGE_READ_BYTES = Counter "kubevirt_vmi_storage_read_traffic_bytes",
        "Bytes read from a disk";
    STORAGE_WRITE_BYTES = Counter "kubevirt_vmi_storage_write_traffic_bytes",
        "Bytes written to a disk";
    STORAGE_READ_TIMES = Counter "kubevirt_vmi_storage_read_times_seconds",
        "Time spent reading from a disk";
    STORAGE_WRITE_TIMES = Counter "kubevirt_vmi_storage_write_times_seconds",
        "Time spent writing to a disk";
    STORAGE_FLUSHES = Counter "kubevirt_vmi_storage_flush_requests",
        "Flushes of a disk's cache";
    STORAGE_FLUSH_TIMES = Counter "kubevirt_vmi_storage_flush_times_seconds",
        "Time spent flushing a disk's cache";
    NETWORK_TRAFFIC = Counter "kubevirt_vmi_network_traffic_bytes",
        "Bytes received and sent; kept for old dashboards";
    NETWORK_RECEIVE_BYTES = Counter "kubevirt_vmi_network_receive_bytes",
        "Bytes that the guest has received";
    NETWORK_RECEIVE_PACKETS = Counter "kubevirt_vmi_network_receive_packets",
        "Packets that the guest has received";
    NETWORK_RECEIVE_ERRORS = Counter "kubevirt_vmi_network_receive_errors",
        "Packets with errors among those received";
    NETWORK_RECEIVE_DROPPED = Counter "kubevirt_vmi_network_receive_packets_dropped",
        "Packets dropped that the guest would have received";
    NETWORK_TRANSMIT_BYTES = Counter "kubevirt_vmi_network_transmit_bytes",
        "Bytes that the guest has sent";
    NETWORK_TRANSMIT_PACKETS = Counter "kubevirt_vmi_network_transmit_packets",
        "Packets that the guest has sent";
    NETWORK_TRANSMIT_ERRORS = Counter "kubevirt_vmi_network_transmit_errors",
        "Packets with errors among those sent";
    NETWORK_TRANSMIT_DROPPED = Counter "kubevirt_vmi_network_transmit_packets_dropped",
        "Packets dropped that the guest would have sent";
    LOAD_1M = Gauge "kubevirt_vmi_guest_load_1m",
        "Load average of the guest over a minute, as its agent tells";
    LOAD_5M = Gauge "kubevirt_vmi_guest_load_5m",
        "Load average of the guest over five minutes, as its agent tells";
    LOAD_15M = Gauge "kubevirt_vmi_guest_load_15m",
        "Load average of the guest over a quarter of an hour, as its agent tells";
    FILESYSTEM_CAPACITY = Gauge "kubevirt_vmi_filesystem_capacity_bytes",
        "Size of a file system in the guest";
    FILESYSTEM_USED = Gauge "kubevirt_vmi_filesystem_used_bytes",
        "Bytes in use of a file system in the guest";
    DEVICES = Gauge "ferrovirt_device_plugin_devices",
        "Devices of a resource: healthy and unhealthy as the kubelet is told, and those left out";
    DEVICES_ALLOCATED = Gauge "ferrovirt_device_plugin_allocated_devices",
        "Devices of a resource that containers have";
    DEVICES_REGISTERED = Gauge "ferrovirt_device_plugin_registered",
        "Whether the kubelet knows the plugin of a resource";
    DEVICE_PROBLEMS = Gauge "ferrovirt_device_plugin_problems",
        "Parts of the KubeVirt object and of flags that ask for devices and make no sense";
}
