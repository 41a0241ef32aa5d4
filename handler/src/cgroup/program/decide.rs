//! What a program of the kernel's decides, found out without running it. Programs for devices compare numbers; what does
//! more (calls, maps, the stack) is not understood here.

use super::super::rules::DeviceNode;
use super::{Instruction, REQUEST, accesses, kind};

/// What the program takes for the address of the request: no number that it computes with.
const REQUEST_AT: u64 = 1 << 60;
/// Bytes of a request.
const REQUEST_LEN_BYTES: usize = 12;
/// Registers of the machine; the last one is the stack's.
const REGISTERS: usize = 11;

/// What somebody wants to do with a device, as a program reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Request([u8; REQUEST_LEN_BYTES]);

impl Request {
    /// Asks for some of `r`, `w` and `m`.
    pub(in super::super) fn new(node: DeviceNode, access: &str) -> Self {
        let kind_and_access = kind(node.kind) | accesses(access) << 16;
        let mut request = [0; REQUEST_LEN_BYTES];
        request[..4].copy_from_slice(&kind_and_access.to_ne_bytes());
        request[4..8].copy_from_slice(&node.major.to_ne_bytes());
        request[8..].copy_from_slice(&node.minor.to_ne_bytes());
        Self(request)
    }

    fn read(&self, address: u64, len_bytes: usize) -> Option<u64> {
        let start = usize::try_from(address.checked_sub(REQUEST_AT)?).ok()?;
        let field = self.0.get(start..start.checked_add(len_bytes)?)?;
        let mut number = [0; 8];
        number[..len_bytes].copy_from_slice(field);
        Some(u64::from_le_bytes(number))
    }
}

/// Computes on the register and the other operand.
type Compute = fn(u64, u64) -> u64;
/// Compares the register with the other operand.
type Compare = fn(u64, u64) -> bool;

/// What an instruction does.
enum Operation {
    Compute { compute: Compute, is_wide: bool },
    Jump { when: Compare, is_wide: bool },
    Load { len_bytes: usize },
    Exit,
}

/// Whether nothing in the program does more than compare numbers.
pub(in super::super) fn is_plain(program: &[Instruction]) -> bool {
    !program.is_empty() && program.iter().all(|it| it.operation().is_some())
}

/// Returns whether the program allows the request, or nothing when it is not understood.
pub(in super::super) fn decide(program: &[Instruction], request: &Request) -> Option<bool> {
    let mut registers = [0; REGISTERS];
    registers[usize::from(REQUEST)] = REQUEST_AT;
    let mut at = 0;
    // Nothing comes twice in a program without loops.
    for _ in program {
        let instruction = program.get(at)?;
        let operation = instruction.operation()?;
        if matches!(operation, Operation::Exit) {
            return Some(registers[0] != 0);
        }
        let skipped = instruction.run(&operation, &mut registers, request)?;
        at = at.checked_add(1)?.checked_add_signed(skipped)?;
    }
    None
}

impl Instruction {
    fn code(self) -> u8 {
        self.0[0]
    }

    fn to(self) -> usize {
        usize::from(self.0[1] & 15)
    }

    fn from(self) -> usize {
        usize::from(self.0[1] >> 4)
    }

    fn offset(self) -> i16 {
        i16::from_ne_bytes([self.0[2], self.0[3]])
    }

    fn value(self) -> i32 {
        i32::from_ne_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// Whether the other operand is a register, and not the value.
    fn has_register(self) -> bool {
        self.code() & 8 != 0
    }

    fn operation(self) -> Option<Operation> {
        if self.to() >= REGISTERS || self.from() >= REGISTERS {
            return None;
        }
        // What another meaning hides in is refused.
        let is_usual = !self.has_register() || self.value() == 0;
        match (self.code(), self.code() & 7) {
            (0x95, _) => Some(Operation::Exit),
            (0x61, _) => Some(Operation::Load { len_bytes: 4 }),
            (0x69, _) => Some(Operation::Load { len_bytes: 2 }),
            (0x71, _) => Some(Operation::Load { len_bytes: 1 }),
            (code, class @ (4 | 7)) => {
                let (compute, is_wide) = (compute(code)?, class == 7);
                let operation = Operation::Compute { compute, is_wide };
                (is_usual && self.offset() == 0).then_some(operation)
            }
            (code, class @ (5 | 6)) => {
                let (when, is_wide) = (compare(code)?, class == 5);
                is_usual.then_some(Operation::Jump { when, is_wide })
            }
            _ => None,
        }
    }

    /// Returns how many instructions are skipped.
    fn run(
        self,
        operation: &Operation,
        registers: &mut [u64; REGISTERS],
        request: &Request,
    ) -> Option<isize> {
        let other = if self.has_register() {
            registers[self.from()]
        } else {
            i64::from(self.value()).cast_unsigned()
        };
        let this = registers[self.to()];
        match *operation {
            Operation::Compute { compute, is_wide } => {
                registers[self.to()] = if is_wide {
                    compute(this, other)
                } else {
                    low(compute(low(this), low(other)))
                };
                Some(0)
            }
            Operation::Jump { when, is_wide } => {
                let jumps = if is_wide {
                    when(this, other)
                } else {
                    when(low(this), low(other))
                };
                Some(if jumps { self.offset().into() } else { 0 })
            }
            Operation::Load { len_bytes } => {
                let base = registers[self.from()];
                let address = base.checked_add_signed(self.offset().into())?;
                registers[self.to()] = request.read(address, len_bytes)?;
                Some(0)
            }
            Operation::Exit => None,
        }
    }
}

fn low(number: u64) -> u64 {
    number & u64::from(u32::MAX)
}

/// Shifts of half a register by more bits than it has are taken as those of a whole one: the verifier refuses them.
fn compute(code: u8) -> Option<Compute> {
    Some(match code & 0xf0 {
        0x00 => u64::wrapping_add,
        0x10 => u64::wrapping_sub,
        0x40 => |a, b| a | b,
        0x50 => |a, b| a & b,
        0x60 => |a, b| a << (b & 63),
        0x70 => |a, b| a >> (b & 63),
        0xa0 => |a, b| a ^ b,
        0xb0 => |_, b| b,
        _ => return None,
    })
}

fn compare(code: u8) -> Option<Compare> {
    Some(match code & 0xf0 {
        0x00 if code == 0x05 => |_, _| true,
        0x10 => |a, b| a == b,
        0x20 => |a, b| a > b,
        0x30 => |a, b| a >= b,
        0x40 => |a, b| a & b != 0,
        0x50 => |a, b| a != b,
        0xa0 => |a, b| a < b,
        0xb0 => |a, b| a <= b,
        _ => return None,
    })
}
