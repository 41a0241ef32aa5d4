//! Moves, exchanges, bit tests and BMI, row by row.

use super::rows::check_all;

#[test]
fn moves_extend_and_swap() {
    check_all(
        "
        // MOVZX, MOVSX and MOVSXD
        64: 48 0f b6 c1 | rax=ffffffffffffffff rcx=1280 | rax=80
        64: 0f b6 c5 | rax=ffffffffffffffff rcx=1280 | rax=12
        64: 66 0f b6 c1 | rax=ffffffffffffffff rcx=80 | rax=ffffffffffff0080
        32: 0f b7 c1 | rax=11111111 rcx=87654321 | rax=4321
        16: 0f b6 c1 | rax=11111111 rcx=80 | rax=11110080
        16: 66 0f b7 c1 | rax=11111111 rcx=22228000 | rax=8000
        64: 48 0f be c1 | rcx=80 | rax=ffffffffffffff80
        64: 0f be c1 | rax=ffffffffffffffff rcx=80 | rax=ffffff80
        32: 0f bf c1 | rcx=8000 CF | rax=ffff8000 ~
        32: 66 0f be c1 | rax=11111111 rcx=7f | rax=1111007f
        16: 0f be c5 | rcx=8000 | rax=ff80
        16: 66 0f bf 07 | rbx=2000 [2000]=ff80 | rax=ffff80ff
        64: 48 63 c1 | rcx=80000000 | rax=ffffffff80000000
        64: 63 c1 | rax=ffffffffffffffff rcx=80000000 | rax=80000000
        // CBW CWDE CDQE CWD CDQ CQO
        16: 98 | rax=11110080 | rax=1111ff80
        16: 66 98 | rax=11118000 | rax=ffff8000
        32: 66 98 | rax=1111007f | rax=1111007f
        32: 98 | rax=11117fff | rax=7fff
        64: 98 | rax=ffffffffffff8000 | rax=ffff8000
        64: 48 98 | rax=80000000 | rax=ffffffff80000000
        16: 99 | rax=8000 rdx=12345678 | rdx=1234ffff
        16: 66 99 | rax=8000 rdx=12345678 | rdx=0
        32: 99 | rax=80000000 rdx=5 | rdx=ffffffff
        64: 99 | rax=80000000 rdx=ffffffffffffffff | rdx=ffffffff
        64: 48 99 | rax=8000000000000000 | rdx=ffffffffffffffff
        // BSWAP
        16: 66 0f c8 | rax=12345678 | rax=78563412
        32: 0f c9 | rcx=12345678 CF ZF | rcx=78563412 ~
        64: 0f c9 | rcx=ffffffff12345678 | rcx=78563412
        64: 48 0f c9 | rcx=0102030405060708 | rcx=0807060504030201
        // MOVBE
        16: 0f 38 f0 07 | rax=11111111 rbx=2000 [2000]=1234 | rax=11111234
        16: 66 0f 38 f1 07 | rax=11223344 rbx=2000 [2000]=00000000 | [2000]=11223344
        32: 0f 38 f0 03 | rbx=2000 [2000]=12345678 | rax=12345678
        32: 66 0f 38 f1 03 | rax=aabbccdd rbx=2000 [2000]=00000000 | [2000]=ccdd0000
        64: 48 0f 38 f0 03 | rbx=2000 [2000]=0102030405060708 | rax=0102030405060708
        // LEA: the address size cuts the sum, the operand size what is kept of it
        16: 8d 40 10 | rax=5 rbx=fff8 rsi=ffff | rax=7
        16: 66 8d 40 10 | rax=ffffffff rbx=fff8 rsi=ffff | rax=7
        16: 67 8d 04 8b | rax=11110000 rbx=12340000 rcx=2 | rax=11110008
        32: 67 8d 47 ff | rbx=0 | rax=ffff
        32: 8d 44 cb 04 | rbx=fffffff0 rcx=4 | rax=14
        64: 67 48 8d 43 ff | rbx=0 | rax=ffffffff
        64: 48 8d 43 ff | rbx=0 | rax=ffffffffffffffff
        // XLAT: AL from [BX + AL], the sum cut at the address size
        16: d7 | rax=11ff rbx=ff00 [ffff]=77 | rax=1177
        16: d7 | rax=01 rbx=ffff [0]=66 | rax=66
        32: d7 | rax=10 rbx=2000 [2010]=55 | rax=55
        32: 67 d7 | rax=10 rbx=fffffff8 [8]=44 | rax=44
        64: d7 | rax=f0 rbx=1f10 [2000]=33 CF | rax=33 ~
        // MOV with an absolute address, and through a segment with a limit
        16: a1 00 20 | [2000]=1234 | rax=3412
        16: 66 67 a3 00 20 00 00 | rax=12345678 [2000]=00000000 | [2000]=78563412
        32: a0 00 20 00 00 | rax=ffffffff [2000]=12 | rax=ffffff12
        64: 48 a1 00 20 00 00 00 00 00 00 | [2000]=0102030405060708 | rax=0807060504030201
        32: 8b 03 | rbx=2000 ds.limit=2003 [2000]=01000000 | rax=1
        32: 8b 03 | rbx=2001 ds.limit=2003 rax=5 | #GP
        32: 8b 45 00 | rbp=2001 ss.limit=2003 rax=5 | #SS
        16: 8b 07 | rbx=ffff rax=5 | #GP
        16: 8a 07 | rbx=ffff [ffff]=09 | rax=9
        16: 8b 40 02 | rbx=f000 rsi=1000 [2]=3412 | rax=1234
        ",
    );
}

