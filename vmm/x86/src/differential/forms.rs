//! The rows that sequences are drawn from.

use iced_x86::Code;

/// An encoding, and what the generator has to know about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub(super) code: Code,
    pub(super) kind: Kind,
    /// What memory operands are a multiple of.
    pub(super) align: u64,
}

/// How a form is made into a group of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One instruction; all flags are the host's.
    Plain,
    /// One instruction; flags that it leaves undefined are cleared after it.
    Computed,
    /// One instruction between others that make it safe.
    Prepared(&'static [u8], &'static [u8]),
    /// These bytes.
    Bytes(&'static [u8]),
    /// A branch over the following instruction, by its opcode.
    Skip(&'static [u8]),
    /// A conditional branch over the following instruction.
    SkipIf,
}

impl Form {
    /// One instruction with random operands.
    #[must_use]
    pub const fn plain(code: Code) -> Self {
        Self {
            code,
            kind: Kind::Plain,
            align: 1,
        }
    }

    /// The same with a memory operand that is a multiple of `align` bytes.
    #[must_use]
    pub const fn aligned(code: Code, align: u64) -> Self {
        Self {
            align,
            ..Self::plain(code)
        }
    }

    /// One instruction, of whose undefined flags the CPU has its own idea.
    #[must_use]
    pub const fn computed(code: Code) -> Self {
        Self {
            kind: Kind::Computed,
            ..Self::plain(code)
        }
    }

    /// One instruction between others that make it safe.
    #[must_use]
    pub const fn between(before: &'static [u8], code: Code, after: &'static [u8]) -> Self {
        Self {
            kind: Kind::Prepared(before, after),
            ..Self::plain(code)
        }
    }

    /// Instructions as they are.
    #[must_use]
    pub const fn bytes(bytes: &'static [u8]) -> Self {
        Self {
            kind: Kind::Bytes(bytes),
            ..Self::plain(Code::Nopd)
        }
    }

    const fn skip(opcode: &'static [u8]) -> Self {
        Self {
            kind: Kind::Skip(opcode),
            ..Self::plain(Code::Nopd)
        }
    }

    const fn skip_if() -> Self {
        Self {
            kind: Kind::SkipIf,
            ..Self::plain(Code::Nopd)
        }
    }
}

macro_rules! forms {
    ($make:path: $($code:ident)*) => {
        [$($make(Code::$code)),*]
    };
}

#[rustfmt::skip]
const PLAIN: &[Form] = &forms![Form::plain:
    Add_rm8_r8 Add_rm16_r16 Add_rm32_r32 Add_rm64_r64 Add_r8_rm8 Add_r16_rm16 Add_r32_rm32 Add_r64_rm64
    Add_AL_imm8 Add_AX_imm16 Add_EAX_imm32 Add_RAX_imm32 Add_rm8_imm8 Add_rm16_imm16 Add_rm32_imm32
    Add_rm64_imm32 Add_rm16_imm8 Add_rm32_imm8 Add_rm64_imm8 Or_rm8_r8 Or_rm16_r16 Or_rm32_r32 Or_rm64_r64
    Or_r8_rm8 Or_r16_rm16 Or_r32_rm32 Or_r64_rm64 Or_AL_imm8 Or_AX_imm16 Or_EAX_imm32 Or_RAX_imm32 Or_rm8_imm8
    Or_rm16_imm16 Or_rm32_imm32 Or_rm64_imm32 Or_rm16_imm8 Or_rm32_imm8 Or_rm64_imm8 Adc_rm8_r8 Adc_rm16_r16
    Adc_rm32_r32 Adc_rm64_r64 Adc_r8_rm8 Adc_r16_rm16 Adc_r32_rm32 Adc_r64_rm64 Adc_AL_imm8 Adc_AX_imm16
    Adc_EAX_imm32 Adc_RAX_imm32 Adc_rm8_imm8 Adc_rm16_imm16 Adc_rm32_imm32 Adc_rm64_imm32 Adc_rm16_imm8
    Adc_rm32_imm8 Adc_rm64_imm8 Sbb_rm8_r8 Sbb_rm16_r16 Sbb_rm32_r32 Sbb_rm64_r64 Sbb_r8_rm8 Sbb_r16_rm16
    Sbb_r32_rm32 Sbb_r64_rm64 Sbb_AL_imm8 Sbb_AX_imm16 Sbb_EAX_imm32 Sbb_RAX_imm32 Sbb_rm8_imm8 Sbb_rm16_imm16
    Sbb_rm32_imm32 Sbb_rm64_imm32 Sbb_rm16_imm8 Sbb_rm32_imm8 Sbb_rm64_imm8 And_rm8_r8 And_rm16_r16
    And_rm32_r32 And_rm64_r64 And_r8_rm8 And_r16_rm16 And_r32_rm32 And_r64_rm64 And_AL_imm8 And_AX_imm16
    And_EAX_imm32 And_RAX_imm32 And_rm8_imm8 And_rm16_imm16 And_rm32_imm32 And_rm64_imm32 And_rm16_imm8
    And_rm32_imm8 And_rm64_imm8 Sub_rm8_r8 Sub_rm16_r16 Sub_rm32_r32 Sub_rm64_r64 Sub_r8_rm8 Sub_r16_rm16
    Sub_r32_rm32 Sub_r64_rm64 Sub_AL_imm8 Sub_AX_imm16 Sub_EAX_imm32 Sub_RAX_imm32 Sub_rm8_imm8 Sub_rm16_imm16
    Sub_rm32_imm32 Sub_rm64_imm32 Sub_rm16_imm8 Sub_rm32_imm8 Sub_rm64_imm8 Xor_rm8_r8 Xor_rm16_r16
    Xor_rm32_r32 Xor_rm64_r64 Xor_r8_rm8 Xor_r16_rm16 Xor_r32_rm32 Xor_r64_rm64 Xor_AL_imm8 Xor_AX_imm16
    Xor_EAX_imm32 Xor_RAX_imm32 Xor_rm8_imm8 Xor_rm16_imm16 Xor_rm32_imm32 Xor_rm64_imm32 Xor_rm16_imm8
    Xor_rm32_imm8 Xor_rm64_imm8 Cmp_rm8_r8 Cmp_rm16_r16 Cmp_rm32_r32 Cmp_rm64_r64 Cmp_r8_rm8 Cmp_r16_rm16
    Cmp_r32_rm32 Cmp_r64_rm64 Cmp_AL_imm8 Cmp_AX_imm16 Cmp_EAX_imm32 Cmp_RAX_imm32 Cmp_rm8_imm8 Cmp_rm16_imm16
    Cmp_rm32_imm32 Cmp_rm64_imm32 Cmp_rm16_imm8 Cmp_rm32_imm8 Cmp_rm64_imm8 Test_rm8_r8 Test_rm16_r16
    Test_rm32_r32 Test_rm64_r64 Test_AL_imm8 Test_AX_imm16 Test_EAX_imm32 Test_RAX_imm32 Test_rm8_imm8
    Test_rm16_imm16 Test_rm32_imm32 Test_rm64_imm32
    Inc_rm8 Inc_rm16 Inc_rm32 Inc_rm64 Dec_rm8 Dec_rm16 Dec_rm32 Dec_rm64 Neg_rm8 Neg_rm16 Neg_rm32 Neg_rm64
    Not_rm8 Not_rm16 Not_rm32 Not_rm64
    Rol_rm8_1 Rol_rm8_CL Rol_rm16_1 Rol_rm16_CL Rol_rm32_1
    Rol_rm32_CL Rol_rm64_1 Rol_rm64_CL Ror_rm8_1 Ror_rm8_CL 
    Ror_rm16_1 Ror_rm16_CL Ror_rm32_1 Ror_rm32_CL Ror_rm64_1 Ror_rm64_CL
    Rcl_rm8_1 Rcl_rm8_CL Rcl_rm16_1 Rcl_rm16_CL Rcl_rm32_1
    Rcl_rm32_CL Rcl_rm64_1 Rcl_rm64_CL Rcr_rm8_1 Rcr_rm8_CL 
    Rcr_rm16_1 Rcr_rm16_CL Rcr_rm32_1 Rcr_rm32_CL Rcr_rm64_1 Rcr_rm64_CL
    Shl_rm8_imm8 Shl_rm8_1 Shl_rm8_CL Shl_rm16_imm8 Shl_rm16_1 Shl_rm16_CL Shl_rm32_imm8 Shl_rm32_1
    Shl_rm32_CL Shl_rm64_imm8 Shl_rm64_1 Shl_rm64_CL Shr_rm8_imm8 Shr_rm8_1 Shr_rm8_CL Shr_rm16_imm8
    Shr_rm16_1 Shr_rm16_CL Shr_rm32_imm8 Shr_rm32_1 Shr_rm32_CL Shr_rm64_imm8 Shr_rm64_1 Shr_rm64_CL
    Sar_rm8_imm8 Sar_rm8_1 Sar_rm8_CL Sar_rm16_imm8 Sar_rm16_1 Sar_rm16_CL Sar_rm32_imm8 Sar_rm32_1
    Sar_rm32_CL Sar_rm64_imm8 Sar_rm64_1 Sar_rm64_CL Sal_rm8_imm8 Sal_rm8_1 Sal_rm8_CL Sal_rm16_imm8
    Sal_rm16_1 Sal_rm16_CL Sal_rm32_imm8 Sal_rm32_1 Sal_rm32_CL Sal_rm64_imm8 Sal_rm64_1 Sal_rm64_CL
    Shld_rm32_r32_imm8 Shld_rm32_r32_CL Shld_rm64_r64_imm8 Shld_rm64_r64_CL Shrd_rm32_r32_imm8
    Shrd_rm32_r32_CL Shrd_rm64_r64_imm8 Shrd_rm64_r64_CL
    Mul_rm8 Mul_rm16 Mul_rm32 Mul_rm64 Imul_rm8 Imul_rm16 Imul_rm32 Imul_rm64 Imul_r16_rm16 Imul_r32_rm32
    Imul_r64_rm64 Imul_r16_rm16_imm16 Imul_r32_rm32_imm32 Imul_r64_rm64_imm32 Imul_r16_rm16_imm8
    Imul_r32_rm32_imm8 Imul_r64_rm64_imm8
    Mov_rm8_r8 Mov_rm16_r16 Mov_rm32_r32 Mov_rm64_r64 Mov_r8_rm8 Mov_r16_rm16 Mov_r32_rm32 Mov_r64_rm64
    Mov_r8_imm8 Mov_r16_imm16 Mov_r32_imm32 Mov_r64_imm64 Mov_rm8_imm8 Mov_rm16_imm16 Mov_rm32_imm32
    Mov_rm64_imm32 Movzx_r16_rm8 Movzx_r32_rm8 Movzx_r64_rm8 Movzx_r16_rm16 Movzx_r32_rm16 Movzx_r64_rm16
    Movsx_r16_rm8 Movsx_r32_rm8 Movsx_r64_rm8 Movsx_r16_rm16 Movsx_r32_rm16 Movsx_r64_rm16 Movsxd_r16_rm16
    Movsxd_r32_rm32 Movsxd_r64_rm32 Lea_r16_m Lea_r32_m Lea_r64_m Bswap_r32 Bswap_r64 Movbe_r16_m16
    Movbe_r32_m32 Movbe_r64_m64 Movbe_m16_r16 Movbe_m32_r32 Movbe_m64_r64 Movnti_m32_r32 Movnti_m64_r64 Cbw
    Cwde Cdqe Cwd Cdq Cqo
    Cmovo_r16_rm16 Cmovo_r32_rm32 Cmovo_r64_rm64 Cmovno_r16_rm16 Cmovno_r32_rm32 Cmovno_r64_rm64
    Cmovb_r16_rm16 Cmovb_r32_rm32 Cmovb_r64_rm64 Cmovae_r16_rm16 Cmovae_r32_rm32 Cmovae_r64_rm64
    Cmove_r16_rm16 Cmove_r32_rm32 Cmove_r64_rm64 Cmovne_r16_rm16 Cmovne_r32_rm32 Cmovne_r64_rm64
    Cmovbe_r16_rm16 Cmovbe_r32_rm32 Cmovbe_r64_rm64 Cmova_r16_rm16 Cmova_r32_rm32 Cmova_r64_rm64
    Cmovs_r16_rm16 Cmovs_r32_rm32 Cmovs_r64_rm64 Cmovns_r16_rm16 Cmovns_r32_rm32 Cmovns_r64_rm64
    Cmovp_r16_rm16 Cmovp_r32_rm32 Cmovp_r64_rm64 Cmovnp_r16_rm16 Cmovnp_r32_rm32 Cmovnp_r64_rm64
    Cmovl_r16_rm16 Cmovl_r32_rm32 Cmovl_r64_rm64 Cmovge_r16_rm16 Cmovge_r32_rm32 Cmovge_r64_rm64
    Cmovle_r16_rm16 Cmovle_r32_rm32 Cmovle_r64_rm64 Cmovg_r16_rm16 Cmovg_r32_rm32 Cmovg_r64_rm64 Seto_rm8
    Setno_rm8 Setb_rm8 Setae_rm8 Sete_rm8 Setne_rm8 Setbe_rm8 Seta_rm8 Sets_rm8 Setns_rm8 Setp_rm8 Setnp_rm8
    Setl_rm8 Setge_rm8 Setle_rm8 Setg_rm8
    Xchg_rm8_r8 Xchg_rm16_r16 Xchg_rm32_r32 Xchg_rm64_r64 Xadd_rm8_r8 Xadd_rm16_r16 Xadd_rm32_r32
    Xadd_rm64_r64 Cmpxchg_rm8_r8 Cmpxchg_rm16_r16 Cmpxchg_rm32_r32 Cmpxchg_rm64_r64 Cmpxchg8b_m64 Xchg_r32_EAX
    Xchg_r64_RAX Xchg_r16_AX
    Bt_rm16_imm8 Bt_rm32_imm8 Bt_rm64_imm8 Bts_rm16_imm8 Bts_rm32_imm8 Bts_rm64_imm8 Btr_rm16_imm8
    Btr_rm32_imm8 Btr_rm64_imm8 Btc_rm16_imm8 Btc_rm32_imm8 Btc_rm64_imm8 Bsf_r16_rm16 Bsf_r32_rm32
    Bsf_r64_rm64 Bsr_r16_rm16 Bsr_r32_rm32 Bsr_r64_rm64 Popcnt_r16_rm16 Popcnt_r32_rm32 Popcnt_r64_rm64
    Crc32_r32_rm8 Crc32_r32_rm16 Crc32_r32_rm32 Crc32_r64_rm8 Crc32_r64_rm64
    Push_r16 Push_r64 Push_rm16 Push_rm64 Pop_r16 Pop_r64 Pop_rm16 Pop_rm64 Pushw_imm8 Pushq_imm8 Push_imm16
    Pushq_imm32
    Lahf Sahf Clc Stc Cmc Nop_rm16 Nop_rm32 Nop_rm64 Endbr64 Pause Mfence Lfence Sfence Prefetcht0_m8
    Prefetchw_m8 Clflush_m8
];

/// Rotates whose count is above 1 leave OF undefined, and hosts treat immediate counts in a way of their own.
#[rustfmt::skip]
const ROTATES: &[Form] = &forms![Form::computed:
    Rol_rm8_imm8 Rol_rm16_imm8 Rol_rm32_imm8 Rol_rm64_imm8 Ror_rm8_imm8 Ror_rm16_imm8 Ror_rm32_imm8 Ror_rm64_imm8
    Rcl_rm8_imm8 Rcl_rm16_imm8 Rcl_rm32_imm8 Rcl_rm64_imm8 Rcr_rm8_imm8 Rcr_rm16_imm8 Rcr_rm32_imm8 Rcr_rm64_imm8
];

/// BMI1, BMI2, ADX, LZCNT and TZCNT.
#[rustfmt::skip]
pub const BIT_MANIPULATION: &[Form] = &forms![Form::computed:
    Lzcnt_r16_rm16 Lzcnt_r32_rm32 Lzcnt_r64_rm64 Tzcnt_r16_rm16 Tzcnt_r32_rm32 Tzcnt_r64_rm64
    VEX_Andn_r32_r32_rm32 VEX_Andn_r64_r64_rm64 VEX_Mulx_r32_r32_rm32 VEX_Mulx_r64_r64_rm64
    VEX_Pdep_r32_r32_rm32 VEX_Pdep_r64_r64_rm64 VEX_Pext_r32_r32_rm32 VEX_Pext_r64_r64_rm64
    VEX_Bextr_r32_rm32_r32 VEX_Bextr_r64_rm64_r64 VEX_Bzhi_r32_rm32_r32 VEX_Bzhi_r64_rm64_r64
    VEX_Sarx_r32_rm32_r32 VEX_Sarx_r64_rm64_r64 VEX_Shlx_r32_rm32_r32 VEX_Shlx_r64_rm64_r64
    VEX_Shrx_r32_rm32_r32 VEX_Shrx_r64_rm64_r64 VEX_Blsr_r32_rm32 VEX_Blsr_r64_rm64 VEX_Blsmsk_r32_rm32
    VEX_Blsmsk_r64_rm64 VEX_Blsi_r32_rm32 VEX_Blsi_r64_rm64 VEX_Rorx_r32_rm32_imm8 VEX_Rorx_r64_rm64_imm8
    Adcx_r32_rm32 Adcx_r64_rm64 Adox_r32_rm32 Adox_r64_rm64
];

/// Instructions that need preparation, branches, and strings. Memory is reached through R13, which points
/// to the border of the scratch pages.
#[rustfmt::skip]
const PREPARED: &[Form] = &[
    Form::aligned(Code::Cmpxchg16b_m128, 16),
    // A dividend whose high half is below the divisor: half of it.
    Form::bytes(b"\x48\x83\xc9\x01\x48\x89\xca\x48\xd1\xea\x48\xf7\xf1"), // or rcx, 1; mov rdx, rcx; shr rdx, 1; div rcx
    Form::bytes(b"\x83\xc9\x01\x89\xca\xd1\xea\xf7\xf1"),                     // the same in 32 bits
    Form::bytes(b"\x66\x83\xc9\x01\x66\x89\xca\x66\xd1\xea\x66\xf7\xf1"), // in 16 bits
    Form::bytes(b"\x80\xc9\x01\x88\xcc\xd0\xec\xf6\xf1"),                     // in 8 bits: AH from CL
    // A signed quotient that fits: a positive divisor and the sign of the dividend above it.
    Form::bytes(b"\x48\xd1\xe9\x48\x83\xc9\x01\x48\x99\x48\xf7\xf9"), // shr rcx, 1; or rcx, 1; cqo; idiv rcx
    Form::bytes(b"\xd1\xe9\x83\xc9\x01\x99\xf7\xf9"),
    Form::bytes(b"\x66\xd1\xe9\x66\x83\xc9\x01\x66\x99\x66\xf7\xf9"),
    Form::bytes(b"\xd0\xe9\x80\xc9\x01\x66\x98\xf6\xf9"),
    // Negative divisors of a small dividend: movsx rax, al; or rcx, -128; cqo; idiv rcx.
    Form::bytes(b"\x48\x0f\xbe\xc0\x48\x83\xc9\x80\x48\x83\xe1\xbf\x48\x99\x48\xf7\xf9"),
    Form::bytes(b"\x0f\xbe\xc0\x83\xc9\x80\x83\xe1\xbf\x99\xf7\xf9"),
    // Bit strings: the index in RCX reaches 128 bits down and up.
    Form::bytes(b"\x48\x0f\xbe\xc9\x49\x0f\xa3\x4d\x20"), // movsx rcx, cl; bt [r13+32], rcx
    Form::bytes(b"\x48\x0f\xbe\xc9\xf0\x49\x0f\xab\x4d\x20"), // lock bts
    Form::bytes(b"\x48\x0f\xbe\xc9\x49\x0f\xb3\x4d\x20"), // btr
    Form::bytes(b"\x0f\xbe\xc9\x41\x0f\xbb\x4d\x20"),      // btc in 32 bits
    Form::bytes(b"\x66\x0f\xbe\xc9\x66\x41\x0f\xab\x4d\x20"), // bts in 16 bits
    Form::bytes(b"\x66\x0f\xbe\xc9\x66\x41\x0f\xa3\x4d\x20"), // bt in 16 bits
    Form::bytes(b"\x48\x0f\xa3\xc8\x0f\xab\xd0\x66\x0f\xb3\xd8\x4d\x0f\xbb\xc1"), // bt/bts/btr/btc registers
    Form::bytes(b"\x49\x8d\x9d\x00\xff\xff\xff\xd7"), // lea rbx, [r13-256]; xlatb
    // Strings: RSI and RDI near the border, ECX small.
    Form::bytes(b"\x49\x8d\x75\xe0\x49\x8d\x7d\xf3\x83\xe1\x3f\xf3\xa4"), // rep movsb, overlapping
    Form::bytes(b"\x49\x8d\x75\xe3\x49\x8d\x7d\x81\x83\xe1\x1f\xf3\x48\xa5"), // rep movsq
    Form::bytes(b"\x49\x8d\x75\xe0\x49\x8d\x7d\x12\x83\xe1\x1f\xf3\x66\xa5"), // rep movsw
    Form::bytes(b"\x49\x8d\x75\xe0\x49\x8d\x7d\xe1\x83\xe1\x1f\xf3\xa5"), // rep movsd, overlapping
    Form::bytes(b"\xfd\x49\x8d\x75\x20\x49\x8d\x7d\x24\x83\xe1\x1f\xf3\xa5\xfc"), // downwards
    Form::bytes(b"\x49\x8d\x7d\xe0\x83\xe1\x7f\xf3\xaa"), // rep stosb
    Form::bytes(b"\x49\x8d\x7d\xe3\x83\xe1\x1f\xf3\x48\xab"), // rep stosq
    Form::bytes(b"\x49\x8d\x7d\xe3\x83\xe1\x1f\x67\xf3\xab"), // rep stosd with EDI
    Form::bytes(b"\xfd\x49\x8d\x7d\x31\x83\xe1\x1f\xf3\x66\xab\xfc"), // downwards
    Form::bytes(b"\x49\x8d\x75\xe0\x83\xe1\x1f\xf3\xac\x48\xad\x66\xad\xad"), // rep lodsb; lodsq; lodsw; lodsd
    Form::bytes(b"\x49\x8d\x7d\xe0\x83\xe1\x3f\xf2\xae\x9c\x58"), // repne scasb; pushfq; pop rax
    Form::bytes(b"\x49\x8d\x7d\xe0\x83\xe1\x3f\xf3\x66\xaf"), // repe scasw
    Form::bytes(b"\x49\x8d\x75\xe0\x49\x8d\x7d\x12\x83\xe1\x1f\xf3\xa6"), // repe cmpsb
    Form::bytes(b"\x49\x8d\x75\xe0\x49\x8d\x7d\x12\x83\xe1\x1f\xf2\xa7"), // repne cmpsd
    Form::bytes(b"\x49\x8d\x75\xe0\x49\x8d\x7d\x12\xa6\xa5\xaa\x48\xa7\x66\xab\x48\xaf"), // one of each
    // Frames.
    Form::bytes(b"\x49\x8d\x6d\x40\xc8\x20\x00\x00\xc9"), // lea rbp, [r13+64]; enter 32, 0; leave
    Form::bytes(b"\x49\x8d\x6d\x40\xc8\x10\x00\x03\xc9"), // enter 16, 3; leave
    Form::bytes(b"\x9c\x58\x25\xd5\x0c\x00\x00"), // pushfq; pop rax; and eax, 0xcd5
    // Calls: to the next instruction; by register; return over an instruction.
    Form::bytes(b"\xe8\x00\x00\x00\x00\x58"), // call; pop rax
    Form::bytes(b"\x48\x8d\x05\x02\x00\x00\x00\xff\xd0\x59"), // lea rax, [rip+2]; call rax; pop rcx
    Form::bytes(b"\x48\x8d\x05\x02\x00\x00\x00\xff\xe0"), // lea rax, [rip+2]; jmp rax
    Form::bytes(b"\x48\x8d\x05\x02\x00\x00\x00\x50\xc3"), // lea rax, [rip+2]; push rax; ret
    Form::bytes(b"\x48\x8d\x05\x04\x00\x00\x00\x50\xc2\x08\x00"), // ret 8
    // A short loop: mov ecx, 5; add eax, ebx; loop.
    Form::bytes(b"\xb9\x05\x00\x00\x00\x01\xd8\xe2\xfc"),
    Form::bytes(b"\xb9\x05\x00\x00\x00\x11\xd8\xe0\xfc"), // loopne
    Form::bytes(b"\xb9\x05\x00\x00\x00\xd1\xd8\x67\xe1\xfb"), // loope with ECX
    Form::skip_if(),
    Form::skip_if(),
    Form::skip_if(),
    Form::skip(b"\xeb"),
    Form::skip(b"\xe2"),     // loop
    Form::skip(b"\xe1"),     // loope
    Form::skip(b"\x67\xe0"), // loopne with ECX
    Form::skip(b"\xe3"),     // jrcxz
    Form::skip(b"\x67\xe3"), // jecxz
];

/// The integer instructions.
pub const INTEGER: &[&[Form]] = &[PLAIN, PLAIN, PLAIN, PLAIN, PREPARED, ROTATES];
