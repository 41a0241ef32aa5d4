//! Near branches at every operand and address size. Forms start at RIP 100.

use super::rows::check_all;

#[test]
fn calls_and_returns_use_the_operand_size() {
    check_all(
        "
        16: e8 10 00 | [7ffe]=0000 | rip=113 rsp=7ffe [7ffe]=0301
        16: e8 00 ff | [7ffe]=0000 | rip=3 rsp=7ffe [7ffe]=0301
        16: e8 00 80 | [7ffe]=0000 | rip=8103 rsp=7ffe [7ffe]=0301
        16: e8 fd fe | [7ffe]=0000 | rip=0 rsp=7ffe [7ffe]=0301
        16: e8 fc fe | [7ffe]=0000 | rip=ffff rsp=7ffe [7ffe]=0301
        16: 66 e8 10 00 00 00 | [7ffc]=00000000 | rip=116 rsp=7ffc [7ffc]=06010000
        32: e8 10 00 00 00 | [7ffc]=00000000 | rip=115 rsp=7ffc [7ffc]=05010000
        32: e8 00 00 01 00 | [7ffc]=00000000 | rip=10105 rsp=7ffc [7ffc]=05010000
        32: 66 e8 10 00 | [7ffe]=0000 | rip=114 rsp=7ffe [7ffe]=0401
        32: 66 e8 00 ff | [7ffe]=0000 | rip=4 rsp=7ffe [7ffe]=0401
        32: 66 e8 00 fe | [7ffe]=0000 | rip=ff04 rsp=7ffe [7ffe]=0401
        64: e8 10 00 00 00 | | rip=115 rsp=7ff8
        // Indirect
        16: ff d3 | rbx=12340200 [7ffe]=0000 | rip=200 rsp=7ffe [7ffe]=0201
        16: 66 ff d3 | rbx=200 [7ffc]=00000000 | rip=200 rsp=7ffc [7ffc]=03010000
        16: 66 ff d3 | rbx=10200 | #GP
        32: ff d3 | rbx=10200 [7ffc]=00000000 | rip=10200 rsp=7ffc [7ffc]=02010000
        32: 66 ff d3 | rbx=12340200 [7ffe]=0000 | rip=200 rsp=7ffe [7ffe]=0301
        32: ff 13 | rbx=2000 [2000]=00030000 [7ffc]=00000000 | rip=300 rsp=7ffc [7ffc]=02010000
        32: ff 54 24 04 | [8004]=00030000 [7ffc]=00000000 | rip=300 rsp=7ffc [7ffc]=04010000
        16: ff 17 | rbx=2000 [2000]=0003 [7ffe]=0000 | rip=300 rsp=7ffe [7ffe]=0201
        32: ff d3 | rbx=300 cs.limit=200 | #GP
        32: ff d3 | rbx=200 rsp=1000 ss.limit=ffe | #SS
        // JMP
        16: eb fe | | rip=100
        16: e9 00 ff | | rip=3
        16: 66 e9 00 01 00 00 | | rip=206
        32: 66 e9 00 80 | | rip=8104
        32: 66 eb 10 | | rip=113
        32: eb 80 | | rip=82
        16: ff e3 | rbx=ffff0200 | rip=200
        16: 66 ff e3 | rbx=200 | rip=200
        32: 66 ff e3 | rbx=ffff0200 | rip=200
        32: ff 23 | rbx=2000 [2000]=00030000 | rip=300
        16: 66 ff e3 | rbx=10000 | #GP
        64: ff e3 | rbx=8000000000000000 | #GP
        // Jcc
        16: 74 10 | ZF | rip=112 ~
        16: 74 10 | | ~
        16: 0f 85 00 80 | | rip=8104
        32: 66 75 10 | | rip=113
        32: 66 0f 84 00 ff | ZF | rip=5 ~
        32: 0f 84 00 00 01 00 | ZF | rip=10106 ~
        64: 0f 84 80 00 00 00 | ZF | rip=186 ~
        // RET
        16: c3 | [8000]=0003 | rip=300 rsp=8002
        16: 66 c3 | [8000]=00030000 | rip=300 rsp=8004
        16: 66 c3 | [8000]=00030100 | #GP
        32: c3 | [8000]=00030100 | rip=10300 rsp=8004
        32: 66 c3 | [8000]=0003ffff | rip=300 rsp=8002
        32: c2 10 00 | [8000]=00030000 | rip=300 rsp=8014
        16: c2 ff ff | [8000]=0003 | rip=300 rsp=8001
        32n: c2 00 80 | rsp=12348000 [8000]=00030000 | rip=300 rsp=12340004
        32: c3 | [8000]=00030000 cs.limit=200 | #GP
        16: c3 | rsp=ffff | #SS
        16: c3 | rsp=fffe [fffe]=0003 | rip=300 rsp=0
        ",
    );
}

