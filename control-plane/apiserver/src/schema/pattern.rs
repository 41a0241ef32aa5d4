//! Regular expressions of schemas.

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

/// Most bytes that a compiled expression may take: a schema's author is trusted less than the process's memory.
const COMPILED_BYTES: usize = 512 << 10;

/// A regular expression (RE2 syntax) that is compiled when it is first needed; empty when there is none.
#[derive(Clone, Debug, Default)]
pub struct Pattern {
    text: Box<str>,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// Returns the expression as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether a text fits; every text does if the expression is none.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| compile(&self.text).ok());
        compiled.as_ref().is_none_or(|it| it.is_match(text))
    }

    /// Returns why the expression is none.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        compile(&self.text).err().map(|error| error.to_string())
    }
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text)
        .size_limit(COMPILED_BYTES)
        .dfa_size_limit(COMPILED_BYTES)
        .build()
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        Self {
            text: text.into(),
            compiled: OnceLock::new(),
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
