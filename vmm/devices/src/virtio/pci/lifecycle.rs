//! Reset, pause, save and restore of a virtio device.

use serde::{Deserialize, Serialize};

use super::{Inner, VirtioPci};
use crate::lifecycle::{Device, RestoreError, SaveError, SavedDevice};
use crate::pci::{ConfigSpaceState, MsixState};
use crate::virtio::registers::RegistersState;
use crate::virtio::worker::Slot;

const VERSION: u32 = 1;

/// The saved form of a virtio device.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    config: ConfigSpaceState,
    msix: MsixState,
    isr: u8,
    generation: u8,
    needs_reset: bool,
    registers: RegistersState,
    workers: Vec<serde_json::Value>,
}

impl VirtioPci {
    fn refused(&self, field: &'static str) -> RestoreError {
        RestoreError::Field {
            kind: self.kind.clone(),
            field,
        }
    }

    fn set_paused(&self, paused: bool) {
        {
            let mut inner = self.inner.get();
            inner.paused = paused;
            self.settle(&mut inner);
        }
        self.signals.flush();
    }

    fn apply(&self, inner: &mut Inner, state: &State) -> Result<(), RestoreError> {
        let mut config = inner.config.clone();
        config.restore(&state.config)?;
        let mut registers = inner.registers.clone();
        registers
            .restore(&state.registers)
            .map_err(|field| self.refused(field))?;
        if state.workers.len() != inner.slots.len() {
            return Err(self.refused("workers"));
        }
        let old = self.signals.msix().save();
        self.signals.msix().restore(&state.msix)?;
        let mut pairs = inner.slots.iter_mut().zip(&state.workers);
        let restored = pairs.try_for_each(|(slot, saved)| match slot.idle() {
            Some(worker) => worker.restore(saved),
            None => Err(self.refused("workers")),
        });
        if let Err(error) = restored {
            self.signals.msix().restore(&old)?;
            return Err(error);
        }
        inner.config = config;
        inner.registers = registers;
        self.signals
            .restore(state.isr, state.generation, state.needs_reset);
        Ok(())
    }
}

impl Device for VirtioPci {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&self) {
        let mut inner = self.inner.get();
        self.reset_virtio(&mut inner);
        inner.config.reset();
        self.signals.msix().reset();
        drop(inner);
        self.signals.set_pin_disabled(false);
        self.signals.flush();
    }

    fn pause(&self) {
        self.set_paused(true);
    }

    fn resume(&self) {
        self.set_paused(false);
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        let mut inner = self.inner.get();
        if !inner.slots.iter().all(Slot::is_idle) {
            let reason = "its queues are being served: pause it first";
            return Err(SaveError::Busy {
                name: self.name.clone(),
                reason,
            });
        }
        let workers = inner.slots.iter_mut().filter_map(Slot::idle);
        let workers = workers.map(|worker| worker.save()).collect();
        let state = State {
            config: inner.config.save(),
            msix: self.signals.msix().save(),
            isr: self.signals.isr(),
            generation: self.signals.generation(),
            needs_reset: self.signals.needs_reset(),
            registers: inner.registers.save(),
            workers,
        };
        SavedDevice::new(&self.kind, VERSION, &state)
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: State = saved.open(&self.kind, VERSION)?;
        {
            let mut inner = self.inner.get();
            self.stop_all(&mut inner);
            let applied = self.apply(&mut inner, &state);
            if applied.is_err() {
                self.settle(&mut inner);
                return applied;
            }
        }
        self.config_changed();
        Ok(())
    }
}
