use super::{default_vmi, system_uuid};
use crate::manifest::parse_vmi_json;
use crate::vmi::Vmi;

fn defaulted(domain: &str) -> Vmi {
    let json = format!(r#"{{"metadata":{{"name":"m"}},"spec":{{"domain":{domain}}}}}"#);
    default_vmi(&parse_vmi_json(json.as_bytes()).unwrap().0)
}

fn topology(domain: &str) -> (u32, u32, u32) {
    let cpu = defaulted(domain).spec.domain.cpu.unwrap();
    (
        cpu.sockets.unwrap(),
        cpu.cores.unwrap(),
        cpu.threads.unwrap(),
    )
}

#[test]
fn sockets_follow_the_cpu_limit_then_the_request() {
    assert_eq!(topology("{}"), (1, 1, 1));
    assert_eq!(
        topology(r#"{"resources":{"requests":{"cpu":"1500m"}}}"#),
        (2, 1, 1)
    );
    assert_eq!(
        topology(r#"{"resources":{"requests":{"cpu":1},"limits":{"cpu":3}}}"#),
        (3, 1, 1)
    );
    assert_eq!(
        topology(r#"{"cpu":{"cores":2},"resources":{"limits":{"cpu":3}}}"#),
        (1, 2, 1)
    );
}

#[test]
fn guest_memory_follows_the_request_then_the_limit() {
    let memory = |domain| {
        defaulted(domain)
            .spec
            .domain
            .memory
            .unwrap()
            .guest
            .map(|q| q.to_string())
    };
    assert_eq!(memory("{}"), None);
    assert_eq!(
        memory(r#"{"resources":{"limits":{"memory":"64M"}}}"#).as_deref(),
        Some("64M")
    );
    assert_eq!(
        memory(r#"{"resources":{"requests":{"memory":"1Gi"},"limits":{"memory":"2Gi"}}}"#)
            .as_deref(),
        Some("1Gi")
    );
    assert_eq!(
        memory(r#"{"memory":{"guest":"2Gi"},"resources":{"requests":{"memory":"1Gi"}}}"#)
            .as_deref(),
        Some("2Gi")
    );
}

#[test]
fn identity_follows_from_the_name_and_a_given_uuid_stays() {
    let uuid = |domain| defaulted(domain).spec.domain.firmware.unwrap().uuid;
    assert_eq!(uuid("{}"), system_uuid("m").to_string());
    assert_ne!(system_uuid("m"), system_uuid("n"));
    let given = "5d307ca9-b3ef-428c-8861-06e72d69f223";
    assert_eq!(
        uuid(&format!(r#"{{"firmware":{{"uuid":"{given}"}}}}"#)),
        given
    );
}

#[test]
fn an_empty_machine_type_is_q35_and_the_grace_period_thirty_seconds() {
    let vmi = defaulted(r#"{"machine":{"type":""}}"#);
    assert_eq!(vmi.spec.domain.machine.unwrap().machine_type, "q35");
    assert_eq!(vmi.spec.termination_grace_period_seconds, Some(30));
    assert_eq!(vmi.spec.architecture, "amd64");
}

#[test]
fn defaulting_twice_changes_nothing_more() {
    let once = defaulted(r#"{"resources":{"requests":{"cpu":"2","memory":"64M"}}}"#);
    assert_eq!(default_vmi(&once), once);
}
