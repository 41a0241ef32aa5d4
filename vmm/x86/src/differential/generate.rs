//! Draws sequences and states.

use iced_x86::{Code, Encoder, Instruction, Mnemonic, OpCodeOperandKind, OpKind, Register};

use super::forms::{Form, Kind};
use super::{CODE, SCRATCH, SCRATCH_BYTES, Settings, State};

/// SplitMix64.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64, case: u64) -> Self {
        Self(seed ^ case.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(super) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// A value that is likely to be at some edge.
    pub(super) fn value(&mut self) -> u64 {
        match self.below(4) {
            0 => self.word(),
            1 => self.word() >> self.below(64),
            2 => self.pick(&EDGES),
            _ => !(self.word() >> self.below(64)),
        }
    }
}

const EDGES: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
    0x1_0000_0000,
];

/// The register that points into the scratch pages, and the one with a small index.
pub(super) const BASE: Register = Register::R13;
pub(super) const INDEX: Register = Register::R12;

/// Registers by number that instructions may use: not RSP, [`BASE`] and [`INDEX`].
const FREE: [u32; 13] = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 14, 15];
const FREE_BYTES: [Register; 17] = [
    Register::AL,
    Register::CL,
    Register::DL,
    Register::BL,
    Register::AH,
    Register::CH,
    Register::DH,
    Register::BH,
    Register::BPL,
    Register::SIL,
    Register::DIL,
    Register::R8L,
    Register::R9L,
    Register::R10L,
    Register::R11L,
    Register::R14L,
    Register::R15L,
];

