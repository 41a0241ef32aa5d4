//! The wires between node components: generated code and the JSON that travels in it, without logic.
//!
//! Each module is one protocol; the messages and the names of their fields are those of the peers we
//! meet (KubeVirt's handler and launcher, the kubelet). The descriptions are in `proto/*.proto`.

#![forbid(unsafe_code)]

pub mod domain;
mod list;
pub mod node;
pub mod stats;

/// The most bytes of one message that a peer may send: what gRPC clients and servers decode by default.
/// It bounds the JSON in a message too.
pub const MESSAGE_LEN_MAX_BYTES: usize = 4 << 20;

/// The description of every wire, a serialised `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("descriptors");

/// A module of generated code: the messages, clients and servers of one protobuf package.
macro_rules! wire {
    ($(#[$doc:meta])* $module:ident = $package:literal) => {
        $(#[$doc])*
        #[expect(
            missing_docs,
            unused_qualifications,
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            clippy::missing_errors_doc,
            reason = "generated code; a field is described with its message"
        )]
        pub mod $module {
            tonic::include_proto!($package);
        }
    };
}

/// What a handler asks of a launcher (KubeVirt, `pkg/handler-launcher-com/cmd`).
pub mod cmd {
    wire! {
        /// Which versions of the command service a launcher speaks.
        info = "kubevirt.cmd.info"
    }
    wire! {
        /// The commands, version 1.
        v1 = "kubevirt.cmd.v1"
    }
}

/// What a launcher tells its handler unasked (KubeVirt, `pkg/handler-launcher-com/notify`).
pub mod notify {
    wire! {
        /// Which versions of the notify service a handler speaks.
        info = "kubevirt.notify.info"
    }
    wire! {
        /// The notifications, version 1.
        v1 = "kubevirt.notify.v1"
    }
}

/// How a device plugin and the kubelet speak (Kubernetes, `k8s.io/kubelet/pkg/apis/deviceplugin`).
pub mod deviceplugin {
    wire! {
        /// Version v1beta1, the only one in use.
        v1beta1 = "v1beta1"
    }
}

/// What the kubelet tells of the resources of pods (Kubernetes, `k8s.io/kubelet/pkg/apis/podresources`).
pub mod podresources {
    wire! {
        /// Version v1.
        v1 = "v1"
    }
}
