//! The 16550A serial port (National Semiconductor PC16550D data sheet §8).

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::bus::{PortIo, read_ports, write_ports};
use crate::interrupt::{IrqLine, Wake};
use crate::lifecycle::{Device, RestoreError, SaveError, SavedDevice};
use crate::lock::Lock;

const KIND: &str = "uart-16550a";
const VERSION: u32 = 1;
const FIFO_BYTES: usize = 16;
/// Input that waits behind the FIFO: a pasted line; what comes after stays with its sender.
const WAITING_BYTES: usize = 1024;

const IER_RECEIVED: u8 = 1 << 0;
const IER_EMPTY: u8 = 1 << 1;
const IER_LINE: u8 = 1 << 2;
const IER_MODEM: u8 = 1 << 3;
const IIR_NONE: u8 = 0x01;
const IIR_MODEM: u8 = 0x00;
const IIR_EMPTY: u8 = 0x02;
const IIR_RECEIVED: u8 = 0x04;
const IIR_LINE: u8 = 0x06;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_FIFOS: u8 = 0xc0;
const FCR_ENABLE: u8 = 1 << 0;
const FCR_CLEAR_RECEIVER: u8 = 1 << 1;
const LCR_DIVISOR: u8 = 1 << 7;
const MCR_LOOPBACK: u8 = 1 << 4;
const MCR_CHANGEABLE: u8 = 0x1f;
const LSR_READY: u8 = 1 << 0;
const LSR_OVERRUN: u8 = 1 << 1;
const LSR_IDLE: u8 = 0x60;
/// Clear to send, data set ready, carrier: a peer is always there.
const MSR_PEER: u8 = 0xb0;

/// Takes what the guest sends. Called with no lock of the device held but its own; must not block.
pub trait ConsoleOut: Send {
    /// Takes bytes in the order they were sent.
    fn write(&mut self, bytes: &[u8]);
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chip {
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    scr: u8,
    divisor: [u8; 2],
    /// Levels of the modem inputs and, in the low half, what changed.
    msr: u8,
    overrun: bool,
    /// The transmitter's emptiness was not yet told.
    empty_pending: bool,
    fifo: VecDeque<u8>,
    waiting: VecDeque<u8>,
    refused: bool,
}

impl Chip {
    fn fresh() -> Self {
        Self {
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            scr: 0,
            divisor: [0x0c, 0],
            msr: MSR_PEER,
            overrun: false,
            empty_pending: false,
            fifo: VecDeque::new(),
            waiting: VecDeque::new(),
            refused: false,
        }
    }

    fn fifo_limit(&self) -> usize {
        if self.fcr & FCR_ENABLE != 0 {
            FIFO_BYTES
        } else {
            1
        }
    }

    fn is_loopback(&self) -> bool {
        self.mcr & MCR_LOOPBACK != 0
    }

    fn refill(&mut self) {
        if self.is_loopback() {
            return;
        }
        while self.fifo.len() < self.fifo_limit()
            && let Some(byte) = self.waiting.pop_front()
        {
            self.fifo.push_back(byte);
        }
    }

    fn push_input(&mut self, bytes: &[u8]) -> usize {
        let accepted = bytes.len().min(WAITING_BYTES - self.waiting.len());
        self.waiting.extend(&bytes[..accepted]);
        self.refused = accepted < bytes.len();
        self.refill();
        accepted
    }

    /// Tells once that input was refused and there is room again.
    fn take_room(&mut self) -> bool {
        let has_room = self.refused && self.waiting.len() <= WAITING_BYTES / 2;
        if has_room {
            self.refused = false;
        }
        has_room
    }

    fn trigger_level(&self) -> usize {
        if self.fcr & FCR_ENABLE == 0 {
            return 1;
        }
        [1, 4, 8, 14][usize::from(self.fcr >> 6)]
    }

