//! The repository's rules that a compiler does not check: the edge table of DESIGN.md §1, who may name which crate,
//! file names, file sizes, `main` functions, and the list of unsafe islands.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Which of our crates each of our crates may depend on; `tests` may depend on all, nothing on `tests`.
pub const EDGES: [(&str, &[&str]); 12] = [
    ("x86", &[]),
    ("block", &[]),
    ("devices", &["block"]),
    ("vmm", &["x86", "devices", "block"]),
    ("proto", &[]),
    ("api", &[]),
    ("launcher", &["vmm", "block", "api", "proto"]),
    ("device-plugins", &["proto"]),
    ("handler", &["device-plugins", "api", "proto", "block"]),
    ("apiserver", &["api"]),
    ("control-plane", &["api"]),
    ("virtctl", &["api"]),
];

/// The embedded single node, whose edges do not fit the table's type.
const SINGLE_NODE: &[&str] = &["apiserver", "control-plane", "handler", "api", "proto"];

/// Foreign crates that only some of ours may name.
pub const ONLY_IN: [(&str, &[&str]); 2] = [
    ("kvm-ioctls", &["vmm"]),
    (
        "kube",
        &[
            "handler",
            "control-plane",
            "single-node",
            "virtctl",
            "tests",
        ],
    ),
];

/// Foreign crates that some of ours may not name.
pub const NEVER_IN: [(&str, &[&str]); 1] = [("tokio", &["x86", "devices", "block", "vmm"])];

/// File and folder names that say nothing.
const EMPTY_NAMES: [&str; 9] = [
    "util", "utils", "common", "helper", "helpers", "misc", "types", "manager", "base",
];

/// Most lines of a source file, its tests not counted.
const FILE_LINES: usize = 900;

/// Most lines of a `main` function.
const MAIN_LINES: usize = 20;

/// One crate of the workspace and the names it depends on, for building and testing included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its direct dependencies.
    pub dependencies: BTreeSet<String>,
}

/// Reads the members of the workspace from `cargo metadata`.
///
/// # Errors
///
/// When cargo cannot be run or its answer is not metadata.
pub fn members(root: &Path) -> std::io::Result<Vec<Member>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let answer = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root)
        .output()?;
    if !answer.status.success() {
        return Err(std::io::Error::other(
            String::from_utf8_lossy(&answer.stderr).into_owned(),
        ));
    }
    let metadata: Value = serde_json::from_slice(&answer.stdout)?;
    let names = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    Ok(names(&metadata["packages"])
        .iter()
        .map(|package| Member {
            name: name(package),
            dependencies: names(&package["dependencies"]).iter().map(name).collect(),
        })
        .collect())
}

/// Names each dependency that the tables forbid.
#[must_use]
pub fn forbidden_edges(members: &[Member]) -> Vec<String> {
    let ours: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let mut found = Vec::new();
    for member in members {
        let Some(allowed) = allowed(&member.name) else {
            found.push(format!("crate {} is not in the edge table", member.name));
            continue;
        };
        for dependency in &member.dependencies {
            let (from, to) = (member.name.as_str(), dependency.as_str());
            let inside = ours.contains(to) && from != "tests" && !allowed.contains(&to);
            let only = ONLY_IN
                .iter()
                .any(|(name, who)| *name == to && !who.contains(&from));
            let never = NEVER_IN
                .iter()
                .any(|(name, who)| *name == to && who.contains(&from));
            if inside || only || never {
                found.push(format!("{from} -> {to}"));
            }
        }
    }
    found
}

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    match name {
        "tests" => Some(&[]),
        "single-node" => Some(SINGLE_NODE),
        _ => EDGES
            .iter()
            .find(|(from, _)| *from == name)
            .map(|(_, to)| *to),
    }
}

/// One Rust source file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path in the repository.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// Reads every Rust file of the repository.
///
/// # Errors
///
/// When a folder or file cannot be read.
pub fn sources(root: &Path) -> std::io::Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if entry.file_type()?.is_dir() {
                if !hidden && entry.file_name() != "target" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path)?;
                let path = path.strip_prefix(root).unwrap_or(&path).to_path_buf();
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

impl Source {
    /// Names each rule of names and sizes that the file breaks.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut found = Vec::new();
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        if stem == "mod" {
            found.push("mod.rs: name the file for its module, beside its folder".to_owned());
        }
        for part in self.path.with_extension("").iter() {
            if EMPTY_NAMES.contains(&part.to_string_lossy().as_ref()) {
                found.push(format!("{}: the name says nothing", part.to_string_lossy()));
            }
        }
        let lines = self.lines_without_tests();
        if lines > FILE_LINES {
            found.push(format!(
                "{lines} lines without tests, more than {FILE_LINES}"
            ));
        }
        if let Some(lines) = self.main_lines().filter(|lines| *lines > MAIN_LINES) {
            found.push(format!("main has {lines} lines, more than {MAIN_LINES}"));
        }
        found
            .into_iter()
            .map(|fault| format!("{}: {fault}", self.path.display()))
            .collect()
    }

    /// Whether the file may hold unsafe code.
    #[must_use]
    pub fn is_unsafe_island(&self) -> bool {
        self.text.split("#![expect(").skip(1).any(|rest| {
            rest.split(")]")
                .next()
                .is_some_and(|inside| inside.contains("unsafe_code"))
        })
    }

    fn lines_without_tests(&self) -> usize {
        let test_file = self
            .path
            .iter()
            .any(|part| part == "tests" || part == "tests.rs");
        if test_file && self.path.iter().next().is_none_or(|first| first != "tests") {
            return 0;
        }
        let text = self
            .text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        text.lines().count()
    }

    fn main_lines(&self) -> Option<usize> {
        let (_, rest) = self.text.split_once("\nfn main(")?;
        Some(rest.lines().take_while(|line| *line != "}").count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, dependencies: &[&str]) -> Member {
        let dependencies = dependencies.iter().map(|name| (*name).to_owned()).collect();
        Member {
            name: name.to_owned(),
            dependencies,
        }
    }

    #[test]
    fn an_edge_outside_the_table_is_named() {
        let members = [
            member("x86", &["devices", "iced-x86"]),
            member("devices", &["block", "tokio"]),
            member("block", &[]),
            member("api", &["tests", "kvm-ioctls"]),
            member("tests", &["x86", "api"]),
            member("surprise", &[]),
        ];
        let expected = [
            "x86 -> devices",
            "devices -> tokio",
            "api -> kvm-ioctls",
            "api -> tests",
            "crate surprise is not in the edge table",
        ];
        assert_eq!(forbidden_edges(&members), expected);
    }

    #[test]
    fn names_and_sizes_are_judged() {
        let source = |path: &str, text: String| Source {
            path: path.into(),
            text,
        };
        assert_eq!(
            source("vmm/src/utils/mod.rs", String::new()).faults().len(),
            2
        );
        assert_eq!(
            source("vmm/src/long.rs", "\n".repeat(901)).faults().len(),
            1
        );
        let tested = "\n".repeat(800) + "#[cfg(test)]\nmod tests {\n" + &"\n".repeat(800);
        assert!(source("vmm/src/tested.rs", tested).faults().is_empty());
        let long_main = "//!\nfn main() {\n".to_owned() + &"    ;\n".repeat(30) + "}\n";
        assert_eq!(source("vmm/src/main.rs", long_main).faults().len(), 1);
    }
}
