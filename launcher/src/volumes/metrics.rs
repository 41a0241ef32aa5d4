//! The disk on which a guest reads metrics of its host and of itself, in vhostmd's format: a raw disk of
//! 256 KiB that begins with the signature `mvbd`, a flag that is set while an update is under way, the
//! sum of the document's bytes and its length, each as 32 bits in big endian, and then the document,
//! which is XML. Guests read it with `vm-dump-metrics`.

use std::fmt::Write;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Size of the disk.
pub const METRICS_DISK_BYTES: u64 = 256 << 10;
/// Length of the header before the document.
const HEADER_LEN: usize = 16;
/// Longest document: readers set aside 24 bytes for the header.
const MAX_DOCUMENT_LEN: usize = (256 << 10) - 24;
const SIGNATURE: &[u8; 4] = b"mvbd";
/// Ticks of a second in `/proc/stat` (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Whom a metric is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The host.
    Host,
    /// The guest's machine.
    Vm,
}

/// A metric's value.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    /// A count or amount.
    Count(u64),
    /// A number with a fraction.
    Real(f64),
    /// Text.
    Text(String),
}

/// One metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Whom it is about.
    pub subject: Subject,
    /// Name, as vhostmd calls it.
    pub name: &'static str,
    /// Value.
    pub value: MetricValue,
    /// Unit, `s` or `KiB`.
    pub unit: Option<&'static str>,
}

impl Metric {
    /// Returns a metric of the host.
    pub fn host(name: &'static str, value: MetricValue, unit: Option<&'static str>) -> Self {
        let subject = Subject::Host;
        Self {
            subject,
            name,
            value,
            unit,
        }
    }

    /// Returns a metric of the guest's machine.
    pub fn vm(name: &'static str, value: MetricValue, unit: Option<&'static str>) -> Self {
        let subject = Subject::Vm;
        Self {
            subject,
            name,
            value,
            unit,
        }
    }
}

/// Makes a metrics disk without metrics, in place of one that is there.
///
/// # Errors
///
/// What the host answers.
pub fn create_metrics_disk(path: &Path) -> io::Result<()> {
    let file = File::create(path)?;
    file.set_len(METRICS_DISK_BYTES)?;
    write_document(&file, document(&[]).as_bytes())
}

/// Puts metrics onto a disk that [`create_metrics_disk`] made. A guest that reads meanwhile sees the
/// flag, or a sum that does not fit, and reads again.
///
/// # Errors
///
/// What the host answers, or [`io::ErrorKind::FileTooLarge`] when they do not fit.
pub fn update_metrics_disk(path: &Path, metrics: &[Metric]) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    write_document(&file, document(metrics).as_bytes())
}

fn write_document(file: &File, document: &[u8]) -> io::Result<()> {
    if document.len() > MAX_DOCUMENT_LEN {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    file.write_all_at(&header(document, true), 0)?;
    file.sync_data()?;
    file.write_all_at(document, HEADER_LEN as u64)?;
    file.write_all_at(&header(document, false), 0)
}

fn header(document: &[u8], updating: bool) -> [u8; HEADER_LEN] {
    let sum = document
        .iter()
        .fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    let len = u32::try_from(document.len()).unwrap_or(u32::MAX);
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(SIGNATURE);
    header[4..8].copy_from_slice(&u32::from(updating).to_be_bytes());
    header[8..12].copy_from_slice(&sum.to_be_bytes());
    header[12..].copy_from_slice(&len.to_be_bytes());
    header
}

fn document(metrics: &[Metric]) -> String {
    let mut text = "<metrics>\n".to_owned();
    for metric in metrics {
        let context = match metric.subject {
            Subject::Host => "host",
            Subject::Vm => "vm",
        };
        let (kind, value) = match &metric.value {
            MetricValue::Count(count) => ("uint64", count.to_string()),
            MetricValue::Real(real) => ("real64", format!("{real:.6}")),
            MetricValue::Text(text) => ("string", text.clone()),
        };
        let unit = metric.unit.map(|unit| format!(" unit=\"{unit}\""));
        let unit = unit.unwrap_or_default();
        // The end of a CDATA section cannot stand in one.
        let value = value.replace("]]>", "]]]]><![CDATA[>");
        let written = write!(
            text,
            "  <metric type=\"{kind}\" context=\"{context}\"{unit}>\n    <name>{}</name>\n    <value><![CDATA[{value}]]></value>\n  </metric>\n",
            metric.name
        );
        written.expect("a string takes all");
    }
    // Readers print the document as it is.
    text + "</metrics>\n"
}

/// Returns what a host tells of itself to its guests. What cannot be read is left out.
pub fn host_metrics(host_name: &str, product: &str) -> Vec<Metric> {
    let text = |text: &str| MetricValue::Text(text.to_owned());
    let mut metrics = vec![
        Metric::host("HostName", text(host_name), None),
        Metric::host("HostSystemInfo", text("linux"), None),
        Metric::host("VirtualizationVendor", text("kubevirt.io"), None),
        Metric::host("VirtProductInfo", text(product), None),
    ];
    let read = |name| fs::read_to_string(Path::new("/proc").join(name)).unwrap_or_default();
    metrics.extend(cpu_metrics(&read("cpuinfo"), &read("stat")));
    metrics.extend(memory_metrics(&read("meminfo"), &read("vmstat")));
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |since| since.as_secs());
    metrics.push(Metric::host("Time", MetricValue::Count(seconds), Some("s")));
    metrics
}

