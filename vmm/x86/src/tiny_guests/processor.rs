//! Port strings, processor identification, gates of compatibility code.

use super::port::{ERROR, NOTE, VECTOR};
use super::{End, Start, TinyGuest, guest};

/// The guests of this file.
pub(super) fn guests() -> Vec<TinyGuest> {
    vec![
        guest(
            "REP OUTS writes each element and counts down",
            Start::Long,
            &[
                // mov dword ptr [0x44000], 0x030201; mov esi, 0x44000; mov dx, 0x13; mov ecx, 3; cld;
                // rep outsb; mov eax, ecx; out 0x13, eax; mov eax, esi; out 0x13, eax; out 0x1f, al;
                // hlt
                (
                    0x8000,
                    &[
                        0xc7, 0x04, 0x25, 0x00, 0x40, 0x04, 0x00, 0x01, 0x02, 0x03, 0x00, 0xbe,
                        0x00, 0x40, 0x04, 0x00, 0x66, 0xba, 0x13, 0x00, 0xb9, 0x03, 0x00, 0x00,
                        0x00, 0xfc, 0xf3, 0x6e, 0x89, 0xc8, 0xe7, 0x13, 0x89, 0xf0, 0xe7, 0x13,
                        0xe6, 0x1f, 0xf4,
                    ],
                ),
            ],
            &[
                (NOTE, 0x1),
                (NOTE, 0x2),
                (NOTE, 0x3),
                (NOTE, 0x0),
                (NOTE, 0x44003),
            ],
            End::Done,
        ),
        guest(
            "REP INS stops at an absent page with its registers advanced",
            Start::Long,
            &[
                // mov edi, 0x3fffe; mov dx, 0x90; mov ecx, 5; cld; rep insb
                (
                    0x8000,
                    &[
                        0xbf, 0xfe, 0xff, 0x03, 0x00, 0x66, 0xba, 0x90, 0x00, 0xb9, 0x05, 0x00,
                        0x00, 0x00, 0xfc, 0xf3, 0x6c,
                    ],
                ),
                // mov eax, ecx; out 0x13, eax; mov eax, edi; out 0x13, eax; mov eax, [rsp+8]; out
                // 0x13, eax; out 0x1f, al; hlt
                (
                    0xa1c0,
                    &[
                        0x89, 0xc8, 0xe7, 0x13, 0x89, 0xf8, 0xe7, 0x13, 0x8b, 0x44, 0x24, 0x08,
                        0xe7, 0x13, 0xe6, 0x1f, 0xf4,
                    ],
                ),
            ],
            &[(NOTE, 0x3), (NOTE, 0x40000), (NOTE, 0x800f)],
            End::Done,
        ),
        guest(
            "CPUID tells whether CR4 has XSAVE on",
            Start::Long,
            &[
                // mov eax, 1; cpuid; mov eax, ecx; shr eax, 27; and eax, 1; out 0x13, eax; mov rax,
                // cr4; bts rax, 18; mov cr4, rax; mov eax, 1; cpuid; mov eax, ecx; shr eax, 27; and
                // eax, 1; out 0x13, eax; out 0x1f, al; hlt
                (
                    0x8000,
                    &[
                        0xb8, 0x01, 0x00, 0x00, 0x00, 0x0f, 0xa2, 0x89, 0xc8, 0xc1, 0xe8, 0x1b,
                        0x83, 0xe0, 0x01, 0xe7, 0x13, 0x0f, 0x20, 0xe0, 0x48, 0x0f, 0xba, 0xe8,
                        0x12, 0x0f, 0x22, 0xe0, 0xb8, 0x01, 0x00, 0x00, 0x00, 0x0f, 0xa2, 0x89,
                        0xc8, 0xc1, 0xe8, 0x1b, 0x83, 0xe0, 0x01, 0xe7, 0x13, 0xe6, 0x1f, 0xf4,
                    ],
                ),
            ],
            &[(NOTE, 0x0), (NOTE, 0x1)],
            End::Done,
        ),
        guest(
            "XCR0 cannot do without x87",
            Start::Long,
            &[
                // mov rax, cr4; bts rax, 18; mov cr4, rax; xor ecx, ecx; xor edx, edx; mov eax, 2;
                // xsetbv
                (
                    0x8000,
                    &[
                        0x0f, 0x20, 0xe0, 0x48, 0x0f, 0xba, 0xe8, 0x12, 0x0f, 0x22, 0xe0, 0x31,
                        0xc9, 0x31, 0xd2, 0xb8, 0x02, 0x00, 0x00, 0x00, 0x0f, 0x01, 0xd1,
                    ],
                ),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "XGETBV needs CR4.OSXSAVE",
            Start::Long,
            &[
                // xor ecx, ecx; xgetbv
                (0x8000, &[0x31, 0xc9, 0x0f, 0x01, 0xd0]),
            ],
            &[(VECTOR, 0x6)],
            End::Done,
        ),
        guest(
            "RDTSCP gives TSC_AUX",
            Start::Long,
            &[
                // mov ecx, 3221225731; mov eax, 4660; mov edx, 0; wrmsr; rdtscp; mov eax, ecx; out
                // 0x13, eax; out 0x1f, al; hlt
                (
                    0x8000,
                    &[
                        0xb9, 0x03, 0x01, 0x00, 0xc0, 0xb8, 0x34, 0x12, 0x00, 0x00, 0xba, 0x00,
                        0x00, 0x00, 0x00, 0x0f, 0x30, 0x0f, 0x01, 0xf9, 0x89, 0xc8, 0xe7, 0x13,
                        0xe6, 0x1f, 0xf4,
                    ],
                ),
            ],
            &[(NOTE, 0x1234)],
            End::Done,
        ),
        guest(
            "an interrupt gate clears IF and a trap gate leaves it",
            Start::Long,
            &[
                // mov byte ptr [0x2225], 0x8f; sti; int 0x21; sti; int 0x22; out 0x1f, al; hlt
                (
                    0x8000,
                    &[
                        0xc6, 0x04, 0x25, 0x25, 0x22, 0x00, 0x00, 0x8f, 0xfb, 0xcd, 0x21, 0xfb,
                        0xcd, 0x22, 0xe6, 0x1f, 0xf4,
                    ],
                ),
                // pushfq; pop rax; and eax, 0x200; out 0x13, eax; iretq
                (
                    0xa420,
                    &[
                        0x9c, 0x58, 0x25, 0x00, 0x02, 0x00, 0x00, 0xe7, 0x13, 0x48, 0xcf,
                    ],
                ),
                // pushfq; pop rax; and eax, 0x200; out 0x13, eax; iretq
                (
                    0xa440,
                    &[
                        0x9c, 0x58, 0x25, 0x00, 0x02, 0x00, 0x00, 0xe7, 0x13, 0x48, 0xcf,
                    ],
                ),
            ],
            &[(NOTE, 0x0), (NOTE, 0x200)],
            End::Done,
        ),
        guest(
            "compatibility code is interrupted into 64-bit code",
            Start::Long,
            &[
                // .byte 0xff, 0x2c, 0x25; .long 0x8900
                (0x8000, &[0xff, 0x2c, 0x25, 0x00, 0x89, 0x00, 0x00]),
                // .long 0x8a00; .word 0x18
                (0x8900, &[0x00, 0x8a, 0x00, 0x00, 0x18, 0x00]),
                // int 0x21
                (0x8a00, &[0xcd, 0x21]),
                // mov eax, [rsp+8]; out 0x13, eax; mov eax, [rsp]; out 0x13, eax; mov rax, -1; inc
                // rax; out 0x13, eax; out 0x1f, al; hlt
                (
                    0xa420,
                    &[
                        0x8b, 0x44, 0x24, 0x08, 0xe7, 0x13, 0x8b, 0x04, 0x24, 0xe7, 0x13, 0x48,
                        0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff, 0x48, 0xff, 0xc0, 0xe7, 0x13, 0xe6,
                        0x1f, 0xf4,
                    ],
                ),
            ],
            &[(NOTE, 0x18), (NOTE, 0x8a02), (NOTE, 0x0)],
            End::Done,
        ),
        guest(
            "TSC_ADJUST follows a write of the time stamp counter",
            Start::Long,
            &[
                // mov ecx, 0x3b; rdmsr; out 0x13, eax; mov ecx, 0x10; xor eax, eax; mov edx, 0x7000;
                // wrmsr; rdtsc; mov eax, edx; out 0x13, eax; mov ecx, 0x3b; rdmsr; or eax, edx; setnz
                // al; movzx eax, al; out 0x13, eax; out 0x1f, al; hlt
                (
                    0x8000,
                    &[
                        0xb9, 0x3b, 0x00, 0x00, 0x00, 0x0f, 0x32, 0xe7, 0x13, 0xb9, 0x10, 0x00,
                        0x00, 0x00, 0x31, 0xc0, 0xba, 0x00, 0x70, 0x00, 0x00, 0x0f, 0x30, 0x0f,
                        0x31, 0x89, 0xd0, 0xe7, 0x13, 0xb9, 0x3b, 0x00, 0x00, 0x00, 0x0f, 0x32,
                        0x09, 0xd0, 0x0f, 0x95, 0xc0, 0x0f, 0xb6, 0xc0, 0xe7, 0x13, 0xe6, 0x1f,
                        0xf4,
                    ],
                ),
            ],
            &[(NOTE, 0x0), (NOTE, 0x7000), (NOTE, 0x1)],
            End::Done,
        ),
    ]
}
