use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::{bind_all, write_attribute};
use crate::pci::{PciDevices, PciSelector};
use crate::source::Source;
use crate::tree::{add, fixture, host};

fn asking() -> PciDevices {
    let selectors = ["8086:1889", "144d:a825", "8086:4941", "8086:1592"];
    PciDevices {
        selectors: selectors
            .iter()
            .map(|ids| PciSelector::parse("i.io/vf", ids).unwrap())
            .collect(),
        bind_vfio: true,
    }
}

/// A kernel that takes what is written and does what it should, or refuses.
struct Kernel<'a> {
    tree: &'a TempDir,
    written: RefCell<Vec<String>>,
    refuses: Option<(&'static str, io::ErrorKind)>,
}

impl<'a> Kernel<'a> {
    fn new(tree: &'a TempDir) -> Self {
        Self {
            tree,
            written: RefCell::default(),
            refuses: None,
        }
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        match self.refuses {
            Some((name, kind)) if path.ends_with(name) => return Err(kind.into()),
            _ => {}
        }
        let folder = path.parent().unwrap();
        let shown = path
            .strip_prefix(self.tree.path().join("sys/bus/pci"))
            .unwrap();
        self.written
            .borrow_mut()
            .push(format!("{} = {text}", shown.display()));
        match path.file_name().unwrap().to_str().unwrap() {
            "unbind" => fs::remove_file(folder),
            "drivers_probe" => {
                let device = folder.join("devices").join(text);
                let kept = fs::read_to_string(device.join("driver_override"))?;
                symlink(
                    folder.join("drivers").join(kept.trim()),
                    device.join("driver"),
                )
            }
            _ => fs::write(path, text),
        }
    }

    fn bind(&self) -> Vec<String> {
        let host = host(self.tree);
        let told = bind_all(&host, &asking().asked_for(&host), &|path, text| {
            self.write(path, text)
        });
        told.into_iter()
            .map(|left_out| format!("{} {}", left_out.device, left_out.reason))
            .collect()
    }
}

#[test]
fn free_virtual_functions_are_bound_and_used_ones_are_explained() {
    let tree = fixture("bind-vfio");
    let kernel = Kernel::new(&tree);
    assert_eq!(
        kernel.bind(),
        [
            "0000:00:02.0 is not bound to vfio-pci: it is the display that the host booted with",
            "0000:41:01.1 is not bound to vfio-pci: its network interface eno1v1 is up; set it down if nobody uses it (ip link set eno1v1 down)",
            "0000:41:01.2 is not bound to vfio-pci: its driver iavf has it and its network interface is not in the node agent's network namespace, so a container may be using it; unbind it from iavf first if none is",
            "0000:41:01.4 is not bound to vfio-pci: its block device nvme1n1 may be in use; unbind it from nvme first if it is not",
        ]
    );
    let expected = [
        "devices/0000:41:01.0/driver_override = vfio-pci",
        "devices/0000:41:01.0/driver/unbind = 0000:41:01.0",
        "drivers_probe = 0000:41:01.0",
        "devices/0000:41:01.3/driver_override = vfio-pci",
        "drivers_probe = 0000:41:01.3",
        "drivers_probe = 0000:41:01.5",
        "devices/0000:41:01.6/driver_override = vfio-pci",
        "devices/0000:41:01.6/driver/unbind = 0000:41:01.6",
        "drivers_probe = 0000:41:01.6",
        "devices/0000:41:01.7/driver_override = vfio-pci",
        "devices/0000:41:01.7/driver/unbind = 0000:41:01.7",
        "drivers_probe = 0000:41:01.7",
    ];
    assert_eq!(kernel.written.take(), expected);
    let offers = asking().discover(&host(&tree));
    let addresses: Vec<&String> = offers[0]
        .units
        .iter()
        .flat_map(|unit| &unit.addresses)
        .collect();
    assert_eq!(
        addresses,
        [
            "0000:41:01.0",
            "0000:41:01.3",
            "0000:41:01.5",
            "0000:41:01.6",
            "0000:41:01.7"
        ]
    );
    kernel.bind();
    assert_eq!(
        *kernel.written.borrow(),
        [""; 0],
        "a second time has nothing to do"
    );
}

#[test]
fn nothing_is_bound_unless_that_was_asked_for() {
    let tree = fixture("bind-vfio");
    let mut asked = asking();
    asked.bind_vfio = false;
    assert_eq!(asked.prepare(&host(&tree)), []);
    let kept = tree
        .path()
        .join("sys/bus/pci/devices/0000:41:01.3/driver_override");
    assert_eq!(fs::read_to_string(kept).unwrap(), "(null)\n");
}

#[test]
fn refusals_are_told_with_path_and_cure() {
    for (name, kind, cure) in [
        (
            "driver_override",
            io::ErrorKind::ReadOnlyFilesystem,
            "needs sysfs writable",
        ),
        (
            "driver/unbind",
            io::ErrorKind::PermissionDenied,
            "needs sysfs writable",
        ),
        ("drivers_probe", io::ErrorKind::NotFound, "just have gone"),
        ("drivers_probe", io::ErrorKind::InvalidInput, "kernel's log"),
    ] {
        let tree = fixture("bind-vfio");
        let mut kernel = Kernel::new(&tree);
        kernel.refuses = Some((name, kind));
        let told = kernel.bind();
        let first = told
            .iter()
            .find(|told| told.starts_with("0000:41:01.0"))
            .unwrap();
        assert!(first.contains(name) && first.contains(cure), "{first}");
    }
}

#[test]
fn a_module_that_is_not_loaded_is_told_before_anything_is_written() {
    let tree = fixture("bind-vfio");
    fs::remove_dir_all(tree.path().join("sys/bus/pci/drivers/vfio-pci")).unwrap();
    let kernel = Kernel::new(&tree);
    let told = kernel.bind();
    assert_eq!(
        told.iter()
            .filter(|told| told.ends_with("modprobe vfio-pci"))
            .count(),
        5
    );
    assert_eq!(*kernel.written.borrow(), [""; 0]);
}

#[test]
fn what_vfio_pci_does_not_take_is_told() {
    let tree = fixture("bind-vfio");
    let told = asking().prepare(&host(&tree));
    let reason = |device: &str| &told.iter().find(|one| one.device == device).unwrap().reason;
    // Files that nobody acts on are written to, and the function's driver stays.
    assert!(reason("0000:41:01.0").contains("kernel's log"));
    let unbound = tree.path().join("sys/bus/pci/drivers/iavf/unbind");
    assert_eq!(fs::read_to_string(unbound).unwrap(), "0000:41:01.0");
}

#[test]
fn only_attributes_that_are_there_are_written() {
    let tree = fixture("bind-vfio");
    let absent = tree.path().join("sys/absent");
    let error = write_attribute(&absent, "x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(!absent.exists());
}

#[test]
fn virtual_functions_of_a_card_in_vfios_hands_are_left_alone() {
    let tree = fixture("bind-vfio");
    let physical = "sys/devices/pci0000:40/0000:40:00.0/0000:41:00.0";
    add(
        &tree,
        &format!("l {physical}/driver -> ../../../../bus/pci/drivers/vfio-pci"),
    );
    let kernel = Kernel::new(&tree);
    kernel.bind();
    assert_eq!(*kernel.written.borrow(), [""; 0]);
}
