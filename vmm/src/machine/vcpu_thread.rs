//! The thread of one vCPU: runs it, parks it, and does jobs on it while it is parked.

use std::fs;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, gettid};

use super::MachineError;
use super::stats::VcpuStats;
use crate::hv::{HvError, Kick, Vcpu, VcpuExit};

type Job = Box<dyn FnOnce(&mut dyn Vcpu) + Send>;

#[derive(Default)]
struct Orders {
    run: bool,
    quit: bool,
    /// The thread is outside the guest.
    parked: bool,
    /// The thread has ended; it will never take another order.
    gone: bool,
    job: Option<Job>,
}

#[derive(Default)]
struct Shared {
    orders: Mutex<Orders>,
    signal: Condvar,
    thread: OnceLock<Pid>,
    first_run: OnceLock<Instant>,
}

enum Order {
    Run,
    Do(Job),
    Quit,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.lock());
        self.signal.notify_all();
    }

    /// Waits for the next order; the thread is parked meanwhile.
    fn next(&self) -> Order {
        let mut orders = self.lock();
        loop {
            if orders.quit {
                return Order::Quit;
            }
            if let Some(job) = orders.job.take() {
                return Order::Do(job);
            }
            if orders.run {
                orders.parked = false;
                return Order::Run;
            }
            orders.parked = true;
            self.signal.notify_all();
            orders = self
                .signal
                .wait(orders)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn wait_parked(&self) {
        let mut orders = self.lock();
        while !orders.parked && !orders.gone {
            orders = self
                .signal
                .wait(orders)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Tells those who wait that the thread has ended, also by a panic.
struct Gone(Arc<Shared>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.change(|orders| {
            orders.gone = true;
            orders.job = None;
        });
    }
}

/// Looks at a vCPU's thread without waiting for it.
#[derive(Clone)]
pub(super) struct VcpuWatch(Arc<Shared>);

impl VcpuWatch {
    /// Tells when the vCPU first entered the guest.
    pub(super) fn first_run(&self) -> Option<Instant> {
        self.0.first_run.get().copied()
    }

    pub(super) fn stats(&self) -> VcpuStats {
        let Some(thread) = self.0.thread.get() else {
            return VcpuStats::default();
        };
        let is_parked = self.0.lock().parked;
        VcpuStats {
            halted: !is_parked && sleeps(*thread),
            cpu_time_ns: cpu_time_ns(*thread),
        }
    }
}

/// Tells whether a thread of this process sleeps: a vCPU's sleeps while its guest halts.
fn sleeps(thread: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
    let stat = stat.unwrap_or_default();
    // The name before the state may hold anything but ends with the last parenthesis (proc_pid_stat(5)).
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// Returns the CPU time of a thread of this process.
fn cpu_time_ns(thread: Pid) -> u64 {
    // The clock of a thread is named by its number's complement, "of a thread" and "as scheduled"
    // (Linux `include/linux/posix-timers_types.h`).
    let clock = ClockId::from_raw((!thread.as_raw() << 3) | 6);
    let Ok(time) = clock_gettime(clock) else {
        return 0;
    };
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec()) * 1_000_000_000 + part(time.tv_nsec())
}

/// A vCPU's thread, as the machine's owner holds it.
pub(super) struct VcpuThread {
    shared: Arc<Shared>,
    kick: Arc<dyn Kick>,
    thread: Option<JoinHandle<()>>,
}

impl VcpuThread {
    /// Starts the thread, parked. `on_exit` learns of every return that is no kick; the vCPU is
    /// parked by then.
    pub(super) fn spawn(
        id: u32,
        vcpu: Box<dyn Vcpu>,
        on_exit: impl Fn(Result<VcpuExit, HvError>) + Send + 'static,
    ) -> Result<Self, MachineError> {
        let shared = Arc::new(Shared::default());
        let kick = vcpu.kicker();
        let name = format!("vcpu-{id}");
        let gone = Gone(Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name(name.clone())
            .spawn(move || serve(&gone, vcpu, on_exit))
            .map_err(|source| MachineError::Thread { name, source })?;
        Ok(Self {
            shared,
            kick,
            thread: Some(thread),
        })
    }

    /// Returns what looks at the thread.
    pub(super) fn watch(&self) -> VcpuWatch {
        VcpuWatch(Arc::clone(&self.shared))
    }

    /// Lets the vCPU run.
    pub(super) fn run(&self) {
        self.shared.change(|orders| {
            orders.run = true;
            orders.parked = false;
        });
    }

    /// Asks the vCPU to stop; [`VcpuThread::wait_parked`] waits for it.
    pub(super) fn park(&self) {
        self.shared.change(|orders| orders.run = false);
        self.kick.kick();
    }

    /// Waits until the vCPU is outside the guest.
    pub(super) fn wait_parked(&self) {
        self.shared.wait_parked();
    }

    /// Does something on the parked vCPU; `None` if its thread has ended.
    pub(super) fn with<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut dyn Vcpu) -> R + Send + 'static,
    ) -> Option<R> {
        let (answer, answered) = sync_channel(1);
        self.shared.change(|orders| {
            if !orders.gone {
                orders.job = Some(Box::new(move |vcpu| {
                    // The owner waits for the answer below.
                    drop(answer.send(job(vcpu)));
                }));
            }
        });
        answered.recv().ok()
    }
}

impl Drop for VcpuThread {
    fn drop(&mut self) {
        self.shared.change(|orders| orders.quit = true);
        self.kick.kick();
        if let Some(thread) = self.thread.take() {
            // A panic has been reported by the panic hook.
            drop(thread.join());
        }
    }
}

fn serve(gone: &Gone, mut vcpu: Box<dyn Vcpu>, on_exit: impl Fn(Result<VcpuExit, HvError>)) {
    let shared = &gone.0;
    shared.thread.get_or_init(gettid);
    loop {
        match shared.next() {
            Order::Quit => return,
            Order::Do(job) => job(vcpu.as_mut()),
            Order::Run => {
                shared.first_run.get_or_init(Instant::now);
                match vcpu.run() {
                    Ok(VcpuExit::Kicked) => {}
                    exit => {
                        shared.change(|orders| orders.run = false);
                        on_exit(exit);
                    }
                }
            }
        }
    }
}
