//! What the queues of a SCSI host share: its targets, its sizes and the events that wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::spec::{DEFAULT_CDB_BYTES, DEFAULT_SENSE_BYTES, F_CHANGE, F_HOTPLUG, event};
use super::unit::{Unit, UnitState};
use crate::lock::Lock;

/// Events that wait for buffers of the driver: one for each target.
const MAX_EVENTS: usize = 64;

/// An event for the driver (virtio 1.3 §5.6.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    pub(super) kind: u32,
    pub(super) target: u8,
    pub(super) reason: u32,
}

/// Events that wait, and whether some were lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Events {
    waiting: VecDeque<Event>,
    missed: bool,
}

/// The saved form of everything that the guest sees besides the rings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BusState {
    features: u64,
    sense_bytes: u32,
    cdb_bytes: u32,
    events: Events,
    units: BTreeMap<u8, UnitState>,
}

/// The shared part. Its locks and those of the units are held for moments, one at a time.
pub(super) struct Bus {
    units: Lock<BTreeMap<u8, Arc<Unit>>>,
    /// What the driver agreed to; zero while there is no driver.
    features: AtomicU64,
    sense_bytes: AtomicU32,
    cdb_bytes: AtomicU32,
    events: Lock<Events>,
    /// Signalled when events wait.
    pub(super) wake: EventFd,
}

impl Bus {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            units: Lock::default(),
            features: AtomicU64::new(0),
            sense_bytes: AtomicU32::new(DEFAULT_SENSE_BYTES),
            cdb_bytes: AtomicU32::new(DEFAULT_CDB_BYTES),
            events: Lock::default(),
            wake: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Adds a unit; tells whether its target was free.
    pub(super) fn add(&self, unit: &Arc<Unit>) -> bool {
        let mut units = self.units.get();
        let is_free = !units.contains_key(&unit.target);
        if is_free {
            units.insert(unit.target, Arc::clone(unit));
        }
        is_free
    }

    /// Removes a unit; tells whether it was there.
    pub(super) fn remove(&self, target: u8) -> bool {
        let unit = self.units.get().remove(&target);
        unit.is_some()
    }

    pub(super) fn unit(&self, target: u8) -> Option<Arc<Unit>> {
        self.units.get().get(&target).cloned()
    }

    fn all(&self) -> Vec<Arc<Unit>> {
        self.units.get().values().cloned().collect()
    }

    /// Returns `sense_size` and `cdb_size`.
    pub(super) fn sizes(&self) -> (u32, u32) {
        (
            self.sense_bytes.load(Ordering::Relaxed),
            self.cdb_bytes.load(Ordering::Relaxed),
        )
    }

    pub(super) fn set_sizes(&self, sense_bytes: u32, cdb_bytes: u32) {
        self.sense_bytes.store(sense_bytes, Ordering::Relaxed);
        self.cdb_bytes.store(cdb_bytes, Ordering::Relaxed);
    }

    /// Takes what the driver agreed to.
    pub(super) fn set_features(&self, features: u64) {
        self.features.store(features, Ordering::Release);
    }

    /// Tells whether a driver agreed to learn of a kind of event.
    fn is_agreed(&self, kind: u32) -> bool {
        let features = self.features.load(Ordering::Acquire);
        match kind {
            event::TRANSPORT_RESET => features & F_HOTPLUG != 0,
            event::PARAM_CHANGE => features & F_CHANGE != 0,
            _ => true,
        }
    }

    /// Has the driver told of an event, if it agreed to learn of such.
    pub(super) fn report(&self, kind: u32, target: u8, reason: u32) {
        if !self.is_agreed(kind) {
            return;
        }
        let event = Event {
            kind,
            target,
            reason,
        };
        {
            let mut events = self.events.get();
            if events.waiting.len() < MAX_EVENTS {
                events.waiting.push_back(event);
            } else {
                events.missed = true;
            }
        }
        if let Err(error) = self.wake.write(1) {
            tracing::debug!(%error, "the SCSI host was woken already");
        }
    }

    /// Tells whether an event waits.
    pub(super) fn has_event(&self) -> bool {
        let events = self.events.get();
        events.missed || !events.waiting.is_empty()
    }

    /// Takes the next event, with the mark that others before it were lost.
    pub(super) fn take_event(&self) -> Option<Event> {
        let mut events = self.events.get();
        let missed = std::mem::take(&mut events.missed);
        let next = events.waiting.pop_front();
        let none = Event {
            kind: event::NO_EVENT,
            target: 0,
            reason: 0,
        };
        match (next, missed) {
            (None, false) => None,
            (next, missed) => {
                let next = next.unwrap_or(none);
                let mark = if missed { event::EVENTS_MISSED } else { 0 };
                Some(Event {
                    kind: next.kind | mark,
                    ..next
                })
            }
        }
    }

    /// Returns to the state after power-on.
    pub(super) fn reset(&self) {
        self.set_features(0);
        self.set_sizes(DEFAULT_SENSE_BYTES, DEFAULT_CDB_BYTES);
        *self.events.get() = Events::default();
        self.all().iter().for_each(|unit| unit.power_on());
    }

    pub(super) fn save(&self) -> BusState {
        let (sense_bytes, cdb_bytes) = self.sizes();
        let units = self.all();
        BusState {
            features: self.features.load(Ordering::Acquire),
            sense_bytes,
            cdb_bytes,
            events: self.events.get().clone(),
            units: units.iter().map(|u| (u.target, u.save())).collect(),
        }
    }

    /// Takes a saved state; an error names the field that cannot be, and changes nothing.
    pub(super) fn restore(&self, state: BusState) -> Result<(), &'static str> {
        let units = self.all();
        let targets = units.iter().map(|unit| unit.target);
        if !targets.eq(state.units.keys().copied()) {
            return Err("units");
        }
        if state.events.waiting.len() > MAX_EVENTS {
            return Err("events");
        }
        if !state.units.values().all(UnitState::is_valid) {
            return Err("attentions");
        }
        self.set_features(state.features);
        self.set_sizes(state.sense_bytes, state.cdb_bytes);
        *self.events.get() = state.events;
        for (unit, (_, state)) in units.iter().zip(state.units) {
            unit.restore(state);
        }
        Ok(())
    }
}
