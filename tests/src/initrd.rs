//! Archives that a test appends to a guest's initial RAM disk: files, and programs with the libraries that they link to.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::programs::tool;

const ELF_MAGIC: [u8; 4] = *b"\x7fELF";

/// A folder whose files the guest finds below its root.
#[derive(Clone, Debug)]
pub struct Overlay {
    tree: PathBuf,
}

impl Overlay {
    /// Takes a folder, which need not be there yet.
    #[must_use]
    pub fn new(tree: PathBuf) -> Self {
        Self { tree }
    }

    /// Writes a file; `place` is its path in the guest without the first slash.
    ///
    /// # Errors
    ///
    /// When the folder does not take it.
    pub fn write(&self, place: &str, text: &str) -> io::Result<()> {
        fs::write(self.place(place)?, text)
    }

    /// Copies a file, and if it is a program what it links to, without debug information, which would fill the guest's
    /// memory.
    ///
    /// # Errors
    ///
    /// When it cannot be read or the folder does not take it.
    pub fn add(&self, file: &Path, place: &str) -> io::Result<()> {
        let copy = self.place(place)?;
        fs::copy(file, &copy)?;
        if is_program(&copy)? {
            strip(&copy);
            self.add_libraries(file)?;
        }
        Ok(())
    }

    /// Writes an initial RAM disk of the parts given and these files.
    ///
    /// # Errors
    ///
    /// When a part cannot be read, a tool cannot be run or the file cannot be written.
    pub fn append_to(&self, parts: &[PathBuf], busybox: &Path, into: &Path) -> io::Result<()> {
        let mut whole = fs::File::create(into)?;
        for part in parts {
            io::copy(&mut fs::File::open(part)?, &mut whole)?;
        }
        whole.write_all(&archive(busybox, &self.tree)?)
    }

    fn place(&self, place: &str) -> io::Result<PathBuf> {
        let path = self.tree.join(place);
        fs::create_dir_all(path.parent().unwrap_or(&self.tree))?;
        Ok(path)
    }

    /// Copies what a program links to, to the places where it looks for it.
    fn add_libraries(&self, program: &Path) -> io::Result<()> {
        let answer = Command::new("ldd").arg(program).output()?;
        for word in String::from_utf8_lossy(&answer.stdout).split_whitespace() {
            if let Some(inside) = word.strip_prefix('/') {
                fs::copy(word, self.place(inside)?)?;
            }
        }
        Ok(())
    }
}

fn is_program(file: &Path) -> io::Result<bool> {
    let mut magic = Vec::new();
    fs::File::open(file)?.take(4).read_to_end(&mut magic)?;
    Ok(magic == ELF_MAGIC)
}

/// Drops a program's debug information. What is no program stays as it is: the tool takes a kernel, which is an EFI program
/// too, and breaks it.
fn strip(program: &Path) {
    if let Some(strip) = tool("strip") {
        // A refusal costs memory only.
        let mut command = Command::new(strip);
        let _refused = command.arg(program).stderr(Stdio::null()).status();
    }
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
