use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::{Change, Folders, Kind};

/// How long a sign may take.
const LONGEST: Duration = Duration::from_secs(10);

const DEVICES: Change = Change {
    devices: true,
    sockets: false,
    holders: false,
};
const SOCKETS: Change = Change {
    devices: false,
    sockets: true,
    holders: false,
};
const HOLDERS: Change = Change {
    devices: false,
    sockets: false,
    holders: true,
};

fn watch(dir: &TempDir, targets: &[(&str, Kind)]) -> Folders {
    let mut folders = Folders::open().unwrap();
    let targets = targets
        .iter()
        .map(|(path, kind)| (dir.path().join(path), *kind));
    let (_, fault) = folders.watch(targets.collect());
    assert_eq!(fault, None);
    folders
}

/// Waits until all that is expected may have changed; fails where anything else does.
async fn expect(folders: &mut Folders, expected: Change) {
    let mut all = Change::default();
    while all != expected {
        let next = tokio::time::timeout(LONGEST, folders.next()).await;
        all = all.and(next.expect("a sign comes").unwrap());
        assert_eq!(all.and(expected), expected, "more than expected");
    }
}

/// Sees to it that nothing was told, by making a sign that is.
async fn expect_nothing_before(folders: &mut Folders, sign: &Path) {
    fs::write(sign, "").unwrap();
    expect(folders, DEVICES).await;
}

#[tokio::test]
async fn a_node_that_comes_and_goes_is_told() {
    let dir = TempDir::new().unwrap();
    let mut folders = watch(&dir, &[("", Kind::Devices)]);
    fs::write(dir.path().join("kvm"), "").unwrap();
    expect(&mut folders, DEVICES).await;
    fs::remove_file(dir.path().join("kvm")).unwrap();
    expect(&mut folders, DEVICES).await;
}

#[tokio::test]
async fn the_kubelets_files_are_told_apart() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("pods/a")).unwrap();
    fs::create_dir_all(dir.path().join("plugins")).unwrap();
    let targets = [
        ("plugins", Kind::Plugins),
        ("pods", Kind::Pods),
        ("", Kind::Devices),
    ];
    let mut folders = watch(&dir, &targets);
    let plugins = dir.path().join("plugins");
    fs::write(plugins.join("kubelet.sock"), "").unwrap();
    expect(&mut folders, SOCKETS).await;
    fs::write(plugins.join(".kubelet_internal_checkpoint1"), "").unwrap();
    expect_nothing_before(&mut folders, &dir.path().join("first")).await;
    let (from, to) = (
        ".kubelet_internal_checkpoint1",
        "kubelet_internal_checkpoint",
    );
    fs::rename(plugins.join(from), plugins.join(to)).unwrap();
    expect(&mut folders, HOLDERS).await;
    fs::remove_dir(dir.path().join("pods/a")).unwrap();
    expect(&mut folders, HOLDERS).await;
    fs::create_dir(dir.path().join("pods/b")).unwrap();
    expect(&mut folders, HOLDERS).await;
}

#[tokio::test]
async fn a_folder_that_is_missing_is_awaited() {
    let dir = TempDir::new().unwrap();
    let mut folders = watch(&dir, &[("var/lib/kubelet/device-plugins", Kind::Plugins)]);
    fs::write(dir.path().join("other"), "").unwrap();
    let plugins = dir.path().join("var/lib/kubelet/device-plugins");
    fs::create_dir_all(&plugins).unwrap();
    expect(&mut folders, Change::ALL).await;
    while !folders
        .watched
        .values()
        .any(|watch| watch.kinds.contains(&Kind::Plugins))
    {
        folders.next().await.unwrap();
    }
    fs::write(plugins.join("kubelet.sock"), "").unwrap();
    let told = tokio::time::timeout(LONGEST, folders.next()).await;
    assert!(told.unwrap().unwrap().sockets);
}

#[tokio::test]
async fn a_folder_that_goes_and_comes_again_is_watched_again() {
    let dir = TempDir::new().unwrap();
    let plugins = dir.path().join("plugins");
    fs::create_dir(&plugins).unwrap();
    let mut folders = watch(&dir, &[("plugins", Kind::Plugins)]);
    for _ in 0..3 {
        fs::remove_dir_all(&plugins).unwrap();
        while !folders.watched.values().all(|watch| watch.kinds.is_empty()) {
            folders.next().await.unwrap();
        }
        fs::create_dir(&plugins).unwrap();
        while folders.watched.values().all(|watch| watch.kinds.is_empty()) {
            folders.next().await.unwrap();
        }
        fs::write(plugins.join("kubelet.sock"), "").unwrap();
        let mut is_told = false;
        while !is_told {
            let next = tokio::time::timeout(LONGEST, folders.next()).await;
            is_told = next.unwrap().unwrap().sockets;
        }
    }
}

#[tokio::test]
async fn a_new_bus_is_watched_too() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("bus/usb/001")).unwrap();
    let mut folders = watch(&dir, &[("bus/usb", Kind::DevicesBelow)]);
    fs::write(dir.path().join("bus/usb/001/002"), "").unwrap();
    expect(&mut folders, DEVICES).await;
    fs::create_dir(dir.path().join("bus/usb/002")).unwrap();
    expect(&mut folders, DEVICES).await;
    fs::write(dir.path().join("bus/usb/002/001"), "").unwrap();
    expect(&mut folders, DEVICES).await;
    fs::remove_file(dir.path().join("bus/usb/002/001")).unwrap();
    expect(&mut folders, DEVICES).await;
}

#[tokio::test]
async fn folders_that_are_no_longer_wanted_are_forgotten() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("pods")).unwrap();
    let mut folders = watch(&dir, &[("", Kind::Devices), ("pods", Kind::Pods)]);
    let target = (dir.path().to_owned(), Kind::Devices);
    let (unseen, _) = folders.watch(vec![target.clone()]);
    assert_eq!(unseen, Change::default());
    assert_eq!(folders.watched.len(), 1);
    let (unseen, _) = folders.watch(vec![target, (dir.path().join("pods"), Kind::Pods)]);
    assert_eq!(unseen, HOLDERS, "a pod may have gone meanwhile");
}
