//! Flags that consist of parameters, `src:registry/image:tag,name:disk`.

use std::collections::BTreeMap;
use std::str::FromStr;

use api::Quantity;

/// The parameters of a flag.
#[derive(Clone, Debug)]
pub(super) struct Parameters<'a> {
    flag: &'static str,
    values: BTreeMap<&'a str, &'a str>,
}

impl<'a> Parameters<'a> {
    /// Reads the value of a flag; values may have colons, but no commas.
    ///
    /// # Errors
    ///
    /// Fails when it is empty, or a parameter has no colon or is there twice.
    pub(super) fn parse(flag: &'static str, text: &'a str) -> Result<Self, String> {
        if text.is_empty() {
            return Err(wrong(flag, "params may not be empty"));
        }
        let mut values = BTreeMap::new();
        for parameter in text.split(',') {
            let Some((name, value)) = parameter.split_once(':') else {
                let why = format!("params need to have at least one colon: {parameter}");
                return Err(wrong(flag, &why));
            };
            if values.insert(name, value).is_some() {
                return Err(wrong(flag, &format!("{name} is given twice")));
            }
        }
        Ok(Self { flag, values })
    }

    /// Checks that there are no others than those that are known.
    pub(super) fn check(&self, known: &[&str]) -> Result<(), String> {
        let unknown = self.values.keys().find(|name| !known.contains(name));
        match unknown {
            None => Ok(()),
            Some(unknown) => Err(self.wrong(&format!(
                "unknown param(s): {unknown}: use {}",
                known.join(", ")
            ))),
        }
    }

    /// Returns a parameter that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.values
            .get(name)
            .copied()
            .filter(|value| !value.is_empty())
    }

    /// Returns a parameter that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&'a str, String> {
        self.get(name)
            .ok_or_else(|| self.wrong(&format!("{name} must be specified")))
    }

    /// Returns a parameter as something that can be read from text.
    pub(super) fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, String>
    where
        T::Err: std::fmt::Display,
    {
        let parse = |value: &str| {
            value
                .parse::<T>()
                .map_err(|error| self.wrong(&format!("failed to parse param {name:?}: {error}")))
        };
        self.get(name).map(parse).transpose()
    }

    /// Returns the parameter `size`.
    pub(super) fn size(&self) -> Result<Option<Quantity>, String> {
        self.parsed("size")
    }

    /// Reads `NAME` or `PREFIX/NAME` from parameter `src`.
    pub(super) fn source(&self) -> Result<(Option<&'a str>, &'a str), String> {
        let source = self.required("src")?;
        prefixed(source).map_err(|error| self.wrong(&format!("src invalid: {error}")))
    }

    /// Reads `NAME` from parameter `src`, which may not name another namespace.
    pub(super) fn local_source(&self, what: &str) -> Result<&'a str, String> {
        match self.source()? {
            (None, name) => Ok(name),
            (Some(_), name) => Err(self.wrong(&format!(
                "not allowed to specify namespace of {what} {name:?}"
            ))),
        }
    }

    /// Returns an error about this flag.
    pub(super) fn wrong(&self, why: &str) -> String {
        wrong(self.flag, why)
    }
}

/// Returns an error about a flag.
pub(super) fn wrong(flag: &str, why: &str) -> String {
    format!("failed to parse \"--{flag}\" flag: {why}")
}

/// Reads `NAME` or `PREFIX/NAME`.
pub(super) fn prefixed(text: &str) -> Result<(Option<&str>, &str), String> {
    let (prefix, name) = match text.split_once('/') {
        None => (None, text),
        Some((prefix, name)) => (Some(prefix), name),
    };
    if name.is_empty() || prefix.is_some_and(str::is_empty) {
        return Err("name cannot be empty".to_owned());
    }
    if name.contains('/') {
        return Err(format!("{text:?} has more than one slash"));
    }
    Ok((prefix, name))
}

#[cfg(test)]
mod tests {
    use super::{Parameters, prefixed};

    #[test]
    fn values_keep_their_colons() {
        let parameters = Parameters::parse("f", "src:host:5000/a:b,bootorder:1").unwrap();
        assert_eq!(parameters.get("src"), Some("host:5000/a:b"));
        assert_eq!(parameters.parsed::<u32>("bootorder"), Ok(Some(1)));
        assert_eq!(parameters.check(&["src", "bootorder"]), Ok(()));
        assert!(
            parameters
                .check(&["src"])
                .unwrap_err()
                .contains("bootorder")
        );
        assert!(parameters.required("name").unwrap_err().contains("--f"));
    }

    #[test]
    fn what_is_no_parameter_is_refused() {
        for text in ["", "src", "a:1,a:2"] {
            assert!(Parameters::parse("f", text).is_err(), "{text:?}");
        }
        assert_eq!(prefixed("a/b"), Ok((Some("a"), "b")));
        for text in ["", "/b", "a/", "a/b/c"] {
            assert!(prefixed(text).is_err(), "{text:?}");
        }
    }
}
