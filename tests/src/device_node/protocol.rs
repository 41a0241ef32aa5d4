//! What the test asks the agent of the node, and what it answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An answer, or why there is none.
pub type Answer = Result<Value, String>;

/// A request to the agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Reads a file: its text.
    Read {
        /// The file.
        path: PathBuf,
    },
    /// Writes to a file that is there, as sysfs wants it: in one go.
    Write {
        /// The file.
        path: PathBuf,
        /// What is written.
        text: String,
    },
    /// Reads where a link leads: a path.
    Link {
        /// The link.
        path: PathBuf,
    },
    /// Looks at a device node or another file: an [`Owner`].
    Owner {
        /// The file.
        path: PathBuf,
    },
    /// Runs a program, which must succeed: its standard output.
    Run {
        /// Its path and arguments.
        command: Vec<String>,
    },
    /// Tells what sysfs and `/dev` show of the devices, in the lines that trees of sysfs are planted from: a text.
    Record,
    /// Starts the node agent with arguments of the test's; one that runs is ended first.
    StartHandler {
        /// The arguments.
        arguments: Vec<String>,
    },
    /// Ends the node agent: nothing.
    StopHandler,
    /// What the node agent logged since it was started: a text.
    HandlerLog,
    /// Writes the `KubeVirt` object: nothing.
    KubeVirt {
        /// Its `spec.configuration`.
        configuration: Value,
    },
    /// Reads the node as the API server has it: the object.
    Node,
    /// Tells what the kubelet is offered: an [`Offers`].
    Offers,
    /// Waits until the kubelet has so many units of a resource, healthy and others: nothing.
    Await {
        /// The resource.
        resource: String,
        /// All units.
        capacity: usize,
        /// Those that can be given.
        allocatable: usize,
        /// For how long.
        patience: Duration,
    },
    /// Gives a container of a pod devices, as the kubelet does before it starts it: a [`Given`].
    Allocate {
        /// The pod, which is made.
        pod: String,
        /// The container.
        container: String,
        /// The resource.
        resource: String,
        /// How many.
        count: usize,
    },
    /// Ends a pod: nothing.
    RemovePod {
        /// The pod.
        pod: String,
    },
    /// Starts the kubelet again, which empties its folder: nothing.
    RestartKubelet,
}

/// Units by resource.
pub type Offers = BTreeMap<String, BTreeMap<String, Unit>>;

/// A unit as the kubelet has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Whether it can be given.
    pub is_healthy: bool,
    /// The NUMA nodes that it is near to.
    pub numa_nodes: Vec<i64>,
}

/// What a container was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// The units.
    pub ids: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Paths of device nodes on the host and in the container, and what it may do with them.
    pub nodes: Vec<(String, String, String)>,
}

/// Whose a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its user.
    pub user: u32,
    /// Its group.
    pub group: u32,
    /// Whether it is the node of a character device.
    pub is_device: bool,
}

impl Request {
    /// How long the agent itself waits for what is asked.
    #[must_use]
    pub fn patience(&self) -> Duration {
        match self {
            Self::Await { patience, .. } => *patience,
            _ => Duration::ZERO,
        }
    }
}
