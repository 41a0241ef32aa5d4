//! Pods of this node, run as a kubelet runs them.
