//! The 8259A interrupt controller pair with its edge/level registers (Intel 8259A data sheet;
//! ELCR as in the ICH9 data sheet §13.4).

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::apic::ExternalInterrupts;
use crate::bus::{PortIo, read_ports, write_ports};
use crate::interrupt::Wake;
use crate::lifecycle::{Device, RestoreError, SaveError, SavedDevice};
use crate::lock::Lock;

const KIND: &str = "i8259";
const VERSION: u32 = 1;
const MASTER: u16 = 0x20;
const SLAVE: u16 = 0xa0;
const ELCR_MASTER: u16 = 0x4d0;
const ELCR_SLAVE: u16 = 0x4d1;
/// The master's input that the slave drives.
const CASCADE: u8 = 2;
const MASTER_SLAVES: u8 = 1 << CASCADE;
/// Interrupts that can be level-triggered: not timer, keyboard and cascade; not RTC and coprocessor.
const ELCR_MASKS: [u8; 2] = [0xf8, 0xde];
/// The input whose vector a vanished request gets.
const SPURIOUS: u8 = 7;

/// The initialization command word that the chip waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Expect {
    Operation,
    Icw2,
    Icw3,
    Icw4,
}

/// One 8259A.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chip {
    lines: u8,
    irr: u8,
    isr: u8,
    imr: u8,
    elcr: u8,
    vector_base: u8,
    /// Inputs that other chips drive: wiring, not state.
    slaves: u8,
    lowest_priority: u8,
    expect: Expect,
    has_icw4: bool,
    single: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_fully_nested: bool,
    special_mask: bool,
    poll: bool,
    read_isr: bool,
}

impl Chip {
    fn fresh(slaves: u8) -> Self {
        Self {
            lines: 0,
            irr: 0,
            isr: 0,
            imr: 0,
            elcr: 0,
            vector_base: 0,
            slaves,
            lowest_priority: 7,
            expect: Expect::Operation,
            has_icw4: false,
            single: false,
            auto_eoi: false,
            rotate_on_auto_eoi: false,
            special_fully_nested: false,
            special_mask: false,
            poll: false,
            read_isr: false,
        }
    }

    fn set_line(&mut self, input: u8, level: bool) {
        let bit = 1 << input;
        let rises = level && self.lines & bit == 0;
        self.lines = if level {
            self.lines | bit
        } else {
            self.lines & !bit
        };
        if self.elcr & bit != 0 {
            self.irr = if level {
                self.irr | bit
            } else {
                self.irr & !bit
            };
        } else if rises {
            self.irr |= bit;
        }
    }

    /// Returns the most urgent of `inputs` and its rank, 0 being the most urgent.
    fn most_urgent(&self, inputs: u8) -> Option<(u8, u8)> {
        let first = self.lowest_priority + 1;
        (0..8)
            .map(|rank| ((first + rank) & 7, rank))
            .find(|(input, _)| inputs & 1 << input != 0)
    }

    /// Returns the input to serve now, if INT is asserted.
    fn pending(&self) -> Option<u8> {
        let (input, rank) = self.most_urgent(self.irr & !self.imr)?;
        let mut in_service = self.isr;
        if self.special_mask {
            in_service &= !self.imr;
        }
        if self.special_fully_nested {
            in_service &= !self.slaves;
        }
        let served = self.most_urgent(in_service).map_or(8, |(_, rank)| rank);
        (rank < served).then_some(input)
    }

    /// Moves an input from requested to in service.
    fn acknowledge(&mut self, input: u8) {
        let bit = 1 << input;
        if self.elcr & bit == 0 {
            self.irr &= !bit;
        }
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_on_auto_eoi {
            self.lowest_priority = input;
        }
    }

    fn vector(&self, input: u8) -> u8 {
        self.vector_base | input
    }

    /// Answers the poll command (8259A "Poll Command").
    fn answer_poll(&mut self) -> u8 {
        self.poll = false;
        let Some(input) = self.pending() else {
            return 0;
        };
        self.acknowledge(input);
        0x80 | input
    }

    fn read(&mut self, a0: bool) -> u8 {
        match (self.poll, a0, self.read_isr) {
            (true, _, _) => self.answer_poll(),
            (false, true, _) => self.imr,
            (false, false, true) => self.isr,
            (false, false, false) => self.irr,
        }
    }

    fn write(&mut self, a0: bool, value: u8) {
        match (a0, value & 0x18) {
            (true, _) => self.write_data(value),
            (false, 0x00) => self.write_ocw2(value),
            (false, 0x08) => self.write_ocw3(value),
            (false, _) => self.write_icw1(value),
        }
    }

