//! Metrics, health and counters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use device_plugins::report::Report;
use serde_json::json;

use crate::client::{MONITORING_CLIENT, ask, connect};
use crate::site::{Site, instance, machine};
use crate::stand_in::Script;

/// Counters as a launcher tells them.
fn stats() -> String {
    json!({
        "Name": "default_vm", "UUID": "x",
        "Cpu": {"TimeSet": true, "Time": 2_500_000_000u64},
        "Memory": {"RSSSet": true, "RSS": 2048, "TotalSet": true, "Total": 4096},
        "Vcpu": [{"StateSet": true, "State": 1, "TimeSet": true, "Time": 1_000_000_000u64}],
        "Block": [{"Alias": "root", "NameSet": true, "Name": "vda", "RdReqsSet": true, "RdReqs": 7}],
        "Net": [{"NameSet": true, "Name": "tap0", "AliasSet": true, "Alias": "default",
                 "RxBytesSet": true, "RxBytes": 10, "TxBytesSet": true, "TxBytes": 20}],
        "Load": {"Load1mSet": true, "Load1m": 0.5},
    })
    .to_string()
}

fn measured(name: &str) -> Script {
    Script {
        stats: stats(),
        filesystems: r#"[{"diskName":"vda1","mountPoint":"/a\"\\\n","fileSystemType":"ext4","usedBytes":1,"totalBytes":2},
                         {"diskName":"vda1","mountPoint":"/a\"\\\n","fileSystemType":"ext4","usedBytes":9,"totalBytes":9}]"#
            .to_owned(),
        ..machine(name, "Running")
    }
}

/// Reads the text: every sample once, each of a family that was announced, and the mark at the end.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut family = String::new();
    let body = text.strip_suffix("# EOF\n").expect("the end is marked");
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            assert!(["HELP", "TYPE"].contains(&words.next().unwrap()), "{line}");
            family = words.next().unwrap().to_owned();
            continue;
        }
        assert!(line.starts_with(&family), "{line} is none of {family}");
        let (name, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(
            samples.insert(name.to_owned(), value).is_none(),
            "{line} twice"
        );
    }
    samples
}

