//! The files and directories of a volume before they have a place on it.

use std::collections::BTreeMap;

use super::IsoError;

/// The standard allows eight levels, the root included; readers allow no more in strict modes.
const MAX_LEVELS: usize = 8;
/// What Linux accepts as one component of a path.
const MAX_NAME_BYTES: usize = 255;

/// A directory or a file.
#[derive(Debug)]
pub(super) enum Node {
    /// The entries by name.
    Directory(BTreeMap<String, Node>),
    /// The content.
    File(Vec<u8>),
}

/// The root directory.
#[derive(Debug)]
pub(super) struct Tree {
    root: BTreeMap<String, Node>,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            root: BTreeMap::new(),
        }
    }

    /// Returns the entries of the root directory.
    pub(super) fn root(&self) -> &BTreeMap<String, Node> {
        &self.root
    }

    /// Puts a file at `path`.
    pub(super) fn add_file(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), IsoError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(IsoError::TooLarge {
                path: path.to_owned(),
            });
        }
        let names = components(path)?;
        let (name, parents) = names
            .split_last()
            .expect("a path has at least one component");
        let directory = descend(&mut self.root, parents, path)?;
        if matches!(directory.get(*name), Some(Node::Directory(_))) {
            return Err(bad(path, "it is a directory already"));
        }
        directory.insert((*name).to_owned(), Node::File(bytes));
        Ok(())
    }

    /// Makes sure that there is a directory at `path`.
    pub(super) fn add_directory(&mut self, path: &str) -> Result<(), IsoError> {
        let names = components(path)?;
        descend(&mut self.root, &names, path).map(|_| ())
    }
}

fn bad(path: &str, problem: &'static str) -> IsoError {
    IsoError::Path {
        path: path.to_owned(),
        problem,
    }
}

fn components(path: &str) -> Result<Vec<&str>, IsoError> {
    let names: Vec<&str> = path.split('/').collect();
    if names
        .iter()
        .any(|n| n.is_empty() || *n == "." || *n == "..")
    {
        return Err(bad(
            path,
            "it must be relative, without empty, . and .. components",
        ));
    }
    if names.iter().any(|n| n.len() > MAX_NAME_BYTES) {
        return Err(bad(path, "a component is longer than 255 bytes"));
    }
    if path.contains('\0') {
        return Err(bad(path, "it contains a zero byte"));
    }
    if names.len() > MAX_LEVELS {
        return Err(bad(path, "it is more than 8 levels deep"));
    }
    Ok(names)
}

fn descend<'a>(
    mut directory: &'a mut BTreeMap<String, Node>,
    names: &[&str],
    path: &str,
) -> Result<&'a mut BTreeMap<String, Node>, IsoError> {
    for name in names {
        let node = directory
            .entry((*name).to_owned())
            .or_insert_with(|| Node::Directory(BTreeMap::new()));
        directory = match node {
            Node::Directory(entries) => entries,
            Node::File(_) => return Err(bad(path, "one of its parents is a file")),
        };
    }
    Ok(directory)
}
