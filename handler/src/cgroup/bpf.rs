//! The few commands of bpf(2) that control groups of version 2 need for devices.

#![expect(
    unsafe_code,
    reason = "no crate of ours wraps bpf(2), and those that do bring loaders of compiled programs"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;

use super::program::{Instruction, LEN_MAX};

/// Commands (`enum bpf_cmd`).
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;

/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const TYPE_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`.
const ATTACH_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: more than one program may be attached to a group.
const ALLOW_MULTI: u32 = 1 << 1;
/// `BPF_F_REPLACE`.
const REPLACE: u32 = 1 << 2;
/// `BPF_F_QUERY_EFFECTIVE`: programs of the groups above are listed as well.
const QUERY_EFFECTIVE: u32 = 1;

/// Programs that are listed. The kernel has at most 64 for one group; groups above may have as many each.
const PROGRAMS_MAX: usize = 1024;
/// Bytes of what the kernel's verifier says.
const LOG_LEN_BYTES: usize = 64 << 10;
/// Bytes of it that go into an error: the last ones name the cause.
const LOG_SHOWN_LEN_BYTES: usize = 512;

/// Why the kernel did not do something with programs.
#[derive(Debug, thiserror::Error)]
#[error("{operation}{cure}{log}")]
pub struct BpfError {
    /// What failed.
    operation: &'static str,
    /// What helps, if that is known.
    cure: &'static str,
    /// The end of what the kernel's verifier says, if it was the verifier.
    log: String,
    source: io::Error,
}

impl BpfError {
    fn new(operation: &'static str, source: io::Error) -> Self {
        Self {
            operation,
            cure: cure(source.raw_os_error()),
            log: String::new(),
            source,
        }
    }
}

fn cure(error: Option<i32>) -> &'static str {
    match error {
        Some(libc::EPERM) => {
            ": the handler needs the capability CAP_SYS_ADMIN in the host's user namespace (its container must be privileged), and before Linux 5.11 unlimited locked memory"
        }
        Some(libc::ENOSYS | libc::EINVAL) => {
            ": this takes Linux 5.6 or newer with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF"
        }
        Some(libc::EBADF) => ": the folder is no control group of version 2",
        Some(libc::ENOENT) => {
            ": the program is gone, or attached by a link that only its owner can change"
        }
        _ => "",
    }
}

/// The programs for devices that are attached to a group.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attached {
    /// Their numbers.
    pub(super) ids: Vec<u32>,
    /// How they were attached (`BPF_F_*`).
    flags: u32,
}

#[repr(C)]
struct Query {
    group: RawFd,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    unused: u32,
    /// The kernel writes the last one of these whether it is given room for it or not.
    others: [u64; 4],
}

#[repr(C)]
struct Open {
    id: u32,
    unused: [u32; 2],
}

#[repr(C)]
struct GetInfo {
    program: RawFd,
    info_len_bytes: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    program_type: u32,
    id: u32,
    tag: [u8; 8],
    compiled_len_bytes: u32,
    instructions_len_bytes: u32,
    compiled: u64,
    instructions: u64,
}

#[repr(C)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_len_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct Attach {
    group: RawFd,
    program: RawFd,
    attach_type: u32,
    flags: u32,
    replaced: RawFd,
}

/// Returns the programs for devices of a group; with those of the groups above, if `is_effective`.
pub(super) fn attached(group: BorrowedFd<'_>, is_effective: bool) -> Result<Attached, BpfError> {
    let mut ids = vec![0_u32; PROGRAMS_MAX];
    let mut query = Query {
        group: group.as_raw_fd(),
        attach_type: ATTACH_DEVICE,
        query_flags: if is_effective { QUERY_EFFECTIVE } else { 0 },
        attach_flags: 0,
        ids: address_of_mut(&mut ids),
        count: length_of(&ids),
        unused: 0,
        others: [0; 4],
    };
    // SAFETY: these are the fields of the command, without padding, and the kernel writes no more of `ids`, which is
    // borrowed by nobody else, than `count` says.
    let queried = unsafe { bpf(PROG_QUERY, &mut query) };
    queried.map_err(|source| BpfError::new("list the group's programs", source))?;
    ids.truncate(usize::try_from(query.count).unwrap_or(PROGRAMS_MAX));
    Ok(Attached {
        ids,
        flags: query.attach_flags,
    })
}

/// Opens a program.
pub(super) fn open(id: u32) -> Result<OwnedFd, BpfError> {
    let mut attributes = Open { id, unused: [0; 2] };
    // SAFETY: these are the fields of the command, without padding and without addresses.
    let opened = unsafe { bpf(PROG_GET_FD_BY_ID, &mut attributes) };
    let opened = opened.and_then(descriptor);
    opened.map_err(|source| BpfError::new("open a program of the group", source))
}

/// Returns the instructions of a program, as the kernel's verifier left them. There are none when the kernel hides them
/// or when there are more than [`LEN_MAX`].
pub(super) fn instructions(program: &OwnedFd) -> Result<Vec<Instruction>, BpfError> {
    let mut instructions = vec![Instruction::default(); LEN_MAX];
    let room = size_of_val(instructions.as_slice());
    let mut info = Info {
        instructions_len_bytes: u32::try_from(room).expect("the room has a fixed size"),
        instructions: address_of_mut(&mut instructions),
        ..Info::default()
    };
    let infos = std::slice::from_mut(&mut info);
    let mut attributes = GetInfo {
        program: program.as_raw_fd(),
        info_len_bytes: u32::try_from(size_of::<Info>()).expect("the room has a fixed size"),
        info: address_of_mut(infos),
    };
    // SAFETY: these are the fields of the command, without padding. The kernel writes no more of `info` and, through it,
    // of `instructions` than their lengths say; nobody else borrows them, and every content is fine for both.
    let asked = unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes) };
    asked.map_err(|source| BpfError::new("read a program of the group", source))?;
    let length = usize::try_from(info.instructions_len_bytes).unwrap_or(usize::MAX);
    let length = length / size_of::<Instruction>();
    let is_whole = info.instructions != 0 && length <= LEN_MAX;
    instructions.truncate(if is_whole { length } else { 0 });
    instructions.shrink_to_fit();
    Ok(instructions)
}

/// Has the kernel check and take a program for devices.
pub(super) fn load(program: &[Instruction]) -> Result<OwnedFd, BpfError> {
    load_with(program, &mut []).or_else(|_| {
        // Once more, to be told why.
        let mut log = vec![0; LOG_LEN_BYTES];
        load_with(program, &mut log).map_err(|source| {
            let error = BpfError::new("load a program for devices", source);
            match shown(&log) {
                log if log.is_empty() => error,
                log => BpfError {
                    log,
                    cure: "",
                    ..error
                },
            }
        })
    })
}

fn load_with(program: &[Instruction], log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut load = Load {
        program_type: TYPE_DEVICE,
        count: length_of(program),
        instructions: address_of(program),
        license: address_of(c"Apache-2.0".to_bytes_with_nul()),
        log_level: u32::from(!log.is_empty()),
        log_len_bytes: length_of(log),
        log: if log.is_empty() {
            0
        } else {
            address_of_mut(log)
        },
        kernel_version: 0,
        flags: 0,
        name: *b"ferrovirt_dev\0\0\0",
    };
    // SAFETY: these are the fields of the command, without padding. The kernel reads `count` instructions and a text that
    // ends with 0, and writes no more of `log`, which is borrowed by nobody else, than its length says.
    let loaded = unsafe { bpf(PROG_LOAD, &mut load) };
    loaded.and_then(descriptor)
}

/// Puts a program in the place of one that is attached to a group. It decides from the next request on.
pub(super) fn replace(
    group: BorrowedFd<'_>,
    attached: &Attached,
    old: &OwnedFd,
    new: &OwnedFd,
) -> Result<(), BpfError> {
    let is_one_of_many = attached.flags & ALLOW_MULTI != 0;
    // Where there can be only one program, attaching another replaces it.
    let (flags, replaced) = if is_one_of_many {
        (ALLOW_MULTI | REPLACE, old.as_raw_fd())
    } else {
        (attached.flags, 0)
    };
    attach(group, new, flags, replaced)
        .map_err(|source| BpfError::new("replace a program of the group", source))
}

fn attach(group: BorrowedFd<'_>, program: &OwnedFd, flags: u32, replaced: RawFd) -> io::Result<()> {
    let mut attributes = Attach {
        group: group.as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: ATTACH_DEVICE,
        flags,
        replaced,
    };
    // SAFETY: these are the fields of the command, without padding and without addresses.
    unsafe { bpf(PROG_ATTACH, &mut attributes) }.map(|_| ())
}

/// Calls bpf(2).
///
/// # Safety
///
/// `T` must have the fields that the command begins with in `union bpf_attr`, and no padding. Addresses in it must be of
/// memory that is as long as it says, and that the kernel may write where the command does.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<libc::c_long> {
    let attributes: *mut T = attributes;
    // SAFETY: the kernel reads and writes as many bytes as it is told, which are the attributes'; what they hold is up to
    // the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(result).map_err(io::Error::other)?;
    // SAFETY: this is called with what bpf(2) returned for a new descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn address_of<T>(items: &[T]) -> u64 {
    u64::try_from(items.as_ptr().expose_provenance()).expect("addresses have at most 64 bits")
}

fn address_of_mut<T>(items: &mut [T]) -> u64 {
    let address = items.as_mut_ptr().expose_provenance();
    u64::try_from(address).expect("addresses have at most 64 bits")
}

fn length_of<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).expect("programs, logs and lists are bounded")
}

/// Returns the end of a log that the kernel wrote.
fn shown(log: &[u8]) -> String {
    let log = log.split(|byte| *byte == 0).next().unwrap_or_default();
    let end = log.trim_ascii_end();
    let end = &end[end.len().saturating_sub(LOG_SHOWN_LEN_BYTES)..];
    if end.is_empty() {
        return String::new();
    }
    let lines = String::from_utf8_lossy(end).trim().replace('\n', "; ");
    format!(": the kernel's verifier says: {lines}")
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::{ALLOW_MULTI, BpfError, attach, load, shown};
    use crate::cgroup::program::Instruction;

    /// Attaches a program as container runtimes do.
    pub(crate) fn attach_one_of_many(group: &impl AsFd, program: &OwnedFd) -> std::io::Result<()> {
        attach(group.as_fd(), program, ALLOW_MULTI, 0)
    }

    /// Attaches the only program that a group may have.
    pub(crate) fn attach_only(group: &impl AsFd, program: &OwnedFd) -> std::io::Result<()> {
        attach(group.as_fd(), program, 0, 0)
    }

    #[test]
    fn the_end_of_the_log_is_shown_on_one_line() {
        assert_eq!(shown(b"\0\0"), "");
        let log = [b"0: (95) exit\nR0 !read_ok\n\0".as_slice(), &[7; 9]].concat();
        let expected = ": the kernel's verifier says: 0: (95) exit; R0 !read_ok";
        assert_eq!(shown(&log), expected);
        assert!(shown(&[b'x'; 5000]).len() < 600);
    }

    #[test]
    fn errors_say_what_helps() {
        let error = |number| {
            let source = std::io::Error::from_raw_os_error(number);
            BpfError::new("load", source).to_string()
        };
        assert!(error(1).contains("CAP_SYS_ADMIN"), "{}", error(1));
        assert!(error(22).contains("Linux 5.6"), "{}", error(22));
        assert_eq!(error(28), "load");
    }

    #[test]
    fn the_verifier_says_what_is_wrong_with_a_program() {
        let Err(error) = load(&[Instruction::default()]) else {
            panic!("nobody takes this program");
        };
        if error.source.raw_os_error() == Some(1) {
            println!("skipped: programs cannot be loaded here: {error}");
            return;
        }
        assert!(
            error.to_string().contains("the kernel's verifier says"),
            "{error}"
        );
    }
}
