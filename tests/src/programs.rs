//! The programs under test and the command lines that start machines.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{guests::repository, skip};

/// Finds one of our programs beside the running test (`target/debug` or `target/release`), or in `FERROVIRT_PROGRAMS`;
/// reports a skip and gives `None` when it was not built.
///
/// # Panics
///
/// When it is absent and skipping is forbidden (see [`skip`]).
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let found = candidates()
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("{name} is not built: run `cargo build --bins`"));
    }
    found
}

/// Finds a foreign tool on the search path.
#[must_use]
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Finds a foreign tool; without it says that the test is skipped, which is no failure: the product needs none of them.
#[must_use]
#[expect(
    clippy::print_stderr,
    reason = "a skipped test must say so where its reader looks"
)]
pub fn optional_tool(name: &str) -> Option<PathBuf> {
    let found = tool(name);
    if found.is_none() {
        eprintln!("skipped: {name} is not installed");
    }
    found
}

/// Finds the newest program of a crate's own tests that has a test of this name; says so when there is none, which only
/// happens where the tests of this crate were built alone.
#[must_use]
#[expect(
    clippy::print_stderr,
    reason = "a skipped test must say so where its reader looks"
)]
pub fn unit_tests(krate: &str, test: &str) -> Option<PathBuf> {
    let found = newest_first(&format!("{krate}-")).into_iter().find(|path| {
        let listed = Command::new(path).args(["--list", test]).output();
        listed.is_ok_and(|answer| String::from_utf8_lossy(&answer.stdout).contains(test))
    });
    if found.is_none() {
        eprintln!("skipped: {test}: the tests of {krate} are not built");
    }
    found
}

/// The programs beside the running test whose names start so.
fn newest_first(prefix: &str) -> Vec<PathBuf> {
    let own = std::env::current_exe().unwrap_or_default();
    let entries = own.parent().and_then(|folder| folder.read_dir().ok());
    let mut found: Vec<_> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let named = path.file_name()?.to_str()?.starts_with(prefix);
            let time = path.metadata().ok()?.modified().ok()?;
            (named && path.extension().is_none()).then_some((time, path))
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

fn candidates() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("FERROVIRT_PROGRAMS")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    if let Ok(own) = std::env::current_exe() {
        // target/debug/deps/test-hash, or target/debug/demo
        folders.extend(own.ancestors().skip(1).take(2).map(Path::to_path_buf));
    }
    folders.push(repository().join("target/debug"));
    folders
}

/// A machine to be started by `vmm run`.
#[derive(Clone, Debug)]
pub struct Machine {
    kernel: PathBuf,
    initrd: Option<PathBuf>,
    cmdline: String,
    disks: Vec<OsString>,
    memory: String,
    cpus: u32,
    accel: String,
}

impl Machine {
    /// A machine of one processor and 256 MiB on the software CPU that boots the kernel given, with its console on the
    /// serial port.
    #[must_use]
    pub fn new(kernel: &Path) -> Self {
        Self {
            kernel: kernel.to_path_buf(),
            initrd: None,
            cmdline: "console=ttyS0".to_owned(),
            disks: Vec::new(),
            memory: "256M".to_owned(),
            cpus: 1,
            accel: "soft".to_owned(),
        }
    }

    /// Sets the initial RAM disk.
    #[must_use]
    pub fn initrd(mut self, initrd: &Path) -> Self {
        self.initrd = Some(initrd.to_path_buf());
        self
    }

    /// Adds words to the kernel command line.
    #[must_use]
    pub fn append(mut self, words: &str) -> Self {
        self.cmdline.push(' ');
        self.cmdline.push_str(words);
        self
    }

    /// Adds a disk; `options` is empty or starts with a comma (`,readonly=on`).
    #[must_use]
    pub fn disk(mut self, path: &Path, options: &str) -> Self {
        let mut value = path.as_os_str().to_owned();
        value.push(options);
        self.disks.push(value);
        self
    }

    /// Sets the memory size, as `--memory` takes it.
    #[must_use]
    pub fn memory(mut self, size: &str) -> Self {
        size.clone_into(&mut self.memory);
        self
    }

    /// Sets the number of processors.
    #[must_use]
    pub fn cpus(mut self, count: u32) -> Self {
        self.cpus = count;
        self
    }

    /// Sets the CPU back end: `auto`, `kvm` or `soft`.
    #[must_use]
    pub fn accel(mut self, accel: &str) -> Self {
        accel.clone_into(&mut self.accel);
        self
    }

    /// The command line of `vmm run`.
    #[must_use]
    pub fn vmm(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("run").arg("--kernel").arg(&self.kernel);
        if let Some(initrd) = &self.initrd {
            command.arg("--initrd").arg(initrd);
        }
        command.args(["--cmdline", &self.cmdline, "--memory", &self.memory]);
        command.args(["--cpus", &self.cpus.to_string(), "--accel", &self.accel]);
        for disk in &self.disks {
            command.arg("--disk").arg(disk);
        }
        command
    }

    /// The same machine on QEMU's translator, with the board given (`pc`, `q35`); it
    /// takes the same disk options.
    #[must_use]
    pub fn qemu(&self, program: &Path, board: &str) -> Command {
        let mut command = Command::new(program);
        command.args([
            "-M",
            board,
            "-accel",
            "tcg",
            "-m",
            &self.memory,
            "-nographic",
            "-no-reboot",
        ]);
        command.args(["-net", "none", "-smp", &self.cpus.to_string()]);
        command.arg("-kernel").arg(&self.kernel);
        if let Some(initrd) = &self.initrd {
            command.arg("-initrd").arg(initrd);
        }
        command.args(["-append", &self.cmdline]);
        for (index, disk) in self.disks.iter().enumerate() {
            let mut drive = OsString::from(format!("if=none,id=disk{index},file="));
            drive.push(disk);
            command.arg("-drive").arg(drive);
            command.args([
                "-device",
                &format!("virtio-blk-pci,disable-legacy=on,drive=disk{index}"),
            ]);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> Vec<String> {
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_machine_becomes_a_vmm_command_line() {
        let machine = Machine::new(Path::new("/k"))
            .initrd(Path::new("/i"))
            .append("quiet")
            .disk(Path::new("/d"), ",readonly=on")
            .cpus(2);
        let expected = "run --kernel /k --initrd /i --cmdline|console=ttyS0 quiet|--memory 256M --cpus 2 --accel soft \
                        --disk /d,readonly=on";
        assert_eq!(
            words(&machine.vmm(Path::new("vmm"))).join(" "),
            expected.replace('|', " ")
        );
    }

    #[test]
    fn a_tool_that_no_folder_holds_is_not_found() {
        assert!(tool("sh").is_some());
        assert!(tool("no-such-tool-anywhere").is_none());
    }
}