    fn write_icw1(&mut self, value: u8) {
        *self = Self {
            lines: self.lines,
            irr: self.lines & self.elcr,
            elcr: self.elcr,
            vector_base: self.vector_base,
            expect: Expect::Icw2,
            has_icw4: value & 1 != 0,
            single: value & 2 != 0,
            ..Self::fresh(self.slaves)
        };
    }

    fn write_data(&mut self, value: u8) {
        let after_icw3 = if self.has_icw4 {
            Expect::Icw4
        } else {
            Expect::Operation
        };
        self.expect = match self.expect {
            Expect::Operation => {
                self.imr = value;
                Expect::Operation
            }
            Expect::Icw2 => {
                self.vector_base = value & 0xf8;
                if self.single {
                    after_icw3
                } else {
                    Expect::Icw3
                }
            }
            // The wiring between the chips is fixed.
            Expect::Icw3 => after_icw3,
            Expect::Icw4 => {
                self.special_fully_nested = value & 0x10 != 0;
                self.auto_eoi = value & 0x02 != 0;
                Expect::Operation
            }
        };
    }

    fn write_ocw2(&mut self, value: u8) {
        let named = value & 7;
        let served = self.most_urgent(self.isr).map(|(input, _)| input);
        match value >> 5 {
            0 => self.rotate_on_auto_eoi = false,
            4 => self.rotate_on_auto_eoi = true,
            1 => self.end(served, false),
            5 => self.end(served, true),
            3 => self.end(Some(named), false),
            7 => self.end(Some(named), true),
            6 => self.lowest_priority = named,
            _ => {}
        }
    }

    fn end(&mut self, input: Option<u8>, rotate: bool) {
        let Some(input) = input else { return };
        self.isr &= !(1 << input);
        if rotate {
            self.lowest_priority = input;
        }
    }

    fn write_ocw3(&mut self, value: u8) {
        if value & 0x40 != 0 {
            self.special_mask = value & 0x20 != 0;
        }
        self.poll = value & 0x04 != 0;
        if value & 0x02 != 0 {
            self.read_isr = value & 0x01 != 0;
        }
    }

    fn write_elcr(&mut self, value: u8) {
        self.elcr = value;
        self.irr = self.irr & !value | self.lines & value;
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    master: Chip,
    slave: Chip,
}

impl Pair {
    fn fresh() -> Self {
        Self {
            master: Chip::fresh(MASTER_SLAVES),
            slave: Chip::fresh(0),
        }
    }

    /// Lets the slave drive its master; returns whether INTR is asserted.
    fn settle(&mut self) -> bool {
        let slave_asks = self.slave.pending().is_some();
        self.master.set_line(CASCADE, slave_asks);
        if !slave_asks {
            self.master.irr &= !(1 << CASCADE);
        }
        self.master.pending().is_some()
    }

    fn acknowledge(&mut self) -> Option<u8> {
        let input = self.master.pending()?;
        self.master.acknowledge(input);
        if input != CASCADE {
            return Some(self.master.vector(input));
        }
        let vector = match self.slave.pending() {
            Some(input) => {
                self.slave.acknowledge(input);
                self.slave.vector(input)
            }
            None => self.slave.vector(SPURIOUS),
        };
        // The request of the slave is an edge to the master: let the next one make a new edge.
        self.master.set_line(CASCADE, false);
        Some(vector)
    }

    /// Returns the vector that an acknowledge cycle would give now.
    fn peek(&self) -> Option<u8> {
        let input = self.master.pending()?;
        if input != CASCADE {
            return Some(self.master.vector(input));
        }
        Some(self.slave.vector(self.slave.pending().unwrap_or(SPURIOUS)))
    }

    fn read(&mut self, port: u16) -> u8 {
        match port {
            MASTER | SLAVE if port & 1 == 0 => self.chip(port).read(false),
            ELCR_MASTER => self.master.elcr,
            ELCR_SLAVE => self.slave.elcr,
            _ => self.chip(port).read(true),
        }
    }

    fn write(&mut self, port: u16, value: u8) {
        match port {
            ELCR_MASTER => self.master.write_elcr(value & ELCR_MASKS[0]),
            ELCR_SLAVE => self.slave.write_elcr(value & ELCR_MASKS[1]),
            _ => self.chip(port).write(port & 1 != 0, value),
        }
    }

