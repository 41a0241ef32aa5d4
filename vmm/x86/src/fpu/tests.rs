//! Every SIMD and x87 encoding, run here and by the host, must leave the same registers and memory.

#![expect(unsafe_code, reason = "runs instructions natively")]

use std::arch::asm;

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic};

use super::stub::{self, Stub};
use crate::bus::Exit;
use crate::cpu::{Cpu, Mode, Vcpu, cr};
use crate::dispatch::tests::{Empty, Ram};

const MODE: Mode = Mode {
    bits: 64,
    wide_stack: true,
};
const CODE_AT: u64 = 0x1000;
const DATA_AT: u64 = 0x4000;

/// What an instruction can change.
#[derive(Clone, Debug, PartialEq)]
#[repr(C, align(64))]
struct State {
    memory: [u8; 128],
    xmm: [u128; 16],
    /// RAX, RCX, RDX, RSI.
    gpr: [u64; 4],
    status: u32,
    mxcsr: u32,
    x87: [u8; 108],
}

/// Runs one instruction on the host. RDI points at `memory`.
fn native(code: Stub, state: &mut State) {
    // SAFETY: the code is one instruction on the registers given here, which are saved and restored
    // around it, with its memory operand in `state.memory`.
    unsafe {
        asm!(
            "push rbx", "push r12", "push r13",
            "mov r12, {state}",
            "mov r13, {code}",
            "frstor [r12 + {x87}]",
            "ldmxcsr [r12 + {mxcsr}]",
            "movdqa xmm0, [r12 + 128]", "movdqa xmm1, [r12 + 144]",
            "movdqa xmm2, [r12 + 160]", "movdqa xmm3, [r12 + 176]",
            "movdqa xmm9, [r12 + 272]", "movdqa xmm10, [r12 + 288]",
            "mov eax, [r12 + {status}]",
            "add al, 0x7f", "sahf",
            "mov rax, [r12 + 384]", "mov rcx, [r12 + 392]", "mov rdx, [r12 + 400]",
            "mov rsi, [r12 + 408]",
            "mov r10, rsi",
            "mov rdi, r12",
            "call r13",
            "mov [r12 + 384], rax", "mov [r12 + 392], rcx", "mov [r12 + 400], rdx",
            "mov [r12 + 408], rsi",
            "lahf", "seto al",
            "mov [r12 + {status}], eax",
            "movdqa [r12 + 128], xmm0", "movdqa [r12 + 144], xmm1",
            "movdqa [r12 + 160], xmm2", "movdqa [r12 + 176], xmm3",
            "movdqa [r12 + 272], xmm9", "movdqa [r12 + 288], xmm10",
            "stmxcsr [r12 + {mxcsr}]",
            "fnsave [r12 + {x87}]",
            "pop r13", "pop r12", "pop rbx",
            state = in(reg) std::ptr::from_mut(state),
            code = in(reg) code.bits(),
            x87 = const std::mem::offset_of!(State, x87),
            mxcsr = const std::mem::offset_of!(State, mxcsr),
            status = const std::mem::offset_of!(State, status),
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r10") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm9") _, out("xmm10") _,
        );
        super::host::write_mxcsr(0x1f80);
    }
    state.status &= 0xd501;
}

/// Runs the same bytes on our CPU.
fn ours(vcpu: &mut Vcpu, ram: &Ram, code: &[u8], state: &mut State) {
    ram.write(CODE_AT, code);
    ram.write(CODE_AT + code.len() as u64, &[0x0f, 0x0b]);
    ram.write(DATA_AT, &state.memory);
    load(&mut vcpu.cpu, state);
    assert_eq!(vcpu.run(&mut Empty::default()), Exit::Shutdown);
    vcpu.cpu.shutdown = false;
    let cpu = &mut vcpu.cpu;
    state.memory = ram.read(DATA_AT);
    state.xmm = cpu.fpu.xmm;
    state.gpr = [cpu.regs[0], cpu.regs[1], cpu.regs[2], cpu.regs[6]];
    state.status = cpu.status & 0xd501;
    state.mxcsr = cpu.fpu.mxcsr;
    state.x87 = without_pointers(cpu.fpu.x87.get().to_fsave());
}

fn load(cpu: &mut Cpu, state: &State) {
    cpu.mode = MODE;
    cpu.rip = CODE_AT;
    cpu.msr.efer = cr::EFER_LMA;
    cpu.cr4 = cr::CR4_OSFXSR | cr::CR4_OSXMMEXCPT;
    cpu.fpu_changed();
    cpu.class_changed();
    cpu.forget_code(CODE_AT >> 12);
    [cpu.regs[0], cpu.regs[1], cpu.regs[2], cpu.regs[6]] = state.gpr;
    (cpu.regs[7], cpu.regs[10]) = (DATA_AT, state.gpr[3]);
    cpu.status = state.status;
    cpu.fpu.xmm = state.xmm;
    cpu.fpu.set_mxcsr(state.mxcsr);
    cpu.fpu.x87.set(super::image::X87::from_fsave(&state.x87));
}

