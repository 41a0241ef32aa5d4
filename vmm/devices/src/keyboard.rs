//! The 8042 keyboard controller with a silent keyboard and no mouse (IBM PC AT technical reference,
//! "Keyboard Controller").

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bus::{PortIo, read_ports, write_ports};
use crate::interrupt::IrqLine;
use crate::lifecycle::{Device, RestoreError, SaveError, SavedDevice};
use crate::lock::Lock;
use crate::platform::{PlatformEvent, PlatformSink, ResetSource};

/// The data port.
pub const DATA: u16 = 0x60;
/// The command and status port.
pub const COMMAND: u16 = 0x64;

const KIND: &str = "i8042";
const VERSION: u32 = 1;
/// Answers that wait; the longest sequence is three bytes.
const QUEUE_BYTES: usize = 16;

const STATUS_FULL: u8 = 1 << 0;
const STATUS_SELF_TESTED: u8 = 1 << 2;
const STATUS_COMMAND: u8 = 1 << 3;
const STATUS_UNLOCKED: u8 = 1 << 4;
const MODE_INTERRUPT: u8 = 1 << 0;
const MODE_SYSTEM: u8 = 1 << 2;
const MODE_KEYBOARD_OFF: u8 = 1 << 4;
const MODE_MOUSE_OFF: u8 = 1 << 5;
const OUTPUT_NO_RESET: u8 = 1 << 0;
const OUTPUT_A20: u8 = 1 << 1;
const ACKNOWLEDGE: u8 = 0xfa;
const RESEND: u8 = 0xfe;

