//! virtctl: KubeVirt's virtual machines from the command line.