/// A piece of a sequence.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Insn(Instruction),
    /// A forward branch over the next item, by its opcode bytes; a byte of displacement follows.
    Skip(&'static [u8]),
    /// The same with a condition.
    SkipIf(u8),
    Bytes(&'static [u8]),
}

/// Groups of items; a group is safe to leave out.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequence(Vec<Vec<Item>>);

impl Sequence {
    pub(super) fn draw(random: &mut Random, settings: &Settings<'_>) -> Self {
        let count = 1 + random.below(settings.length_max as u64) as usize;
        let mut groups = Vec::new();
        while groups.len() < count {
            let family = random.pick(settings.families);
            let form = &family[random.below(family.len() as u64) as usize];
            if let Some(group) = group(random, form) {
                groups.push(group);
            }
        }
        Self(groups)
    }

    pub(super) fn groups(&self) -> usize {
        self.0.len()
    }

    pub(super) fn without(&self, n: usize) -> Self {
        let mut shorter = self.clone();
        shorter.0.remove(n);
        shorter
    }

    /// The code, at [`CODE`].
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut code = Vec::new();
        let mut patch: Option<usize> = None;
        for item in self.0.iter().flatten() {
            let waiting = patch.take();
            match item {
                Item::Insn(insn) => {
                    let bytes = encoded(insn, CODE + code.len() as u64);
                    code.extend(bytes.expect("instructions were encoded when they were drawn"));
                }
                Item::Bytes(bytes) => code.extend(*bytes),
                Item::Skip(opcode) => {
                    code.extend(*opcode);
                    code.push(0);
                    patch = Some(code.len());
                }
                Item::SkipIf(condition) => {
                    code.extend([0x70 | condition, 0]);
                    patch = Some(code.len());
                }
            }
            if let Some(from) = waiting {
                code[from - 1] = (code.len() - from) as u8;
            }
        }
        code
    }

    pub(super) fn listing(&self) -> String {
        let mut text = String::new();
        for item in self.0.iter().flatten() {
            let line = match item {
                Item::Insn(insn) => {
                    let bytes = encoded(insn, CODE).unwrap_or_default();
                    format!("{:?} {bytes:02x?}", insn.code())
                }
                other => format!("{other:02x?}"),
            };
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

fn encoded(insn: &Instruction, ip: u64) -> Option<Vec<u8>> {
    let mut encoder = Encoder::new(64);
    encoder.encode(insn, ip).ok()?;
    Some(encoder.take_buffer())
}

/// A group for a form; `None` when it has an operand that is not known here.
fn group(random: &mut Random, form: &Form) -> Option<Vec<Item>> {
    let mut items = match form.kind {
        Kind::Plain | Kind::Computed => {
            vec![Item::Insn(instruction(random, form.code, form.align)?)]
        }
        Kind::Prepared(before, after) => {
            let insn = instruction(random, form.code, form.align)?;
            let mut items = vec![Item::Bytes(before), Item::Insn(insn)];
            if !after.is_empty() {
                items.push(Item::Bytes(after));
            }
            items
        }
        Kind::Bytes(bytes) => vec![Item::Bytes(bytes)],
        Kind::Skip(opcode) => vec![Item::Skip(opcode)],
        Kind::SkipIf => vec![Item::SkipIf(random.below(16) as u8)],
    };
    if matches!(form.kind, Kind::Skip(_) | Kind::SkipIf) {
        items.push(Item::Insn(instruction(random, Code::Add_r32_rm32, 1)?));
    }
    if form.kind == Kind::Computed {
        hide_undefined(&mut items)?;
    }
    let known = |item: &Item| match item {
        Item::Insn(insn) => encoded(insn, CODE).is_some(),
        _ => true,
    };
    items.iter().all(known).then_some(items)
}

/// Clears the flags that the last instruction leaves undefined, where the CPU has its own idea of them.
fn hide_undefined(items: &mut Vec<Item>) -> Option<()> {
    let Some(Item::Insn(insn)) = items.last() else {
        return None;
    };
    let bits = insn.rflags_undefined();
    if bits == 0 {
        return Some(());
    }
    let mut mask = 0xd5u32;
    for (flag, bit) in [(2, 0x80), (4, 0x40), (8, 0x10), (16, 1), (32, 4)] {
        mask &= if bits & flag != 0 { !bit } else { u32::MAX };
    }
    let and = Instruction::with2(Code::And_rm8_imm8, Register::AH, mask).ok()?;
    items.push(Item::Bytes(&[0x9f]));
    items.push(Item::Insn(and));
    items.push(Item::Bytes(&[0x9e]));
    Some(())
}

/// An instruction with random operands.
pub(super) fn instruction(random: &mut Random, code: Code, align: u64) -> Option<Instruction> {
    let info = code.op_code();
    let locked = info.can_use_lock_prefix() && random.one_in(3);
    let atomic = locked || info.mnemonic() == Mnemonic::Xchg;
    // Hosts make a process wait after a locked access that crosses a cache line, so there are few.
    let align = if atomic && !random.one_in(200) {
        align.max(8)
    } else {
        align
    };
    let mut insn = Instruction::default();
    insn.set_code(code);
    for n in 0..info.op_count() {
        operand(random, &mut insn, n, info.op_kind(n), align)?;
    }
    if locked && insn.op0_kind() == OpKind::Memory {
        insn.set_has_lock_prefix(true);
    }
    Some(insn)
}

fn operand(
    random: &mut Random,
    insn: &mut Instruction,
    n: u32,
    kind: OpCodeOperandKind,
    align: u64,
) -> Option<()> {
    use OpCodeOperandKind as K;
    let memory = random.below(5) < 2;
    let register = match kind {
        K::mem => None,
        K::r8_or_mem
        | K::r16_or_mem
        | K::r32_or_mem
        | K::r64_or_mem
        | K::xmm_or_mem
        | K::mm_or_mem
            if memory =>
        {
            None
        }
        K::r8_or_mem | K::r8_reg | K::r8_opcode => Some(random.pick(&FREE_BYTES)),
        K::r16_or_mem | K::r16_reg | K::r16_opcode | K::r16_rm => {
            Some(Register::AX + random.pick(&FREE))
        }
        K::r32_or_mem | K::r32_reg | K::r32_opcode | K::r32_vvvv | K::r32_rm => {
            Some(Register::EAX + random.pick(&FREE))
        }
        K::r64_or_mem | K::r64_reg | K::r64_opcode | K::r64_vvvv | K::r64_rm => {
            Some(Register::RAX + random.pick(&FREE))
        }
        K::xmm_or_mem | K::xmm_reg | K::xmm_rm => Some(Register::XMM0 + random.below(16) as u32),
        K::mm_or_mem | K::mm_reg | K::mm_rm => Some(Register::MM0 + random.below(8) as u32),
        K::sti_opcode => Some(Register::ST0 + random.below(8) as u32),
        K::st0 => Some(Register::ST0),
        K::al => Some(Register::AL),
        K::cl => Some(Register::CL),
        K::ax => Some(Register::AX),
        K::eax => Some(Register::EAX),
        K::rax => Some(Register::RAX),
        _ => return immediate(random, insn, n, kind),
    };
    match register {
        Some(register) => {
            insn.set_op_kind(n, OpKind::Register);
            insn.set_op_register(n, register);
        }
        None => memory_operand(random, insn, n, align),
    }
    Some(())
}

fn immediate(
    random: &mut Random,
    insn: &mut Instruction,
    n: u32,
    kind: OpCodeOperandKind,
) -> Option<()> {
    use OpCodeOperandKind as K;
    let value = random.value();
    let (op, value) = match kind {
        K::imm8 => (OpKind::Immediate8, value & 0xff),
        K::imm8_const_1 => (OpKind::Immediate8, 1),
        K::imm16 => (OpKind::Immediate16, value & 0xffff),
        K::imm32 => (OpKind::Immediate32, value & 0xffff_ffff),
        K::imm64 => (OpKind::Immediate64, value),
        K::imm8sex16 => (OpKind::Immediate8to16, value as i8 as u64),
        K::imm8sex32 => (OpKind::Immediate8to32, value as i8 as u64),
        K::imm8sex64 => (OpKind::Immediate8to64, value as i8 as u64),
        K::imm32sex64 => (OpKind::Immediate32to64, value as i32 as u64),
        _ => return None,
    };
    insn.set_op_kind(n, op);
    insn.set_immediate_u64(n, value);
    Some(())
}

fn memory_operand(random: &mut Random, insn: &mut Instruction, n: u32, align: u64) {
    let middle = SCRATCH + SCRATCH_BYTES as u64 / 2;
    let offset = (random.below(1400) as i64 - 700) & !(align as i64 - 1);
    // Close to the border of the pages now and then.
    let offset = if random.one_in(4) {
        (offset / 128) & !(align as i64 - 1)
    } else {
        offset
    };
    insn.set_op_kind(n, OpKind::Memory);
    insn.set_memory_displacement64(offset as u64);
    insn.set_memory_displ_size(8);
    insn.set_memory_base(BASE);
    match random.below(6) {
        0 if align == 1 => {
            insn.set_memory_index(INDEX);
            insn.set_memory_index_scale(1 << random.below(4));
        }
        1 => {
            insn.set_memory_base(Register::RIP);
            insn.set_memory_displacement64(middle.wrapping_add(offset as u64));
        }
        2 => {
            insn.set_memory_base(Register::None);
            insn.set_memory_displacement64(middle.wrapping_add(offset as u64));
        }
        3 => {
            insn.set_memory_base(Register::R13D);
            insn.set_memory_displ_size(4);
            insn.set_memory_displacement64(offset as u64);
        }
        _ => {}
    }
}

/// A state to start from.
pub(super) fn state(random: &mut Random, settings: &Settings<'_>) -> State {
    let mut regs = [0; 16];
    regs.iter_mut().for_each(|r| *r = random.value());
    let middle = SCRATCH + SCRATCH_BYTES as u64 / 2;
    regs[4] = middle + 0x800;
    regs[12] = random.below(16);
    regs[13] = middle;
    let scratch = (0..SCRATCH_BYTES / 8)
        .flat_map(|_| random.value().to_le_bytes())
        .collect();
    // IF is always set outside the kernel.
    let rflags = random.word() & 0x8d5 | 0x202;
    State {
        regs,
        rflags,
        fx: floating_point(random, settings.floating_point),
        scratch,
    }
}

fn floating_point(random: &mut Random, fill: bool) -> [u8; 512] {
    let mut fx = [0; 512];
    fx[0] = 0x7f;
    fx[1] = 3;
    fx[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    if fill {
        for slot in fx[160..416].chunks_exact_mut(8) {
            slot.copy_from_slice(&random.value().to_le_bytes());
        }
    }
    fx
}
