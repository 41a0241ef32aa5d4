//! The files of an image as a tree of paths, and paths through its symbolic links.

use std::collections::{BTreeMap, VecDeque};

/// Symbolic links on one way, as Linux counts them.
const MAX_LINKS: usize = 40;

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node<F> {
    /// A regular file and where its bytes are.
    File(F),
    Symlink(String),
    Directory,
    /// What can be neither read nor followed.
    Other,
}

/// An image's files, by path without leading slash.
pub(super) type Tree<F> = BTreeMap<String, Node<F>>;

/// Puts a path into its plain form, without leading slash and dots; `None` where it climbs.
pub(super) fn plain_path(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return None,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Follows a path through symbolic links, never out of the image, to the plain path of what it names.
pub(super) fn resolve<F>(
    path: &str,
    lookup: impl Fn(&str) -> Option<Node<F>>,
) -> Option<(String, Node<F>)> {
    let mut ahead: VecDeque<String> = path.split('/').map(str::to_owned).collect();
    let mut place = Vec::new();
    let mut node = Node::Directory;
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                place.pop();
                node = Node::Directory;
                continue;
            }
            _ => place.push(part),
        }
        node = lookup(&place.join("/"))?;
        if let Node::Symlink(target) = &node {
            links += 1;
            if links > MAX_LINKS {
                return None;
            }
            if target.starts_with('/') {
                place.clear();
            } else {
                place.pop();
            }
            for part in target.split('/').rev() {
                ahead.push_front(part.to_owned());
            }
            node = Node::Directory;
        }
    }
    Some((place.join("/"), node))
}

#[cfg(test)]
mod tests {
    use super::{Node, Tree, plain_path, resolve};

    fn resolved(path: &str) -> Option<(String, Node<u8>)> {
        let link = |target: &str| Node::Symlink(target.to_owned());
        let tree: Tree<u8> = [
            ("boot", Node::Directory),
            ("boot/vmlinuz-6", Node::File(6)),
            ("boot/vmlinuz", link("vmlinuz-6")),
            ("vmlinuz", link("/boot/vmlinuz")),
            ("up", link("../../../boot/vmlinuz")),
            ("kernels", link("boot")),
            ("loop", link("loop")),
        ]
        .into_iter()
        .map(|(path, node)| (path.to_owned(), node))
        .collect();
        resolve(path, |path| tree.get(path).cloned())
    }

    #[test]
    fn links_are_followed_inside_the_image() {
        let kernel = Some(("boot/vmlinuz-6".to_owned(), Node::File(6)));
        for path in [
            "/boot/vmlinuz-6",
            "boot/vmlinuz",
            "/vmlinuz",
            "up",
            "/kernels/./vmlinuz",
        ] {
            assert_eq!(resolved(path), kernel, "{path}");
        }
    }

    #[test]
    fn loops_and_absent_files_lead_nowhere() {
        for path in ["loop", "/boot/initrd", "boot/vmlinuz-6/x"] {
            assert_eq!(resolved(path), None, "{path}");
        }
    }

    #[test]
    fn plain_paths_do_not_climb() {
        assert_eq!(plain_path("./disk//a/."), Some("disk/a".to_owned()));
        assert_eq!(plain_path("disk/../../a"), None);
    }
}
