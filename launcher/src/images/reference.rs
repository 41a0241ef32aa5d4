//! Names of container images: `[registry/]repository[:tag][@digest]`, completed as container engines do.

use std::fmt;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// Longest name that registries take, with room for a digest.
const MAX_LEN: usize = 512;

/// A complete image name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Registry and repository, `docker.io/library/busybox`.
    repository: String,
    tag: String,
    digest: Option<String>,
}

/// A text that is no image name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no image name: write it as [registry/]repository[:tag]")]
pub struct ReferenceError(String);

impl Reference {
    /// Reads an image name; a missing registry is `docker.io`, a missing tag `latest`.
    ///
    /// # Errors
    ///
    /// Fails on empty parts and on characters that no image name has.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let error = || ReferenceError(text.chars().take(MAX_LEN).collect());
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
        if text.len() > MAX_LEN || !text.chars().all(allowed) {
            return Err(error());
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) if digest.contains(':') => (name, Some(digest.to_owned())),
            Some(_) => return Err(error()),
            None => (text, None),
        };
        let (path, tag) = match name.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, tag),
            _ => (name, DEFAULT_TAG),
        };
        let parts: Vec<&str> = path.split('/').collect();
        if tag.is_empty() || parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
            return Err(error());
        }
        let repository = match parts.as_slice() {
            [first, _, ..] if is_registry(first) => path.to_owned(),
            [_] => format!("{DEFAULT_REGISTRY}/library/{path}"),
            _ => format!("{DEFAULT_REGISTRY}/{path}"),
        };
        Ok(Self {
            repository,
            tag: tag.to_owned(),
            digest,
        })
    }

    /// Returns the digest that the name pins the image to.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Whether another complete name means this image.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.repository == other.repository && (self.digest.is_some() || self.tag == other.tag)
    }

    pub(super) fn has_tag(&self, tag: &str) -> bool {
        self.digest.is_some() || self.tag == tag
    }

    /// Whether a folder or file below the image folder is named after this image: by the whole
    /// repository or by its last parts.
    pub(super) fn is_filed_under(&self, relative_path: &str) -> bool {
        self.repository
            .strip_suffix(relative_path)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    }

    /// The repository and its ends, longest first: `docker.io/a/b`, `a/b`, `b`.
    pub(super) fn repository_suffixes(&self) -> impl Iterator<Item = &str> {
        let text = self.repository.as_str();
        std::iter::once(text).chain(text.match_indices('/').map(move |(at, _)| &text[at + 1..]))
    }
}

/// The first part of a name is a registry when it looks like a host.
fn is_registry(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost"
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)?;
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Reference;

    #[test]
    fn names_are_completed() {
        for (text, expected) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("kubevirt/cirros:v1", "docker.io/kubevirt/cirros:v1"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("registry.example/a/b:1", "registry.example/a/b:1"),
            ("a/b@sha256:00", "docker.io/a/b:latest@sha256:00"),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "/a",
            "a//b",
            "a:",
            "../a",
            "a b",
            "a@b",
            "ü",
            &"x".repeat(600),
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn folders_may_be_named_after_the_end_of_a_name() {
        let reference = Reference::parse("registry.example/team/disk:1").unwrap();
        assert!(reference.is_filed_under("disk"));
        assert!(reference.is_filed_under("team/disk"));
        assert!(!reference.is_filed_under("isk"));
        assert!(!reference.is_filed_under("other/disk"));
        let suffixes: Vec<&str> = reference.repository_suffixes().collect();
        assert_eq!(
            suffixes,
            ["registry.example/team/disk", "team/disk", "disk"]
        );
    }
}
