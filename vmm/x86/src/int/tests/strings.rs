//! String instructions: directions, counts, wrap-around, and faults in the middle.

use super::rows::check_all;

#[test]
fn elements_move_in_both_directions() {
    check_all(
        "
        32: a4 | rsi=2000 rdi=3000 [2000]=11 [3000]=00 | rsi=2001 rdi=3001 [3000]=11
        32: a4 | DF CF rsi=2000 rdi=3000 [2000]=11 [3000]=00 | rsi=1fff rdi=2fff [3000]=11 ~
        16: a5 | rsi=12342000 rdi=56783000 [2000]=1122 [3000]=0000 | rsi=12342002 rdi=56783002 [3000]=1122
        16: 66 a5 | DF rsi=2000 rdi=3000 [2000]=11223344 [3000]=00000000 | rsi=1ffc rdi=2ffc [3000]=11223344
        64: 48 a5 | rsi=2000 rdi=3000 [2000]=1122334455667788 [3000]=0000000000000000 | rsi=2008 rdi=3008 [3000]=1122334455667788
        64: 67 48 a5 | DF rsi=ffffffff00002000 rdi=ffffffff00003000 [2000]=1122334455667788 [3000]=0000000000000000 | rsi=1ff8 rdi=2ff8 [3000]=1122334455667788
        16: aa | rax=1234 rdi=3000 [3000]=00 | rdi=3001 [3000]=34
        32: ab | DF rax=12345678 rdi=3000 [3000]=00000000 | rdi=2ffc [3000]=78563412
        32: 66 ab | rax=12345678 rdi=3000 [3000]=00000000 | rdi=3002 [3000]=7856
        64: ac | rax=ffffffffffffffff rsi=2000 [2000]=11 | rax=ffffffffffffff11 rsi=2001
        64: ad | rax=ffffffffffffffff rsi=2000 [2000]=11000000 | rax=11 rsi=2004
        16: ad | DF rax=ffffffff rsi=2000 [2000]=1122 | rax=ffff2211 rsi=1ffe
        32: ae | rax=5 rdi=2000 [2000]=06 | rdi=2001 CF SF AF PF
        32: ae | rax=6 rdi=2000 [2000]=06 DF CF | rdi=1fff ZF PF
        16: af | rax=8000 rdi=2000 [2000]=0100 | rdi=2002 OF AF PF
        32: a6 | rsi=2000 rdi=3000 [2000]=07 [3000]=05 | rsi=2001 rdi=3001
        64: 48 a7 | rsi=2000 rdi=3000 [2000]=0000000000000000 [3000]=0100000000000000 | rsi=2008 rdi=3008 CF SF AF PF
        ",
    );
}

#[test]
fn repetition_counts_in_the_address_size() {
    check_all(
        "
        // Nothing to do, not even in a segment that allows nothing
        16: f3 a4 | rcx=10000 rsi=2000 rdi=3000 ZF CF | ~
        32: 67 f3 a4 | rcx=10000 rsi=2000 rdi=3000 |
        32: f3 a4 | rsi=2000 rdi=3000 ds.limit=0 es.limit=0 |
        32: f3 a6 | rsi=2000 rdi=3000 ZF CF OF | ~
        64: f2 ae | rax=1 rdi=3000 SF | ~
        // Something to do
        32: f3 a4 | rcx=4 rsi=2000 rdi=3000 [2000]=01020304 [3000]=0000000000 | rcx=0 rsi=2004 rdi=3004 [3000]=0102030400
        16: f3 a4 | rcx=12340004 rsi=2000 rdi=3000 [2000]=01020304 [3000]=0000000000 | rcx=12340000 rsi=2004 rdi=3004 [3000]=0102030400
        32: f2 a4 | rcx=2 rsi=2000 rdi=3000 [2000]=01020304 [3000]=0000000000 | rcx=0 rsi=2002 rdi=3002 [3000]=0102000000
        32: 67 f3 66 ab | rcx=12340002 rax=1122 rdi=12343000 [3000]=0000000000 | rcx=12340000 rdi=12343004 [3000]=2211221100
        64: f3 48 ab | rcx=2 rax=0102030405060708 rdi=2ff8 [2ff8]=00 | rcx=0 rdi=3008 [2ff8]=08070605040302010807060504030201
        64: 67 f3 aa | rcx=2 rax=7 rdi=ffffffff00003000 [3000]=000000 | rcx=0 rdi=3002 [3000]=070700
        32: f3 ac | rcx=3 rsi=2000 [2000]=010203 | rcx=0 rsi=2003 rax=3
        // Overlap: a pattern spreads upwards, a block moves downwards
        32: f3 a4 | rcx=5 rsi=2000 rdi=2001 [2000]=ab0000000000 | rcx=0 rsi=2005 rdi=2006 [2000]=abababababab
        32: f3 66 a5 | rcx=3 rsi=2000 rdi=2001 [2000]=01020000000000 | rcx=0 rsi=2006 rdi=2007 [2000]=01010202000000
        32: f3 a4 | DF rcx=3 rsi=2002 rdi=2003 [2000]=01020300 | rcx=0 rsi=1fff rdi=2000 [2000]=01010203
        32: f3 a4 | DF rcx=3 rsi=3001 rdi=4001 [2fff]=010203 [3fff]=000000 | rcx=0 rsi=2ffe rdi=3ffe [3fff]=010203
        // Comparisons stop where they are told
        32: f3 a6 | rcx=5 rsi=2000 rdi=3000 [2000]=0102030405 [3000]=0102040405 | rcx=2 rsi=2003 rdi=3003 CF SF AF PF
        32: f3 a6 | rcx=3 rsi=2000 rdi=3000 [2000]=010203 [3000]=010203 | rcx=0 rsi=2003 rdi=3003 ZF PF
        32: f2 a6 | rcx=3 rsi=2000 rdi=3000 [2000]=010203 [3000]=040506 | rcx=0 rsi=2003 rdi=3003 CF SF AF
        16: f2 ae | rcx=ffff rax=0 rdi=2000 [2000]=41424300 | rcx=fffb rdi=2004 ZF PF
        32: f3 ae | DF rcx=4 rax=20 rdi=2003 [2000]=41202020 | rcx=0 rdi=1fff CF SF AF
        64: f2 66 af | rcx=3 rax=2 rdi=2000 [2000]=010002000300 | rcx=1 rdi=2004 ZF PF
        ",
    );
}