#[test]
fn targets_beyond_the_code_segment_fault_at_the_branch() {
    check_all(
        "
        32: e8 00 01 00 00 | cs.limit=1ff | #GP
        32: eb 7f | cs.limit=140 | #GP
        32: eb 3e | cs.limit=140 | rip=140
        32: eb 3f | cs.limit=140 | #GP
        32: e9 00 01 00 00 | cs.limit=1ff | #GP
        32: 66 eb 7f | cs.limit=140 | #GP
        32: 74 7f | ZF cs.limit=140 | #GP
        32: 0f 85 00 01 00 00 | cs.limit=1ff | #GP
        32: 74 7f | cs.limit=140 | ~
        32: 66 74 7f | ZF cs.limit=140 | #GP
        32: e2 7f | rcx=2 cs.limit=140 | #GP
        32: e2 7f | rcx=1 cs.limit=140 | rcx=0
        32: e1 7f | rcx=2 ZF cs.limit=140 | #GP
        32: e3 7f | cs.limit=140 | #GP
        32: e3 7f | rcx=1 cs.limit=140 |
        32: 66 e2 7f | rcx=2 cs.limit=140 | #GP
        16: eb 7f | cs.limit=140 | #GP
        16: 75 7f | cs.limit=140 | #GP
        16: e8 7f 00 | cs.limit=140 | #GP
        // 32-bit targets of 16-bit code do not wrap
        16: 66 e9 00 00 01 00 | | #GP
        16: 66 e8 00 00 01 00 | | #GP
        16: 66 0f 84 00 00 01 00 | ZF | #GP
        16: 66 0f 84 00 00 01 00 | | ~
        16: 66 e9 00 ff ff ff | | rip=6
        16: 66 e9 f0 fe ff ff | | #GP
        16: 66 e2 10 | rcx=2 | rip=113 rcx=1
        ",
    );
}

#[test]
fn loops_count_in_every_address_size() {
    check_all(
        "
        16: e2 10 | rcx=12340002 ZF | rip=112 rcx=12340001 ~
        16: e2 10 | rcx=12340001 | rcx=12340000
        16: e2 10 | rcx=12340000 | rip=112 rcx=1234ffff
        16: 67 e2 10 | rcx=10000 | rip=113 rcx=ffff
        16: 67 e2 10 | rcx=1 | rcx=0
        32: e2 10 | rcx=0 | rip=112 rcx=ffffffff
        32: 67 e2 10 | rcx=12340001 | rcx=12340000
        32: 66 e2 10 | rcx=2 | rip=113 rcx=1
        32: 66 67 e2 10 | rcx=10001 | rcx=10000
        64: e2 10 | rcx=100000001 | rip=112 rcx=100000000
        64: 67 e2 10 | rcx=ffffffff00000001 | rcx=0
        64: 67 e2 10 | rcx=ffffffff00000000 | rip=113 rcx=ffffffff
        // LOOPE and LOOPNE look at ZF too
        32: e1 10 | rcx=2 ZF | rip=112 rcx=1 ~
        32: e1 10 | rcx=2 | rcx=1
        32: e1 10 | rcx=1 ZF | rcx=0 ~
        16: e0 10 | rcx=2 | rip=112 rcx=1
        16: e0 10 | rcx=2 ZF | rcx=1 ~
        64: e0 10 | rcx=1 | rcx=0
        32: 66 e1 10 | rcx=2 ZF | rip=113 rcx=1 ~
        // JCXZ JECXZ JRCXZ
        16: e3 10 | rcx=10000 | rip=112
        16: e3 10 | rcx=1 |
        16: 67 e3 10 | rcx=10000 |
        16: 67 e3 10 | rcx=0 | rip=113
        32: e3 10 | rcx=0 | rip=112
        32: e3 10 | rcx=10000 |
        32: 67 e3 10 | rcx=10000 | rip=113
        32: 66 e3 10 | rcx=0 | rip=113
        64: e3 10 | rcx=100000000 |
        64: 67 e3 10 | rcx=100000000 | rip=113
        ",
    );
}