    /// Returns the most urgent interrupt (table III). Time stands still for a FIFO below its
    /// trigger level: its timeout is reported at once.
    fn interrupt(&self) -> u8 {
        let received = self.ier & IER_RECEIVED != 0 && !self.fifo.is_empty();
        if self.ier & IER_LINE != 0 && self.overrun {
            IIR_LINE
        } else if received && self.fifo.len() >= self.trigger_level() {
            IIR_RECEIVED
        } else if received {
            IIR_TIMEOUT
        } else if self.ier & IER_EMPTY != 0 && self.empty_pending {
            IIR_EMPTY
        } else if self.ier & IER_MODEM != 0 && self.msr & 0x0f != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    fn line_status(&self) -> u8 {
        let ready = if self.fifo.is_empty() { 0 } else { LSR_READY };
        LSR_IDLE | ready | if self.overrun { LSR_OVERRUN } else { 0 }
    }

    fn read(&mut self, register: u16) -> u8 {
        let is_divisor = self.lcr & LCR_DIVISOR != 0;
        match register {
            0 | 1 if is_divisor => self.divisor[usize::from(register)],
            0 => {
                let byte = self.fifo.pop_front().unwrap_or(0);
                self.refill();
                byte
            }
            1 => self.ier,
            2 => {
                let interrupt = self.interrupt();
                if interrupt == IIR_EMPTY {
                    self.empty_pending = false;
                }
                interrupt
                    | if self.fcr & FCR_ENABLE != 0 {
                        IIR_FIFOS
                    } else {
                        0
                    }
            }
            3 => self.lcr,
            4 => self.mcr,
            5 => {
                let status = self.line_status();
                self.overrun = false;
                status
            }
            6 => {
                let status = self.msr;
                self.msr &= 0xf0;
                status
            }
            _ => self.scr,
        }
    }

    /// Writes a register; returns the byte to transmit.
    fn write(&mut self, register: u16, value: u8) -> Option<u8> {
        let is_divisor = self.lcr & LCR_DIVISOR != 0;
        match register {
            0 | 1 if is_divisor => self.divisor[usize::from(register)] = value,
            0 => return self.transmit(value),
            1 => {
                let enabled = value & !self.ier & IER_EMPTY != 0;
                self.ier = value & 0x0f;
                self.empty_pending |= enabled;
            }
            2 => self.write_fcr(value),
            3 => self.lcr = value,
            4 => self.write_mcr(value & MCR_CHANGEABLE),
            7 => self.scr = value,
            _ => {}
        }
        None
    }

    fn transmit(&mut self, value: u8) -> Option<u8> {
        self.empty_pending = true;
        if !self.is_loopback() {
            return Some(value);
        }
        if self.fifo.len() < self.fifo_limit() {
            self.fifo.push_back(value);
        } else {
            self.overrun = true;
        }
        None
    }

    fn write_fcr(&mut self, value: u8) {
        let toggles = (value ^ self.fcr) & FCR_ENABLE != 0;
        self.fcr = if value & FCR_ENABLE != 0 {
            value & 0xc9
        } else {
            0
        };
        if toggles || value & FCR_CLEAR_RECEIVER != 0 {
            self.fifo.clear();
        }
        self.refill();
    }

    fn write_mcr(&mut self, value: u8) {
        self.mcr = value;
        // In loopback RTS, DTR, OUT1 and OUT2 come back as CTS, DSR, RI and DCD.
        let levels = if self.is_loopback() {
            (value & 0x02) << 3 | (value & 0x01) << 5 | (value & 0x0c) << 4
        } else {
            MSR_PEER
        };
        let changed = (self.msr ^ levels) >> 4;
        // The ring indicator reports only its trailing edge.
        let rings = changed & 0x4 != 0 && levels & 0x40 == 0;
        let deltas = changed & 0x0b | if rings { 0x4 } else { 0 };
        self.msr = levels | self.msr & 0x0f | deltas;
        self.refill();
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChipState {
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    scr: u8,
    divisor: [u8; 2],
    msr: u8,
    overrun: bool,
    empty_pending: bool,
    fifo: Vec<u8>,
    waiting: Vec<u8>,
}

/// A serial port of eight I/O ports.
pub struct Uart {
    name: String,
    base: u16,
    chip: Lock<Chip>,
    out: Lock<Box<dyn ConsoleOut>>,
    room: OnceLock<Arc<dyn Wake>>,
    irq: IrqLine,
}

impl Uart {
    /// Makes a serial port at `base` whose output goes to `out`.
    pub fn new(name: &str, base: u16, irq: IrqLine, out: Box<dyn ConsoleOut>) -> Self {
        Self {
            name: name.to_owned(),
            base,
            chip: Lock::new(Chip::fresh()),
            out: Lock::new(out),
            room: OnceLock::new(),
            irq,
        }
    }

    /// Connects what is called when input was refused and there is room again. Only the first
    /// connection counts.
    pub fn connect_room(&self, room: Arc<dyn Wake>) {
        self.room.get_or_init(|| room);
    }

    /// Offers input; returns how many bytes were taken. After fewer than offered, the connected
    /// [`Wake`] is called once there is room.
    pub fn push_input(&self, bytes: &[u8]) -> usize {
        self.change(|chip| chip.push_input(bytes))
    }

    fn change<R>(&self, change: impl FnOnce(&mut Chip) -> R) -> R {
        let (result, has_room) = {
            let mut chip = self.chip.get();
            (change(&mut chip), chip.take_room())
        };
        self.irq.follow(|| self.chip.get().interrupt() != IIR_NONE);
        if has_room && let Some(room) = self.room.get() {
            room.wake();
        }
        result
    }
}

impl PortIo for Uart {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        read_ports(port, data, |port| {
            self.change(|chip| chip.read(port.wrapping_sub(self.base)))
        });
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        write_ports(port, data, |port, value| {
            let sent = self.change(|chip| chip.write(port.wrapping_sub(self.base), value));
            if let Some(byte) = sent {
                self.out.get().write(&[byte]);
            }
        });
    }
}

impl Device for Uart {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&self) {
        self.change(|chip| *chip = Chip::fresh());
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        let chip = self.chip.get().clone();
        let state = ChipState {
            ier: chip.ier,
            fcr: chip.fcr,
            lcr: chip.lcr,
            mcr: chip.mcr,
            scr: chip.scr,
            divisor: chip.divisor,
            msr: chip.msr,
            overrun: chip.overrun,
            empty_pending: chip.empty_pending,
            fifo: chip.fifo.into(),
            waiting: chip.waiting.into(),
        };
        SavedDevice::new(KIND, VERSION, &state)
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: ChipState = saved.open(KIND, VERSION)?;
        let refused = |field| RestoreError::Field {
            kind: KIND.to_owned(),
            field,
        };
        if state.fifo.len() > FIFO_BYTES {
            return Err(refused("fifo"));
        }
        if state.waiting.len() > WAITING_BYTES {
            return Err(refused("waiting"));
        }
        self.change(|chip| {
            *chip = Chip {
                ier: state.ier & 0x0f,
                fcr: state.fcr,
                lcr: state.lcr,
                mcr: state.mcr & MCR_CHANGEABLE,
                scr: state.scr,
                divisor: state.divisor,
                msr: state.msr,
                overrun: state.overrun,
                empty_pending: state.empty_pending,
                fifo: state.fifo.into(),
                waiting: state.waiting.into(),
                // Whoever feeds the restored port is new: it asks first.
                refused: false,
            };
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
