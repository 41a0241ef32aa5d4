//! Pods on one machine: what a container runtime does for a kubelet.
//!
//! A pod has namespaces that files hold open ([`namespaces`]), control groups ([`cgroup`]) and containers ([`container`]),
//! each with a keeper of its own ([`shim`]) that prepares ([`init`]) and outlives this program. Everything that is known
//! of them is in files, so a new `ferrovirt up` finds what runs.
//!
//! Seccomp profiles, user namespaces and SELinux or AppArmor labels are not applied.

pub mod beneath;
pub mod cgroup;
pub mod container;
pub mod exec;
pub mod host_image;
pub mod image;
pub mod init;
pub mod mount_table;
pub mod namespaces;
pub mod process;
pub mod record;
pub mod shim;
pub mod spec;

pub use self::exec::{Exec, ExecRequest};
pub use self::image::{
    Image, ImageError, ImageRequest, ImageRoot, ImageSource, PullPolicy, PullSecret,
};

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Runs the part of a container that the arguments name, and returns its exit status; `None` when they name none. The
/// first argument is the program's own name. To be called while the process has one thread.
pub fn run_part(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let part = arguments.nth(1)?;
    let mut texts = arguments.map(|argument| argument.to_string_lossy().into_owned());
    match part.to_str()? {
        shim::NAME => Some(shim::main(Path::new(&texts.next()?))),
        init::NAME => Some(init::main(Path::new(&texts.next()?))),
        exec::NAME => Some(exec::main(texts)),
        exec::ENTER => Some(exec::enter(texts)),
        _ => None,
    }
}
