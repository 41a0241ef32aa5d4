//! A running machine: its threads, its life, and the handle by which others command it.
//!
//! ```text
//!              start            pause
//!   (nothing) -------> running <------> paused
//!                       |  ^  resume
//!             guest or  |  | boot source loaded again
//!             reset()   v  |
//!                     resetting          power-off, kill, failure: ended
//! ```
//!
//! The thread `machine` owns this state. It takes commands from [`MachineHandle`]s, events from the
//! board and exits from the threads `vcpu-N` through one bounded channel.

mod dump;
mod event;
mod owner;
mod reset_limit;
mod retry;
mod stats;
mod vcpu_thread;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use devices::clock::MachineClock;
use devices::uart::Uart;
use devices::virtio::blk::OnDiskError;
use devices::virtio::console::OnPort;
use devices::virtio::scsi::OnEject;
use devices::virtio::{DiskEvent, DiskHandle};
pub use devices::{ConsoleOut, Wake};
use devices::{PlatformEvent, PlatformSink};

use self::dump::Frozen;
use self::event::EventLog;
pub use self::event::{MachineEnd, MachineEvent};
use self::owner::Owner;
pub use self::retry::RETRY;
use self::stats::Meter;
pub use self::stats::{DiskStats, MachineStats, MemoryStats, VcpuStats};
use self::vcpu_thread::VcpuThread;
use crate::board::{Board, BoardError, BoardSetup, open_medium};
use crate::boot::{self, BootError};
use crate::config::{BootSource, ConfigError, DiskConfig, DiskKind, DiskSource, MachineConfig};
use crate::error_chain;
use crate::hv::{self, HvError, Vm, VmSetup};
use crate::memory::{MemoryError, Ram};
use crate::probe::{self, BackendReport};

/// Commands and events that wait for the owner; a guest that floods it loses its own events.
const COMMANDS_MAX: usize = 256;