#[test]
fn indices_wrap_at_the_end_of_the_address_size() {
    check_all(
        "
        16: a4 | rsi=1234ffff rdi=3000 [ffff]=11 [3000]=00 | rsi=12340000 rdi=3001 [3000]=11
        16: a4 | DF rsi=12340000 rdi=3000 [0]=22 [3000]=00 | rsi=1234ffff rdi=2fff [3000]=22
        16: f3 a4 | rcx=4 rsi=fffe rdi=3000 [fffe]=0102 [0]=0304 [3000]=00000000 | rcx=0 rsi=2 rdi=3004 [3000]=01020304
        16: f3 aa | rcx=4 rax=7 rdi=fffe [fffe]=0000 [0]=000000 | rcx=0 rdi=2 [fffe]=0707 [0]=070700
        32: 67 f3 a4 | rcx=4 rsi=fffe rdi=3000 [fffe]=0102 [0]=0304 [3000]=00000000 | rcx=0 rsi=2 rdi=3004 [3000]=01020304
        64: 67 f3 ac | rcx=2 rsi=ffffffff [0]=33 | rcx=0 rsi=1 rax=33
        // A word across the end of a 16-bit segment faults.
        16: ad | rsi=ffff | #GP
        16: f3 ab | rcx=4 rax=2211 rdi=fffb [fffb]=0000000000 | #GP rcx=2 rdi=ffff [fffb]=1122112200
        ",
    );
}

#[test]
fn a_fault_in_the_middle_leaves_the_progress_in_the_registers() {
    check_all(
        "
        32: f3 a4 | rcx=8 rsi=2000 rdi=3000 es.limit=3002 [2000]=0102030405 [3000]=0000000000 | #GP rcx=5 rsi=2003 rdi=3003 [3000]=0102030000
        32: f3 a4 | rcx=8 rsi=2000 rdi=3000 ds.limit=2001 [2000]=0102030405 [3000]=0000000000 | #GP rcx=6 rsi=2002 rdi=3002 [3000]=0102000000
        32: f3 36 a4 | rcx=8 rsi=2000 rdi=3000 ss.limit=2001 [2000]=0102030405 [3000]=0000000000 | #SS rcx=6 rsi=2002 rdi=3002 [3000]=0102000000
        32: f3 ab | rcx=3 rax=11223344 rdi=3000 es.limit=3006 [3000]=0000000000000000 | #GP rcx=2 rdi=3004 [3000]=4433221100000000
        // The flags are those before the instruction, not of the last comparison
        32: f3 ae | OF SF CF rcx=5 rax=7 rdi=3000 es.limit=3001 [3000]=070707 | #GP rcx=3 rdi=3002
        32: f3 ae | rcx=5 rax=7 rdi=3000 es.limit=3001 [3000]=070707 | #GP rcx=3 rdi=3002
        32: f2 a6 | rcx=5 rsi=2000 rdi=3000 ds.limit=2001 [2000]=010203 [3000]=040506 | #GP rcx=3 rsi=2002 rdi=3002
        32: f3 ac | rcx=5 rsi=2000 ds.limit=2001 [2000]=010203 | #GP rcx=3 rsi=2002 rax=2
        16: f3 ac | DF rcx=5 rsi=1 [0]=0203 ds.limit=fffe | #GP rcx=3 rsi=ffff rax=2
        ",
    );
}