#[test]
fn exchanges_and_comparisons_with_exchange() {
    check_all(
        "
        // XCHG
        16: 93 | rax=11112222 rbx=33334444 | rax=11114444 rbx=33332222
        32: 93 | rax=11112222 rbx=33334444 CF OF | rax=33334444 rbx=11112222 ~
        64: 93 | rax=ffffffff11112222 rbx=ffffffff33334444 | rax=33334444 rbx=11112222
        64: 48 93 | rax=1 rbx=8000000000000000 | rax=8000000000000000 rbx=1
        32: 86 c4 | rax=1122 | rax=2211
        16: 87 07 | rax=1234 rbx=2000 [2000]=5678 | rax=7856 [2000]=3412
        32: 86 03 | rax=aa rbx=2000 [2000]=bb | rax=bb [2000]=aa
        32: 90 | rax=1 CF | ~
        // XADD: the target gets the sum, the source the old target
        32: 0f c1 ca | rcx=1 rdx=ffffffff | rcx=ffffffff rdx=0 CF ZF AF PF
        32: 0f c0 d2 | rdx=40 | rdx=80 SF OF
        16: f0 0f c1 17 | rbx=2000 rdx=1 [2000]=ff7f | rdx=7fff [2000]=0080 OF SF AF PF
        64: 48 0f c1 13 | rbx=2000 rdx=2 [2000]=0300000000000000 | rdx=3 [2000]=0500000000000000 PF
        // CMPXCHG
        32: 0f b1 ca | rax=5 rdx=5 rcx=9 CF | rdx=9 ZF PF
        32: 0f b1 ca | rax=5 rdx=6 rcx=9 | rax=6 CF SF AF PF
        64: 0f b1 ca | rax=ffffffff00000005 rdx=ffffffff00000005 rcx=9 | rdx=9 ZF PF
        32: 0f b0 cd | rax=12 rcx=3444 | rax=34 CF SF AF PF
        16: f0 0f b1 0f | rax=11111234 rbx=2000 rcx=abcd [2000]=3412 | [2000]=cdab ZF PF
        32: f0 0f b0 0b | rax=1 rbx=2000 rcx=7 [2000]=02 | rax=2 CF SF AF PF
        // CMPXCHG8B and CMPXCHG16B touch ZF alone
        32: 0f c7 0e | rsi=2000 rax=1 rdx=2 rbx=3 rcx=4 CF OF [2000]=0100000002000000 | [2000]=0300000004000000 CF OF ZF
        32: f0 0f c7 0e | rsi=2000 rax=1 rdx=2 ZF SF [2000]=0500000006000000 | rax=5 rdx=6 SF
        16: 0f c7 0c | rsi=2000 rax=1 rdx=2 rbx=3 [2000]=0100000002000000 | [2000]=0300000000000000 ZF
        64: 0f c7 0e | rsi=2000 rax=ffffffff00000001 rdx=2 [2000]=0500000006000000 | rax=5 rdx=6
        64: 48 0f c7 0e | rsi=2000 rax=1 rdx=2 rbx=3 rcx=4 [2000]=01000000000000000200000000000000 | [2000]=03000000000000000400000000000000 ZF
        64: 48 0f c7 0e | rsi=2000 rax=1 rdx=2 ZF [2000]=01000000000000000300000000000000 | rax=1 rdx=3
        64: 48 0f c7 0e | rsi=2008 rax=1 | #GP
        ",
    );
}

