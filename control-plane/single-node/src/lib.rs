//! `ferrovirt`: one machine as a whole node.
//!
//! One process holds the API server, the control plane, the node agent, and what a kubelet and a container runtime
//! would be: pod sandboxes, volumes, images, logs.
