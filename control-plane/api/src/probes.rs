//! `livenessProbe` and `readinessProbe`: how to find out whether the guest is well.

use serde::{Deserialize, Serialize};

use crate::object::{Presence, object};

object! {
    /// A probe; exactly one of its actions is set.
    pub struct Probe {
        /// A command inside the guest, which succeeds with exit code 0.
        pub exec: Option<ExecAction>,
        /// A sign of life of the guest agent.
        pub guest_agent_ping: Option<Presence>,
        /// An HTTP request, which succeeds with a status from 200 to 399.
        pub http_get: Option<HttpGetAction>,
        /// A TCP connection.
        pub tcp_socket: Option<TcpSocketAction>,
        /// Seconds before the first try.
        pub initial_delay_seconds: Option<i32>,
        /// Seconds until a try has failed; 1 when unset.
        pub timeout_seconds: Option<i32>,
        /// Seconds between tries; 10 when unset.
        pub period_seconds: Option<i32>,
        /// Successes in a row that make it good; 1 when unset.
        pub success_threshold: Option<i32>,
        /// Failures in a row that make it bad; 3 when unset.
        pub failure_threshold: Option<i32>,
    }

    /// A command inside the guest.
    pub struct ExecAction {
        /// The program and its arguments; no shell.
        pub command: Vec<String>,
    }

    /// An HTTP request.
    pub struct HttpGetAction {
        /// Path.
        pub path: String,
        /// Port.
        pub port: Option<ProbePort>,
        /// Host; the pod's address when empty.
        pub host: String,
        /// `HTTP` (default) or `HTTPS`.
        pub scheme: String,
        /// Headers.
        pub http_headers: Vec<HttpHeader>,
    }

    /// A header of an HTTP request.
    pub struct HttpHeader {
        /// Name.
        pub name: String,
        /// Value.
        pub value: String,
    }

    /// A TCP connection.
    pub struct TcpSocketAction {
        /// Port.
        pub port: Option<ProbePort>,
        /// Host; the pod's address when empty.
        pub host: String,
    }
}

/// A port by number, or by its name in the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum ProbePort {
    /// Its number.
    Number(i64),
    /// Its name.
    Name(String),
}

impl Probe {
    /// Returns the JSON names of the actions that are set; a valid probe has exactly one.
    pub fn actions(&self) -> Vec<&'static str> {
        [
            ("exec", self.exec.is_some()),
            ("guestAgentPing", self.guest_agent_ping.is_some()),
            ("httpGet", self.http_get.is_some()),
            ("tcpSocket", self.tcp_socket.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
        .collect()
    }
}
