//! The 8254 interval timer, with port 0x61 (Intel 8254 data sheet; NMI status and control register,
//! ICH9 data sheet §13.7.1).

mod counter;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bus::{PortIo, read_ports, write_ports};
use crate::clock::Clock;
use crate::interrupt::{IrqLine, Wake};
use crate::lifecycle::{Device, RestoreError, SaveError, SavedDevice};
use crate::lock::Lock;
use crate::timer::TimerSource;
use counter::{Access, Counter, ticks_of_ns};

const KIND: &str = "i8254";
const VERSION: u32 = 1;
const COUNTER_0: u16 = 0x40;
const COUNTER_2: u16 = 0x42;
const CONTROL: u16 = 0x43;
/// NMI status and control: gate and output of counter 2, the speaker, and the refresh toggle.
const PORT_B: u16 = 0x61;
const GATE_2: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;
const REFRESH: u8 = 1 << 4;
const OUTPUT_2: u8 = 1 << 5;
/// Ticks between memory refreshes, which software of old counted to tell time.
const REFRESH_TICKS: u64 = 18;
/// Shortest time between interrupts: a guest that asks for more would busy the timer thread.
const MIN_EVENT_NS: u64 = 100_000;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chip {
    counters: [Counter; 3],
    port_b: u8,
    last_fired_ns: u64,
}

impl Chip {
    fn fresh() -> Self {
        let counters = [
            Counter::fresh(true),
            Counter::fresh(true),
            Counter::fresh(false),
        ];
        Self {
            counters,
            port_b: 0,
            last_fired_ns: 0,
        }
    }

    fn read(&mut self, port: u16, now_ns: u64) -> u8 {
        match port {
            COUNTER_0..=COUNTER_2 => self.counters[usize::from(port - COUNTER_0)].read(now_ns),
            PORT_B => {
                let refresh = ticks_of_ns(now_ns) / REFRESH_TICKS % 2 == 1;
                let output = self.counters[2].output(now_ns);
                self.port_b | if refresh { REFRESH } else { 0 } | if output { OUTPUT_2 } else { 0 }
            }
            _ => 0xff,
        }
    }

    fn write(&mut self, port: u16, value: u8, now_ns: u64) {
        match port {
            COUNTER_0..=COUNTER_2 => {
                self.counters[usize::from(port - COUNTER_0)].write(value, now_ns);
            }
            CONTROL => self.write_control(value, now_ns),
            PORT_B => {
                self.port_b = value & (GATE_2 | SPEAKER);
                self.counters[2].set_gate(value & GATE_2 != 0, now_ns);
            }
            _ => {}
        }
    }

    fn write_control(&mut self, value: u8, now_ns: u64) {
        match (value >> 6, value >> 4 & 3) {
            (3, _) => self.read_back(value, now_ns),
            (at, 0) => self.counters[usize::from(at)].latch_count(now_ns),
            (at, _) => self.counters[usize::from(at)].write_control(value),
        }
    }

    fn read_back(&mut self, value: u8, now_ns: u64) {
        let named = (0..3).filter(|at| value & 2 << at != 0);
        for at in named {
            if value & 0x20 == 0 {
                self.counters[at].latch_count(now_ns);
            }
            if value & 0x10 == 0 {
                self.counters[at].latch_status(now_ns);
            }
        }
    }

