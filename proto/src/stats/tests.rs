use super::*;

use serde_json::{Value, json};

#[test]
fn a_value_travels_with_its_twin() {
    let cpu = CpuStats {
        time: Some(5),
        user: Some(0),
        system: None,
    };
    let expected = json!({
        "TimeSet": true, "Time": 5,
        "UserSet": true, "User": 0,
        "SystemSet": false, "System": 0,
    });
    assert_eq!(serde_json::to_value(&cpu).unwrap(), expected);
    assert_eq!(serde_json::from_value::<CpuStats>(expected).unwrap(), cpu);
}

#[test]
fn a_value_counts_only_when_its_twin_says_so() {
    let cpu: CpuStats = serde_json::from_str(r#"{"Time":5,"UserSet":true,"Later":[{}]}"#).unwrap();
    assert_eq!(
        cpu,
        CpuStats {
            time: None,
            user: Some(0),
            system: None
        }
    );
}

/// The keys of each structure, from KubeVirt's handler-launcher wire, in the structure's order.
#[test]
fn the_keys_are_those_of_the_go_structures() {
    check::<CpuStats>("Time User System");
    check::<VcpuStats>("State Time Wait Delay");
    check::<MemoryStats>(
        "Unused Cached Available ActualBalloon RSS SwapIn SwapOut MajorFault MinorFault Usable Total",
    );
    check::<MigrationJob>("DataTotal DataProcessed MemoryBps DataRemaining MemDirtyRate");
    check::<NetStats>("Name Alias RxBytes RxPkts RxErrs RxDrop TxBytes TxPkts TxErrs TxDrop");
    check::<BlockStats>(
        "-Alias Name BackingIndex Path RdReqs RdBytes RdTimes WrReqs WrBytes WrTimes FlReqs FlTimes \
         Errors Allocation Capacity Physical",
    );
    check::<DirtyRate>("CalcStatus CalcStartTime CalcPeriod MegabytesPerSecond");
    check::<Load>("Load1m Load5m Load15m");
    check::<DomainStats>(
        "-Name -UUID -Cpu -Memory -MigrateDomainJobInfo -Vcpu -Net -Block CPUMap -DirtyRate -Load",
    );
}

/// Compares the keys written for an empty structure; a key with a minus has no twin.
fn check<T: Default + Serialize>(expected: &str) {
    let Value::Object(map) = serde_json::to_value(T::default()).unwrap() else {
        panic!("a structure is an object");
    };
    let mut keys: Vec<String> = map.keys().cloned().collect();
    let mut expected: Vec<String> = expected
        .split_whitespace()
        .flat_map(|key| match key.strip_prefix('-') {
            Some(key) => vec![key.to_owned()],
            None => vec![key.to_owned(), format!("{key}Set")],
        })
        .collect();
    keys.sort();
    expected.sort();
    assert_eq!(keys, expected);
}

fn sample() -> DomainStats {
    DomainStats {
        name: "default_testvm".to_owned(),
        uuid: "5a9fc181-957e-5c32-9e5a-2de5e9673531".to_owned(),
        cpu: Some(CpuStats {
            time: Some(1),
            user: Some(2),
            system: Some(3),
        }),
        memory: Some(MemoryStats {
            rss: Some(20_480),
            total: Some(1 << 20),
            ..Default::default()
        }),
        vcpu: vec![VcpuStats {
            state: Some(VcpuState::RUNNING),
            time: Some(u64::MAX),
            ..Default::default()
        }],
        net: vec![NetStats {
            name: Some("tap0".to_owned()),
            rx_bytes: Some(7),
            ..Default::default()
        }],
        block: vec![BlockStats {
            alias: "root".to_owned(),
            name: Some("vda".to_owned()),
            rd_reqs: Some(9),
            ..Default::default()
        }],
        cpu_map_set: true,
        cpu_map: vec![vec![true, false]],
        load: Some(Load {
            load_1m: Some(0.25),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn counters_survive_their_json() {
    for stats in [sample(), DomainStats::default()] {
        let json = serde_json::to_string(&stats).unwrap();
        assert_eq!(serde_json::from_str::<DomainStats>(&json).unwrap(), stats);
    }
}

#[test]
fn lists_and_pointers_that_are_null_are_empty() {
    let json = r#"{"Name":"a","Cpu":null,"Vcpu":null,"Net":null,"CPUMapSet":true,"CPUMap":null}"#;
    let stats: DomainStats = serde_json::from_str(json).unwrap();
    assert_eq!(stats.name, "a");
    assert_eq!((stats.cpu, stats.vcpu.len(), stats.net.len()), (None, 0, 0));
    assert!(stats.cpu_map_set && stats.cpu_map.is_empty());
}

#[test]
fn half_written_counters_are_an_error_at_every_length() {
    let json = serde_json::to_string(&sample()).unwrap();
    for len in 0..json.len() {
        assert!(
            serde_json::from_str::<DomainStats>(&json[..len]).is_err(),
            "length {len}"
        );
    }
}

#[test]
fn a_value_of_another_kind_is_an_error() {
    for json in [
        r#"{"Vcpu":{}}"#,
        r#"{"Cpu":{"Time":-1}}"#,
        r#"{"Cpu":{"TimeSet":1}}"#,
        "7",
        "null",
    ] {
        assert!(serde_json::from_str::<DomainStats>(json).is_err(), "{json}");
    }
}

#[test]
fn a_list_without_end_is_an_error() {
    for (key, entry) in [
        ("Vcpu", "{}"),
        ("Net", "{}"),
        ("Block", "{}"),
        ("CPUMap", "[]"),
    ] {
        let list = |len: usize| format!(r#"{{"{key}":[{}]}}"#, vec![entry; len].join(","));
        assert!(
            serde_json::from_str::<DomainStats>(&list(list::LIST_LEN_MAX)).is_ok(),
            "{key}"
        );
        let error = serde_json::from_str::<DomainStats>(&list(list::LIST_LEN_MAX + 1)).unwrap_err();
        assert!(
            error.to_string().contains("at most 4096 entries"),
            "{error}"
        );
    }
}
