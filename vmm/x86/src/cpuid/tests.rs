//! The models are consistent.

use super::{Dynamic, ModelError, Topology, by_name, models};

const TOPOLOGY: Topology = Topology {
    sockets: 2,
    cores: 3,
    threads: 2,
};
const DYNAMIC: Dynamic = Dynamic {
    apic_id: 5,
    osxsave: true,
    xcr0: 3,
    tsc_khz: 2_299_998,
};

fn leaf(name: &str, leaf: u32, subleaf: u32) -> [u32; 4] {
    by_name(name)
        .unwrap()
        .leaf(leaf, subleaf, &TOPOLOGY, &DYNAMIC)
}

#[test]
fn the_vendor_reads_genuine_intel() {
    let [_, b, c, d] = leaf("ferrovirt-v2", 0, 0);
    let text: Vec<u8> = [b, d, c].iter().flat_map(|w| w.to_le_bytes()).collect();
    assert_eq!(text, b"GenuineIntel");
}

#[test]
fn version_2_has_every_bit_of_x86_64_v2() {
    // SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT.
    let wanted = 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23;
    assert_eq!(leaf("ferrovirt-v2", 1, 0)[2] & wanted, wanted);
    assert_eq!(leaf("ferrovirt-v2", 0x8000_0001, 0)[2] & 1, 1);
    assert_eq!(leaf("ferrovirt-v1", 1, 0)[2] & wanted, 0);
}

#[test]
fn no_model_offers_avx_or_virtualisation() {
    for model in models() {
        let ecx = model.leaf(1, 0, &TOPOLOGY, &DYNAMIC)[2];
        assert_eq!(ecx & (1 << 28 | 1 << 5 | 1 << 12), 0, "{}", model.name);
    }
}

#[test]
fn features_come_and_go_by_name() {
    let model = by_name("ferrovirt-v1").unwrap();
    let model = model.with_features(["+aes", "-pcid", "sse4_2"]).unwrap();
    assert!(model.has("aes") && !model.has("pcid") && model.has("sse4.2"));
    let wrong = by_name("ferrovirt-v1").unwrap().with_features(["+warp"]);
    assert_eq!(wrong, Err(ModelError::UnknownFeature("warp".to_owned())));
    assert!(matches!(by_name("z80"), Err(ModelError::UnknownModel(_))));
}

#[test]
fn the_groups_name_existing_features() {
    for name in super::feature::BASE.iter().chain(super::feature::V2) {
        assert!(super::feature::index(name).is_some(), "{name}");
    }
}

#[test]
fn topology_leaves_agree_with_the_apic_ids() {
    let ids: Vec<u32> = (0..TOPOLOGY.cpus()).map(|n| TOPOLOGY.apic_id(n)).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]);
    assert_eq!(leaf("ferrovirt-v2", 0xb, 0), [1, 2, 1 << 8, 5]);
    assert_eq!(leaf("ferrovirt-v2", 0xb, 1), [3, 6, 1 | 2 << 8, 5]);
    assert_eq!(leaf("ferrovirt-v2", 0xb, 2), [0, 0, 2, 5]);
    let ebx = leaf("ferrovirt-v2", 1, 0)[1];
    assert_eq!((ebx >> 24, ebx >> 16 & 0xff), (5, 8));
}

#[test]
fn the_tsc_rate_survives_the_arithmetic_of_guests() {
    let [denominator, numerator, crystal_hz, _] = leaf("ferrovirt-v2", 0x15, 0);
    let khz = (crystal_hz / 1000).checked_mul(numerator).unwrap() / denominator;
    assert!(khz.abs_diff(DYNAMIC.tsc_khz) <= 4, "{khz}");
}

#[test]
fn a_cache_is_as_large_as_its_parameters_say() {
    let [_, b, c, _] = leaf("ferrovirt-v2", 4, 2);
    let bytes = ((b >> 22) + 1) * ((b & 0xfff) + 1) * (c + 1);
    assert_eq!(bytes, 1 << 20);
    assert_eq!(leaf("ferrovirt-v2", 4, 4)[0] & 0x1f, 0);
}

#[test]
fn the_table_holds_what_the_leaves_say() {
    let model = by_name("ferrovirt-v2").unwrap();
    for (at, sub, answer) in model.leaves(&TOPOLOGY, &DYNAMIC) {
        assert_eq!(answer, model.leaf(at, sub, &TOPOLOGY, &DYNAMIC));
    }
}

#[test]
fn this_host_runs_version_1() {
    by_name("ferrovirt-v1").unwrap().host_supports().unwrap();
}
