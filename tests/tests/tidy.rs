//! The rules of the repository hold.
#![expect(
    clippy::tests_outside_test_module,
    reason = "an integration test is a test module"
)]

use tests::{guests::repository, tidy};

#[test]
fn crates_depend_only_along_the_edge_table() {
    let members = tidy::members(repository()).unwrap();
    assert!(
        members.iter().any(|member| member.name == "vmm"),
        "{members:?}"
    );
    let found = tidy::forbidden_edges(&members);
    assert!(found.is_empty(), "forbidden: {found:#?}");
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let members = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let (_, rest) = members.split_once("members = [").unwrap();
    for path in rest
        .split(']')
        .next()
        .unwrap()
        .split('"')
        .skip(1)
        .step_by(2)
    {
        let manifest = std::fs::read_to_string(repository().join(path).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{path}");
    }
}

#[test]
fn files_have_telling_names_and_bounded_sizes() {
    let sources = tidy::sources(repository()).unwrap();
    let found: Vec<String> = sources.iter().flat_map(tidy::Source::faults).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn architecture_lists_every_unsafe_island() {
    let page = std::fs::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    let (_, list) = page.split_once("## Unsafe islands").unwrap();
    let (list, _) = list.split_once("\n## ").unwrap();
    let sources = tidy::sources(repository()).unwrap();
    let islands = sources.iter().filter(|source| source.is_unsafe_island());
    let missing: Vec<String> = islands
        .map(|source| source.path.display().to_string())
        .filter(|path| !is_listed(list, path))
        .collect();
    assert!(missing.is_empty(), "not in ARCHITECTURE.md: {missing:#?}");
}

/// Whether the list names the file, or a folder above it.
fn is_listed(list: &str, path: &str) -> bool {
    let folders = path.match_indices('/').map(|(at, _)| &path[..=at]);
    folders
        .chain([path])
        .any(|name| list.contains(&format!("`{name}`")))
}
