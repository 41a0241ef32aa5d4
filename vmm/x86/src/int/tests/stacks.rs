//! The stack at every operand size and stack size.

use super::rows::check_all;

#[test]
fn pushes_and_pops_at_every_operand_and_stack_size() {
    check_all(
        "
        16: 50 | rax=12345678 [7ffe]=0000 | rsp=7ffe [7ffe]=7856
        16: 66 50 | rax=12345678 [7ffc]=00000000 | rsp=7ffc [7ffc]=78563412
        32: 50 | rax=12345678 [7ffc]=00000000 | rsp=7ffc [7ffc]=78563412
        32: 66 50 | rax=12345678 [7ffe]=0000 | rsp=7ffe [7ffe]=7856
        64: 50 | rax=0102030405060708 [7ff8]=0000000000000000 | rsp=7ff8 [7ff8]=0807060504030201
        64: 66 50 | rax=1234 [7ffe]=0000 | rsp=7ffe [7ffe]=3412
        // The width of the stack is that of SS, not of the code.
        16: 50 | rsp=12348000 rax=1234 [7ffe]=0000 | rsp=12347ffe [7ffe]=3412
        16w: 50 | ss.limit=ffffffff rsp=18000 rax=1234 [17ffe]=0000 | rsp=17ffe [17ffe]=3412
        32n: 50 | rsp=12348000 rax=12345678 [7ffc]=00000000 | rsp=12347ffc [7ffc]=78563412
        32n: 58 | rsp=12348000 [8000]=78563412 | rsp=12348004 rax=12345678
        16w: 58 | ss.limit=ffffffff rsp=1fffe rax=11110000 [1fffe]=3412 | rsp=20000 rax=11111234
        // It wraps at its end.
        16: 50 | rsp=0 rax=1234 [fffe]=0000 | rsp=fffe [fffe]=3412
        16: 58 | rsp=fffe [fffe]=3412 | rsp=0 rax=1234
        16: 50 | rsp=1 | #SS
        32n: 58 | rsp=1fffc [fffc]=78563412 | rsp=10000 rax=12345678
        32: 50 | rsp=1000 ss.limit=ffe | #SS
        32: 58 | rsp=1000 ss.limit=1002 | #SS
        // PUSH and POP of the stack pointer itself
        16: 54 | [7ffe]=0000 | rsp=7ffe [7ffe]=0080
        32: 54 | [7ffc]=00000000 | rsp=7ffc [7ffc]=00800000
        32: 5c | [8000]=34120000 | rsp=1234
        16: 5c | rsp=11118000 [8000]=3412 | rsp=11111234
        64: 5c | [8000]=3412000000000000 | rsp=1234
        // Immediates
        16: 6a 80 | [7ffe]=0000 | rsp=7ffe [7ffe]=80ff
        16: 66 6a 80 | [7ffc]=00000000 | rsp=7ffc [7ffc]=80ffffff
        32: 68 78 56 34 12 | [7ffc]=00000000 | rsp=7ffc [7ffc]=78563412
        32: 66 68 78 56 | [7ffe]=0000 | rsp=7ffe [7ffe]=7856
        64: 6a ff | [7ff8]=0000000000000000 | rsp=7ff8 [7ff8]=ffffffffffffffff
        64: 68 00 00 00 80 | [7ff8]=0000000000000000 | rsp=7ff8 [7ff8]=00000080ffffffff
        // Memory: POP computes its address after the stack pointer has moved.
        32: ff 33 | rbx=2000 [2000]=01020304 [7ffc]=00000000 | rsp=7ffc [7ffc]=01020304
        32: ff 74 24 04 | [8004]=01020304 [7ffc]=00000000 | rsp=7ffc [7ffc]=01020304
        32: 8f 44 24 04 | [8000]=01020304 [8008]=00000000 | rsp=8004 [8008]=01020304
        16: 8f 07 | rbx=2000 [8000]=0102 [2000]=0000 | rsp=8002 [2000]=0102
        64: 8f 04 24 | [8000]=0102030405060708 [8008]=0000000000000000 | rsp=8008 [8008]=0102030405060708
        32: 8f 03 | rbx=2000 ds.limit=2002 [8000]=01020304 | #GP
        // Selectors: the upper half of a 32-bit slot is zero.
        16: 1e | [7ffe]=0000 | rsp=7ffe [7ffe]=1000
        32: 66 06 | [7ffe]=0000 | rsp=7ffe [7ffe]=1000
        64: 0f a0 | [7ff8]=ffffffffffffffff | rsp=7ff8 [7ff8]=1000000000000000
        // PUSHF
        16: 9c | CF ZF DF [7ffe]=0000 | rsp=7ffe [7ffe]=4304 ~
        32: 9c | CF OF [7ffc]=00000000 | rsp=7ffc [7ffc]=03080000 ~
        64: 9c | SF [7ff8]=0000000000000000 | rsp=7ff8 [7ff8]=8200000000000000 ~
        ",
    );
}

