//! Disks of instances on a node: a host whose disk is full, images in containers, images that vanish.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    use nix::sys::signal::Signal;
    use serde_json::{Value, json};
    use tests::Spawned;
    use tests::api_endpoint::ObjectKey;
    use tests::node::status::{condition, is_final};
    use tests::node::{Node, manifest};

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A node with its agent.
    fn node() -> Option<Node> {
        let mut node = Node::new()?;
        node.start_handler(&[]);
        Some(node)
    }

    fn with_disk(name: &str, kind: &str, source: &Value) -> Value {
        let mut vmi = manifest::vmi(name);
        let volume = json!({"name": "data", kind: source});
        let disk = json!({"name": "data", "disk": {"bus": "virtio"}});
        manifest::add_disk(&mut vmi, disk, volume);
        vmi
    }

    #[test]
    fn a_full_host_pauses_the_machine_until_there_is_room() {
        let Some(mut node) = node() else { return };
        let vmi = with_disk("full", "emptyDisk", &json!({"capacity": "64Mi"}));
        node.limit_volume(&vmi, "libvirt-runtime", "6m");
        let key = node.schedule(vmi);
        node.wait_for_phase(&key, "Running", PATIENCE);
        let mut console = node.console("full");
        console.log_in();
        console.run("head -c 12582912 /dev/urandom >/tmp/data");
        console.send("dd if=/tmp/data of=/dev/vda bs=1M conv=fsync && echo written\"\"well\n");
        let vmi = node.wait_for(&key, "paused", PATIENCE, |vmi| {
            condition(vmi, "Paused")["status"] == "True"
        });
        assert_eq!(condition(&vmi, "Paused")["reason"], "PausedIOError");
        assert_eq!(vmi["status"]["phase"], "Running");
        let event = node.wait_for_event("full", "IOerror", PATIENCE);
        assert_eq!(event["type"], "Warning");
        node.resize_volume("full", "libvirt-runtime", "64m");
        node.wait_for(&key, "running again", PATIENCE, |vmi| {
            condition(vmi, "Paused").is_null()
        });
        console.expect("writtenwell", PATIENCE);
        console.run("echo 3 >/proc/sys/vm/drop_caches");
        let same = console.run("head -c 12582912 /dev/vda | cmp - /tmp/data && echo the\"\"same");
        assert!(same.contains("thesame"), "{same:?}");
    }

    /// Writes the image of a disk whose first bytes are known.
    fn disk_image(node: &Node, name: &str) -> PathBuf {
        let image = node.path(name);
        fs::create_dir_all(image.join("disk")).expect("make the image");
        let mut disk = vec![0; 4 << 20];
        disk[..13].copy_from_slice(b"from an image");
        disk[(3 << 20)..(3 << 20) + 9].copy_from_slice(b"and later");
        fs::write(image.join("disk/disk.img"), disk).expect("write the disk");
        image
    }

    fn kernel_image(node: &Node) -> PathBuf {
        let image = node.path("kernel-image");
        fs::create_dir_all(&image).expect("make the image");
        for (from, to) in [
            (node.guests.kernel(), "vmlinuz"),
            (node.guests.initrd(), "initrd"),
        ] {
            fs::copy(from, image.join(to)).expect("copy a file of the image");
        }
        image
    }

    /// Starts an instance whose kernel and disk are in containers.
    fn contained(node: &mut Node, name: &str) -> (ObjectKey, Spawned, PathBuf) {
        let vmi = with_disk(
            name,
            "containerDisk",
            &json!({"image": "registry.example/disk"}),
        );
        node.start_pod_for_containers(&vmi);
        let kernel = kernel_image(node);
        let image = disk_image(node, "disk-image");
        let kernel = node.start_container(name, &kernel, "kernel-boot");
        let key = node.write_scheduled(vmi);
        (key, kernel, image)
    }

    #[test]
    fn images_in_containers_are_waited_for_mounted_and_outlived() {
        let Some(mut node) = node() else { return };
        let (key, kernel, image) = contained(&mut node, "images");
        // Its disk's container comes late.
        assert_eq!(
            node.api.get(&key).unwrap_or_default()["status"]["phase"],
            "Scheduled"
        );
        let disk = node.start_container("images", &image, "disk_0");
        node.wait_for_phase(&key, "Running", PATIENCE);
        let mut console = node.console("images");
        console.log_in();
        let first = console.run("head -c 13 /dev/vda");
        assert!(first.contains("from an image"), "{first:?}");
        // The containers end and the image goes; the disk stays.
        disk.signal(Signal::SIGKILL);
        disk.finish(PATIENCE).expect("the container ends");
        fs::remove_file(image.join("disk/disk.img")).expect("remove the image");
        console.run("echo 3 >/proc/sys/vm/drop_caches");
        let later = console.run("dd if=/dev/vda bs=1M skip=3 count=1 2>/dev/null | head -c 9");
        assert!(later.contains("and later"), "{later:?}");
        // What is written goes elsewhere.
        console.run("echo changed | dd of=/dev/vda conv=notrunc,fsync");
        console.send("poweroff\n");
        let vmi = node.wait_for(&key, "final", PATIENCE, is_final);
        assert_eq!(vmi["status"]["phase"], "Succeeded", "{:#}", vmi["status"]);
        node.wait_until_clean("images", PATIENCE);
        let ended = kernel
            .finish(PATIENCE)
            .expect("the containers end with the machine");
        assert!(ended.status.success(), "{}", ended.errors);
    }

    #[test]
    fn an_image_without_a_disk_is_named_until_it_has_one() {
        let Some(mut node) = node() else { return };
        let (key, _kernel, image) = contained(&mut node, "empty");
        let disk = image.join("disk/disk.img");
        let aside = node.path("aside.img");
        fs::rename(&disk, &aside).expect("take the disk away");
        let _container = node.start_container("empty", &image, "disk_0");
        let vmi = node.wait_for(&key, "not synchronized", PATIENCE, |vmi| {
            condition(vmi, "Synchronized")["status"] == "False"
        });
        let message = condition(&vmi, "Synchronized")["message"].clone();
        let message = message.as_str().unwrap_or_default();
        assert!(message.contains("data"), "{message}");
        assert_eq!(vmi["status"]["phase"], "Scheduled");
        fs::rename(&aside, &disk).expect("put the disk back");
        node.wait_for_phase(&key, "Running", PATIENCE);
    }
}