#[tokio::test]
async fn metrics_have_upstreams_names_and_labels() {
    let mut site = Site::new().await;
    site.launch("vm", measured("vm")).await;
    let answer = site.scrape("/metrics").await;
    assert_eq!(answer.code, 200);
    assert!(
        answer
            .content_type
            .starts_with("application/openmetrics-text")
    );
    let samples = parse(answer.text());
    let base = r#"node="node1",namespace="default",name="vm""#;
    for (sample, expected) in [
        (
            format!("kubevirt_vmi_cpu_usage_seconds_total{{{base}}}"),
            2.5,
        ),
        (
            format!("kubevirt_vmi_memory_resident_bytes{{{base}}}"),
            2_097_152.0,
        ),
        (
            format!("kubevirt_vmi_memory_domain_bytes{{{base}}}"),
            4_194_304.0,
        ),
        (
            format!(r#"kubevirt_vmi_vcpu_seconds_total{{{base},id="0",state="running"}}"#),
            1.0,
        ),
        (
            format!(r#"kubevirt_vmi_storage_iops_read_total{{{base},drive="root"}}"#),
            7.0,
        ),
        (
            format!(r#"kubevirt_vmi_network_receive_bytes_total{{{base},interface="default"}}"#),
            10.0,
        ),
        (
            format!(
                r#"kubevirt_vmi_network_traffic_bytes_total{{{base},interface="default",type="tx"}}"#
            ),
            20.0,
        ),
        (format!("kubevirt_vmi_guest_load_1m{{{base}}}"), 0.5),
        (
            format!(
                r#"kubevirt_vmi_filesystem_used_bytes{{{base},disk_name="vda1",mount_point="/a\"\\\n",file_system_type="ext4"}}"#
            ),
            1.0,
        ),
        ("kubevirt_virt_handler_ready_status".to_owned(), 1.0),
        (
            r#"kubevirt_vmi_phase_count{node="node1",phase="running"}"#.to_owned(),
            1.0,
        ),
    ] {
        let found = samples.get(&sample);
        assert_eq!(found, Some(&expected), "{sample} in\n{}", answer.text());
    }
    let info = samples
        .keys()
        .find(|name| name.starts_with("kubevirt_vmi_info{"))
        .unwrap();
    assert!(
        info.contains(r#"phase="running""#) && info.contains(r#"os="<none>""#),
        "{info}"
    );
    // The process of the stand-in is this one.
    let overhead = format!("kubevirt_vmi_launcher_memory_overhead_bytes{{{base}}}");
    assert!(samples[&overhead] > 1e6);
}

#[tokio::test]
async fn a_silent_launcher_is_left_out_in_time() {
    let mut site = Site::new().await;
    site.launch("vm", measured("vm")).await;
    for name in ["mute", "still"] {
        let script = Script {
            is_silent: true,
            ..machine(name, "Running")
        };
        site.launch(name, script).await;
    }
    let asked = Instant::now();
    let answer = site.scrape("/metrics").await;
    assert!(
        asked.elapsed() < Duration::from_secs(3),
        "{:?}",
        asked.elapsed()
    );
    let samples = parse(answer.text());
    let of = |name: &str| {
        let name = format!(r#"name="{name}""#);
        let mut found = samples.keys().filter(|sample| sample.contains(&name));
        found.any(|sample| sample.starts_with("kubevirt_vmi_cpu_usage"))
    };
    assert!(of("vm") && !of("mute") && !of("still"));
}

#[tokio::test]
async fn no_more_requests_are_served_than_allowed() {
    let mut site = Site::with(Default::default(), 1).await;
    let script = Script {
        is_silent: true,
        ..machine("mute", "Running")
    };
    site.launch("mute", script).await;
    let (first, second) = tokio::join!(site.scrape("/metrics"), site.scrape("/metrics"));
    let mut codes = [first.code, second.code];
    codes.sort_unstable();
    assert_eq!(codes, [200, 503]);
    assert_eq!(site.scrape("/healthz").await.code, 200);
}

#[tokio::test]
async fn nonsense_of_one_launcher_spoils_nothing() {
    let mut site = Site::new().await;
    site.launch("vm", measured("vm")).await;
    let script = Script {
        stats: "{\"Cpu\": 5".to_owned(),
        filesystems: "\"no\"".to_owned(),
        ..machine("odd", "Running")
    };
    site.launch("odd", script).await;
    let samples = parse(site.scrape("/metrics").await.text());
    assert!(
        samples
            .keys()
            .any(|name| name.starts_with("kubevirt_vmi_cpu_usage"))
    );
}

#[tokio::test]
async fn phases_are_counted_once() {
    let site = Site::new().await;
    let now = jiff::Timestamp::now();
    let at = |seconds: i64| (now + jiff::SignedDuration::from_secs(seconds)).to_string();
    let mut vmi = instance("vm");
    vmi["metadata"]["creationTimestamp"] = at(100).into();
    vmi["status"]["phaseTransitionTimestamps"] = json!([
        {"phase": "Pending", "phaseTransitionTimestamp": at(-100)},
        {"phase": "Scheduled", "phaseTransitionTimestamp": at(101)},
        {"phase": "Running", "phaseTransitionTimestamp": at(104)},
    ]);
    site.store.put(vmi);
    site.scrape("/metrics").await;
    let answer = site.scrape("/metrics").await;
    let samples = parse(answer.text());
    let between = r#"kubevirt_vmi_phase_transition_time_seconds_count{phase="Running",last_phase="Scheduled"}"#;
    assert_eq!(samples.get(between), Some(&1.0), "{}", answer.text());
    let since = r#"kubevirt_vmi_phase_transition_time_from_creation_seconds_sum{phase="Running"}"#;
    assert!((samples[since] - 4.0).abs() < 0.01);
    // What was before this agent began was counted by another.
    assert!(
        !samples
            .keys()
            .any(|name| name.contains(r#"{phase="Pending""#) && name.contains("time"))
    );
}

#[tokio::test]
async fn counters_are_for_monitoring() {
    let mut site = Site::new().await;
    site.launch("vm", measured("vm")).await;
    let monitoring = site.authority.identity(MONITORING_CLIENT);
    let stream = connect(site.ports.stats, &site.authority, Some(&monitoring))
        .await
        .unwrap();
    let answer = ask(stream, "GET", "/v1/vmstats", "").await.unwrap();
    let stats = answer.json();
    assert_eq!(stats["default/vm"]["Cpu"]["Time"], 2_500_000_000u64);
}

#[tokio::test]
async fn health_is_told_without_asking_launchers() {
    let site = Site::new().await;
    let answer = site.scrape("/healthz").await;
    assert_eq!(answer.code, 200);
    assert_eq!(answer.json()["apiserver"]["connectivity"], "ok");
    site.scrape("/etc/passwd").await.refusal(404, "NotFound");
}

#[tokio::test]
async fn devices_are_counted_by_resource_and_state() {
    let site = Site::new().await;
    let report = json!({
        "problems": ["--usb-list item 2: wrong"],
        "resources": [{
            "resource": "devices.kubevirt.io/kvm",
            "registration": {"state": "registered"},
            "units": [{
                "id": "kvm", "copies": 1000, "nodes": [], "addresses": [], "numa_node": null,
                "health": {"state": "healthy"},
                "holders": [{"pod_uid": "p", "container": "compute"}],
            }],
            "left_out": [],
        }, {
            "resource": "kubevirt.io/dongle",
            "registration": {"state": "failed", "reason": "no"},
            "units": [{
                "id": "usb-1-1", "copies": 1, "nodes": [], "addresses": [], "numa_node": null,
                "health": {"state": "unhealthy", "reason": "unplugged"}, "holders": [],
            }],
            "left_out": [{"device": "1-2", "reason": "held"}],
        }],
    });
    let report: Report = serde_json::from_value(report).unwrap();
    site.devices.send_replace(Arc::new(report));
    let samples = parse(site.scrape("/metrics").await.text());
    let kvm = r#"resource="devices.kubevirt.io/kvm""#;
    let dongle = r#"resource="kubevirt.io/dongle""#;
    for (sample, expected) in [
        (format!(r#"devices{{{kvm},state="healthy"}}"#), 1000.0),
        (format!(r#"devices{{{dongle},state="unhealthy"}}"#), 1.0),
        (format!(r#"devices{{{dongle},state="left_out"}}"#), 1.0),
        (format!("allocated_devices{{{kvm}}}"), 1.0),
        (format!("registered{{{kvm}}}"), 1.0),
        (format!("registered{{{dongle}}}"), 0.0),
        ("problems".to_owned(), 1.0),
    ] {
        let name = format!("ferrovirt_device_plugin_{sample}");
        assert_eq!(samples.get(&name), Some(&expected), "{name}");
    }
}