#[test]
fn all_registers_are_pushed_in_order() {
    check_all(
        "
        16: 60 | rax=1 rcx=2 rdx=3 rbx=4 rbp=5 rsi=6 rdi=7 [7ff0]=00000000000000000000000000000000 | rsp=7ff0 [7ff0]=07000600050000800400030002000100
        32: 66 60 | rax=1 rcx=2 rdx=3 rbx=4 rbp=5 rsi=6 rdi=7 [7ff0]=00 | rsp=7ff0 [7ff0]=07000600050000800400030002000100
        32: 60 | rax=1 rcx=2 rdx=3 rbx=4 rbp=5 rsi=6 rdi=7 [7fe0]=00 | rsp=7fe0 [7fe0]=0700000006000000050000000080000004000000030000000200000001000000
        16: 61 | rax=ffffffff [8000]=0100020003000400050006000700f800 | rdi=1 rsi=2 rbp=3 rbx=5 rdx=6 rcx=7 rax=ffff00f8 rsp=8010
        32: 61 | [8000]=0100000002000000030000000400000005000000060000000700000008000000 | rdi=1 rsi=2 rbp=3 rbx=5 rdx=6 rcx=7 rax=8 rsp=8020
        16: 61 | rsp=fff8 [fff8]=0100020003000400 [0]=0500060007000800 | rdi=1 rsi=2 rbp=3 rbx=5 rdx=6 rcx=7 rax=8 rsp=8
        32: 61 | rsp=2000 ss.limit=201e rax=9 | #SS
        32: 60 | rsp=1000 ss.limit=ffe rax=9 | #SS
        ",
    );
}

#[test]
fn frames_nest() {
    check_all(
        "
        // ENTER size, level
        16: c8 10 00 00 | rbp=1234 [7ffe]=0000 | rbp=7ffe rsp=7fee [7ffe]=3412
        32: c8 10 00 00 | rbp=12345678 [7ffc]=00000000 | rbp=7ffc rsp=7fec [7ffc]=78563412
        64: c8 10 00 00 | rbp=1234 [7ff8]=0000000000000000 | rbp=7ff8 rsp=7fe8 [7ff8]=3412000000000000
        32: c8 04 00 01 | rbp=9000 [7ff8]=0000000000000000 | rbp=7ffc rsp=7ff4 [7ff8]=fc7f000000900000
        32: c8 04 00 03 | rbp=9000 [8ff8]=2222222211111111 [7ff0]=00000000000000000000000000000000 | rbp=7ffc rsp=7fec [7ff0]=fc7f0000222222221111111100900000
        16: c8 00 00 02 | rbp=9000 [8ffe]=1111 [7ffa]=000000000000 | rbp=7ffe rsp=7ffa [7ffa]=fe7f11110090
        64: c8 00 00 22 | rbp=9000 [8ff8]=1111111111111111 [7fe8]=00 | rbp=7ff8 rsp=7fe8 [7fe8]=f87f0000000000001111111111111111
        64: 66 c8 08 00 00 | rbp=1234 [7ffe]=0000 | rbp=7ffe rsp=7ff6 [7ffe]=3412
        32n: c8 08 00 00 | rbp=22221234 rsp=11118000 [7ffc]=00000000 | rbp=22227ffc rsp=11117ff4 [7ffc]=34122222
        32: c8 00 10 00 | rbp=5 rsp=1000 ss.limit=fff | #SS
        // LEAVE
        16: c9 | rbp=11117000 [7000]=3412 rsp=22228000 | rsp=22227002 rbp=11111234
        32: c9 | rbp=7000 [7000]=78563412 | rsp=7004 rbp=12345678
        32: 66 c9 | rbp=7000 [7000]=3412 | rsp=7002 rbp=1234
        32n: c9 | rbp=11117000 rsp=22228000 [7000]=78563412 | rsp=22227004 rbp=12345678
        16w: c9 | ss.limit=ffffffff rbp=17000 [17000]=3412 | rsp=17002 rbp=11234
        64: c9 | rbp=7000 [7000]=0102030405060708 | rsp=7008 rbp=0807060504030201
        64: 66 c9 | rbp=7000 [7000]=3412 | rsp=7002 rbp=1234
        16: c9 | rbp=ffff | #SS
        ",
    );
}
