//! Digests: what names content (OCI image-spec, "Digests").

use std::fmt;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Name of the only algorithm that is read.
const SHA256: &str = "sha256:";

/// A SHA-256 digest, `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    text: String,
}

impl Digest {
    /// Reads a digest; `None` when it is not of this form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix(SHA256)?;
        let is_hex = hex.len() == 64
            && hex
                .bytes()
                .all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
        is_hex.then(|| Self {
            text: text.to_owned(),
        })
    }

    /// Returns the digest of bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Sha256::new_with_prefix(bytes))
    }

    pub(super) fn from_hash(hash: Sha256) -> Self {
        use fmt::Write;
        let mut text = SHA256.to_owned();
        for byte in hash.finalize() {
            let _infallible = write!(text, "{byte:02x}");
        }
        Self { text }
    }

    /// The hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.text[SHA256.len()..]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parsed = Self::parse(&text);
        parsed.ok_or_else(|| format!("digest {text:?} is not sha256: and 64 hexadecimal digits"))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.text
    }
}

/// Passes on what it reads, and knows the digest and the length of it.
pub(super) struct Hashing<R> {
    inner: R,
    hash: Sha256,
    len_bytes: u64,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            len_bytes: 0,
        }
    }

    /// Reads to the end and returns the digest and length of all, and the reader; fails beyond `rest_max` more bytes.
    pub(super) fn finish(mut self, rest_max: u64) -> io::Result<(Digest, u64, R)> {
        let rest = io::copy(
            &mut (&mut self).take(rest_max.saturating_add(1)),
            &mut io::sink(),
        )?;
        if rest > rest_max {
            return Err(io::Error::other("there is more data than there may be"));
        }
        Ok((Digest::from_hash(self.hash), self.len_bytes, self.inner))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.hash.update(&buffer[..len]);
        self.len_bytes = self
            .len_bytes
            .saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, Hashing};

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_are_read_and_made() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(Digest::parse(EMPTY), Some(Digest::of(b"")));
        for odd in [
            "",
            "sha256:",
            "sha256:../../etc",
            &EMPTY.to_uppercase(),
            "sha512:00",
        ] {
            assert_eq!(Digest::parse(odd), None);
        }
    }

    #[test]
    fn what_was_not_read_counts_too() {
        let (digest, len_bytes, _) = Hashing::new(&b"abc"[..]).finish(3).unwrap();
        assert_eq!((digest, len_bytes), (Digest::of(b"abc"), 3));
        assert!(Hashing::new(&b"abc"[..]).finish(2).is_err());
    }
}
