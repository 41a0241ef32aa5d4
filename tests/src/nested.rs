//! A host of KVM guests inside QEMU: its translator emulates a processor with AMD's virtualisation, on which Debian's
//! own `kvm_amd` runs our programs. This is how the KVM back end meets a real KVM on machines without one.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Guests, Machine, programs::tool};

const ELF_MAGIC: [u8; 4] = *b"\x7fELF";

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
    let tree = into.join("tree");
    let nested = tree.join("nested");
    fs::create_dir_all(&nested)?;
    fs::write(nested.join("run.sh"), script)?;
    for file in files {
        let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        fs::copy(file, nested.join(name))?;
        plant_libraries(file, &tree)?;
    }
    strip(&nested)?;
    let path = into.join("initrd");
    let mut whole = fs::File::create(&path)?;
    for part in [guests.bench_initrd(), guests.kvm_modules()] {
        io::copy(&mut fs::File::open(part)?, &mut whole)?;
    }
    whole.write_all(&archive(&guests.busybox(), &tree)?)?;
    Ok(path)
}

/// The command that starts the host.
#[must_use]
pub fn host(qemu: &Path, guests: &Guests, initrd: &Path) -> Command {
    let machine = Machine::new(&guests.kernel())
        .initrd(initrd)
        .append("quiet bench=nested");
    let mut command = machine.memory("1536M").qemu(qemu, "q35");
    command.args(["-cpu", "EPYC,+svm"]);
    command
}

/// Copies what a program links to, to the places where it looks for it.
fn plant_libraries(program: &Path, tree: &Path) -> io::Result<()> {
    let answer = Command::new("ldd").arg(program).output()?;
    for word in String::from_utf8_lossy(&answer.stdout).split_whitespace() {
        if let Some(inside) = word.strip_prefix('/') {
            let place = tree.join(inside);
            fs::create_dir_all(place.parent().unwrap_or(tree))?;
            fs::copy(word, place)?;
        }
    }
    Ok(())
}

/// Drops the programs' debug information, which would fill the guest's memory. What is no program stays as it is: the
/// tool takes a kernel, which is an EFI program too, and breaks it.
fn strip(folder: &Path) -> io::Result<()> {
    let Some(strip) = tool("strip") else {
        return Ok(());
    };
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let mut magic = Vec::new();
        fs::File::open(&path)?.take(4).read_to_end(&mut magic)?;
        if magic == ELF_MAGIC {
            // A refusal costs memory only.
            let _refused = Command::new(&strip)
                .arg(path)
                .stderr(Stdio::null())
                .status()?;
        }
    }
    Ok(())
}

/// A cpio archive of a folder, as the kernel unpacks it.
fn archive(busybox: &Path, tree: &Path) -> io::Result<Vec<u8>> {
    let list = Command::new("find")
        .arg(".")
        .current_dir(tree)
        .output()?
        .stdout;
    let mut names = tempfile::tempfile()?;
    names.write_all(&list)?;
    io::Seek::rewind(&mut names)?;
    let mut command = Command::new(busybox);
    command
        .args(["cpio", "-o", "-H", "newc", "-R", "0:0"])
        .current_dir(tree)
        .stdin(names);
    Ok(command.output()?.stdout)
}
