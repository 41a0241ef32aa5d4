//! The figures of the project, measured beside their peers in one run: QEMU's translator (TCG) for the CPU, the host
//! itself, and `qemu-img bench` for disks; and what a node costs. A peer that is not installed is named as skipped;
//! nothing is installed.

mod boot;
mod cluster;
mod disks;
mod footprint;
mod node;
mod table;
mod workloads;

use std::{path::PathBuf, time::Duration};

pub use table::{Goal, Row};

use crate::{
    Guests, Machine,
    console::{Console, ConsoleError, Spawned},
    guests::guests,
    programs::{program, tool},
};

/// Time for any one guest run: a software CPU is slow, a hang must end.
const LIMIT: Duration = Duration::from_secs(900);

/// Everything that a measurement may start.
#[derive(Debug)]
pub struct Peers {
    guests: Guests,
    vmm: PathBuf,
    launcher: Option<PathBuf>,
    qemu: Option<PathBuf>,
    qemu_img: Option<PathBuf>,
    rounds: usize,
}

/// Why a figure could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The program did not do what its workload should.
    #[error("{0}")]
    Console(#[from] ConsoleError),
    /// The host refused.
    #[error("run the workload: {0}")]
    Host(#[from] std::io::Error),
    /// A program said something that is not a measurement.
    #[error("read the measurement in {0:?}")]
    Answer(String),
    /// A launcher cannot be called.
    #[error("call the launcher: {0}")]
    Connect(#[from] tonic::transport::Error),
    /// A launcher did not take a call.
    #[error("call the launcher: {0}")]
    Call(#[from] Box<tonic::Status>),
    /// A launcher refused what was asked.
    #[error("have the launcher run the instance: {0}")]
    Refused(String),
    /// A node does not run.
    #[error("run a node: {0}")]
    Node(#[from] crate::single_node::CommandError),
    /// Something did not happen in time.
    #[error("wait for {0}")]
    Late(&'static str),
}

/// A way to get rows of the table.
type Measure = fn(&Peers) -> Result<Vec<Row>, BenchError>;

/// The measurements, by section.
const MEASURES: [(&str, Measure); 11] = [
    ("boot", boot::measure),
    ("workloads", workloads::measure),
    ("memory", footprint::memory),
    ("idle", footprint::idle),
    ("disks", disks::measure),
    ("node-one", node::one),
    ("node-start", node::start),
    ("node-many", node::many),
    ("up-one", cluster::one),
    ("up-many", cluster::many),
    ("up-api", cluster::api),
];

impl Peers {
    /// Finds the programs and guests; `None`, with the reason printed, when there is nothing to measure.
    #[must_use]
    pub fn find(rounds: usize) -> Option<Self> {
        let peers = Self {
            guests: guests()?,
            vmm: program("vmm")?,
            launcher: program("virt-launcher"),
            qemu: tool("qemu-system-x86_64"),
            qemu_img: tool("qemu-img"),
            rounds: rounds.max(1),
        };
        Some(peers)
    }

    /// One line for each peer that is absent.
    #[must_use]
    pub fn skipped(&self) -> Vec<&'static str> {
        let peers = [
            (
                self.qemu.is_none(),
                "skipped: qemu-system-x86_64 is not installed, so no ratio to TCG",
            ),
            (
                self.qemu_img.is_none(),
                "skipped: qemu-img is not installed, so no ratio for disks",
            ),
        ];
        peers
            .into_iter()
            .filter(|(absent, _)| *absent)
            .map(|(_, line)| line)
            .collect()
    }

    /// The names of the sections, in the order in which they run.
    #[must_use]
    pub fn sections() -> Vec<&'static str> {
        MEASURES.iter().map(|(name, _)| *name).collect()
    }

    /// Runs the sections whose name begins with one of those wanted, or all when none is; hands each row to `show`,
    /// and gives the failures.
    pub fn run(&self, wanted: &[String], mut show: impl FnMut(&Row)) -> Vec<String> {
        let mut failures = Vec::new();
        let is_wanted = |name: &str| {
            wanted.is_empty()
                || wanted
                    .iter()
                    .any(|wanted| name.starts_with(wanted.as_str()))
        };
        for (name, measure) in MEASURES.iter().filter(|(name, _)| is_wanted(name)) {
            match measure(self) {
                Ok(rows) => rows.iter().for_each(&mut show),
                Err(error) => failures.push(format!("{name}: failed to {error}")),
            }
        }
        failures
    }

    /// The machine that runs a workload of the benchmark initramfs.
    fn machine(&self) -> Machine {
        Machine::new(&self.guests.kernel()).initrd(&self.guests.bench_initrd())
    }
}

/// Runs a measurement several times and gives the median, which one disturbed run does not move.
fn median(
    rounds: usize,
    mut once: impl FnMut() -> Result<f64, BenchError>,
) -> Result<f64, BenchError> {
    let mut values = (0..rounds)
        .map(|_| once())
        .collect::<Result<Vec<f64>, _>>()?;
    values.sort_by(f64::total_cmp);
    Ok(values[values.len() / 2])
}

/// CPU and wall time between the two marker lines of a workload, and what its end line says.
#[derive(Clone, Copy, Debug)]
struct Span {
    user_s: f64,
    cpu_s: f64,
    wall_s: f64,
    amount: f64,
}

/// Waits for a workload's two marker lines.
fn span(guest: &mut Spawned, name: &str) -> Result<Span, BenchError> {
    guest.expect(&format!("FERROVIRT-BEGIN {name}"), LIMIT)?;
    let (began, before) = (std::time::Instant::now(), guest.cpu());
    guest.expect(&format!("FERROVIRT-END {name} "), LIMIT)?;
    let (wall, used) = (began.elapsed(), guest.cpu().since(before));
    let text = guest.expect("\n", LIMIT)?;
    let amount = text.trim().parse().map_err(|_| BenchError::Answer(text))?;
    Ok(Span {
        user_s: used.user.as_secs_f64(),
        cpu_s: used.total().as_secs_f64(),
        wall_s: wall.as_secs_f64(),
        amount,
    })
}

/// Starts a guest whose console is only read.
fn start(command: std::process::Command) -> Result<Spawned, BenchError> {
    Ok(Spawned::start(command, Console::OutputOnly)?)
}
