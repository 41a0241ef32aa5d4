//! The integer instructions: each family has its table, in a file of its own.

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::Mode;
use crate::lower::Lowered;

pub(crate) mod alu;
mod atomic;
mod bits;
mod bmi;
pub(crate) mod branch;
mod decimal;
mod flag;
mod mov;
pub(crate) mod operand;
mod random;
mod shift;
mod stack;
mod string;

mod muldiv;

/// The record of an integer instruction.
pub(crate) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    use Mnemonic as M;
    match insn.mnemonic() {
        M::Add | M::Or | M::Adc | M::Sbb | M::And | M::Sub | M::Xor | M::Cmp | M::Test => {
            alu::lower(insn, mode)
        }
        M::Inc | M::Dec | M::Neg | M::Not => alu::lower(insn, mode),
        M::Rol
        | M::Ror
        | M::Rcl
        | M::Rcr
        | M::Shl
        | M::Sal
        | M::Shr
        | M::Sar
        | M::Shld
        | M::Shrd => shift::lower(insn, mode),
        M::Mul | M::Imul | M::Div | M::Idiv => muldiv::lower(insn, mode),
        M::Mov
        | M::Movzx
        | M::Movsx
        | M::Movsxd
        | M::Lea
        | M::Bswap
        | M::Movbe
        | M::Movnti
        | M::Xlatb
        | M::Cbw
        | M::Cwde
        | M::Cdqe
        | M::Cwd
        | M::Cdq
        | M::Cqo => mov::lower(insn, mode),
        M::Seta
        | M::Setae
        | M::Setb
        | M::Setbe
        | M::Sete
        | M::Setne
        | M::Setg
        | M::Setge
        | M::Setl
        | M::Setle
        | M::Seto
        | M::Setno
        | M::Setp
        | M::Setnp
        | M::Sets
        | M::Setns
        | M::Cmova
        | M::Cmovae
        | M::Cmovb
        | M::Cmovbe
        | M::Cmove
        | M::Cmovne
        | M::Cmovg
        | M::Cmovge
        | M::Cmovl
        | M::Cmovle
        | M::Cmovo
        | M::Cmovno
        | M::Cmovp
        | M::Cmovnp
        | M::Cmovs
        | M::Cmovns => mov::lower(insn, mode),
        M::Push
        | M::Pop
        | M::Pusha
        | M::Pushad
        | M::Popa
        | M::Popad
        | M::Pushf
        | M::Pushfd
        | M::Pushfq
        | M::Enter
        | M::Leave => stack::lower(insn, mode),
        M::Xchg | M::Xadd | M::Cmpxchg | M::Cmpxchg8b | M::Cmpxchg16b => atomic::lower(insn, mode),
        M::Bt
        | M::Bts
        | M::Btr
        | M::Btc
        | M::Bsf
        | M::Bsr
        | M::Popcnt
        | M::Crc32
        | M::Rdrand
        | M::Rdseed => bits::lower(insn, mode),
        M::Andn
        | M::Bextr
        | M::Blsi
        | M::Blsmsk
        | M::Blsr
        | M::Bzhi
        | M::Mulx
        | M::Pdep
        | M::Pext
        | M::Rorx
        | M::Sarx
        | M::Shlx
        | M::Shrx
        | M::Adcx
        | M::Adox
        | M::Lzcnt
        | M::Tzcnt => bmi::lower(insn, mode),
        M::Aaa | M::Aas | M::Aam | M::Aad | M::Daa | M::Das => decimal::lower(insn),
        _ => string::lower(insn, mode)
            .or_else(|| flag::lower(insn, mode))
            .or_else(|| branch::lower(insn, mode)),
    }
}

#[cfg(test)]
mod tests;