/// Instruction and operand pointers are not kept alike.
fn without_pointers(mut image: [u8; 108]) -> [u8; 108] {
    image[12..28].fill(0);
    for at in [2, 6, 10] {
        image[at..at + 2].fill(0xff);
    }
    image
}

/// A fixed sequence of numbers (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number, often one that is an edge of some format.
    fn edgy(&mut self) -> u64 {
        const EDGES: [u64; 12] = [
            0,
            1,
            u64::MAX,
            1 << 63,
            0x7fff_ffff_ffff_ffff,
            0x3ff0_0000_0000_0000,
            0x7ff0_0000_0000_0000,
            0xfff8_0000_0000_0001,
            0x7f80_0000_3f80_0000,
            0x8080_8080_7f7f_7f7f,
            0x0001_0000_0000_0000,
            0x4330_0000_0000_0000,
        ];
        let pick = self.next() as usize % 24;
        EDGES.get(pick).copied().unwrap_or_else(|| self.next())
    }

    fn state(&mut self) -> State {
        let mut wide = || u128::from(self.edgy()) << 64 | u128::from(self.edgy());
        let xmm = std::array::from_fn(|_| wide());
        let mut memory = [0; 128];
        memory
            .chunks_exact_mut(8)
            .for_each(|c| c.copy_from_slice(&self.edgy().to_le_bytes()));
        let gpr = std::array::from_fn(|_| self.edgy());
        let mut x87 = super::image::X87 {
            ftw: 0,
            fsw: (self.next() as u16) & 0x7f00,
            ..super::image::X87::RESET
        };
        for value in &mut x87.st {
            value[..8].copy_from_slice(&(self.next() | 1 << 63).to_le_bytes());
            value[8..].copy_from_slice(&(0x3ff0 + (self.next() as u16 & 31)).to_le_bytes());
        }
        let x87 = super::image::X87::from_fxsave(&{
            let mut image = x87.to_fxsave();
            image[4] = if self.next() & 3 == 0 {
                self.next() as u8
            } else {
                0xff
            };
            image
        });
        let mxcsr = 0x1f80 | (self.next() as u32 & 0xe040);
        let status = self.next() as u32 & 0xd501;
        State {
            memory,
            xmm,
            gpr,
            status,
            mxcsr,
            x87: without_pointers(x87.to_fsave()),
        }
    }
}

/// Every encoding of the SSE and MMX maps, with registers 1 and 2 and with memory at RDI.
fn simd_encodings() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for prefix in [None, Some(0x66), Some(0xf2), Some(0xf3)] {
        for map in [&[0x0f][..], &[0x0f, 0x38], &[0x0f, 0x3a]] {
            for opcode in 0..=255u8 {
                let group = map.len() == 1 && (0x71..=0x73).contains(&opcode);
                let regs: Vec<u8> = if group { (0..8).collect() } else { vec![1] };
                for reg in regs {
                    for modrm in [0xc0 | reg << 3 | 2, reg << 3 | 7] {
                        for rex in [None, Some(0x48), Some(0x45)] {
                            if rex == Some(0x45) && modrm < 0xc0 {
                                continue;
                            }
                            let mut bytes: Vec<u8> = prefix.into_iter().chain(rex).collect();
                            bytes.extend_from_slice(map);
                            bytes.extend([opcode, modrm]);
                            all.push(bytes);
                        }
                    }
                }
            }
        }
    }
    all
}

/// Encodings of D8 to DF, with registers and with memory at RDI.
fn x87_encodings() -> Vec<Vec<u8>> {
    (0xd8..=0xdf)
        .flat_map(|op| {
            (0xc0..=0xff)
                .chain((0..8).map(|r| r << 3 | 7))
                .map(move |m| vec![op, m])
        })
        .collect()
}

fn decode(bytes: &[u8]) -> Option<Instruction> {
    let insn = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).decode();
    (!insn.is_invalid()).then_some(insn)
}

