//! Parameters of a request.

use crate::failure::Failure;

/// Parameters that are looked at; kubectl sends fewer than twenty, `exec` one for each word of a command.
const PARAMETERS_MAX: usize = 1024;

/// The parameters of a query, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    parameters: Vec<(String, String)>,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    ///
    /// 400 when a parameter is not UTF-8, or there are too many.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let mut parameters = Vec::new();
        for pair in text.split('&').filter(|it| !it.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = decode(name, true).zip(decode(value, true));
            parameters.push(decoded.ok_or_else(|| {
                Failure::bad_request(format!("the query parameter {pair:?} is not encoded UTF-8"))
            })?);
            if parameters.len() > PARAMETERS_MAX {
                return Err(Failure::bad_request(format!(
                    "the query has more than {PARAMETERS_MAX} parameters"
                )));
            }
        }
        Ok(Self { parameters })
    }

    /// Returns a parameter that is there and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let mine = self.parameters.iter().filter(|(key, _)| key == name);
        mine.map(|(_, value)| value.as_str())
            .find(|it| !it.is_empty())
    }

    /// Returns all values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let mine = self.parameters.iter().filter(move |(key, _)| key == name);
        mine.map(|(_, value)| value.as_str())
    }

    /// Whether a parameter is true: any value but `false` and `0`, as in Kubernetes.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.all(name)
            .next()
            .is_some_and(|it| !matches!(it, "false" | "False" | "0"))
    }

    /// Returns a parameter that is a number.
    ///
    /// # Errors
    ///
    /// 400 when it is none.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let number = |text: &str| {
            text.parse().map_err(|_| {
                Failure::bad_request(format!(
                    "the query parameter {name}={text} is not a number of 0 or more"
                ))
            })
        };
        self.get(name).map(number).transpose()
    }
}

/// Decodes percent-encoded text; nothing when it is malformed or no UTF-8.
#[must_use]
pub fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    Some(match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_may_repeat() {
        let query =
            Query::parse("labelSelector=a%3Db%2Cc&command=ls&command=-l+x&watch=true&limit=5&e=")
                .unwrap();
        assert_eq!(query.get("labelSelector"), Some("a=b,c"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["ls", "-l x"]);
        assert!(query.is_set("watch") && !query.is_set("pretty"));
        assert_eq!(query.number("limit").unwrap(), Some(5));
        assert_eq!(query.get("e"), None);
    }

    #[test]
    fn wrong_parameters_are_named() {
        assert!(Query::parse("a=%f").unwrap_err().message.contains("a=%f"));
        let error = Query::parse("limit=many")
            .unwrap()
            .number("limit")
            .unwrap_err();
        assert!(error.message.contains("limit=many"));
    }
}
