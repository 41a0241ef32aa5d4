//! Tells which console ports programs in the guest have open.
//!
//! The console keeps that to itself, but for its saved form: it is looked at whenever the worker has done something.

use std::sync::Arc;

use devices::RestoreError;
use devices::virtio::{
    ConfigChange, Console, DeviceType, QueueWorker, RingError, Rings, Turn, VirtioDevice,
    WorkerPlan,
};
use nix::poll::PollFd;
use serde_json::Value;

/// Learns the name of a port that a program in the guest has opened or closed, on the worker's thread.
pub(crate) type OnPort = Arc<dyn Fn(&str, bool) + Send + Sync>;

/// A console whose ports are watched. It has no port 0.
pub(super) struct WatchedConsole {
    console: Console,
    names: Vec<String>,
    on_port: OnPort,
}

impl WatchedConsole {
    pub(super) fn new(console: Console, names: Vec<String>, on_port: OnPort) -> Self {
        Self {
            console,
            names,
            on_port,
        }
    }
}

impl VirtioDevice for WatchedConsole {
    fn device_type(&self) -> DeviceType {
        self.console.device_type()
    }

    fn class(&self) -> [u8; 3] {
        self.console.class()
    }

    fn features(&self) -> u64 {
        self.console.features()
    }

    fn queue_sizes(&self) -> Vec<u16> {
        self.console.queue_sizes()
    }

    fn take_workers(&self) -> Vec<WorkerPlan> {
        let plans = self.console.take_workers().into_iter();
        let watch = |plan: WorkerPlan| WorkerPlan {
            worker: Box::new(Watching {
                worker: plan.worker,
                ports: self
                    .names
                    .iter()
                    .map(|name| (name.clone(), false))
                    .collect(),
                on_port: Arc::clone(&self.on_port),
            }),
            ..plan
        };
        plans.map(watch).collect()
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        self.console.config_read(offset, data);
    }

    fn config_write(&self, offset: u64, data: &[u8]) {
        self.console.config_write(offset, data);
    }

    fn set_config_change(&self, change: ConfigChange) {
        self.console.set_config_change(change);
    }

    fn reset(&self) {
        self.console.reset();
    }
}

/// A worker whose ports are looked at after everything that it does.
struct Watching {
    worker: Box<dyn QueueWorker>,
    /// Each port's name and whether it was open when it was looked at last.
    ports: Vec<(String, bool)>,
    on_port: OnPort,
}

impl Watching {
    fn look(&mut self) {
        let state = self.worker.save();
        let is_open = |port: &Value| port["guest_open"].as_bool().unwrap_or(false);
        let now = state["ports"].as_array().into_iter().flatten().map(is_open);
        for ((name, before), now) in self.ports.iter_mut().zip(now) {
            if *before != now {
                *before = now;
                (self.on_port)(name, now);
            }
        }
    }
}

impl QueueWorker for Watching {
    fn start(&mut self, features: u64) {
        self.worker.start(features);
        self.look();
    }

    fn serve(&mut self, rings: &mut Rings, turn: &Turn<'_>) -> Result<(), RingError> {
        let served = self.worker.serve(rings, turn);
        self.look();
        served
    }

    fn watch(&self) -> Vec<PollFd<'_>> {
        self.worker.watch()
    }

    fn reset(&mut self) {
        self.worker.reset();
        self.look();
    }

    fn save(&self) -> Value {
        self.worker.save()
    }

    fn restore(&mut self, state: &Value) -> Result<(), RestoreError> {
        let restored = self.worker.restore(state);
        self.look();
        restored
    }
}
