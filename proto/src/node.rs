//! What a node's machine monitor says about the node: the launcher's program writes it as JSON, the node agent turns it
//! into node labels and conditions. Upstream reads the same facts from libvirt's capabilities.

use serde::{Deserialize, Serialize};

/// Longest description that is read, bytes.
pub const FACTS_LEN_MAX: u64 = 1 << 20;

/// What machines on this node can be made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeFacts {
    /// What runs processors: `kvm` or `soft`.
    pub backend: String,
    /// Why it is that, in a sentence for people.
    pub backend_reason: String,
    /// What KVM ran when it was measured, million instructions a second.
    pub kvm_mips: Option<u64>,
    /// Vendor of the processors that guests see.
    pub cpu_vendor: String,
    /// Model that guests get when none is named.
    pub host_model: String,
    /// All models that guests can have here.
    pub cpu_models: Vec<CpuModelFacts>,
    /// Machine types.
    pub machine_types: Vec<String>,
    /// Rate of the time stamp counter that guests see, hertz.
    pub tsc_hz: Option<u64>,
}

/// A CPU model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CpuModelFacts {
    /// Name, as a manifest gives it.
    pub name: String,
    /// Features.
    pub features: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::{CpuModelFacts, NodeFacts};

    #[test]
    fn facts_are_read_as_they_were_written() {
        let facts = NodeFacts {
            backend: "soft".to_owned(),
            cpu_models: vec![CpuModelFacts {
                name: "m".to_owned(),
                features: vec!["sse2".to_owned()],
            }],
            tsc_hz: Some(2_000_000_000),
            ..NodeFacts::default()
        };
        let text = serde_json::to_string(&facts).unwrap();
        assert!(text.contains("\"tscHz\":2000000000"), "{text}");
        assert_eq!(serde_json::from_str::<NodeFacts>(&text).unwrap(), facts);
    }

    #[test]
    fn facts_of_a_newer_program_are_read_for_what_is_known() {
        let facts: NodeFacts = serde_json::from_str(r#"{"backend":"kvm","gpu":[1]}"#).unwrap();
        assert_eq!(facts.backend, "kvm");
    }
}