/// Why a machine cannot be started, or a command cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The configuration is wrong.
    #[error("check the machine")]
    Config(#[from] ConfigError),
    /// Guest RAM cannot be had.
    #[error("give the guest its memory")]
    Memory(#[from] MemoryError),
    /// The back end cannot be used.
    #[error("set up the CPUs")]
    Hypervisor(#[from] HvError),
    /// The board cannot be built.
    #[error("set up the devices")]
    Board(#[from] BoardError),
    /// The boot source cannot be used.
    #[error("load what the guest starts with")]
    Boot(#[from] BootError),
    /// The host has no threads to give.
    #[error("start the thread {name}")]
    Thread {
        /// The thread's name.
        name: String,
        /// The host's answer.
        source: io::Error,
    },
    /// The machine has ended.
    #[error("command the machine: it has ended")]
    Ended,
    /// A disk cannot do what is asked.
    #[error("change the disk {disk}: {problem}")]
    Disk {
        /// The disk's name.
        disk: String,
        /// Why not.
        problem: String,
    },
    /// The memory dump cannot be written.
    #[error("dump the guest's memory to {}", path.display())]
    Dump {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
}

/// What connects a machine with its surroundings.
pub struct MachineIo {
    /// Takes what the guest sends on its serial port.
    pub serial_out: Box<dyn ConsoleOut>,
    /// Is called when [`MachineHandle::serial_input`] took less than offered and there is room again.
    pub serial_room: Option<Arc<dyn Wake>>,
    /// Takes what firmware sends to the debug ports.
    pub debug_out: Box<dyn ConsoleOut>,
}

/// Takes bytes and forgets them.
pub struct Discard;

impl ConsoleOut for Discard {
    fn write(&mut self, _bytes: &[u8]) {}
}

/// What the owner is told.
enum Command {
    Pause(SyncSender<()>),
    Resume(SyncSender<()>),
    BeginDump(SyncSender<Frozen>),
    EndDump,
    Reset,
    PowerButton,
    Nmi,
    Kill,
    Platform(PlatformEvent),
    Disk(DiskEvent),
    Ejected(String),
    /// Something is in [`Orders`].
    LookAtOrders,
    Exit(u32, Result<hv::VcpuExit, HvError>),
}

/// What the owner is told beside its commands, because it must not be lost when too many are waiting.
#[derive(Default)]
struct Orders {
    reset_on_power_off: AtomicBool,
    /// Requests that wait for a pause; a disk adds one for each of its queues before it is paused.
    stopped_disks: Mutex<Vec<DiskEvent>>,
    /// Ports that were opened or closed: the last two changes of each, as a port that is open all the same may be
    /// another program's.
    changed_ports: Mutex<Vec<(String, bool)>>,
}

impl Orders {
    fn take_reset_on_power_off(&self) -> bool {
        self.reset_on_power_off.swap(false, Ordering::Relaxed)
    }

    fn stopped_disks(&self) -> MutexGuard<'_, Vec<DiskEvent>> {
        self.stopped_disks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn changed_ports(&self) -> MutexGuard<'_, Vec<(String, bool)>> {
        self.changed_ports
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn port_changed(&self, name: &str, open: bool) {
        let mut changed = self.changed_ports();
        let is_its = |(other, _): &(String, bool)| other == name;
        if changed.iter().filter(|change| is_its(change)).count() > 1
            && let Some(oldest) = changed.iter().position(is_its)
        {
            changed.remove(oldest);
        }
        changed.push((name.to_owned(), open));
    }

    fn take_changed_ports(&self) -> Vec<(String, bool)> {
        std::mem::take(&mut *self.changed_ports())
    }

    fn take_stopped_disks(&self) -> Vec<DiskEvent> {
        std::mem::take(&mut *self.stopped_disks())
    }
}

/// How the machine ended, once it has.
#[derive(Default)]
struct Finish {
    end: Mutex<Option<MachineEnd>>,
    signal: Condvar,
}

impl Finish {
    fn set(&self, end: MachineEnd) {
        let mut slot = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(end);
        self.signal.notify_all();
    }

    fn wait(&self) -> MachineEnd {
        let mut slot = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(end) = slot.clone() {
                return end;
            }
            slot = self
                .signal
                .wait(slot)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Makes machines.
#[derive(Debug)]
pub struct Machine;

impl Machine {
    /// Builds a machine and lets it run. The guest runs when this returns.
    ///
    /// # Errors
    /// If the configuration is wrong, a file cannot be used, or the host refuses.
    pub fn start(config: MachineConfig, io: MachineIo) -> Result<MachineHandle, MachineError> {
        config.validate()?;
        let (hypervisor, report) = probe::choose(config.accel)?;
        let ram = match &config.boot {
            BootSource::Kernel { .. } => Ram::new(&config.memory)?,
            BootSource::Firmware { image } => {
                Ram::with_rom(&config.memory, boot::rom_len_bytes(image)?)?
            }
        };
        let clock = Arc::new(MachineClock::new());
        let vm = hypervisor.create_vm(&VmSetup {
            ram: &ram,
            cpus: &config.cpus,
            clock: Arc::clone(&clock),
        })?;
        let (commands, inbox) = sync_channel(COMMANDS_MAX);
        let orders = Arc::new(Orders::default());
        let board = Board::new(BoardSetup {
            config: &config,
            ram: &ram,
            vm: &vm,
            clock,
            platform: Arc::new(Outbox(commands.clone())),
            serial_out: io.serial_out,
            debug_out: io.debug_out,
            on_disk_error: on_disk_error(commands.clone(), Arc::clone(&orders)),
            on_eject: on_eject(commands.clone()),
            on_port: on_port(commands.clone(), Arc::clone(&orders)),
        })?;
        if let Some(room) = io.serial_room {
            board.serial().connect_room(room);
        }
        let vcpus = start_vcpus(&config, vm.as_ref(), &board, &commands)?;
        let image = Image { config, ram };
        let serial = Arc::clone(board.serial());
        let owner = Owner::new(image, vm, board, vcpus, inbox, Arc::clone(&orders));
        MachineHandle::spawn(owner, commands, orders, serial, report)
    }
}

/// Sends the board's events to the owner.
struct Outbox(SyncSender<Command>);

impl PlatformSink for Outbox {
    fn notify(&self, event: PlatformEvent) {
        send_or_drop(&self.0, Command::Platform(event));
    }
}

/// Never blocks: what a guest causes faster than it is handled is dropped.
fn send_or_drop(commands: &SyncSender<Command>, command: Command) {
    if let Err(TrySendError::Full(_)) = commands.try_send(command) {
        tracing::warn!("an event of the guest was dropped: too many are waiting");
    }
}

fn on_disk_error(commands: SyncSender<Command>, orders: Arc<Orders>) -> OnDiskError {
    Arc::new(move |event: DiskEvent| {
        if event.stopped {
            orders.stopped_disks().push(event);
            // An owner with too many commands looks after the next of them.
            drop(commands.try_send(Command::LookAtOrders));
        } else {
            send_or_drop(&commands, Command::Disk(event));
        }
    })
}

fn on_eject(commands: SyncSender<Command>) -> OnEject {
    Arc::new(move |disk| send_or_drop(&commands, Command::Ejected(disk.to_owned())))
}

fn on_port(commands: SyncSender<Command>, orders: Arc<Orders>) -> OnPort {
    Arc::new(move |name, open| {
        orders.port_changed(name, open);
        // An owner with too many commands looks after the next of them.
        drop(commands.try_send(Command::LookAtOrders));
    })
}

fn start_vcpus(
    config: &MachineConfig,
    vm: &dyn Vm,
    board: &Arc<Board>,
    commands: &SyncSender<Command>,
) -> Result<Vec<VcpuThread>, MachineError> {
    let seen = Arc::clone(board) as Arc<dyn hv::Board>;
    vm.connect(&seen);
    (0..config.cpus.count())
        .map(|id| {
            let vcpu = vm.create_vcpu(id, Arc::clone(&seen))?;
            let commands = commands.clone();
            let on_exit = move |exit| {
                // An owner that is gone has no use for it.
                drop(commands.send(Command::Exit(id, exit)));
            };
            VcpuThread::spawn(id, vcpu, on_exit)
        })
        .collect()
}

/// What a machine starts from, each time.
struct Image {
    config: MachineConfig,
    ram: Ram,
}

impl Image {
    /// Fills guest RAM; returns the boot processor's first state.
    fn load(&self) -> Result<hv::CpuState, MachineError> {
        Ok(boot::load(&self.config, &self.ram)?)
    }
}

fn refused_disk(disk: &str, problem: &str) -> MachineError {
    MachineError::Disk {
        disk: disk.to_owned(),
        problem: problem.to_owned(),
    }
}

/// Lets the machine go on after a dump of its memory.
struct Thaw<'a>(&'a SyncSender<Command>);

impl Drop for Thaw<'_> {
    fn drop(&mut self) {
        // A machine that was killed meanwhile does not go on.
        drop(self.0.send(Command::EndDump));
    }
}

/// Commands a machine. Dropping the last clone kills it.
#[derive(Clone)]
pub struct MachineHandle {
    commands: SyncSender<Command>,
    orders: Arc<Orders>,
    meter: Arc<Meter>,
    serial: Arc<Uart>,
    events: Arc<EventLog>,
    finish: Arc<Finish>,
    report: Arc<BackendReport>,
    _life: Arc<Life>,
}

/// Kills the machine when the last handle is gone.
struct Life(SyncSender<Command>);

impl Drop for Life {
    fn drop(&mut self) {
        // A machine that has ended needs no killing.
        drop(self.0.send(Command::Kill));
    }
}

impl MachineHandle {
    fn spawn(
        mut owner: Owner,
        commands: SyncSender<Command>,
        orders: Arc<Orders>,
        serial: Arc<Uart>,
        report: BackendReport,
    ) -> Result<Self, MachineError> {
        owner.start()?;
        let (events, meter) = (owner.events(), owner.meter());
        let finish = Arc::new(Finish::default());
        let done = Arc::clone(&finish);
        thread::Builder::new()
            .name("machine".to_owned())
            .spawn(move || {
                let end = owner.run();
                done.set(end);
            })
            .map_err(|source| MachineError::Thread {
                name: "machine".to_owned(),
                source,
            })?;
        Ok(Self {
            _life: Arc::new(Life(commands.clone())),
            commands,
            orders,
            meter,
            serial,
            events,
            finish,
            report: Arc::new(report),
        })
    }

    /// Offers input to the guest's serial port; returns how many bytes were taken.
    #[must_use]
    pub fn serial_input(&self, bytes: &[u8]) -> usize {
        self.serial.push_input(bytes)
    }

    fn send(&self, command: Command) -> Result<(), MachineError> {
        self.commands.send(command).map_err(|_| MachineError::Ended)
    }

    fn ask<R>(&self, command: impl FnOnce(SyncSender<R>) -> Command) -> Result<R, MachineError> {
        let (answer, answered) = sync_channel(1);
        self.send(command(answer))?;
        answered.recv().map_err(|_| MachineError::Ended)
    }

    /// Presses the ACPI power button: a guest that listens shuts down.
    ///
    /// # Errors
    /// If the machine has ended.
    pub fn power_button(&self) -> Result<(), MachineError> {
        self.send(Command::PowerButton)
    }

    /// Stops every vCPU and device; returns when all are quiet.
    ///
    /// # Errors
    /// If the machine has ended.
    pub fn pause(&self) -> Result<(), MachineError> {
        self.ask(Command::Pause)
    }

    /// Lets a paused machine go on.
    ///
    /// # Errors
    /// If the machine has ended.
    pub fn resume(&self) -> Result<(), MachineError> {
        self.ask(Command::Resume)
    }

    /// Resets the machine without asking the guest.
    ///
    /// # Errors
    /// If the machine has ended.
    pub fn reset(&self) -> Result<(), MachineError> {
        self.send(Command::Reset)
    }

    /// Sends every vCPU a non-maskable interrupt.
    ///
    /// # Errors
    /// If the machine has ended.
    pub fn inject_nmi(&self) -> Result<(), MachineError> {
        self.send(Command::Nmi)
    }

    /// Ends the machine without asking the guest.
    ///
    /// # Errors
    /// If the machine has ended.
    pub fn kill(&self) -> Result<(), MachineError> {
        self.send(Command::Kill)
    }

    /// Waits for the machine's end.
    #[must_use]
    pub fn wait(&self) -> MachineEnd {
        self.finish.wait()
    }

    /// Returns the machine's events: the latest ones that happened already, then those to come.
    ///
    /// A receiver that falls behind misses events; the machine never waits for one.
    #[must_use]
    pub fn events(&self) -> Receiver<MachineEvent> {
        self.events.subscribe()
    }

    /// Returns what the machine has used so far. Never waits for the machine.
    #[must_use]
    pub fn stats(&self) -> MachineStats {
        self.meter.stats()
    }

    /// Writes the guest's memory and its vCPUs' registers to a new file, an ELF core (ELF64, one `PT_LOAD` for each
    /// range of RAM, one `NT_PRSTATUS` note for each vCPU); returns the file's length in bytes. The machine stands still
    /// meanwhile, which no event tells. Pages of zeroes become holes.
    ///
    /// # Errors
    /// If the machine has ended, or the file cannot be written: what was written of it is removed.
    pub fn dump_memory(&self, path: &Path) -> Result<u64, MachineError> {
        let frozen = self.ask(Command::BeginDump)?;
        let _thaw = Thaw(&self.commands);
        dump::write(path, &frozen).map_err(|source| MachineError::Dump {
            path: path.to_owned(),
            source,
        })
    }

    fn disk(&self, name: &str) -> Result<(DiskHandle, DiskConfig), MachineError> {
        let found = self.meter.disk(name).ok_or(MachineError::Ended)?;
        found.ok_or_else(|| refused_disk(name, "the machine has no such disk"))
    }

    /// Changes the medium of a CD-ROM drive, or takes it out under `None`.
    ///
    /// # Errors
    /// If the machine has ended, has no such drive, or the medium cannot be used.
    pub fn change_medium(
        &self,
        disk: &str,
        source: Option<DiskSource>,
    ) -> Result<(), MachineError> {
        let (handle, mut config) = self.disk(disk)?;
        config.source = source.unwrap_or(DiskSource::Empty);
        if config.kind != DiskKind::Cdrom {
            return Err(refused_disk(disk, "it is no CD-ROM drive"));
        }
        // An image that cannot be used leaves the drive as it is.
        let medium = open_medium(&config);
        let medium = medium.map_err(|error| refused_disk(disk, &error_chain(&error)))?;
        handle
            .change_medium(medium)
            .map_err(|error| refused_disk(disk, &error_chain(&error)))
    }

    /// Looks at a disk's image for its size and tells the guest; returns the size in bytes.
    ///
    /// # Errors
    /// If the machine has ended, has no such disk, or the image cannot change its size.
    pub fn resize_disk(&self, disk: &str) -> Result<u64, MachineError> {
        let (handle, _) = self.disk(disk)?;
        handle
            .resize()
            .map_err(|error| refused_disk(disk, &error_chain(&error)))
    }

    /// Sets whether the machine starts anew at the guest's next power-off instead of ending. With the power button
    /// this makes a guest without an agent reboot. The power-off that it is for clears it.
    pub fn reset_on_power_off(&self, on: bool) {
        self.orders.reset_on_power_off.store(on, Ordering::Relaxed);
    }

    /// Tells when vCPU 0 first entered the guest; `None` while the machine waits to be resumed for the first time.
    #[must_use]
    pub fn first_instruction(&self) -> Option<Instant> {
        self.meter.first_run()
    }

    /// Tells which back end runs the machine, and why.
    #[must_use]
    pub fn backend(&self) -> &BackendReport {
        &self.report
    }
}

#[cfg(test)]
mod tests;
