//! Tests of laying layers over each other, with friendly and hostile archives.

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use tar::{Builder, EntryType, Header};

use super::{Budget, Expected, apply, unpack};
use crate::images::digest::Digest;

/// A member of an archive: path, kind, link target or content.
type Entry<'a> = (&'a str, EntryType, &'a str);

const FILE: EntryType = EntryType::Regular;
const FOLDER: EntryType = EntryType::Directory;
const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;

/// Makes an archive with the paths as they are, which the usual ways refuse to.
fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, kind, text) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if *kind == FOLDER { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        let is_link = matches!(*kind, LINK | HARD);
        if is_link {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        let content = if is_link { "" } else { text };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

struct Place {
    folder: tempfile::TempDir,
    root: OwnedFd,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        fs::write(folder.path().join("outside"), "secret").unwrap();
        let root = fs::File::open(folder.path().join("root")).unwrap().into();
        Self { folder, root }
    }

    fn apply(&self, layer: &[u8]) -> io::Result<u64> {
        let digest = Digest::of(layer);
        let expected = Expected {
            packed: Some(&digest),
            unpacked: &digest,
        };
        apply(layer, expected, &self.root, &mut Budget::default())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("root").join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> = entries
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn layers_are_laid_over_each_other() {
    let place = Place::new();
    let first = archive(&[
        ("./", FOLDER, ""),
        ("./usr/bin/", FOLDER, ""),
        ("bin", LINK, "usr/bin"),
        ("/etc/a", FILE, "a"),
        ("etc/b", FILE, "b"),
        ("etc/dir/x", FILE, "x"),
        ("etc/dir/y", FILE, "y"),
        ("gone/deep/file", FILE, "z"),
    ]);
    let second = archive(&[
        ("bin/tool", FILE, "tool"),
        ("etc/.wh.a", FILE, ""),
        ("etc/.wh.absent", FILE, ""),
        ("absent/.wh.x", FILE, ""),
        ("etc/dir/new", FILE, "new"),
        ("etc/dir/.wh..wh..opq", FILE, ""),
        ("etc/dir/newer", FILE, "newer"),
        (".wh.gone", FILE, ""),
        ("etc/c", HARD, "etc/b"),
        ("etc/.wh..wh.plnk", FILE, ""),
        ("etc/pipe", EntryType::Fifo, ""),
        ("etc/null", EntryType::Char, ""),
    ]);
    assert_eq!(place.apply(&first).unwrap(), 5);
    place.apply(&second).unwrap();
    assert_eq!(place.names("."), ["bin", "etc", "usr"]);
    assert_eq!(place.names("etc"), ["b", "c", "dir", "pipe"]);
    assert_eq!(place.names("etc/dir"), ["new", "newer"]);
    assert_eq!(
        (place.read("usr/bin/tool"), place.read("etc/c")),
        ("tool".to_owned(), "b".to_owned())
    );
    let found = fs::metadata(place.path("etc/b")).unwrap();
    assert_eq!(
        (
            found.permissions().mode() & 0o7777,
            found.mtime(),
            found.nlink()
        ),
        (0o644, 1_000_000, 2)
    );
}

#[test]
fn files_replace_what_has_their_name() {
    let place = Place::new();
    let first = archive(&[
        ("a/b/c", FILE, "1"),
        ("link", LINK, "a"),
        ("twin", FILE, "1"),
        ("twin2", HARD, "twin"),
    ]);
    let second = archive(&[
        ("a/b", FILE, "2"),
        ("link", FOLDER, ""),
        ("link/x", FILE, "3"),
        ("twin", FILE, "other"),
    ]);
    place.apply(&first).unwrap();
    place.apply(&second).unwrap();
    assert_eq!(
        (place.read("a/b"), place.read("link/x")),
        ("2".to_owned(), "3".to_owned())
    );
    assert_eq!(
        (place.read("twin"), place.read("twin2")),
        ("other".to_owned(), "1".to_owned())
    );
    assert_eq!(place.names("a"), ["b"]);
}

#[test]
fn nothing_leads_out_of_an_image() {
    let refused: &[&[Entry<'_>]] = &[
        &[("../x", FILE, "x")],
        &[("a/../../x", FILE, "x")],
        &[("a", HARD, "../outside")],
        &[("a", HARD, "/etc/passwd")],
        &[("a", HARD, "a")],
        &[("a/.wh...", FILE, "")],
        &[("a/.wh.", FILE, "")],
    ];
    for entries in refused {
        let place = Place::new();
        place.apply(&archive(entries)).unwrap_err();
        assert_eq!(
            fs::read_to_string(place.folder.path().join("outside")).unwrap(),
            "secret"
        );
        assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 2);
    }
}

#[test]
fn links_are_read_as_inside_of_the_image() {
    let outside = tempfile::tempdir().unwrap();
    let absolute = outside.path().to_str().unwrap();
    let place = Place::new();
    let entries = archive(&[
        ("up", LINK, "../../../.."),
        ("up/x", FILE, "x"),
        ("abs", LINK, absolute),
        ("abs/y", FILE, "y"),
        ("up/.wh.outside", FILE, ""),
        ("up2", LINK, ".."),
        ("up2/outside", FILE, "inside"),
        ("h", HARD, "up/x"),
    ]);
    // The absolute link leads nowhere in the image, so its file cannot be made; nothing outside changes.
    let _refused = place.apply(&entries);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(
        fs::read_to_string(place.folder.path().join("outside")).unwrap(),
        "secret"
    );
    assert_eq!(place.read("x"), "x");
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 2);
}

#[test]
fn damage_is_found() {
    let place = Place::new();
    let layer = archive(&[("a", FILE, "content")]);
    let other = Digest::of(b"other");
    let expected = Expected {
        packed: None,
        unpacked: &other,
    };
    let error = apply(&layer[..], expected, &place.root, &mut Budget::default()).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    assert!(place.apply(&layer[..700]).is_err());
    assert!(place.apply(b"this is no archive at all").is_err());
}

#[test]
fn what_is_too_much_is_refused() {
    let place = Place::new();
    let layer = archive(&[("a", FILE, "12345"), ("b", FILE, "12345")]);
    let digest = Digest::of(&layer);
    let check = |entries, bytes| {
        let expected = Expected {
            packed: None,
            unpacked: &digest,
        };
        apply(
            &layer[..],
            expected,
            &place.root,
            &mut Budget { entries, bytes },
        )
        .is_ok()
    };
    assert!(check(2, 10) && !check(1, 10) && !check(2, 9));
    let deep = "d/".repeat(40) + "f";
    assert!(place.apply(&archive(&[(&deep, FILE, "x")])).is_ok());
}

#[test]
fn headers_do_not_fill_the_memory() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let endless = io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(b'a'));
    let place = Place::new();
    let digest = Digest::of(b"");
    let expected = Expected {
        packed: None,
        unpacked: &digest,
    };
    let error = apply(endless, expected, &place.root, &mut Budget::default()).unwrap_err();
    assert!(error.to_string().contains("headers"), "{error}");
}

