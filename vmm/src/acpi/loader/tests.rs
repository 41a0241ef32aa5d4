use x86::cpuid::Topology;

use super::*;

const TABLES_AT: u64 = 0x7f_e000;

/// Firmware that does what the script says.
struct Firmware {
    tables: Vec<u8>,
    rsdp: Vec<u8>,
}

fn number(bytes: &[u8]) -> u64 {
    let bytes = bytes.iter().rev();
    bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn text(name: &[u8]) -> &str {
    let name = std::str::from_utf8(name).unwrap();
    name.trim_end_matches('\0')
}

fn index(bytes: &[u8]) -> usize {
    usize::try_from(number(bytes)).unwrap()
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

impl Firmware {
    fn file(&mut self, name: &[u8]) -> &mut Vec<u8> {
        match text(name) {
            TABLES => &mut self.tables,
            RSDP => &mut self.rsdp,
            other => panic!("no file {other:?}"),
        }
    }

    fn run(&mut self, script: &[u8]) {
        for command in script.chunks_exact(COMMAND_BYTES) {
            let file = &command[4..60];
            match u32::try_from(number(&command[..4])).unwrap() {
                ALLOCATE => drop(self.file(file)),
                ADD_POINTER => {
                    assert_eq!(text(&command[60..116]), TABLES);
                    let offset = index(&command[116..120]);
                    let field = offset..offset + usize::from(command[120]);
                    let field = &mut self.file(file)[field];
                    let value = (number(field) + TABLES_AT).to_le_bytes();
                    field.copy_from_slice(&value[..field.len()]);
                }
                ADD_CHECKSUM => {
                    let [at, start, len] = [60, 64, 68].map(|at| index(&command[at..at + 4]));
                    let file = self.file(file);
                    file[at] = file[at].wrapping_sub(sum(&file[start..start + len]));
                }
                other => panic!("command {other}"),
            }
        }
    }

    /// Returns the table at an address.
    fn table(&self, gpa: u64) -> &[u8] {
        let at = usize::try_from(gpa - TABLES_AT).unwrap();
        &self.tables[at..at + index(&self.tables[at + 4..at + 8])]
    }
}

#[test]
fn firmware_links_the_tables_at_its_own_place() {
    let topology = Topology {
        sockets: 1,
        cores: 2,
        threads: 1,
    };
    let platform = Platform {
        topology,
        pvpanic: true,
        high_window_gpa: 1 << 36,
    };
    let [(_, tables), (_, rsdp), (_, script)] = files(&platform);
    let mut firmware = Firmware { tables, rsdp };
    firmware.run(&script);
    let rsdp = &firmware.rsdp;
    assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
    for (root, len) in [(number(&rsdp[16..20]), 4), (number(&rsdp[24..32]), 8)] {
        let root = firmware.table(root);
        assert_eq!(sum(root), 0);
        let listed = root[36..].chunks_exact(len).map(number);
        let listed: Vec<&[u8]> = listed.map(|gpa| firmware.table(gpa)).collect();
        assert!(listed.iter().all(|table| sum(table) == 0));
        assert_eq!(listed.len(), 3);
        let fadt = listed[0];
        for (old, new, name) in [(36, 132, b"FACS"), (40, 140, b"DSDT")] {
            let gpa = number(&fadt[new..new + 8]);
            assert_eq!(number(&fadt[old..old + 4]), gpa);
            assert_eq!(firmware.table(gpa)[..4], *name);
        }
    }
}