    fn next_event_ns(&self) -> Option<u64> {
        let due_ns = self.counters[0].next_rise_ns()?;
        Some(due_ns.max(self.last_fired_ns.saturating_add(MIN_EVENT_NS)))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CounterState {
    mode: u8,
    access: u8,
    bcd: bool,
    initial: u16,
    low_written: Option<u8>,
    high_is_next: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    null_count: bool,
    gate: bool,
    done: u64,
    since_ns: Option<u64>,
    signalled: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChipState {
    counters: [CounterState; 3],
    port_b: u8,
    last_fired_ns: u64,
}

impl From<Counter> for CounterState {
    fn from(counter: Counter) -> Self {
        Self {
            mode: counter.mode,
            access: match counter.access {
                Access::Low => 1,
                Access::High => 2,
                Access::LowThenHigh => 3,
            },
            bcd: counter.bcd,
            initial: counter.initial,
            low_written: counter.low_written,
            high_is_next: counter.high_is_next,
            latched_count: counter.latched_count,
            latched_status: counter.latched_status,
            null_count: counter.null_count,
            gate: counter.gate,
            done: counter.done,
            since_ns: counter.since_ns,
            signalled: counter.signalled,
        }
    }
}

impl CounterState {
    fn counter(self) -> Result<Counter, RestoreError> {
        let refused = |field| RestoreError::Field {
            kind: KIND.to_owned(),
            field,
        };
        let counter = Counter {
            mode: Some(self.mode)
                .filter(|mode| *mode <= 5)
                .ok_or(refused("mode"))?,
            access: match self.access {
                1 => Access::Low,
                2 => Access::High,
                3 => Access::LowThenHigh,
                _ => return Err(refused("access")),
            },
            bcd: self.bcd,
            initial: self.initial,
            low_written: self.low_written,
            high_is_next: self.high_is_next,
            latched_count: self.latched_count,
            latched_status: self.latched_status,
            null_count: self.null_count,
            gate: self.gate,
            done: self.done,
            since_ns: self.since_ns,
            signalled: self.signalled.min(u64::MAX - 1),
        };
        if counter.period() == 0 {
            return Err(refused("initial"));
        }
        Ok(counter)
    }
}

/// The interval timer on ports 0x40 to 0x43 and 0x61; counter 0 interrupts.
pub struct Pit {
    chip: Lock<Chip>,
    clock: Arc<dyn Clock>,
    timer: Arc<dyn Wake>,
    irq: IrqLine,
}

impl Pit {
    /// Makes a timer as after power-on. `timer` is woken when the next interrupt moves.
    pub fn new(clock: Arc<dyn Clock>, timer: Arc<dyn Wake>, irq: IrqLine) -> Self {
        Self {
            chip: Lock::new(Chip::fresh()),
            clock,
            timer,
            irq,
        }
    }
}

impl PortIo for Pit {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        let now_ns = self.clock.now_ns();
        read_ports(port, data, |port| self.chip.get().read(port, now_ns));
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        let now_ns = self.clock.now_ns();
        let moved = {
            let mut chip = self.chip.get();
            let before = chip.next_event_ns();
            write_ports(port, data, |port, value| chip.write(port, value, now_ns));
            before != chip.next_event_ns()
        };
        if moved {
            self.timer.wake();
        }
    }
}

impl TimerSource for Pit {
    fn next_event_ns(&self) -> Option<u64> {
        self.chip.get().next_event_ns()
    }

    fn fire(&self, now_ns: u64) {
        let rises = {
            let mut chip = self.chip.get();
            let rises = chip.counters[0].signal(now_ns);
            if rises {
                chip.last_fired_ns = now_ns;
            }
            rises
        };
        if rises {
            self.irq.pulse();
        }
    }
}

impl Device for Pit {
    fn name(&self) -> &'static str {
        "pit"
    }

    fn reset(&self) {
        *self.chip.get() = Chip::fresh();
        self.timer.wake();
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        let chip = self.chip.get().clone();
        let state = ChipState {
            counters: chip.counters.map(CounterState::from),
            port_b: chip.port_b,
            last_fired_ns: chip.last_fired_ns,
        };
        SavedDevice::new(KIND, VERSION, &state)
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: ChipState = saved.open(KIND, VERSION)?;
        let [first, second, third] = state.counters;
        let counters = [first.counter()?, second.counter()?, third.counter()?];
        let port_b = state.port_b & (GATE_2 | SPEAKER);
        *self.chip.get() = Chip {
            counters,
            port_b,
            last_fired_ns: state.last_fired_ns,
        };
        self.timer.wake();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