#[test]
fn zeroes_become_holes() {
    let place = Place::new();
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size((16 << 20) + 3);
    header.set_mode(0o600);
    let content = io::repeat(0).take(16 << 20).chain(&b"end"[..]);
    builder
        .append_data(&mut header, "disk.img", content)
        .unwrap();
    place.apply(&builder.into_inner().unwrap()).unwrap();
    let found = fs::metadata(place.path("disk.img")).unwrap();
    assert_eq!(found.len(), (16 << 20) + 3);
    assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
    let mut tail = fs::read(place.path("disk.img")).unwrap();
    assert_eq!(tail.split_off(16 << 20), b"end");
}

fn unpacked(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    unpack(packed)?.read_to_end(&mut content)?;
    Ok(content)
}

#[test]
fn packed_layers_are_unpacked() {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    let layer = archive(&[("a", FILE, &"content ".repeat(50_000))]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut gzip, &layer).unwrap();
    assert_eq!(unpacked(&gzip.finish().unwrap()).unwrap(), layer);
    let frame = |bytes: &[u8]| compress_to_vec(bytes, CompressionLevel::Fastest);
    // Two frames with one between them that is to be skipped.
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
    let frames = [frame(&layer[..1000]), skipped, frame(&layer[1000..])].concat();
    assert_eq!(unpacked(&frames).unwrap(), layer);
    assert_eq!(unpacked(&layer).unwrap(), layer);
    assert!(unpacked(&frames[..frames.len() - 5]).is_err());
    // A window of more than a hundred MiB (RFC 8878 §3.1.1.1.2).
    let huge_window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x01, 0x00, 0x00];
    assert!(unpacked(&huge_window).is_err());
}

#[test]
fn owners_and_special_modes_are_kept_for_root() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root gives files away");
        return;
    }
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1);
    header.set_uid(107);
    header.set_gid(3000);
    header.set_mode(0o4755);
    builder
        .append_data(&mut header, "bin/tool", &b"x"[..])
        .unwrap();
    let place = Place::new();
    place.apply(&builder.into_inner().unwrap()).unwrap();
    let found = fs::metadata(place.path("bin/tool")).unwrap();
    assert_eq!(
        (found.uid(), found.gid(), found.mode() & 0o7777),
        (107, 3000, 0o4755)
    );
}
