use proptest::prelude::{any, prop, proptest};

use super::{Uevents, is_of_interest};

/// What the kernel says when a stick is plugged in.
const STICK: &[u8] = b"add@/devices/pci0000:00/0000:00:04.0/usb1/1-1\0ACTION=add\0DEVPATH=/devices/pci0000:00/0000:00:04.0/usb1/1-1\0SUBSYSTEM=usb\0MAJOR=189\0MINOR=1\0DEVNAME=bus/usb/001/002\0DEVTYPE=usb_device\0PRODUCT=46f4/1/0\0TYPE=0/0/0\0BUSNUM=001\0DEVNUM=002\0SEQNUM=1471\0";

#[test]
fn devices_that_may_be_offered_are_of_interest() {
    assert!(is_of_interest(STICK));
    assert!(is_of_interest(
        b"bind@/devices/x\0ACTION=bind\0SUBSYSTEM=pci\0"
    ));
    assert!(is_of_interest(b"add@/module/kvm\0SUBSYSTEM=misc"));
}

#[test]
fn others_are_not() {
    for message in [
        &b"add@/devices/virtual/net/veth0\0ACTION=add\0SUBSYSTEM=net\0"[..],
        b"add@/devices/virtual/block/loop0\0SUBSYSTEM=block\0",
        b"SUBSYSTEM=usb",
        b"libudev\0\xfe\xed\xca\xfe",
        b"\0\0\0",
        b"",
    ] {
        assert!(
            !is_of_interest(message),
            "{}",
            String::from_utf8_lossy(message)
        );
    }
}

#[tokio::test]
async fn listening_to_the_kernel_waits_for_it() {
    match Uevents::open() {
        Ok(mut uevents) => {
            let waiting = uevents.next();
            // Other devices of this machine may come and go meanwhile.
            let waited = tokio::time::timeout(std::time::Duration::from_millis(10), waiting).await;
            assert!(waited.is_err() || waited.unwrap().is_ok());
        }
        Err(error) => eprintln!("skipped: listen to the kernel's messages: {error}"),
    }
}

proptest! {
    #[test]
    fn no_message_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        is_of_interest(&bytes);
    }
}