/// Returns what a machine tells its guest of itself: time that its processors ran, their number, and
/// its memory.
pub fn vm_metrics(cpu_time_ns: u64, vcpus: u32, memory_bytes: u64) -> Vec<Metric> {
    let seconds = std::time::Duration::from_nanos(cpu_time_ns).as_secs_f64();
    let kib = memory_bytes >> 10;
    let count = MetricValue::Count;
    vec![
        Metric::vm("TotalCPUTime", MetricValue::Real(seconds), Some("s")),
        Metric::vm("ResourceProcessorLimit", count(vcpus.into()), None),
        Metric::vm(
            "PhysicalMemoryAllocatedToVirtualSystem",
            count(kib),
            Some("KiB"),
        ),
        Metric::vm("ResourceMemoryLimit", count(kib), Some("KiB")),
    ]
}

fn cpu_metrics(cpuinfo: &str, stat: &str) -> Vec<Metric> {
    let sockets: std::collections::BTreeSet<&str> = cpuinfo
        .lines()
        .filter(|line| line.starts_with("physical id"))
        .collect();
    let sockets = MetricValue::Count(sockets.len().max(1) as u64);
    let mut metrics = vec![Metric::host("NumberOfPhysicalCPUs", sockets, None)];
    // user, nice, system
    let total = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let ticks = total.map(|total| {
        let fields = total.split_whitespace().take(3);
        fields
            .filter_map(|ticks| ticks.parse::<f64>().ok())
            .sum::<f64>()
    });
    if let Some(ticks) = ticks {
        let seconds = MetricValue::Real(ticks / TICKS_PER_SECOND);
        metrics.push(Metric::host("TotalCPUTime", seconds, Some("s")));
    }
    metrics
}

fn memory_metrics(meminfo: &str, vmstat: &str) -> Vec<Metric> {
    let number = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let kib = |name: &str| number(meminfo, name).unwrap_or(0);
    let total = kib("MemTotal:");
    if total == 0 {
        return Vec::new();
    }
    let (free, swap_free) = (kib("MemFree:"), kib("SwapFree:"));
    let unused = free + kib("Buffers:") + kib("Cached:");
    // A page is 4 KiB on every host that we run on.
    let paged = |name: &str| number(vmstat, name).unwrap_or(0).saturating_mul(4);
    [
        ("FreePhysicalMemory", free),
        ("FreeVirtualMemory", free + swap_free),
        (
            "MemoryAllocatedToVirtualServers",
            total.saturating_sub(unused),
        ),
        (
            "UsedVirtualMemory",
            (total + kib("SwapTotal:")).saturating_sub(unused + kib("SwapCached:")),
        ),
        ("PagedInMemory", paged("pswpin ")),
        ("PagedOutMemory", paged("pswpout ")),
    ]
    .into_iter()
    .map(|(name, kib)| Metric::host(name, MetricValue::Count(kib), Some("KiB")))
    .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{
        METRICS_DISK_BYTES, Metric, MetricValue, cpu_metrics, create_metrics_disk, document,
        memory_metrics, update_metrics_disk, vm_metrics,
    };

    fn number(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn a_disk_has_signature_sum_and_length_and_takes_updates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vhostmd0");
        create_metrics_disk(&path).unwrap();
        let long = [Metric::host("A", MetricValue::Text("x".repeat(500)), None)];
        update_metrics_disk(&path, &long).unwrap();
        let metrics = [Metric::vm(
            "TotalCPUTime",
            MetricValue::Real(1.5),
            Some("s"),
        )];
        update_metrics_disk(&path, &metrics).unwrap();
        let disk = fs::read(&path).unwrap();
        assert_eq!(disk.len() as u64, METRICS_DISK_BYTES);
        assert_eq!((&disk[..4], number(&disk, 4)), (&b"mvbd"[..], 0));
        let len = usize::try_from(number(&disk, 12)).unwrap();
        let body = &disk[16..16 + len];
        let sum: u32 = body.iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(number(&disk, 8), sum);
        assert_eq!(body, document(&metrics).as_bytes());
    }

    #[test]
    fn the_document_is_xml_as_vhostmd_writes_it() {
        let mut metrics = vec![Metric::host(
            "HostName",
            MetricValue::Text("a]]>b&".to_owned()),
            None,
        )];
        metrics.extend(vm_metrics(1_500_000_000, 2, 64 << 20));
        insta::assert_snapshot!(document(&metrics));
    }

    #[test]
    fn metrics_that_do_not_fit_are_refused_and_the_old_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vhostmd0");
        create_metrics_disk(&path).unwrap();
        let before = fs::read(&path).unwrap();
        let long = MetricValue::Text("x".repeat(300 << 10));
        assert!(update_metrics_disk(&path, &[Metric::host("A", long, None)]).is_err());
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn a_host_is_read_from_its_proc_files() {
        let cpuinfo = "physical id\t: 0\nphysical id\t: 0\nphysical id\t: 1\n";
        let cpus = cpu_metrics(cpuinfo, "cpu  100 50 50 999\ncpu0 1 1 1\n");
        assert_eq!(cpus[0].value, MetricValue::Count(2));
        assert_eq!(cpus[1].value, MetricValue::Real(2.0));
        let meminfo =
            "MemTotal: 100 kB\nMemFree: 10 kB\nBuffers: 5 kB\nCached: 15 kB\nSwapTotal: 8 kB\n";
        let memory = memory_metrics(meminfo, "pswpin 3\n");
        let values: Vec<_> = memory.iter().map(|metric| metric.value.clone()).collect();
        assert_eq!(
            values,
            [10, 10, 70, 78, 12, 0].map(MetricValue::Count).to_vec()
        );
        assert_eq!(memory_metrics("", ""), []);
    }
}
