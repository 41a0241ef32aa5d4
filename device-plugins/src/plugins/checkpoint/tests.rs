use std::fs;

use proptest::prelude::{any, prop, prop_assert, proptest};

use super::{FILE_NAME, InUse, parse, read};
use crate::report::Holder;
use crate::resource::ResourceName;
use crate::tree;

/// As a kubelet of today writes it, with what we do not read.
const TODAY: &str = r#"{"Data":{"PodDeviceEntries":[
    {"PodUID":"b8c7","ContainerName":"compute","ResourceName":"kubevirt.io/wifi","DeviceIDs":{"-1":["1-1.4","1-1.3"],"0":["1-2"]},"AllocResp":"CgsK"},
    {"PodUID":"a1","ContainerName":"compute","ResourceName":"devices.kubevirt.io/kvm","DeviceIDs":{"-1":["kvm17"]},"AllocResp":""}],
    "RegisteredDevices":{"kubevirt.io/wifi":["1-1.4"]}},"Checksum":3402372847}"#;

fn one(resource: &str, id: &str, pod_uid: &str) -> InUse {
    InUse {
        resource: ResourceName::new(resource).unwrap(),
        id: id.to_owned(),
        holder: Holder {
            pod_uid: pod_uid.to_owned(),
            container: "compute".to_owned(),
        },
    }
}

fn check(text: &str, expected: &[(&str, &str, &str)]) {
    let mut expected: Vec<InUse> = expected
        .iter()
        .map(|(resource, id, pod_uid)| one(resource, id, pod_uid))
        .collect();
    expected.sort();
    assert_eq!(parse(text.as_bytes()).unwrap(), expected);
}

#[test]
fn units_are_read_by_node() {
    check(
        TODAY,
        &[
            ("kubevirt.io/wifi", "1-1.3", "b8c7"),
            ("kubevirt.io/wifi", "1-1.4", "b8c7"),
            ("kubevirt.io/wifi", "1-2", "b8c7"),
            ("devices.kubevirt.io/kvm", "kvm17", "a1"),
        ],
    );
}

#[test]
fn units_are_read_from_the_plain_list_of_older_kubelets() {
    check(
        r#"{"Data":{"PodDeviceEntries":[{"PodUID":"a","ContainerName":"compute","ResourceName":"x.io/y","DeviceIDs":["1","2","1"]}]}}"#,
        &[("x.io/y", "1", "a"), ("x.io/y", "2", "a")],
    );
}

#[test]
fn nothing_is_in_use_where_the_kubelet_wrote_null() {
    check(
        r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":null},"Checksum":0}"#,
        &[],
    );
    check(
        r#"{"Data":{"PodDeviceEntries":[
            {"PodUID":"a","ContainerName":"compute","ResourceName":"x.io/y","DeviceIDs":null},
            {"PodUID":"a","ContainerName":"compute","ResourceName":"x.io/y","DeviceIDs":{"0":null}}]}}"#,
        &[],
    );
}

#[test]
fn entries_that_no_kubelet_writes_are_left_out_and_the_others_count() {
    check(
        r#"{"Data":{"PodDeviceEntries":[
            {"PodUID":"../../etc","ContainerName":"compute","ResourceName":"x.io/y","DeviceIDs":["1"]},
            {"PodUID":"","ContainerName":"compute","ResourceName":"x.io/y","DeviceIDs":["2"]},
            {"PodUID":"a","ContainerName":"compute","ResourceName":"cpu","DeviceIDs":["3"]},
            {"PodUID":"a","ContainerName":"compute","ResourceName":"x.io/y","DeviceIDs":["","4"]}]}}"#,
        &[("x.io/y", "4", "a")],
    );
}

#[test]
fn what_makes_no_sense_is_an_error() {
    for text in [
        "",
        "{",
        "[]",
        "{}",
        r#"{"Data":[]}"#,
        r#"{"Data":{"PodDeviceEntries":[{}]}}"#,
    ] {
        assert!(parse(text.as_bytes()).is_err(), "{text}");
    }
    let deep = format!(r#"{{"Data":{}"#, "[".repeat(1 << 20));
    assert!(parse(deep.as_bytes()).is_err());
}

#[test]
fn pods_without_a_folder_have_nothing() {
    let dir = tree::plant("d kubelet/device-plugins\nd kubelet/pods/b8c7\n");
    let host = tree::host(&dir);
    assert_eq!(read(&host).unwrap(), None);
    fs::write(host.plugin_dir.join(FILE_NAME), TODAY).unwrap();
    let of_pods = |host| -> Vec<String> {
        let in_use = read(host).unwrap().unwrap();
        in_use.into_iter().map(|one| one.holder.pod_uid).collect()
    };
    assert_eq!(of_pods(&host), ["b8c7", "b8c7", "b8c7"]);
    fs::remove_dir_all(&host.pods_dir).unwrap();
    assert_eq!(
        of_pods(&host).len(),
        4,
        "without any folder nothing can be told"
    );
}

#[test]
fn a_folder_in_the_place_of_the_record_is_an_error() {
    let dir = tree::plant(&format!("d kubelet/device-plugins/{FILE_NAME}\n"));
    assert!(read(&tree::host(&dir)).is_err());
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        parse(&bytes).ok();
    }

    #[test]
    fn no_change_of_a_record_is_too_strange(at in 0..TODAY.len(), byte: u8, cut in 0..TODAY.len()) {
        let mut bytes = TODAY.as_bytes().to_vec();
        bytes[at] = byte;
        bytes.truncate(cut.max(at));
        for one in parse(&bytes).unwrap_or_default() {
            prop_assert!(!one.holder.pod_uid.contains('/'));
        }
    }
}
