//! Tests of what people see.

use super::show::{age, size};
use super::table;
use crate::images::{Digest, ImageInfo};

#[test]
fn sizes_and_ages_are_short() {
    let sizes = [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (7_667_712, "7.3 MiB"),
        (1 << 40, "1.0 TiB"),
    ];
    for (bytes, wanted) in sizes {
        assert_eq!(size(bytes), wanted);
    }
    assert_eq!(size(u64::MAX).split(' ').next_back(), Some("TiB"));
    let then = "2026-01-01T00:00:00Z".parse().unwrap();
    let later = |text: &str| age(then, text.parse().unwrap());
    assert_eq!(later("2026-01-01T00:01:59Z"), "119s");
    assert_eq!(later("2026-01-01T05:00:00Z"), "5h");
    assert_eq!(later("2029-01-01T05:00:00Z"), "3y");
    assert_eq!(later("2025-01-01T05:00:00Z"), "0s");
}

#[test]
fn images_are_listed_by_each_of_their_names() {
    let image = ImageInfo {
        references: vec![
            "docker.io/library/a:latest".to_owned(),
            "b.io/c:v1".to_owned(),
        ],
        digest: Digest::of(b""),
        size: 2048,
        created: None,
    };
    let unnamed = ImageInfo {
        references: Vec::new(),
        ..image.clone()
    };
    let shown = table(&[image, unnamed], jiff::Timestamp::UNIX_EPOCH);
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(
        lines[0],
        "REFERENCE                    IMAGE ID       CREATED   SIZE"
    );
    assert_eq!(
        lines[1],
        "docker.io/library/a:latest   e3b0c44298fc   -         2.0 KiB"
    );
    assert_eq!(
        lines[2],
        "b.io/c:v1                    e3b0c44298fc   -         2.0 KiB"
    );
    assert!(lines[3].starts_with("<none> "));
}
