//! Container disks with real containers: processes with mount namespaces and roots of their own.
#![expect(
    clippy::needless_pass_by_value,
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module as a whole"
)]

mod host;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

use handler::cleanup::{Leftover, leftovers, observe, remove};
use handler::launchers::Launcher;
use handler::mounts::{MountError, Mounted, checksums, mount_container_disks, unmount_all};
use handler::ownership::give_to_launcher;
use handler::status::kernel_file;
use host::{Host, Process, READY, SOCKET, UID, vmi, with_disk};
use nix::mount::{MntFlags, umount2};
use serde_json::json;

/// What the process of a container does.
#[test]
#[ignore = "other tests run this as a process"]
fn listens_as_a_container() {
    let Some(socket) = std::env::var_os(SOCKET) else {
        println!("skipped: other tests run this as a process");
        return;
    };
    let _listener = UnixListener::bind(socket).unwrap();
    println!("{READY}");
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing).unwrap();
}

const NOTHING: [PathBuf; 0] = [];
const IMAGE: &str = "mkdir disk; printf 'the disk' > disk/a.img";

fn ready() -> Mounted {
    let checksums = [].into();
    Mounted::Ready { checksums }
}

fn mount(host: &Host, vmi: &api::Vmi) -> Result<Mounted, MountError> {
    mount_container_disks(&host.paths, vmi, &host.own_launcher())
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[test]
fn the_only_disk_of_an_image_is_mounted_once_and_read_only() {
    let Some(host) = Host::new() else { return };
    let _container = host.container("disk_1.sock", IMAGE);
    let vmi = with_disk(json!({"image": "i"}));
    assert_eq!(mount(&host, &vmi).unwrap(), ready());
    let path = host.disks().join("disk_1.img");
    assert_eq!(fs::read_to_string(&path).unwrap(), "the disk");
    let error = OpenOptions::new().write(true).open(&path).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(mount(&host, &vmi).unwrap(), ready());
    assert_eq!(host.mounts(), [path]);
}

#[test]
fn a_container_that_does_not_listen_is_waited_for() {
    let Some(host) = Host::new() else { return };
    let waiting = Mounted::Waiting {
        volume: "root".to_owned(),
    };
    let vmi = with_disk(json!({"image": "i"}));
    assert_eq!(mount(&host, &vmi).unwrap(), waiting);
    let mut container = host.container("disk_1.sock", IMAGE);
    container.kill();
    assert!(host.disks().join("disk_1.sock").exists());
    assert_eq!(mount(&host, &vmi).unwrap(), waiting);
    assert_eq!(host.mounts(), NOTHING);
}

#[test]
fn an_image_that_vanishes_stays_mounted() {
    let Some(host) = Host::new() else { return };
    let layers = host.path().join("layers");
    for layer in ["lower/disk", "upper", "work"] {
        fs::create_dir_all(layers.join(layer)).unwrap();
    }
    fs::write(layers.join("lower/disk/a.img"), "the disk").unwrap();
    let at = layers.display();
    let options = format!("lowerdir={at}/lower,upperdir={at}/upper,workdir={at}/work");
    let root = format!("mount -t overlay overlay -o {options} \"$ROOT\"");
    let mut container = host.container_on("disk_1.sock", &root, "");
    let vmi = with_disk(json!({"image": "i"}));
    assert_eq!(mount(&host, &vmi).unwrap(), ready());
    container.kill();
    fs::remove_dir_all(&layers).unwrap();
    fs::remove_file(host.disks().join("disk_1.sock")).unwrap();
    assert_eq!(mount(&host, &vmi).unwrap(), ready());
    let content = fs::read_to_string(host.disks().join("disk_1.img"));
    assert_eq!(content.unwrap(), "the disk");
    unmount_all(&host.paths, UID).unwrap();
}

#[test]
fn an_image_that_vanishes_before_it_is_mounted_is_named() {
    let Some(host) = Host::new() else { return };
    let _container = host.container("disk_1.sock", "mkdir disk");
    let error = mount(&host, &with_disk(json!({"image": "i"}))).unwrap_err();
    let expected = "find the only file in /disk in the container image of volume root: \
                    the folder holds no disk: put one there, or name the file with path";
    assert_eq!(chain(&error), expected);
    let named = with_disk(json!({"image": "i", "path": "/gone.img"}));
    let error = chain(&mount(&host, &named).unwrap_err());
    assert!(
        error.starts_with("find /gone.img in the container image of volume root: "),
        "{error}"
    );
    assert_eq!(host.mounts(), NOTHING);
}

#[test]
fn links_lead_to_files_of_the_image_only() {
    let Some(host) = Host::new() else { return };
    let secret = host.path().join("secret");
    fs::write(&secret, "of the host").unwrap();
    let image = format!(
        "printf 'the disk' > a.img; ln -s /a.img absolute; ln -s ../../../../../a.img up
         ln -s {} host; ln -s /proc/1/environ process; ln -s /proc/self/root/a.img magic
         mkfifo fifo; mknod device c 1 3; mkdir folder",
        secret.display()
    );
    let _container = host.container("disk_1.sock", &image);
    let path = |path: &str| with_disk(json!({"image": "i", "path": path}));
    for name in [
        "/host",
        "/process",
        "/magic",
        "/fifo",
        "/device",
        "/folder",
        "/usr/bin/env",
        "/a.img/x",
        "../secret",
        "/proc/version",
        "/disks/disk_1.sock",
    ] {
        let result = mount(&host, &path(name));
        assert!(
            matches!(result, Err(MountError::Image { .. })),
            "{name}: {result:?}"
        );
        assert_eq!(host.mounts(), NOTHING, "{name}");
    }
    for name in ["/absolute", "/up", "a.img", "//a.img"] {
        assert_eq!(mount(&host, &path(name)).unwrap(), ready(), "{name}");
        let content = fs::read_to_string(host.disks().join("disk_1.img"));
        assert_eq!(content.unwrap(), "the disk", "{name}");
        unmount_all(&host.paths, UID).unwrap();
    }
}

#[test]
fn several_files_are_no_disk() {
    let Some(host) = Host::new() else { return };
    let image = "mkdir disk; touch disk/a disk/b; mkdir disk/folder";
    let _container = host.container("disk_1.sock", image);
    let error = chain(&mount(&host, &with_disk(json!({"image": "i"}))).unwrap_err());
    assert!(
        error.ends_with("leave only one, or name it with path"),
        "{error}"
    );
}

#[test]
fn who_is_no_container_is_refused() {
    let Some(host) = Host::new() else { return };
    let vmi = with_disk(json!({"image": "i"}));
    let socket = host.disks().join("disk_1.sock");
    let own = host.path().join("own.sock");
    let _listener = UnixListener::bind(&own).unwrap();
    symlink(&own, &socket).unwrap();
    let error = chain(&mount(&host, &vmi).unwrap_err());
    assert!(error.ends_with("this is no socket"), "{error}");
    fs::remove_file(&socket).unwrap();
    // A socket's path may not be long.
    let folder = fs::File::open(host.disks()).unwrap();
    let path = format!("/proc/self/fd/{}/disk_1.sock", folder.as_raw_fd());
    let _listener = UnixListener::bind(path).unwrap();
    let error = chain(&mount(&host, &vmi).unwrap_err());
    assert!(
        error.ends_with("this process itself listens there"),
        "{error}"
    );
}

#[test]
fn a_mount_point_is_no_link() {
    let Some(host) = Host::new() else { return };
    let _container = host.container("disk_1.sock", IMAGE);
    let outside = host.path().join("outside");
    fs::write(&outside, "of the host").unwrap();
    symlink(&outside, host.disks().join("disk_1.img")).unwrap();
    let result = mount(&host, &with_disk(json!({"image": "i"})));
    assert!(
        matches!(result, Err(MountError::Mount { .. })),
        "{result:?}"
    );
    assert_eq!(fs::read_to_string(&outside).unwrap(), "of the host");
    unmount_all(&host.paths, UID).unwrap();
    assert_eq!(fs::read_to_string(&outside).unwrap(), "of the host");
}

#[test]
fn a_process_without_a_namespace_of_its_own_is_a_container_too() {
    let Some(host) = Host::new() else { return };
    let disk = host.path().join("disk.img");
    fs::write(&disk, "the disk").unwrap();
    let mut command = Command::new("sh");
    let script =
        "cd \"$DISKS\"; exec \"$EXE\" --exact listens_as_a_container --ignored --nocapture";
    command
        .args(["-c", script])
        .env("DISKS", host.disks())
        .env("EXE", std::env::current_exe().unwrap())
        .env(SOCKET, "disk_1.sock");
    let _container = Process::start(command);
    let result = mount(&host, &with_disk(json!({"image": "i", "path": disk})));
    if chain_of(&result).contains("mounted in the container") {
        println!("skipped: the folder for temporary files is a mount");
        return;
    }
    assert_eq!(result.unwrap(), ready());
    let content = fs::read_to_string(host.disks().join("disk_1.img"));
    assert_eq!(content.unwrap(), "the disk");
}

fn chain_of(result: &Result<Mounted, MountError>) -> String {
    result
        .as_ref()
        .err()
        .map_or_else(String::new, |error| chain(error))
}

#[test]
fn kernel_and_initrd_are_mounted_by_their_names() {
    let Some(host) = Host::new() else { return };
    let image = "mkdir boot; printf kernel > boot/vmlinuz; printf initrd > boot/initrd";
    let _container = host.container("kernel-boot.sock", image);
    let container =
        json!({"image": "i", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd"});
    let vmi = vmi(json!({"domain": {"firmware": {"kernelBoot": {"container": container}}}}));
    assert_eq!(mount(&host, &vmi).unwrap(), ready());
    let folder = host.disks().join("kernel-boot");
    assert_eq!(
        fs::read_to_string(folder.join("vmlinuz")).unwrap(),
        "kernel"
    );
    assert_eq!(fs::read_to_string(folder.join("initrd")).unwrap(), "initrd");
    let known = checksums(&host.paths, &vmi, &host.own_launcher()).unwrap();
    let names: Vec<_> = known.keys().map(String::as_str).collect();
    assert_eq!(names, [kernel_file::INITRD, kernel_file::KERNEL]);
    unmount_all(&host.paths, UID).unwrap();
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
}

#[test]
fn the_record_outlives_the_handler_and_has_upstreams_names() {
    let Some(host) = Host::new() else { return };
    let _container = host.container("disk_1.sock", IMAGE);
    let vmi = with_disk(json!({"image": "i"}));
    mount(&host, &vmi).unwrap();
    let record = host
        .paths
        .private_dir
        .join("container-disk-mount-state")
        .join(UID);
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    let expected = json!({
        "mountTargetEntries": [{
            "targetFile": host.disks().join("disk_1.img"),
            "socketFile": host.disks().join("disk_1.sock"),
        }],
        "usesSafePaths": true,
        "checksums": {},
    });
    assert_eq!(json, expected);
    unmount_all(&host.paths, UID).unwrap();
    assert_eq!(host.mounts(), NOTHING);
    assert!(!record.exists());
    unmount_all(&host.paths, UID).unwrap();
}

#[test]
fn a_mount_that_failed_is_on_record() {
    let Some(host) = Host::new() else { return };
    let _container = host.container("disk_1.sock", IMAGE);
    fs::create_dir(host.disks().join("disk_1.img")).unwrap();
    let result = mount(&host, &with_disk(json!({"image": "i"})));
    assert!(
        matches!(result, Err(MountError::Mount { .. })),
        "{result:?}"
    );
    fs::remove_dir(host.disks().join("disk_1.img")).unwrap();
    assert_eq!(
        mount(&host, &with_disk(json!({"image": "i"}))).unwrap(),
        ready()
    );
}

#[test]
fn what_is_gone_already_is_unmounted_without_complaint() {
    let Some(host) = Host::new() else { return };
    let _container = host.container("disk_1.sock", IMAGE);
    mount(&host, &with_disk(json!({"image": "i"}))).unwrap();
    umount2(&host.disks().join("disk_1.img"), MntFlags::MNT_DETACH).unwrap();
    fs::remove_dir_all(host.paths.pods_dir.join(host::POD)).unwrap();
    unmount_all(&host.paths, UID).unwrap();
    let record = host
        .paths
        .private_dir
        .join("container-disk-mount-state")
        .join(UID);
    assert!(!record.exists());
}

#[test]
fn a_record_cannot_point_out_of_the_pods() {
    let Some(host) = Host::new() else { return };
    let outside = host.path().join("outside");
    fs::write(&outside, "").unwrap();
    let folder = host.paths.private_dir.join("container-disk-mount-state");
    fs::create_dir_all(&folder).unwrap();
    let climbing = host.disks().join("../../../../../outside");
    for target in [&outside, &climbing] {
        let record = json!({"mountTargetEntries": [{"targetFile": target, "socketFile": ""}]});
        fs::write(folder.join(UID), record.to_string()).unwrap();
        unmount_all(&host.paths, UID).unwrap();
        assert!(outside.exists());
    }
}

#[test]
fn an_image_of_another_content_is_not_accepted() {
    let Some(host) = Host::new() else { return };
    let _container = host.container("disk_1.sock", "mkdir disk; printf 123456789 > disk/a.img");
    let mut vmi = with_disk(json!({"image": "i"}));
    let status = |checksum: u32| {
        let volume =
            json!({"name": "root", "target": "", "containerDiskVolume": {"checksum": checksum}});
        serde_json::from_value(json!({"volumeStatus": [volume]})).unwrap()
    };
    vmi.status = status(7);
    let error = mount(&host, &vmi).unwrap_err();
    let MountError::Differs {
        volume,
        expected,
        found,
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (volume.as_str(), *expected, *found),
        ("root", 7, 0xcbf4_3926)
    );
    let known = Mounted::Ready {
        checksums: [("root".to_owned(), 0xcbf4_3926)].into(),
    };
    vmi.status = status(0xcbf4_3926);
    assert_eq!(mount(&host, &vmi).unwrap(), known);
}

#[test]
fn a_launcher_that_shares_mounts_sees_them() {
    let Some(host) = Host::new() else { return };
    let _container = host.container("disk_1.sock", IMAGE);
    let vmi = with_disk(json!({"image": "i"}));
    let (_process, launcher) = host.launcher_with("slave");
    let mounted = mount_container_disks(&host.paths, &vmi, &launcher).unwrap();
    assert_eq!(mounted, ready());
    let seen = launcher
        .root()
        .join("var/run/kubevirt/container-disks/disk_1.img");
    assert_eq!(fs::read_to_string(&seen).unwrap(), "the disk");
    let error = OpenOptions::new().write(true).open(&seen).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn a_launcher_that_does_not_see_a_mount_is_not_started() {
    let Some(host) = Host::new() else { return };
    let _container = host.container("disk_1.sock", IMAGE);
    let vmi = with_disk(json!({"image": "i"}));
    let (_process, launcher) = host.launcher_with("private");
    let error = mount_container_disks(&host.paths, &vmi, &launcher).unwrap_err();
    assert!(matches!(error, MountError::NotSeen { .. }), "{error}");
    assert!(error.to_string().contains("HostToContainer"), "{error}");
}

#[test]
fn a_mount_on_no_record_is_left_over_once_its_launcher_is_gone() {
    let Some(host) = Host::new() else { return };
    let _container = host.container("disk_1.sock", IMAGE);
    mount(&host, &with_disk(json!({"image": "i"}))).unwrap();
    let records = host.paths.private_dir.join("container-disk-mount-state");
    let known = BTreeSet::from([UID.to_owned()]);
    assert_eq!(leftovers(&observe(&host.paths), &known), []);
    fs::remove_dir_all(records).unwrap();
    let found = leftovers(&observe(&host.paths), &known);
    let path = host.disks().join("disk_1.img");
    assert_eq!(found, [Leftover::Mount { path }]);
    remove(&host.paths, &found[0]).unwrap();
    assert_eq!(host.mounts(), NOTHING);
}

#[test]
fn a_launcher_without_root_owns_its_devices() {
    let Some(host) = Host::new() else { return };
    let owner = |launcher: &Launcher| {
        let file = fs::metadata(launcher.root().join("dev/kvm")).unwrap();
        (file.uid(), file.gid())
    };
    let (_root, of_root) = host.launcher_with("slave");
    give_to_launcher(&host.paths, &with_disk(json!({})), &of_root).unwrap();
    assert_eq!(owner(&of_root), (0, 0));
    let (_process, launcher) = host.launcher_as("slave", "setpriv --reuid 107 --clear-groups");
    give_to_launcher(&host.paths, &with_disk(json!({})), &launcher).unwrap();
    assert_eq!(owner(&launcher), (107, 107));
}
