use std::io::Read;

use proptest::prelude::{any, proptest};

use super::{Archive, Kind, Member};

fn members(bytes: &[u8]) -> std::io::Result<Vec<(Member, Vec<u8>)>> {
    let mut archive = Archive::new(bytes);
    let mut members = Vec::new();
    while let Some(member) = archive.next_member()? {
        let mut data = Vec::new();
        archive.read_to_end(&mut data)?;
        members.push((member, data));
    }
    Ok(members)
}

/// An archive made by another implementation, with long names in both styles.
fn sample() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    builder
        .append_data(&mut header, "disk/a", &b"hello"[..])
        .unwrap();
    header.set_size(3);
    builder
        .append_data(&mut header, "d/".repeat(90) + "long", &b"abc"[..])
        .unwrap();
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Symlink);
    builder.append_link(&mut header, "link", "disk/a").unwrap();
    header.set_entry_type(tar::EntryType::Link);
    builder
        .append_link(&mut header, "hard", "x/".repeat(80) + "y")
        .unwrap();
    let pax = [("path", "pax/name".as_bytes()), ("comment", b"=\n=")];
    builder.append_pax_extensions(pax).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_cksum();
    builder.append(&header, &b"p"[..]).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn members_of_another_writer_are_read() {
    let members = members(&sample()).unwrap();
    let view: Vec<(&str, &Kind, &[u8])> = members
        .iter()
        .map(|(m, data)| (m.path.as_str(), &m.kind, data.as_slice()))
        .collect();
    assert_eq!(
        view,
        [
            ("disk/a", &Kind::File, &b"hello"[..]),
            (&("d/".repeat(90) + "long"), &Kind::File, b"abc"),
            ("link", &Kind::Symlink("disk/a".to_owned()), b""),
            ("hard", &Kind::HardLink("x/".repeat(80) + "y"), b""),
            ("pax/name", &Kind::File, b"p"),
        ]
    );
}

#[test]
fn unread_data_is_passed_over_and_positions_are_right() {
    let bytes = sample();
    let mut archive = Archive::new(bytes.as_slice());
    let first = archive.next_member().unwrap().unwrap();
    assert_eq!(first.len_bytes, 5);
    let at = usize::try_from(archive.position()).unwrap();
    assert_eq!(&bytes[at..at + 5], b"hello");
    assert_eq!(archive.next_member().unwrap().unwrap().len_bytes, 3);
}

#[test]
fn truncated_archives_are_errors_unless_cut_between_members() {
    let bytes = sample();
    assert!(members(&bytes[..700]).is_ok() || members(&bytes[..700]).is_err());
    assert!(members(&bytes[..515]).is_err());
    assert!(members(&bytes[..100]).is_err());
    assert_eq!(members(&bytes[..1024]).unwrap().len(), 1);
    assert!(members(&[]).unwrap().is_empty());
}

#[test]
fn a_wrong_checksum_is_an_error() {
    let mut bytes = sample();
    bytes[0] ^= 1;
    assert!(
        members(&bytes)
            .unwrap_err()
            .to_string()
            .contains("checksum")
    );
}

#[test]
fn a_long_extension_is_refused_before_it_is_read() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    assert!(
        members(header.as_bytes())
            .unwrap_err()
            .to_string()
            .contains("too long")
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _read = members(&bytes);
    }

    #[test]
    fn damaged_archives_never_panic(at in 0_usize..4096, value in any::<u8>()) {
        let mut bytes = sample();
        let len = bytes.len();
        bytes[at % len] = value;
        let _read = members(&bytes);
    }
}