/// Cuts or completes an encoding to one instruction; `None` where it is not one of ours.
fn complete(mut bytes: Vec<u8>, immediate: u8) -> Option<Vec<u8>> {
    let insn = decode(&bytes).or_else(|| {
        bytes.push(immediate);
        decode(&bytes)
    })?;
    bytes.truncate(insn.len());
    let excluded = matches!(
        insn.mnemonic(),
        Mnemonic::Fldenv
            | Mnemonic::Frstor
            | Mnemonic::Fldcw
            | Mnemonic::Fnstenv
            | Mnemonic::Fnsave
            | Mnemonic::Ldmxcsr
            | Mnemonic::Fxrstor
            | Mnemonic::Fxsave
            | Mnemonic::Fxrstor64
            | Mnemonic::Fxsave64
            | Mnemonic::Maskmovdqu
            | Mnemonic::Maskmovq
            | Mnemonic::Stmxcsr
    );
    let simd = crate::fpu::lower(&insn, MODE, &bytes).is_some();
    (simd && !excluded && !is_reserved_alias(insn.code())).then_some(bytes)
}

/// Undocumented aliases that the host may treat otherwise.
fn is_reserved_alias(code: Code) -> bool {
    matches!(code, Code::Fstpnce_sti)
}

/// Runs every encoding some times in both places.
fn compare(encodings: Vec<Vec<u8>>, times: usize) -> usize {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let ram = Ram::new(0x10000);
    let mut vcpu = ram.vcpu();
    let (mut count, mut wrong) = (0, Vec::new());
    for encoding in encodings {
        let Some(code) = complete(encoding, numbers.next() as u8) else {
            continue;
        };
        let Some(stub) = stub::stub(&code) else {
            continue;
        };
        count += 1;
        for _ in 0..times {
            let start = numbers.state();
            let (mut here, mut there) = (start.clone(), start.clone());
            native(stub, &mut there);
            there.x87 = without_pointers(there.x87);
            ours(&mut vcpu, &ram, &code, &mut here);
            if let Some(what) = difference(&here, &there) {
                wrong.push(format!(
                    "{:?} {code:02x?}: {what}",
                    decode(&code).unwrap().code()
                ));
                break;
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} encodings differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    count
}

/// The first thing that two states do not have in common.
fn difference(here: &State, there: &State) -> Option<String> {
    let xmm = here.xmm.iter().zip(&there.xmm).position(|(a, b)| a != b);
    if let Some(n) = xmm {
        return Some(format!("xmm{n} {:x}, host {:x}", here.xmm[n], there.xmm[n]));
    }
    if here.gpr != there.gpr {
        return Some(format!("registers {:x?}, host {:x?}", here.gpr, there.gpr));
    }
    if here.memory != there.memory {
        return Some(format!(
            "memory {:x?}, host {:x?}",
            here.memory, there.memory
        ));
    }
    if (here.status, here.mxcsr) != (there.status, there.mxcsr) {
        let (a, b) = (here.status, there.status);
        return Some(format!(
            "flags {a:x} {:x}, host {b:x} {:x}",
            here.mxcsr, there.mxcsr
        ));
    }
    let at = here.x87.iter().zip(&there.x87).position(|(a, b)| a != b)?;
    Some(format!(
        "x87 byte {at}: {:x}, host {:x}",
        here.x87[at], there.x87[at]
    ))
}

#[test]
fn simd_instructions_do_what_the_host_does() {
    let count = compare(simd_encodings(), 20);
    assert!(count > 900, "only {count} encodings");
}

#[test]
fn x87_instructions_do_what_the_host_does() {
    let count = compare(x87_encodings(), 20);
    assert!(count > 300, "only {count} encodings");
}

#[test]
fn an_unmasked_simd_exception_leaves_its_operands_alone() {
    let ram = Ram::new(0x10000);
    let mut vcpu = ram.vcpu();
    let mut state = Numbers(1).state();
    (state.mxcsr, state.xmm[1], state.xmm[2]) = (0x1d80, 1.0f64.to_bits().into(), 0);
    let before = state.xmm;
    // divsd xmm1, xmm2: a division by zero, unmasked.
    ours(&mut vcpu, &ram, &[0xf2, 0x0f, 0x5e, 0xca], &mut state);
    assert_eq!(state.xmm, before);
    assert_eq!(state.mxcsr & 0x3f, 4);
}

#[test]
fn an_unmasked_x87_exception_is_pending_and_leaves_its_operands_alone() {
    let ram = Ram::new(0x10000);
    let mut vcpu = ram.vcpu();
    let mut state = Numbers(1).state();
    let mut x87 = super::image::X87 {
        fcw: 0x37b,
        ftw: 0xfff0,
        ..super::image::X87::RESET
    };
    x87.st[0] = [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f];
    state.x87 = x87.to_fsave();
    // fdiv st0, st1: 1 / 0.
    ours(&mut vcpu, &ram, &[0xd8, 0xf1], &mut state);
    let after = super::image::X87::from_fsave(&state.x87);
    assert_eq!(after.st[0], x87.st[0]);
    assert_eq!(after.fsw & 0x80ff, 0x8084);
}
