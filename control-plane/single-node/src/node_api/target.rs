//! What is asked of the node: the kubelet's paths and their parameters.

use std::fmt;

use apiserver::failure::Failure;
use jiff::{SignedDuration, Timestamp};

/// Most arguments of a program, and bytes of all.
const COMMAND_MAX: usize = 1024;
const COMMAND_LEN_MAX_BYTES: usize = 128 << 10;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) pod: PodName,
    /// Empty for what is about the whole pod.
    pub(super) container: String,
    pub(super) action: Action,
}

/// Namespace and name of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodName {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Log(LogOptions),
    Exec(ExecOptions),
    Attach(StreamOptions),
    PortForward,
}

/// Which lines of a log (`PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogOptions {
    pub(super) follows: bool,
    pub(super) is_previous: bool,
    pub(super) with_times: bool,
    pub(super) tail: Option<u64>,
    pub(super) since: Option<Timestamp>,
    pub(super) limit_bytes: Option<u64>,
}

/// Which streams a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamOptions {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) terminal: bool,
}

/// Which program to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ExecOptions {
    pub(super) command: Vec<String>,
    pub(super) streams: StreamOptions,
}

impl Target {
    /// Reads a path and a query.
    pub(super) fn parse(path: &str, query: &str) -> Result<Self, Failure> {
        let parts: Option<Vec<String>> = path.trim_matches('/').split('/').map(decode).collect();
        let parts = parts.ok_or_else(|| Failure::bad_request("the path is not UTF-8"))?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let query = Query::parse(query)?;
        let (namespace, name, container, action) = match parts.as_slice() {
            ["containerLogs", namespace, name, container] => (
                namespace,
                name,
                *container,
                Action::Log(query.log(Timestamp::now())?),
            ),
            ["exec", namespace, name, container] | ["exec", namespace, name, _, container] => {
                (namespace, name, *container, Action::Exec(query.exec()?))
            }
            ["attach", namespace, name, container] | ["attach", namespace, name, _, container] => (
                namespace,
                name,
                *container,
                Action::Attach(query.streams()?),
            ),
            ["portForward", namespace, name] | ["portForward", namespace, name, _] => {
                (namespace, name, "", Action::PortForward)
            }
            _ => {
                return Err(Failure::new(
                    404,
                    "NotFound",
                    format!("the node has no path {path}"),
                ));
            }
        };
        Ok(Self {
            pod: PodName {
                namespace: (*namespace).to_owned(),
                name: (*name).to_owned(),
            },
            container: container.to_owned(),
            action,
        })
    }
}

struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    fn parse(text: &str) -> Result<Self, Failure> {
        let pair = |text: &str| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            Some((decode(name)?, decode(&value.replace('+', " "))?))
        };
        let pairs = text.split('&').filter(|it| !it.is_empty()).map(pair);
        let pairs: Option<Vec<_>> = pairs.collect();
        let pairs = pairs.ok_or_else(|| Failure::bad_request("the query is not UTF-8"))?;
        Ok(Self { pairs })
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    fn flag(&self, name: &str) -> bool {
        matches!(
            self.get(name),
            Some("1" | "true" | "True" | "TRUE" | "t" | "T")
        )
    }

    fn number(&self, name: &str, least: i64) -> Result<Option<u64>, Failure> {
        let Some(text) = self.get(name).filter(|it| !it.is_empty()) else {
            return Ok(None);
        };
        let number = text.parse::<i64>().ok().filter(|it| *it >= least);
        let number = number.and_then(|it| u64::try_from(it).ok());
        let wrong = || {
            Failure::bad_request(format!(
                "{name}: {text:?} must be a number, at least {least}"
            ))
        };
        number.map(Some).ok_or_else(wrong)
    }

    fn log(&self, now: Timestamp) -> Result<LogOptions, Failure> {
        let seconds = self.number("sinceSeconds", 1)?;
        let time = self.get("sinceTime").filter(|it| !it.is_empty());
        if seconds.is_some() && time.is_some() {
            return Err(Failure::bad_request(
                "at most one of sinceTime and sinceSeconds may be given",
            ));
        }
        let ago = |seconds: u64| {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            now.checked_sub(SignedDuration::from_secs(seconds))
                .unwrap_or(Timestamp::MIN)
        };
        let parse = |text: &str| {
            let wrong = || {
                Failure::bad_request(format!(
                    "sinceTime: {text:?} is no time, such as 2026-01-02T15:04:05Z"
                ))
            };
            text.parse::<Timestamp>().map_err(|_| wrong())
        };
        Ok(LogOptions {
            follows: self.flag("follow"),
            is_previous: self.flag("previous"),
            with_times: self.flag("timestamps"),
            tail: self.number("tailLines", 0)?,
            since: time.map(parse).transpose()?.or(seconds.map(ago)),
            limit_bytes: self.number("limitBytes", 1)?,
        })
    }

    fn streams(&self) -> Result<StreamOptions, Failure> {
        let streams = StreamOptions {
            stdin: self.flag("input") || self.flag("stdin"),
            stdout: self.flag("output") || self.flag("stdout"),
            stderr: self.flag("error") || self.flag("stderr"),
            terminal: self.flag("tty"),
        };
        if !streams.stdin && !streams.stdout && !streams.stderr {
            return Err(Failure::bad_request(
                "you must specify at least 1 of stdin, stdout, stderr",
            ));
        }
        Ok(streams)
    }

    fn exec(&self) -> Result<ExecOptions, Failure> {
        let command: Vec<String> = self.all("command");
        if command.is_empty() {
            return Err(Failure::bad_request(
                "command: you must specify at least one command for the container",
            ));
        }
        let len_bytes: usize = command.iter().map(String::len).sum();
        if command.len() > COMMAND_MAX || len_bytes > COMMAND_LEN_MAX_BYTES {
            return Err(Failure::bad_request(
                "command: there are too many or too long arguments",
            ));
        }
        Ok(ExecOptions {
            command,
            streams: self.streams()?,
        })
    }

    fn all(&self, name: &str) -> Vec<String> {
        let found = self.pairs.iter().filter(|(found, _)| found == name);
        found.map(|(_, value)| value.clone()).collect()
    }
}

/// Decodes `%` and two hexadecimal digits (RFC 3986 §2.1).
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::{Action, Target};

    #[test]
    fn paths_of_the_kubelet_are_read() {
        let log = Target::parse(
            "/containerLogs/ns/pod/c",
            "follow=true&tailLines=5&timestamps=1&limitBytes=10&sinceTime=2026-01-02T03:04:05Z",
        );
        let log = log.unwrap();
        assert_eq!(
            (log.pod.to_string(), log.container.as_str()),
            ("ns/pod".to_owned(), "c")
        );
        let Action::Log(options) = log.action else {
            panic!()
        };
        assert!(options.follows && options.with_times && !options.is_previous);
        assert_eq!((options.tail, options.limit_bytes), (Some(5), Some(10)));
        assert_eq!(options.since, Some("2026-01-02T03:04:05Z".parse().unwrap()));
        let exec = Target::parse(
            "/exec/ns/pod/uid/c",
            "command=ls&command=%2Fa+b&output=1&error=1&tty=1",
        )
        .unwrap();
        let Action::Exec(options) = exec.action else {
            panic!()
        };
        assert_eq!(options.command, ["ls", "/a b"]);
        assert!(options.streams.stdout && options.streams.terminal && !options.streams.stdin);
        let attach = Target::parse("/attach/ns/pod/c", "stdin=true&stdout=true").unwrap();
        assert!(matches!(attach.action, Action::Attach(it) if it.stdin && !it.stderr));
        let forward = Target::parse("/portForward/ns/pod", "").unwrap();
        assert_eq!(forward.action, Action::PortForward);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (path, query) in [
            ("/containerLogs/ns/pod", ""),
            ("/containerLogs/ns/pod/c", "tailLines=-1"),
            ("/containerLogs/ns/pod/c", "limitBytes=0"),
            (
                "/containerLogs/ns/pod/c",
                "sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z",
            ),
            ("/containerLogs/ns/pod/c", "sinceTime=yesterday"),
            ("/exec/ns/pod/c", "output=1"),
            ("/exec/ns/pod/c", "command=ls"),
            ("/exec/ns/pod/%ff", "command=ls&output=1"),
            ("/exec/ns/pod/c", "command=%4&output=1"),
            ("/run/ns/pod/c", ""),
        ] {
            assert!(Target::parse(path, query).is_err(), "{path}?{query}");
        }
    }
}
