//! Why a command is not done, with the cause and, where there is one, the cure.

use std::io;

use kube::core::Status;

/// Why a command is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// An argument makes no sense.
    #[error("{0}")]
    Argument(String),
    /// No cluster is configured, or the configuration is wrong.
    #[error("cannot obtain a client for the cluster: {0}")]
    Configuration(String),
    /// The cluster does not do what it is asked for.
    #[error("{attempt} {refusal}")]
    Refused {
        /// What was attempted, `Error starting VirtualMachine`.
        attempt: String,
        /// What the cluster says.
        refusal: Box<Refusal>,
    },
    /// Something waited for does not come about.
    #[error("{0}")]
    Waiting(String),
    /// A connection that stood is gone.
    #[error("{0}")]
    Disconnected(String),
    /// A file or a local program cannot be used.
    #[error("cannot {attempt}: {source}")]
    Local {
        /// What was attempted, `read /etc/shadow`.
        attempt: String,
        /// Why not.
        source: io::Error,
    },
    /// Nobody takes what is written to standard output.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// What a cluster says when it does not do what it is asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The API server's words.
    #[error("{}", said(.0))]
    Status(Box<Status>),
    /// Something else answered.
    #[error("{server} answers {code} in words that are not those of an API server: {words}")]
    Foreign {
        /// Where the answer came from.
        server: String,
        /// HTTP status.
        code: u16,
        /// The beginning of the answer.
        words: String,
    },
    /// There is no answer.
    #[error("no answer from {server}: {cause}")]
    Unreachable {
        /// Who was asked.
        server: String,
        /// Why there is none.
        cause: String,
    },
}

impl Refusal {
    /// Returns the HTTP status; 0 when there is none.
    pub(crate) fn code(&self) -> u16 {
        match self {
            Self::Status(status) => status.code,
            Self::Foreign { code, .. } => *code,
            Self::Unreachable { .. } => 0,
        }
    }

    /// Says what was attempted.
    pub(crate) fn of(self, attempt: impl Into<String>) -> Failure {
        Failure::Refused {
            attempt: attempt.into(),
            refusal: Box::new(self),
        }
    }

    fn cure(&self) -> Option<String> {
        let cure = match self {
            Self::Unreachable { server, .. } => format!(
                "Is the API server at {server} running, and is this the cluster you mean? Choose another with --kubeconfig, --context or $KUBECONFIG."
            ),
            Self::Foreign { .. } => {
                "Check the server's address in the kubeconfig, and proxies in between.".to_owned()
            }
            Self::Status(status) => match status.code {
                401 => "The cluster does not know you: check the user of the kubeconfig's context, or --token.".to_owned(),
                403 if status.message.contains("cannot") => {
                    "Ask the cluster's administrator for a role like kubevirt.io:edit, or choose another namespace with -n.".to_owned()
                }
                404 if is_object(status) => {
                    "Look for it with `kubectl get vm,vmi -A`, and choose its namespace with -n.".to_owned()
                }
                404 => "The cluster does not serve KubeVirt's subresources: is KubeVirt installed, and is virt-api running?".to_owned(),
                503 => "virt-api does not answer the API server: look at `kubectl get apiservice,pods -n kubevirt`.".to_owned(),
                _ => return None,
            },
        };
        Some(cure)
    }
}

/// Whether a status is about an object and not about a path.
fn is_object(status: &Status) -> bool {
    let details = status.details.as_ref();
    details.is_some_and(|details| !details.name.is_empty())
        || status.message.trim_end().ends_with("not found")
}

/// Returns the words of a status; its causes are part of them.
fn said(status: &Status) -> String {
    if status.message.is_empty() {
        return format!("the server answers {} {}", status.code, status.reason);
    }
    status.message.clone()
}

impl Failure {
    /// Returns what to do about it, in words for a person.
    pub(crate) fn cure(&self) -> Option<String> {
        match self {
            Self::Refused { refusal, .. } => refusal.cure(),
            Self::Configuration(_) => Some(
                "Name a kubeconfig with --kubeconfig or $KUBECONFIG, or a server with --server."
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