/// What the next byte on the data port belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Expect {
    Keyboard,
    Mode,
    OutputPort,
    EchoKeyboard,
    EchoMouse,
    Mouse,
    /// The argument of a keyboard command.
    Argument(u8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chip {
    mode: u8,
    output_port: u8,
    self_tested: bool,
    last_was_command: bool,
    expect: Expect,
    queue: VecDeque<u8>,
}

impl Chip {
    fn fresh() -> Self {
        Self {
            mode: MODE_INTERRUPT | MODE_SYSTEM | MODE_MOUSE_OFF,
            output_port: OUTPUT_NO_RESET | OUTPUT_A20,
            self_tested: false,
            last_was_command: false,
            expect: Expect::Keyboard,
            queue: VecDeque::new(),
        }
    }

    fn status(&self) -> u8 {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        STATUS_UNLOCKED
            | flag(!self.queue.is_empty(), STATUS_FULL)
            | flag(
                self.self_tested || self.mode & MODE_SYSTEM != 0,
                STATUS_SELF_TESTED,
            )
            | flag(self.last_was_command, STATUS_COMMAND)
    }

    fn irq(&self) -> bool {
        self.mode & MODE_INTERRUPT != 0 && !self.queue.is_empty()
    }

    fn answer(&mut self, bytes: &[u8]) {
        let room = QUEUE_BYTES - self.queue.len();
        self.queue.extend(&bytes[..bytes.len().min(room)]);
    }

    /// Runs a controller command; tells whether it resets the machine.
    fn write_command(&mut self, command: u8) -> bool {
        self.last_was_command = true;
        self.expect = Expect::Keyboard;
        match command {
            0x20 => self.answer(&[self.mode]),
            0x60 => self.expect = Expect::Mode,
            0xa7 => self.mode |= MODE_MOUSE_OFF,
            0xa8 => self.mode &= !MODE_MOUSE_OFF,
            // No mouse: its clock line is stuck.
            0xa9 => self.answer(&[0x01]),
            0xaa => {
                self.self_tested = true;
                self.queue.clear();
                self.answer(&[0x55]);
            }
            0xab => self.answer(&[0x00]),
            0xad => self.mode |= MODE_KEYBOARD_OFF,
            0xae => self.mode &= !MODE_KEYBOARD_OFF,
            0xc0 => self.answer(&[0x80]),
            0xd0 => self.answer(&[self.output_port]),
            0xd1 => self.expect = Expect::OutputPort,
            0xd2 => self.expect = Expect::EchoKeyboard,
            0xd3 => self.expect = Expect::EchoMouse,
            0xd4 => self.expect = Expect::Mouse,
            0xdd => self.output_port &= !OUTPUT_A20,
            0xdf => self.output_port |= OUTPUT_A20,
            // Pulses the output lines whose bits are 0; line 0 is the processor's reset.
            0xf0..=0xff => return command & 1 == 0,
            _ => {}
        }
        false
    }

    /// Takes a byte on the data port; tells whether it resets the machine.
    fn write_data(&mut self, value: u8) -> bool {
        self.last_was_command = false;
        match std::mem::replace(&mut self.expect, Expect::Keyboard) {
            Expect::Mode => self.mode = value & 0x7f,
            Expect::OutputPort => {
                self.output_port = value & OUTPUT_A20 | OUTPUT_NO_RESET;
                return value & OUTPUT_NO_RESET == 0;
            }
            // The byte for a mouse comes back without the mouse's mark: there is no such port.
            Expect::EchoKeyboard | Expect::EchoMouse => self.answer(&[value]),
            Expect::Mouse => self.answer(&[RESEND]),
            Expect::Argument(0xf0) if value == 0 => self.answer(&[ACKNOWLEDGE, 0x02]),
            Expect::Argument(_) => self.answer(&[ACKNOWLEDGE]),
            Expect::Keyboard => self.write_keyboard(value),
        }
        false
    }

    fn write_keyboard(&mut self, command: u8) {
        match command {
            0xff => self.answer(&[ACKNOWLEDGE, 0xaa]),
            0xf2 => self.answer(&[ACKNOWLEDGE, 0xab, 0x83]),
            0xf4..=0xf6 => self.answer(&[ACKNOWLEDGE]),
            0xed | 0xf0 | 0xf3 => {
                self.expect = Expect::Argument(command);
                self.answer(&[ACKNOWLEDGE]);
            }
            0xee => self.answer(&[0xee]),
            _ => self.answer(&[RESEND]),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChipState {
    mode: u8,
    output_port: u8,
    self_tested: bool,
    last_was_command: bool,
    expect: Expect,
    queue: Vec<u8>,
}

/// The keyboard controller on ports 0x60 and 0x64.
pub struct Keyboard {
    chip: Lock<Chip>,
    irq: IrqLine,
    sink: Arc<dyn PlatformSink>,
}

impl Keyboard {
    /// Makes a controller as after power-on.
    pub fn new(irq: IrqLine, sink: Arc<dyn PlatformSink>) -> Self {
        Self {
            chip: Lock::new(Chip::fresh()),
            irq,
            sink,
        }
    }

    fn drive_irq(&self) {
        self.irq.follow(|| self.chip.get().irq());
    }
}

impl PortIo for Keyboard {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        read_ports(port, data, |port| match port {
            DATA => self.chip.get().queue.pop_front().unwrap_or(0),
            COMMAND => self.chip.get().status(),
            _ => 0xff,
        });
        self.drive_irq();
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        write_ports(port, data, |port, value| {
            let resets = match port {
                DATA => self.chip.get().write_data(value),
                COMMAND => self.chip.get().write_command(value),
                _ => false,
            };
            if resets {
                self.sink
                    .notify(PlatformEvent::Reset(ResetSource::Keyboard));
            }
        });
        self.drive_irq();
    }
}

impl Device for Keyboard {
    fn name(&self) -> &'static str {
        "keyboard"
    }

    fn reset(&self) {
        *self.chip.get() = Chip::fresh();
        self.drive_irq();
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        let chip = self.chip.get().clone();
        let state = ChipState {
            mode: chip.mode,
            output_port: chip.output_port,
            self_tested: chip.self_tested,
            last_was_command: chip.last_was_command,
            expect: chip.expect,
            queue: chip.queue.into(),
        };
        SavedDevice::new(KIND, VERSION, &state)
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: ChipState = saved.open(KIND, VERSION)?;
        if state.queue.len() > QUEUE_BYTES {
            return Err(RestoreError::Field {
                kind: KIND.to_owned(),
                field: "queue",
            });
        }
        *self.chip.get() = Chip {
            mode: state.mode,
            output_port: state.output_port,
            self_tested: state.self_tested,
            last_was_command: state.last_was_command,
            expect: state.expect,
            queue: state.queue.into(),
        };
        self.drive_irq();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
