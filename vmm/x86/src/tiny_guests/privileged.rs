//! What user code may and may not do.

use super::port::{ERROR, NOTE, VECTOR};
use super::{End, Start, TinyGuest, guest};

/// The guests of this file.
pub(super) fn guests() -> Vec<TinyGuest> {
    vec![
        guest(
            "user code may not cli",
            Start::User,
            &[
                // cli
                (0x20000, &[0xfa]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "user code may not hlt",
            Start::User,
            &[
                // hlt
                (0x20000, &[0xf4]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "user code may not rdmsr",
            Start::User,
            &[
                // rdmsr
                (0x20000, &[0x0f, 0x32]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "user code may not wrmsr",
            Start::User,
            &[
                // wrmsr
                (0x20000, &[0x0f, 0x30]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "user code may not read control registers",
            Start::User,
            &[
                // mov rax, cr0
                (0x20000, &[0x0f, 0x20, 0xc0]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "user code may not write control registers",
            Start::User,
            &[
                // mov cr3, rax
                (0x20000, &[0x0f, 0x22, 0xd8]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "user code may not out",
            Start::User,
            &[
                // out 0x80, al
                (0x20000, &[0xe6, 0x80]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "user code may not invlpg",
            Start::User,
            &[
                // invlpg [rsp]
                (0x20000, &[0x0f, 0x01, 0x3c, 0x24]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "user code may not clts",
            Start::User,
            &[
                // clts
                (0x20000, &[0x0f, 0x06]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "user code may not swapgs",
            Start::User,
            &[
                // swapgs
                (0x20000, &[0x0f, 0x01, 0xf8]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "user code may not lgdt",
            Start::User,
            &[
                // lgdt [rsp]
                (0x20000, &[0x0f, 0x01, 0x14, 0x24]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "user code may not ltr",
            Start::User,
            &[
                // ltr ax
                (0x20000, &[0x0f, 0x00, 0xd8]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "user code may not wbinvd",
            Start::User,
            &[
                // wbinvd
                (0x20000, &[0x0f, 0x09]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "user code may not read debug registers",
            Start::User,
            &[
                // mov rax, dr7
                (0x20000, &[0x0f, 0x21, 0xf8]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        ),
        guest(
            "user code may not look at tables under UMIP",
            Start::User,
            &[
                // sgdt [rsp-16]
                (0x20000, &[0x0f, 0x01, 0x44, 0x24, 0xf0]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        )
        .cr4(1 << 11),
        guest(
            "user code may look at tables without UMIP",
            Start::User,
            &[
                // sgdt [rsp-16]; int 0x21
                (0x20000, &[0x0f, 0x01, 0x44, 0x24, 0xf0, 0xcd, 0x21]),
            ],
            &[(VECTOR, 0x21)],
            End::Done,
        ),
        guest(
            "POPF cannot change IF in user code",
            Start::User,
            &[
                // push 0x3202; popfq; int 0x21
                (0x20000, &[0x68, 0x02, 0x32, 0x00, 0x00, 0x9d, 0xcd, 0x21]),
                // mov eax, [rsp+16]; and eax, 0x3200; out 0x13, eax; out 0x1f, al; hlt
                (
                    0xa420,
                    &[
                        0x8b, 0x44, 0x24, 0x10, 0x25, 0x00, 0x32, 0x00, 0x00, 0xe7, 0x13, 0xe6,
                        0x1f, 0xf4,
                    ],
                ),
            ],
            &[(NOTE, 0x0)],
            End::Done,
        ),
        guest(
            "user code reaches the ports that the bitmap allows",
            Start::ProtectedUser,
            &[
                // mov eax, 3; out 0x13, eax; out 0x17, al
                (
                    0x20000,
                    &[0xb8, 0x03, 0x00, 0x00, 0x00, 0xe7, 0x13, 0xe6, 0x17],
                ),
            ],
            &[(NOTE, 0x3), (VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        )
        .bytes(0x3068, &[0xff, 0xff, 0x87, 0xff]),
        guest(
            "RDTSC is refused to user code under TSD",
            Start::User,
            &[
                // rdtsc
                (0x20000, &[0x0f, 0x31]),
            ],
            &[(VECTOR, 0xd), (ERROR, 0x0)],
            End::Done,
        )
        .cr4(1 << 2),
    ]
}