#[test]
fn bit_tests_in_memory_reach_beyond_the_operand() {
    check_all(
        "
        // Registers: the index is taken modulo the width, only CF changes.
        16: 0f a3 c8 | rax=2 rcx=11 ZF | CF ZF | OF SF AF PF
        32: 0f a3 c8 | rax=2 rcx=20 CF ZF | ZF | OF SF AF PF
        64: 48 0f a3 c8 | rax=8000000000000000 rcx=ffffffffffffffff | CF | OF SF AF PF
        64: 48 0f ab c8 | rax=1 rcx=3f | rax=8000000000000001 | OF SF AF PF
        32: 0f b3 c8 | rax=ffffffff rcx=1f | rax=7fffffff CF | OF SF AF PF
        32: 0f bb c8 | rax=1 rcx=40 | rax=0 CF | OF SF AF PF
        64: 0f ab c8 | rax=ffffffff00000000 rcx=0 | rax=1 | OF SF AF PF
        32: 0f ba e8 21 | rax=0 | rax=2 | OF SF AF PF
        16: 0f ba f8 1f | rax=8000 | rax=0 CF | OF SF AF PF
        64: 48 0f ba f0 bf | rax=8000000000000000 | rax=0 CF | OF SF AF PF
        // Memory by an immediate index stays in the operand.
        32: 0f ba 2b 29 | rbx=2000 [2000]=0000000000 | [2000]=0002000000 | OF SF AF PF
        16: 0f ba 27 1f | rbx=2000 [2000]=0080 | CF | OF SF AF PF
        // Memory by a register index, which is signed and counts operands.
        32: 0f a3 0b | rbx=2000 rcx=29 [2004]=00020000 | CF | OF SF AF PF
        32: 0f ab 0b | rbx=2008 rcx=ffffffff [2004]=00000000 | [2004]=00000080 | OF SF AF PF
        32: f0 0f b3 0b | rbx=2008 rcx=ffffffe0 [2004]=ffffffff | [2004]=feffffff CF | OF SF AF PF
        32: 66 0f bb 0b | rbx=2000 rcx=11018 [2202]=0000 | [2202]=0001 | OF SF AF PF
        16: 0f ab 0f | rbx=2000 rcx=7fff [2ffe]=0000 | [2ffe]=0080 | OF SF AF PF
        16: 0f ab 0f | rbx=2000 rcx=8000 [1000]=0000 | [1000]=0100 | OF SF AF PF
        16: 0f ab 0f | rbx=0 rcx=fff0 [fffe]=0000 | [fffe]=0100 | OF SF AF PF
        16: 66 0f bb 0f | rbx=2000 rcx=40 [2008]=01000000 | [2008]=00000000 CF | OF SF AF PF
        64: 48 0f ab 0b | rbx=2000 rcx=83 [2010]=0000000000000000 | [2010]=0800000000000000 | OF SF AF PF
        64: 48 0f b3 0b | rbx=2010 rcx=ffffffffffffff80 [2000]=ff | [2000]=fe CF | OF SF AF PF
        64: 0f bb 0b | rbx=2004 rcx=ffffffff [2000]=00000000 | [2000]=00000080 | OF SF AF PF
        // The limit counts for the operand that is reached.
        32: 0f a3 0b | rbx=2000 rcx=20 ds.limit=2003 | #GP
        ",
    );
}

