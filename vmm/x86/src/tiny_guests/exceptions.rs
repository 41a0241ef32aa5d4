//! Exceptions: vectors, error codes, double and triple faults.

use super::port::{ERROR, NOTE, VECTOR};
use super::{End, Start, TinyGuest, guest};

/// The guests of this file.
pub(super) fn guests() -> Vec<TinyGuest> {
    vec![
        guest(
            "a division by zero is a divide error",
            Start::Long,
            &[
                // xor edx, edx; xor ecx, ecx; mov eax, 7; div ecx
                (
                    0x8000,
                    &[
                        0x31, 0xd2, 0x31, 0xc9, 0xb8, 0x07, 0x00, 0x00, 0x00, 0xf7, 0xf1,
                    ],
                ),
            ],
            &[(VECTOR, 0x0)],
            End::Done,
        ),
        guest(
            "ud2 is an invalid opcode",
            Start::Long,
            &[
                // ud2
                (0x8000, &[0x0f, 0x0b]),
            ],
            &[(VECTOR, 0x6)],
            End::Done,
        ),
        guest(
            "a read outside the canonical space is a protection fault",
            Start::Long,
            &[
                // movabs rbx, 0x1000000000000; mov al, [rbx]
                (
                    0x8000,
                    &[
                        0x48, 0xbb, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x8a, 0x03,
                    ],
                ),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "a stack access outside the canonical space is a stack fault",
            Start::Long,
            &[
                // movabs rbp, 0x1000000000000; mov al, [rbp]
                (
                    0x8000,
                    &[
                        0x48, 0xbd, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x8a, 0x45,
                        0x00,
                    ],
                ),
            ],
            &[(VECTOR, 0xc), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "a stack fault without a stack is a double fault",
            Start::Long,
            &[
                // movabs rsp, 0x1000000000000; push rax
                (
                    0x8000,
                    &[
                        0x48, 0xbc, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x50,
                    ],
                ),
            ],
            &[(VECTOR, 0x8), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "an interrupt through a privileged gate names the gate",
            Start::User,
            &[
                // int 0x30
                (0x20000, &[0xcd, 0x30]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x182)],
            End::Done,
        ),
        guest(
            "an interrupt beyond the table names the gate",
            Start::Long,
            &[
                // int 0x50
                (0x8000, &[0xcd, 0x50]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x282)],
            End::Done,
        ),
        guest(
            "user code may breakpoint",
            Start::User,
            &[
                // int3
                (0x20000, &[0xcc]),
            ],
            &[(VECTOR, 0x3)],
            End::Done,
        ),
        guest(
            "an absent data segment names its selector",
            Start::Long,
            &[
                // mov eax, 0x70; mov ds, eax
                (0x8000, &[0xb8, 0x70, 0x00, 0x00, 0x00, 0x8e, 0xd8]),
            ],
            &[(VECTOR, 0xb), (ERROR, 0x70)],
            End::Done,
        ),
        guest(
            "a selector beyond the table is a protection fault",
            Start::Long,
            &[
                // mov eax, 0x100; mov ds, eax
                (0x8000, &[0xb8, 0x00, 0x01, 0x00, 0x00, 0x8e, 0xd8]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x100)],
            End::Done,
        ),
        guest(
            "a null stack segment in 32-bit code is a protection fault",
            Start::Protected,
            &[
                // xor eax, eax; mov ss, eax
                (0x8000, &[0x31, 0xc0, 0x8e, 0xd0]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "a stack segment of another level is a protection fault",
            Start::Long,
            &[
                // mov eax, 0x28; mov ss, eax
                (0x8000, &[0xb8, 0x28, 0x00, 0x00, 0x00, 0x8e, 0xd0]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x28)],
            End::Done,
        ),
        guest(
            "an absent stack segment is a stack fault",
            Start::Protected,
            &[
                // mov eax, 0x70; mov ss, eax
                (0x8000, &[0xb8, 0x70, 0x00, 0x00, 0x00, 0x8e, 0xd0]),
            ],
            &[(VECTOR, 0xc), (ERROR, 0x70)],
            End::Done,
        ),
        guest(
            "a fault while a protection fault is delivered is a double fault",
            Start::Long,
            &[
                // mov byte ptr [0x20d5], 0; movabs rbx, 0x1000000000000; mov al, [rbx]
                (
                    0x8000,
                    &[
                        0xc6, 0x04, 0x25, 0xd5, 0x20, 0x00, 0x00, 0x00, 0x48, 0xbb, 0x00, 0x00,
                        0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x8a, 0x03,
                    ],
                ),
            ],
            &[(VECTOR, 0x8), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "a page fault while a page fault is delivered is a double fault",
            Start::Long,
            &[
                // mov esp, 0x41000; mov al, [0x40000]
                (
                    0x8000,
                    &[
                        0xbc, 0x00, 0x10, 0x04, 0x00, 0x8a, 0x04, 0x25, 0x00, 0x00, 0x04, 0x00,
                    ],
                ),
            ],
            &[(VECTOR, 0x8), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "an absent gate for a benign exception is reported as such",
            Start::Long,
            &[
                // mov byte ptr [0x2065], 0x0e; ud2
                (
                    0x8000,
                    &[0xc6, 0x04, 0x25, 0x65, 0x20, 0x00, 0x00, 0x0e, 0x0f, 0x0b],
                ),
            ],
            &[(VECTOR, 0xb), (ERROR, 0x33)],
            End::Done,
        ),
        guest(
            "without an interrupt table the first fault shuts down",
            Start::Long,
            &[
                // push 0; push 0; lidt [rsp]; ud2
                (
                    0x8000,
                    &[0x6a, 0x00, 0x6a, 0x00, 0x0f, 0x01, 0x1c, 0x24, 0x0f, 0x0b],
                ),
            ],
            &[],
            End::Shutdown,
        ),
        guest(
            "an unaligned access under AC is an alignment check",
            Start::User,
            &[
                // pushfq; or dword ptr [rsp], 0x40000; popfq; mov eax, [rsp-9]
                (
                    0x20000,
                    &[
                        0x9c, 0x81, 0x0c, 0x24, 0x00, 0x00, 0x04, 0x00, 0x9d, 0x8b, 0x44, 0x24,
                        0xf7,
                    ],
                ),
            ],
            &[(VECTOR, 0x11), (ERROR, 0x0)],
            End::Done,
        )
        .cr0(1 << 18),
        guest(
            "reserved bits of CR4 fault",
            Start::Long,
            &[
                // mov rax, cr4; bts rax, 40; mov cr4, rax
                (
                    0x8000,
                    &[
                        0x0f, 0x20, 0xe0, 0x48, 0x0f, 0xba, 0xe8, 0x28, 0x0f, 0x22, 0xe0,
                    ],
                ),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "not-write-through without cache-disable faults",
            Start::Long,
            &[
                // mov rax, cr0; btr rax, 30; bts rax, 29; mov cr0, rax
                (
                    0x8000,
                    &[
                        0x0f, 0x20, 0xc0, 0x48, 0x0f, 0xba, 0xf0, 0x1e, 0x48, 0x0f, 0xba, 0xe8,
                        0x1d, 0x0f, 0x22, 0xc0,
                    ],
                ),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "paging cannot be turned off in 64-bit code",
            Start::Long,
            &[
                // mov rax, cr0; btr rax, 31; mov cr0, rax
                (
                    0x8000,
                    &[
                        0x0f, 0x20, 0xc0, 0x48, 0x0f, 0xba, 0xf0, 0x1f, 0x0f, 0x22, 0xc0,
                    ],
                ),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "PAE cannot be turned off in long mode",
            Start::Long,
            &[
                // mov rax, cr4; btr rax, 5; mov cr4, rax
                (
                    0x8000,
                    &[
                        0x0f, 0x20, 0xe0, 0x48, 0x0f, 0xba, 0xf0, 0x05, 0x0f, 0x22, 0xe0,
                    ],
                ),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "reserved bits of EFER fault",
            Start::Long,
            &[
                // mov ecx, 0xc0000080; rdmsr; bts eax, 1; wrmsr
                (
                    0x8000,
                    &[
                        0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x0f, 0xba, 0xe8, 0x01, 0x0f,
                        0x30,
                    ],
                ),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "an unknown MSR faults",
            Start::Long,
            &[
                // mov ecx, 0x12345678; rdmsr
                (0x8000, &[0xb9, 0x78, 0x56, 0x34, 0x12, 0x0f, 0x32]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "LSTAR must be canonical",
            Start::Long,
            &[
                // mov ecx, 0xc0000082; xor eax, eax; mov edx, 0x10000; wrmsr
                (
                    0x8000,
                    &[
                        0xb9, 0x82, 0x00, 0x00, 0xc0, 0x31, 0xc0, 0xba, 0x00, 0x00, 0x01, 0x00,
                        0x0f, 0x30,
                    ],
                ),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "a single step traps after one instruction",
            Start::Long,
            &[
                // pushfq; or dword ptr [rsp], 0x100; popfq; inc ebx; inc ebx; ud2
                (
                    0x8000,
                    &[
                        0x9c, 0x81, 0x0c, 0x24, 0x00, 0x01, 0x00, 0x00, 0x9d, 0xff, 0xc3, 0xff,
                        0xc3, 0x0f, 0x0b,
                    ],
                ),
                // mov eax, ebx; out 0x13, eax; mov rax, dr6; and eax, 0x4000; out 0x13, eax; out
                // 0x1f, al; hlt
                (
                    0xa020,
                    &[
                        0x89, 0xd8, 0xe7, 0x13, 0x0f, 0x21, 0xf0, 0x25, 0x00, 0x40, 0x00, 0x00,
                        0xe7, 0x13, 0xe6, 0x1f, 0xf4,
                    ],
                ),
            ],
            &[(NOTE, 0x1), (NOTE, 0x4000)],
            End::Done,
        ),
        guest(
            "a breakpoint faults before its instruction",
            Start::Long,
            &[
                // mov eax, 0x8014; mov dr0, rax; mov eax, 0x401; mov dr7, rax; nop; nop; nop; nop;
                // inc ebx; ud2
                (
                    0x8000,
                    &[
                        0xb8, 0x14, 0x80, 0x00, 0x00, 0x0f, 0x23, 0xc0, 0xb8, 0x01, 0x04, 0x00,
                        0x00, 0x0f, 0x23, 0xf8, 0x90, 0x90, 0x90, 0x90, 0xff, 0xc3, 0x0f, 0x0b,
                    ],
                ),
                // mov eax, ebx; out 0x13, eax; mov rax, dr6; and eax, 0xf; out 0x13, eax; out 0x1f,
                // al; hlt
                (
                    0xa020,
                    &[
                        0x89, 0xd8, 0xe7, 0x13, 0x0f, 0x21, 0xf0, 0x83, 0xe0, 0x0f, 0xe7, 0x13,
                        0xe6, 0x1f, 0xf4,
                    ],
                ),
            ],
            &[(NOTE, 0x0), (NOTE, 0x1)],
            End::Done,
        ),
        guest(
            "a watchpoint traps after its store",
            Start::Long,
            &[
                // mov eax, 0x6000; mov dr0, rax; mov eax, 0xd0401; mov dr7, rax; inc ebx; mov
                // [0x6000], ebx; inc ebx; ud2
                (
                    0x8000,
                    &[
                        0xb8, 0x00, 0x60, 0x00, 0x00, 0x0f, 0x23, 0xc0, 0xb8, 0x01, 0x04, 0x0d,
                        0x00, 0x0f, 0x23, 0xf8, 0xff, 0xc3, 0x89, 0x1c, 0x25, 0x00, 0x60, 0x00,
                        0x00, 0xff, 0xc3, 0x0f, 0x0b,
                    ],
                ),
                // mov eax, [0x6000]; out 0x13, eax; mov rax, dr6; and eax, 0xf; out 0x13, eax; out
                // 0x1f, al; hlt
                (
                    0xa020,
                    &[
                        0x8b, 0x04, 0x25, 0x00, 0x60, 0x00, 0x00, 0xe7, 0x13, 0x0f, 0x21, 0xf0,
                        0x83, 0xe0, 0x0f, 0xe7, 0x13, 0xe6, 0x1f, 0xf4,
                    ],
                ),
            ],
            &[(NOTE, 0x1), (NOTE, 0x1)],
            End::Done,
        ),
        guest(
            "an overflow trap is taken only when the flag is set",
            Start::Protected,
            &[
                // xor eax, eax; into; mov al, 0x7f; inc al; into
                (0x8000, &[0x31, 0xc0, 0xce, 0xb0, 0x7f, 0xfe, 0xc0, 0xce]),
            ],
            &[(VECTOR, 0x4)],
            End::Done,
        ),
        guest(
            "bound checks both ends",
            Start::Protected,
            &[
                // push 9; push 1; mov eax, 1; bound eax, [esp]; mov eax, 10; bound eax, [esp]
                (
                    0x8000,
                    &[
                        0x6a, 0x09, 0x6a, 0x01, 0xb8, 0x01, 0x00, 0x00, 0x00, 0x62, 0x04, 0x24,
                        0xb8, 0x0a, 0x00, 0x00, 0x00, 0x62, 0x04, 0x24,
                    ],
                ),
            ],
            &[(VECTOR, 0x5)],
            End::Done,
        ),
    ]
}
