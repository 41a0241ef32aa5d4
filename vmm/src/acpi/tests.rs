use super::*;
use crate::config::MemoryConfig;

fn ram() -> Ram {
    Ram::new(&MemoryConfig {
        len_bytes: 32 << 20,
        hugepage_bytes: None,
        prefault: false,
        shared: false,
    })
    .unwrap()
}

fn platform(cpus: u32) -> Platform {
    Platform {
        topology: topology(cpus),
        pvpanic: true,
        high_window_gpa: 1 << 36,
    }
}

fn topology(cores: u32) -> Topology {
    Topology {
        sockets: 1,
        cores,
        threads: 1,
    }
}

fn read(ram: &Ram, gpa: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    ram.read(gpa, &mut bytes).unwrap();
    bytes
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn table(ram: &Ram, gpa: u64) -> Vec<u8> {
    let header = read(ram, gpa, 8);
    let len = u32::from_le_bytes(header[4..8].try_into().unwrap());
    read(ram, gpa, usize::try_from(len).unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[test]
fn every_table_is_reachable_and_sums_to_zero() {
    let ram = ram();
    let rsdp_gpa = write(&platform(64), &ram).unwrap();
    let rsdp = read(&ram, rsdp_gpa, 36);
    assert_eq!(&rsdp[0..8], b"RSD PTR ");
    assert_eq!((sum(&rsdp[..20]), sum(&rsdp)), (0, 0));
    let xsdt = table(&ram, u64_at(&rsdp, 24));
    assert_eq!((&xsdt[0..4], sum(&xsdt)), (&b"XSDT"[..], 0));
    let mut names = Vec::new();
    for entry in xsdt[36..].chunks_exact(8) {
        let table = table(&ram, u64_at(entry, 0));
        assert_eq!(sum(&table), 0, "{:?}", &table[0..4]);
        names.push(table[0..4].to_vec());
        if &table[0..4] == b"FACP" {
            let dsdt = self::table(&ram, u64_at(&table, 140));
            assert_eq!((&dsdt[0..4], sum(&dsdt)), (&b"DSDT"[..], 0));
        }
    }
    assert_eq!(names, [b"FACP", b"APIC", b"MCFG"]);
}

#[test]
fn every_vcpu_has_a_local_apic() {
    let bytes = madt(&topology(3));
    let cpus = bytes[44..].chunks_exact(8).take(3);
    let ids: Vec<u8> = cpus.filter(|e| e[0] == 0).map(|e| e[3]).collect();
    assert_eq!(ids, [0, 1, 2]);
}
