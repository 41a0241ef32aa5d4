//! What machines on this node can be made of, as the node agent reads it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use proto::node::{CpuModelFacts, NodeFacts};
use vmm::config::Accel;
use vmm::facts::{CPU_VENDOR, Facts};

/// CPU models of other machine monitors that the default model stands in for, as conversion does with a warning: none of
/// them has an instruction that it lacks. A pod that asks for one must find this node.
const STOOD_IN: [&str; 11] = [
    "Conroe",
    "Nehalem",
    "Nehalem-IBRS",
    "Opteron_G1",
    "Opteron_G2",
    "Penryn",
    "core2duo",
    "coreduo",
    "kvm64",
    "n270",
    "qemu64",
];

/// Machine types that a manifest may ask for.
const MACHINE_TYPES: [&str; 1] = ["q35"];

/// Why the facts cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum NodeFactsError {
    /// The back end that was asked for is not there.
    #[error("find out what this node can run")]
    Backend(#[from] vmm::hv::HvError),
    /// The facts cannot be written.
    #[error("write the node's facts to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
}

/// Writes the node's facts as JSON to a file, or to standard output when it is `-`. A reader of the file sees the facts
/// of before or those of now, nothing between.
///
/// # Errors
///
/// Fails when a back end is asked for that the host does not have, or the file cannot be written.
pub fn write(accel: Accel, path: &Path) -> Result<(), NodeFactsError> {
    let facts = convert(vmm::facts::facts(accel)?);
    let failed = |source| NodeFactsError::Write {
        path: path.to_owned(),
        source,
    };
    let mut text = serde_json::to_vec_pretty(&facts).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    let written = if path == Path::new("-") {
        io::stdout().write_all(&text)
    } else {
        replace(path, &text)
    };
    written.map_err(failed)
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text)?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(file.path(), readable)?;
    file.persist(path)?;
    Ok(())
}

fn convert(facts: Facts) -> NodeFacts {
    let owned = |text: &&str| (*text).to_owned();
    let own = facts.models.iter().map(|model| CpuModelFacts {
        name: model.name.to_owned(),
        features: model.features.iter().map(owned).collect(),
    });
    let stood_in = STOOD_IN.iter().map(|name| CpuModelFacts {
        name: owned(name),
        features: Vec::new(),
    });
    NodeFacts {
        backend: facts.backend.backend.to_string(),
        backend_reason: facts.backend.reason,
        kvm_mips: facts.backend.kvm_mips,
        cpu_vendor: CPU_VENDOR.to_owned(),
        host_model: facts.default_model.to_owned(),
        cpu_models: own.chain(stood_in).collect(),
        machine_types: MACHINE_TYPES.iter().map(owned).collect(),
        tsc_hz: Some(facts.tsc_hz),
    }
}

#[cfg(test)]
mod tests {
    use proto::node::NodeFacts;
    use vmm::config::Accel;

    use super::write;

    #[test]
    fn the_file_says_what_the_node_can_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("facts.json");
        std::fs::write(&path, "of before").unwrap();
        write(Accel::Soft, &path).unwrap();
        let facts: NodeFacts = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(facts.backend, "soft");
        assert_eq!(facts.backend_reason, "the software CPU was asked for");
        assert!(
            facts
                .cpu_models
                .iter()
                .any(|model| model.name == facts.host_model)
        );
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let path = std::path::Path::new("/nonexistent/facts.json");
        let error = write(Accel::Soft, path).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/facts.json"), "{error}");
    }
}
