//! A host of KVM guests inside QEMU: its translator emulates a processor with AMD's virtualisation, on which Debian's
//! own `kvm_amd` runs our programs. This is how the KVM back end meets a real KVM on machines without one.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Guests, Machine, initrd::Overlay};

/// The processor that QEMU's translator emulates for a host of KVM guests.
pub const PROCESSOR: &str = "EPYC,+svm";

/// Makes the initial RAM disk of the host: the benchmark one, KVM's modules, the programs and files given (below
/// `/nested`, under their own names), and a script that runs once KVM is there.
///
/// # Errors
///
/// When a file cannot be read or a tool cannot be run.
pub fn initrd(
    guests: &Guests,
    files: &[PathBuf],
    script: &str,
    into: &Path,
) -> io::Result<PathBuf> {
    let overlay = Overlay::new(into.join("tree"));
    overlay.write("nested/run.sh", script)?;
    for file in files {
        let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        overlay.add(file, &format!("nested/{}", name.to_string_lossy()))?;
    }
    let path = into.join("initrd");
    let parts = [guests.bench_initrd(), guests.kvm_modules()];
    overlay.append_to(&parts, &guests.busybox(), &path)?;
    Ok(path)
}

/// The command that starts the host.
#[must_use]
pub fn host(qemu: &Path, guests: &Guests, initrd: &Path) -> Command {
    let machine = Machine::new(&guests.kernel())
        .initrd(initrd)
        .append("quiet bench=nested");
    let mut command = machine.memory("1536M").qemu(qemu, "q35");
    command.args(["-cpu", PROCESSOR]);
    command
}
