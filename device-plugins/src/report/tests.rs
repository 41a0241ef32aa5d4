use std::fs;
use std::sync::Arc;

use super::{FILE_NAME, Holder, Report, report};
use crate::plugins::{InUse, Offers};
use crate::resource::ResourceName;
use crate::runner::Registration;
use crate::unit::{Health, LeftOut, Offer, Unit};

fn unit(id: &str, copies: u32, health: Health) -> Unit {
    Unit {
        id: id.to_owned(),
        copies,
        parts: Vec::new(),
        health,
        numa_node: Some(1),
        nodes: Vec::new(),
        addresses: vec!["1:7".to_owned()],
    }
}

fn sample() -> Report {
    let resource = ResourceName::new("kubevirt.io/wifi").unwrap();
    let offer = Offer {
        resource: resource.clone(),
        variable: None,
        units: vec![
            unit("kvm", 1000, Health::Healthy),
            unit("1-1", 1, Health::Healthy),
            unit("1-2", 1, Health::Unhealthy("gone".to_owned())),
        ],
        left_out: vec![LeftOut {
            device: "1-3".to_owned(),
            reason: "a hub".to_owned(),
        }],
    };
    let in_use = ["kvm0", "kvm17", "kvm1000", "1-2"].map(|id| InUse {
        resource: resource.clone(),
        id: id.to_owned(),
        holder: Holder {
            pod_uid: "p".to_owned(),
            container: "compute".to_owned(),
        },
    });
    let offers = Offers::from([(resource, Arc::new(offer))]);
    let registration = |_: &ResourceName| Registration::Failed("no answer".to_owned());
    report(&offers, &in_use, registration, vec!["item 2".to_owned()])
}

#[test]
fn units_are_counted_as_the_kubelet_counts_them() {
    let report = sample();
    let resource = &report.resources[0];
    assert_eq!(resource.capacity(), 1002);
    assert_eq!(resource.healthy(), 1001);
    assert_eq!(resource.held(), 3);
    let holders: Vec<usize> = resource
        .units
        .iter()
        .map(|unit| unit.holders.len())
        .collect();
    assert_eq!(holders, [2, 0, 1]);
}

#[test]
fn a_report_that_was_written_is_read_again() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("private").join(FILE_NAME);
    let report = sample();
    report.write(&path).unwrap();
    assert_eq!(Report::read(&path).unwrap(), report);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn what_is_no_report_is_an_error_that_names_the_file() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join(FILE_NAME);
    let error = Report::read(&path).unwrap_err().to_string();
    assert!(error.contains("the node agent does not run"), "{error}");
    fs::write(&path, "{\"resources\":[{}]}").unwrap();
    let error = Report::read(&path).unwrap_err().to_string();
    assert!(error.contains(FILE_NAME), "{error}");
}
