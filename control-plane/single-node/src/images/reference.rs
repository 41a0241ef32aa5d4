//! Names of images, as Docker reads and completes them (`distribution/reference`).

use std::fmt;

use super::digest::Digest;

/// Registry of names that have none.
const DOCKER_HUB: &str = "docker.io";
/// Its older name.
const DOCKER_HUB_OLD: &str = "index.docker.io";
/// Folder of Docker's own images.
const LIBRARY: &str = "library";
/// Longest registry and repository together.
const NAME_LEN_MAX: usize = 255;
/// Longest tag.
const TAG_LEN_MAX: usize = 128;

/// A complete name: `docker.io/library/debian:latest`, `quay.io/x/y@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and perhaps port.
    pub registry: String,
    /// Path in the registry.
    pub repository: String,
    /// Which image of the repository.
    pub version: Version,
}

/// Which image of a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// The one that has this tag now.
    Tag(String),
    /// The one whose manifest is this.
    Digest(Digest),
}

/// Why a text names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("image reference {text:?}: {reason}")]
pub struct ReferenceError {
    /// The text.
    pub text: String,
    /// What is wrong, and the cure.
    pub reason: &'static str,
}

impl Reference {
    /// Reads a name and completes it: registry `docker.io`, there folder `library`, tag `latest`. With a digest, the tag
    /// says nothing.
    ///
    /// # Errors
    ///
    /// Fails when it is not `[registry/]repository[:tag][@digest]`.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let fail = |reason| ReferenceError {
            text: text.chars().take(NAME_LEN_MAX).collect(),
            reason,
        };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest = Digest::parse(digest);
                (
                    name,
                    Some(digest.ok_or_else(|| {
                        fail("after @ must come sha256: and 64 hexadecimal digits")
                    })?),
                )
            }
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(fail("a tag has letters, digits, _, . and -, at most 128"));
        }
        let (registry, repository) = split(name);
        if repository.is_empty() || registry.len() + repository.len() >= NAME_LEN_MAX {
            return Err(fail("a name must have 1 to 254 characters"));
        }
        if !is_registry(registry) {
            return Err(fail(
                "the registry before the first / is no host with a port",
            ));
        }
        if !repository.split('/').all(is_component) {
            return Err(fail(
                "a repository has lower-case letters and digits, with ., _, __ or - between them",
            ));
        }
        let is_official = registry == DOCKER_HUB && !repository.contains('/');
        let repository = if is_official {
            format!("{LIBRARY}/{repository}")
        } else {
            repository.to_owned()
        };
        let tagged = || Version::Tag(tag.unwrap_or("latest").to_owned());
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            version: digest.map_or_else(tagged, Version::Digest),
        })
    }

    /// The repository with its registry.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            registry,
            repository,
            version,
        } = self;
        match version {
            Version::Tag(tag) => write!(f, "{registry}/{repository}:{tag}"),
            Version::Digest(digest) => write!(f, "{registry}/{repository}@{digest}"),
        }
    }
}

/// Splits off the registry: what is before the first slash and looks like a host.
fn split(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((DOCKER_HUB_OLD, rest)) => (DOCKER_HUB, rest),
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (DOCKER_HUB, name),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_address = || {
        let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        inner.is_some_and(|it| it.parse::<std::net::Ipv6Addr>().is_ok())
    };
    let is_label = |it: &str| {
        let inner = it
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        inner && !it.is_empty() && !it.starts_with('-') && !it.ends_with('-')
    };
    let is_host = host.split('.').all(is_label) || is_address();
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Whether one part of a repository's path is well-formed: runs of lower-case letters and digits, with `.`, `_`, `__` or
/// any number of `-` between them.
fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    if !ends.is_some_and(|(first, last)| is_word(*first) && is_word(*last)) {
        return false;
    }
    let mut between = text.split(|it: char| it.is_ascii_lowercase() || it.is_ascii_digit());
    between.all(|it| matches!(it, "" | "." | "_" | "__") || it.bytes().all(|byte| byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let inner = text
        .bytes()
        .all(|byte| is_word(byte) || byte == b'.' || byte == b'-');
    inner && text.len() <= TAG_LEN_MAX && text.bytes().next().is_some_and(is_word)
}

#[cfg(test)]
mod tests {
    use super::Reference;

    fn check(given: &str, wanted: &str) {
        assert_eq!(Reference::parse(given).unwrap().to_string(), wanted);
    }

    #[test]
    fn names_are_completed_as_docker_does() {
        let demo = "docker.io/kubevirt/cirros-registry-disk-demo:latest";
        check("kubevirt/cirros-registry-disk-demo", demo);
        check(demo, demo);
        check("index.docker.io/kubevirt/cirros-registry-disk-demo", demo);
        check("debian", "docker.io/library/debian:latest");
        check("docker.io/debian:12", "docker.io/library/debian:12");
        check("localhost/a", "localhost/a:latest");
        check("localhost:5000/a/b_c:v1.0", "localhost:5000/a/b_c:v1.0");
        check("[::1]:5000/a", "[::1]:5000/a:latest");
        let digest = format!("sha256:{}", "0".repeat(64));
        check(
            &format!("quay.io/a/b:v1@{digest}"),
            &format!("quay.io/a/b@{digest}"),
        );
    }

    #[test]
    fn odd_names_are_refused() {
        let long = "a".repeat(300);
        for odd in [
            "",
            "/",
            ":",
            "@",
            "a b",
            "A",
            "a//b",
            "a/../b",
            "../a",
            "a/",
            "a:",
            "a:-x",
            "a@sha256:12",
            "a@md5:0",
            "a..b",
            "-a.b/c",
            "h:port/x",
            "docker.io/",
            &long,
        ] {
            Reference::parse(odd).unwrap_err();
        }
    }
}
