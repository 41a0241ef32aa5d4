//! The guest files that `images/build.sh` made.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use crate::skip;

/// Files below the guest folder; every accessor names an existing file.
#[derive(Clone, Debug)]
pub struct Guests {
    folder: PathBuf,
}

/// Finds the guests in `FERROVIRT_GUESTS`, by default `target/guests`; reports a skip and gives `None` when they were
/// not built.
///
/// # Panics
///
/// When they are absent and skipping is forbidden (see [`skip`]).
#[must_use]
pub fn guests() -> Option<Guests> {
    let folder = std::env::var_os("FERROVIRT_GUESTS")
        .map_or_else(|| repository().join("target/guests"), PathBuf::from);
    if folder.join(".stamp").is_file() {
        return Some(Guests { folder });
    }
    skip(&format!(
        "no guests in {}: run `make images`",
        folder.display()
    ));
    None
}

/// The root of the checkout.
#[must_use]
pub fn repository() -> &'static Path {
    const CRATE: &str = env!("CARGO_MANIFEST_DIR");
    Path::new(CRATE).parent().unwrap_or(Path::new(CRATE))
}

impl Guests {
    /// Debian's stock cloud kernel, a bzImage.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The initramfs with a login shell.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.folder.join("initrd")
    }

    /// The initramfs with Debian's guest agent; a disk at `/dev/vda` is mounted at `/mnt/disk`.
    #[must_use]
    pub fn agent_initrd(&self) -> PathBuf {
        self.folder.join("agent-initrd")
    }

    /// The initramfs that prints `FERROVIRT-INIT` and runs the workload of `bench=`.
    #[must_use]
    pub fn bench_initrd(&self) -> PathBuf {
        self.folder.join("bench-initrd")
    }

    /// KVM's modules as a cpio archive to append to [`Self::bench_initrd`].
    #[must_use]
    pub fn kvm_modules(&self) -> PathBuf {
        self.folder.join("kvm-modules.cpio")
    }

    /// Debian's stock generic kernel, a bzImage, for [`Self::node_initrd`].
    #[must_use]
    pub fn node_kernel(&self) -> PathBuf {
        self.folder.join("node-vmlinuz")
    }

    /// The initramfs of a worker node whose devices are given away: loads the drivers, prints `FERROVIRT-NODE` and
    /// runs `/node/device_node`, which a test appends in an archive of its own ([`crate::device_node`]).
    #[must_use]
    pub fn node_initrd(&self) -> PathBuf {
        self.folder.join("node-initrd")
    }

    /// The root disk as a raw image; copy it before writing.
    #[must_use]
    pub fn root_raw(&self) -> PathBuf {
        self.folder.join("root.raw")
    }

    /// The root disk as qcow2; copy it before writing. `None`, with the reason printed, where it was built without
    /// qemu-img and is raw under that name.
    #[must_use]
    #[expect(
        clippy::print_stderr,
        reason = "a skipped test must say so where its reader looks"
    )]
    pub fn root_qcow2(&self) -> Option<PathBuf> {
        let path = self.folder.join("root.qcow2");
        let mut magic = [0; 4];
        let read = File::open(&path).and_then(|mut file| file.read_exact(&mut magic));
        if read.is_ok() && magic == *b"QFI\xfb" {
            return Some(path);
        }
        eprintln!(
            "skipped: {} is no qcow2: it was built without qemu-img",
            path.display()
        );
        None
    }

    /// The folder of OCI layouts that the demo manifest names.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.folder.join("oci")
    }

    /// The guest's busybox, which also runs on the host.
    #[must_use]
    pub fn busybox(&self) -> PathBuf {
        self.folder.join("busybox")
    }

    /// The guest's counted workloads, which also run on the host.
    #[must_use]
    pub fn bench_init(&self) -> PathBuf {
        self.folder.join("bench-init")
    }
}