    fn chip(&mut self, port: u16) -> &mut Chip {
        if port & 0xfffe == MASTER {
            &mut self.master
        } else {
            &mut self.slave
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChipState {
    lines: u8,
    irr: u8,
    isr: u8,
    imr: u8,
    elcr: u8,
    vector_base: u8,
    lowest_priority: u8,
    expect: Expect,
    has_icw4: bool,
    single: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_fully_nested: bool,
    special_mask: bool,
    poll: bool,
    read_isr: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PairState {
    master: ChipState,
    slave: ChipState,
}

impl From<&Chip> for ChipState {
    fn from(chip: &Chip) -> Self {
        Self {
            lines: chip.lines,
            irr: chip.irr,
            isr: chip.isr,
            imr: chip.imr,
            elcr: chip.elcr,
            vector_base: chip.vector_base,
            lowest_priority: chip.lowest_priority,
            expect: chip.expect,
            has_icw4: chip.has_icw4,
            single: chip.single,
            auto_eoi: chip.auto_eoi,
            rotate_on_auto_eoi: chip.rotate_on_auto_eoi,
            special_fully_nested: chip.special_fully_nested,
            special_mask: chip.special_mask,
            poll: chip.poll,
            read_isr: chip.read_isr,
        }
    }
}

impl ChipState {
    fn chip(self, slaves: u8) -> Result<Chip, RestoreError> {
        if self.lowest_priority > 7 {
            let kind = KIND.to_owned();
            return Err(RestoreError::Field {
                kind,
                field: "lowest_priority",
            });
        }
        Ok(Chip {
            lines: self.lines,
            irr: self.irr,
            isr: self.isr,
            imr: self.imr,
            elcr: self.elcr,
            vector_base: self.vector_base & 0xf8,
            slaves,
            lowest_priority: self.lowest_priority,
            expect: self.expect,
            has_icw4: self.has_icw4,
            single: self.single,
            auto_eoi: self.auto_eoi,
            rotate_on_auto_eoi: self.rotate_on_auto_eoi,
            special_fully_nested: self.special_fully_nested,
            special_mask: self.special_mask,
            poll: self.poll,
            read_isr: self.read_isr,
        })
    }
}

/// The pair of interrupt controllers on ports 0x20, 0xa0 and 0x4d0.
///
/// INTR goes to the virtual wire of the boot processor, which the connected [`Wake`] stands for.
pub struct Pic {
    pair: Lock<Pair>,
    intr: OnceLock<Arc<dyn Wake>>,
}

impl Pic {
    /// Makes a pair as after power-on.
    pub fn new() -> Self {
        Self {
            pair: Lock::new(Pair::fresh()),
            intr: OnceLock::new(),
        }
    }

    /// Connects INTR: `wake` is called whenever it is asserted after a change. Only the first
    /// connection counts.
    pub fn connect(&self, wake: Arc<dyn Wake>) {
        // A second connection would mean a board with two boot processors.
        self.intr.get_or_init(|| wake);
    }

    /// Sets input `irq`, 0 to 15 without 2.
    pub fn set_irq(&self, irq: u8, level: bool) {
        self.change(|pair| match irq {
            CASCADE => {}
            0..8 => pair.master.set_line(irq, level),
            8..16 => pair.slave.set_line(irq - 8, level),
            _ => {}
        });
    }

    /// Tells whether INTR is asserted.
    pub fn intr(&self) -> bool {
        self.pair.get().master.pending().is_some()
    }

    /// Runs the interrupt acknowledge cycle: returns the vector if INTR is asserted.
    pub fn acknowledge(&self) -> Option<u8> {
        self.change(Pair::acknowledge)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Pair) -> R) -> R {
        let (result, asserted) = {
            let mut pair = self.pair.get();
            let result = change(&mut pair);
            (result, pair.settle())
        };
        if asserted && let Some(wake) = self.intr.get() {
            wake.wake();
        }
        result
    }
}

impl ExternalInterrupts for Pic {
    fn peek(&self) -> Option<u8> {
        self.pair.get().peek()
    }

    fn acknowledge(&self) -> Option<u8> {
        Self::acknowledge(self)
    }
}

impl Default for Pic {
    fn default() -> Self {
        Self::new()
    }
}

impl PortIo for Pic {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        read_ports(port, data, |port| self.change(|pair| pair.read(port)));
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        write_ports(port, data, |port, value| {
            self.change(|pair| pair.write(port, value));
        });
    }
}

impl Device for Pic {
    fn name(&self) -> &'static str {
        "pic"
    }

    fn reset(&self) {
        *self.pair.get() = Pair::fresh();
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        let state = {
            let pair = self.pair.get();
            PairState {
                master: (&pair.master).into(),
                slave: (&pair.slave).into(),
            }
        };
        SavedDevice::new(KIND, VERSION, &state)
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: PairState = saved.open(KIND, VERSION)?;
        let pair = Pair {
            master: state.master.chip(MASTER_SLAVES)?,
            slave: state.slave.chip(0)?,
        };
        self.change(|live| *live = pair);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
