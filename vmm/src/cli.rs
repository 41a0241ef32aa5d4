//! The command line of `vmm`.

mod arguments;
mod console;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::arguments::DiskArgument;
use self::console::{Keyboard, Room, Screen};
use crate::config::{Accel, BootSource, CpuConfig, MachineConfig, MemoryConfig, SmbiosConfig};
use crate::error_chain;
use crate::machine::{Discard, Machine, MachineEnd, MachineError, MachineEvent, MachineIo, RETRY};
use crate::probe;

/// Exit status of a machine that failed or could not be started.
const EXIT_FAILED: u8 = 1;
/// Exit status of a machine that was switched off by the escape key.
const EXIT_KILLED: u8 = 3;

/// Runs virtual machines.
#[derive(Debug, Parser)]
#[command(name = "vmm", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<Run>),
    /// Measures whether this host's KVM can run unmodified guests, and says which back end `--accel
    /// auto` takes.
    Probe,
}

/// Runs one machine until it powers off.
///
/// The terminal becomes the machine's serial port. Ctrl-] presses the power button, a second Ctrl-]
/// switches the machine off. The end of input on a pipe is not the end of the machine.
///
/// Exit status: 0 when the guest powers off, 1 when the machine fails or cannot be started, 2 for a
/// wrong command line, 3 when it was switched off with Ctrl-].
#[derive(Debug, Args)]
struct Run {
    /// Linux bzImage or x86-64 ELF kernel to start.
    #[arg(long, value_name = "FILE", required_unless_present = "firmware")]
    kernel: Option<std::path::PathBuf>,
    /// Initial RAM disk for the kernel.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<std::path::PathBuf>,
    /// Kernel command line.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "console=ttyS0",
        requires = "kernel"
    )]
    cmdline: String,
    /// Firmware image to start at the reset vector instead of a kernel, for example SeaBIOS's bios-256k.bin: it boots
    /// from the disks, and talks on the serial port.
    #[arg(long, value_name = "FILE", conflicts_with = "kernel")]
    firmware: Option<std::path::PathBuf>,
    /// Disk; may be given several times. Options after the path: readonly=on, format=raw or qcow2,
    /// serial=TEXT, queues=N, cache=writeback, writethrough or none, backing=on (opens the backing
    /// files that the image names), bus=virtio or scsi, kind=disk or cdrom (with bus=scsi),
    /// discard=off (keeps the host's room), block-size=512 or 4096, boot=N (the firmware tries the
    /// lowest number first), errors=report (to the guest), stop (pauses the machine and tries again
    /// every few seconds), enospc (stop when the host is full, else report) or ignore.
    #[arg(long = "disk", value_name = "PATH[,OPTION=VALUE...]")]
    disks: Vec<DiskArgument>,
    /// Guest memory, in bytes or with K, M, G or T.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = arguments::size)]
    memory: u64,
    /// Backs guest memory by huge pages of this size, 2M or 1G.
    #[arg(long, value_name = "SIZE", value_parser = arguments::size)]
    hugepages: Option<u64>,
    /// Touches all guest memory before the guest runs.
    #[arg(long)]
    prefault: bool,
    /// Number of vCPUs, 1 to 64.
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u32,
    /// CPU model.
    #[arg(long, value_name = "NAME")]
    cpu_model: Option<String>,
    /// What runs the CPUs: KVM where it is usable, KVM in any case, or the software CPU.
    #[arg(long, value_enum, default_value_t = AccelArgument::Auto)]
    accel: AccelArgument,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AccelArgument {
    Auto,
    Kvm,
    Soft,
}

impl From<AccelArgument> for Accel {
    fn from(argument: AccelArgument) -> Self {
        match argument {
            AccelArgument::Auto => Self::Auto,
            AccelArgument::Kvm => Self::Kvm,
            AccelArgument::Soft => Self::Soft,
        }
    }
}

impl Cli {
    /// Does what the command line says; returns the exit status.
    #[must_use]
    pub fn execute(self) -> ExitCode {
        let wished = std::env::var("RUST_LOG").ok();
        let filter = wished
            .and_then(|levels| levels.parse().ok())
            .unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
        let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
        tracing_subscriber::registry()
            .with(lines)
            .with(filter)
            .init();
        match self.command {
            Command::Run(run) => run.execute(),
            Command::Probe => probe_host(),
        }
    }
}

/// Writes a line to standard error; a closed one is nobody's loss.
fn say(line: &str) {
    drop(writeln!(io::stderr(), "vmm: {line}\r"));
}

/// Says what whoever runs the machine must know.
fn tell(event: &MachineEvent) {
    if let MachineEvent::DiskStopped { disk, reason } = event {
        say(&format!(
            "{disk} has stopped the machine: {reason}; it is paused. Mend the cause (a full host: make room): it tries \
             again every {} s. To end it, press Ctrl-] twice or end this process",
            RETRY.as_secs()
        ));
    }
}

fn probe_host() -> ExitCode {
    match probe::choose(Accel::Auto) {
        Ok((_, report)) => {
            drop(writeln!(io::stdout(), "{report}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&error_chain(&error));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

impl Run {
    fn execute(self) -> ExitCode {
        let (screen, out) = match Screen::start() {
            Ok(started) => started,
            Err(error) => {
                say(&format!("start the console: {error}"));
                return ExitCode::from(EXIT_FAILED);
            }
        };
        let end = self.run(out);
        screen.drain();
        match end {
            Ok(MachineEnd::PoweredOff) => ExitCode::SUCCESS,
            Ok(MachineEnd::Killed) => ExitCode::from(EXIT_KILLED),
            Ok(MachineEnd::Failed(why)) => {
                say(&why);
                ExitCode::from(EXIT_FAILED)
            }
            Err(error) => {
                say(&error_chain(&error));
                ExitCode::from(EXIT_FAILED)
            }
        }
    }

    fn run(self, out: console::Output) -> Result<MachineEnd, MachineError> {
        let room = Arc::new(Room::default());
        let io = MachineIo {
            serial_out: Box::new(out),
            serial_room: Some(Arc::clone(&room) as _),
            debug_out: Box::new(Discard),
        };
        let machine = Machine::start(self.config(), io)?;
        let report = machine.backend();
        say(&format!("{report}"));
        let keyboard = Keyboard::attach(machine.clone(), room);
        if keyboard.is_terminal() {
            say("Ctrl-] presses the power button, a second Ctrl-] switches the machine off");
        }
        machine.watch_and_retry(tell);
        Ok(machine.wait())
    }

    fn config(self) -> MachineConfig {
        let boot = match (self.kernel, self.firmware) {
            (_, Some(image)) => BootSource::Firmware { image },
            (kernel, None) => BootSource::Kernel {
                kernel: kernel.unwrap_or_default(),
                initrd: self.initrd,
                cmdline: self.cmdline,
            },
        };
        let disks = self.disks.into_iter().enumerate();
        MachineConfig {
            name: "vmm".to_owned(),
            cpus: CpuConfig {
                sockets: 1,
                cores: self.cpus,
                threads: 1,
                model: self.cpu_model,
                features: Vec::new(),
            },
            memory: MemoryConfig {
                len_bytes: self.memory,
                hugepage_bytes: self.hugepages,
                prefault: self.prefault,
                shared: false,
            },
            boot,
            disks: disks.map(|(index, disk)| disk.config(index)).collect(),
            console_ports: Vec::new(),
            rng: true,
            pvpanic: true,
            smbios: SmbiosConfig::default(),
            accel: self.accel.into(),
            start_paused: false,
        }
    }
}