#[test]
fn bmi_forms_in_protected_and_64_bit_code() {
    check_all(
        "
        // ANDN
        32: c4 e2 70 f2 c2 | rcx=ff rdx=fff0 CF OF | rax=ff00 | AF PF
        64: c4 e2 f0 f2 c2 | rcx=0 rdx=8000000000000000 | rax=8000000000000000 SF | AF PF
        64: c4 e2 70 f2 c2 | rax=ffffffffffffffff rcx=ffffffff rdx=ffffffff | rax=0 ZF | AF PF
        // BEXTR: start in bits 0 to 7, length in bits 8 to 15
        32: c4 e2 70 f7 c2 | rdx=12345678 rcx=0804 | rax=67 | AF SF PF
        32: c4 e2 70 f7 c2 | rdx=ffffffff rcx=0820 CF OF | rax=0 ZF | AF SF PF
        64: c4 e2 f0 f7 c2 | rdx=ffffffffffffffff rcx=ff3c | rax=f | AF SF PF
        64: c4 e2 f0 f7 c2 | rdx=ffffffffffffffff rcx=0004 | rax=0 ZF | AF SF PF
        // BLSR BLSMSK BLSI
        32: c4 e2 78 f3 ca | rdx=c | rax=8 | AF PF
        32: c4 e2 78 f3 ca | rdx=0 | rax=0 CF ZF | AF PF
        32: c4 e2 78 f3 d2 | rdx=8 | rax=f | AF PF
        32: c4 e2 78 f3 d2 | rdx=0 | rax=ffffffff CF SF | AF PF
        64: c4 e2 f8 f3 da | rdx=8000000000000000 | rax=8000000000000000 CF SF | AF PF
        64: c4 e2 f8 f3 da | rdx=0 | rax=0 ZF | AF PF
        // BZHI: an index beyond the width changes nothing but CF
        32: c4 e2 70 f5 c2 | rdx=ffffffff rcx=104 | rax=f | AF PF
        32: c4 e2 70 f5 c2 | rdx=ffffffff rcx=20 | rax=ffffffff CF SF | AF PF
        64: c4 e2 f0 f5 c2 | rdx=ffffffffffffffff rcx=20 | rax=ffffffff | AF PF
        64: c4 e2 f0 f5 c2 | rdx=5 rcx=0 | rax=0 ZF | AF PF
        // MULX: high half to the first operand, low half to the second, which the first overwrites
        32: c4 e2 73 f6 c3 | rdx=ffffffff rbx=ffffffff CF ZF | rax=fffffffe rcx=1 ~
        64: c4 e2 fb f6 c3 | rdx=8000000000000000 rbx=6 | rax=3
        // PDEP PEXT
        32: c4 e2 73 f5 c2 | rcx=5 rdx=f0f0 CF | rax=50 ~
        32: c4 e2 72 f5 c2 | rcx=abcd rdx=f0f0 | rax=ac
        64: c4 e2 f3 f5 c2 | rcx=3 rdx=8000000000000001 | rax=8000000000000001
        64: c4 e2 f2 f5 c2 | rcx=8000000000000001 rdx=8000000000000001 | rax=3
        // RORX SARX SHLX SHRX: counts modulo the width
        32: c4 e3 7b f0 c2 24 | rdx=12345678 CF | rax=81234567 ~
        64: c4 e3 fb f0 c2 44 | rdx=1 | rax=1000000000000000
        32: c4 e2 72 f7 c2 | rdx=80000000 rcx=3f | rax=ffffffff
        32: c4 e2 71 f7 c2 | rdx=1 rcx=21 ZF | rax=2 ~
        64: c4 e2 f3 f7 c2 | rdx=8000000000000000 rcx=7f | rax=1
        // ADCX and ADOX: one flag each
        32: 66 0f 38 f6 c1 | rax=ffffffff rcx=0 CF OF | rax=0 CF OF
        32: f3 0f 38 f6 c1 | rax=1 rcx=1 CF OF | rax=3 CF
        64: f3 48 0f 38 f6 c1 | rax=ffffffffffffffff rcx=1 ZF | rax=0 OF ZF
        64: 66 48 0f 38 f6 c1 | rax=7fffffffffffffff rcx=1 | rax=8000000000000000
        ",
    );
}

#[test]
fn odds_and_ends() {
    check_all(
        "
        // A register minus itself
        32: 29 c0 | rax=5 CF OF SF | rax=0 ZF PF
        64: 31 c0 | rax=ffffffffffffffff CF | rax=0 ZF PF | AF
        64: 66 31 c0 | rax=ffffffffffffffff CF | rax=ffffffffffff0000 ZF PF | AF
        64: 30 e4 | rax=ffff | rax=ff ZF PF | AF
        64: 19 c0 | rax=5 CF | rax=ffffffff CF SF AF PF
        // BOUND: signed, both limits belong to the range
        16: 62 07 | rax=5 rbx=2000 [2000]=0500 [2002]=0900 | 
        16: 62 07 | rax=ffff rbx=2000 [2000]=feff [2002]=0000 CF | ~
        16: 62 07 | rax=a rbx=2000 [2000]=0500 [2002]=0900 CF | #BR
        32: 62 03 | rax=80000000 rbx=2000 [2000]=00000000 [2004]=ffffff7f | #BR
        32: 62 03 | rax=9 rbx=2000 [2000]=00000000 [2004]=09000000 | 
        32: 62 03 | rax=9 rbx=2000 ds.limit=2006 [2000]=00000000 | #GP
        // AAM AAD with other bases, AAM by zero
        16: d4 10 | rax=115c | rax=50c PF | OF AF CF
        32: d5 10 | rax=050c | rax=5c PF | OF AF CF
        32: d4 0a | rax=0 | rax=0 ZF PF | OF AF CF
        32: d4 00 | rax=12 CF | #DE
        // Single flags
        32: f8 | CF ZF | ZF
        32: f9 | ZF | CF ZF
        16: f5 | CF OF | OF
        32: 9f | CF ZF SF OF | rax=c300 ~
        32: 9e | rax=d500 OF | CF PF AF ZF SF OF
        64: d6 | | #UD
        64: 27 | | #UD
        64: 60 | | #UD
        64: 62 03 | | #UD
        // Locks where there are none
        32: f0 01 c8 | | #UD
        32: f0 39 03 | rbx=2000 | #UD
        32: f0 0f a3 0b | rbx=2000 | #UD
        ",
    );
}
