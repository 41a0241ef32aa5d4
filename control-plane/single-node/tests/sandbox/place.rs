//! A place for a test's containers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use single_node::sandbox::container::{Container, Life};
use single_node::sandbox::image::ImageRoot;
use single_node::sandbox::record::Ended;
use single_node::sandbox::spec::{ContainerSpec, Namespaces, UserSpec};

/// This program, with parts of containers in it.
pub(crate) const FERROVIRT: &str = env!("CARGO_BIN_EXE_ferrovirt");
/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with what containers need.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
}

impl Place {
    /// Makes a place; `None`, with the reason printed, without root.
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: containers need namespaces and mounts, and those need root");
            return None;
        }
        let folder = tempfile::Builder::new()
            .prefix("fv")
            .tempdir_in("/tmp")
            .unwrap();
        let programs = folder.path().join("programs/bin");
        fs::create_dir_all(&programs).unwrap();
        fs::write(
            programs.join("own-program"),
            "#!/bin/sh\necho own program\n",
        )
        .unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(programs.join("own-program"), executable).unwrap();
        Some(Self { folder })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A container that runs a shell script.
    pub(crate) fn script(&self, name: &str, script: &str) -> (Container, ContainerSpec) {
        let spec = ContainerSpec {
            image_id: String::new(),
            root: ImageRoot::Host(self.path("programs")),
            is_root_read_only: false,
            namespaces: Namespaces::default(),
            cgroups: Vec::new(),
            keeper_cgroup: None,
            oom_counter: None,
            mounts: Vec::new(),
            devices: Vec::new(),
            shm: None,
            argv: ["/bin/sh", "-c", script].map(str::to_owned).into(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            workdir: String::new(),
            user: UserSpec::default(),
            capabilities: 0,
            ambient_capabilities: 0,
            no_new_privileges: true,
            is_privileged: false,
            has_terminal: false,
            log: self.path(&format!("{name}.log")),
            oom_score_adj: 0,
        };
        (Container::at(self.path(name)), spec)
    }

    pub(crate) fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
        let lines = text
            .lines()
            .map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default());
        lines.map(|line| format!("{line}\n")).collect()
    }
}

/// Looks until something is so.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

pub(crate) fn end_of(container: &Container) -> Ended {
    until("the container's end", || match container.life().unwrap() {
        Life::Ended { ended, .. } => Some(ended),
        _ => None,
    })
}

pub(crate) fn ferrovirt() -> &'static Path {
    Path::new(FERROVIRT)
}
