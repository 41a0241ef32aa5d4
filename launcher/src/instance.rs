//! The instance to run: where its manifest comes from, and how its fields are called there.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use api::manifest::{ManifestError, Object, parse_manifest};
use api::{FieldError, FieldPath, Vmi};

use crate::support::{self, Remarks};

/// Longest manifest file that is read.
const MAX_MANIFEST_LEN: u64 = 8 << 20;

/// An instance, with what was found in its manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// The instance.
    pub vmi: Vmi,
    /// Remarks on the manifest beside those on the instance.
    pub remarks: Remarks,
    /// Whether it is the template of a virtual machine.
    from_template: bool,
}

/// Why there is no instance.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The manifest cannot be read.
    #[error("read the manifest {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The manifest is no manifest, or not of what we run.
    #[error("{origin}")]
    Manifest {
        /// The file or variable.
        origin: String,
        /// What is wrong.
        source: Box<ManifestError>,
    },
    /// There are several machines in one manifest.
    #[error(
        "{origin}: it holds {count} machines: virt-launcher runs one, put each into a file of its own"
    )]
    Several {
        /// The file or variable.
        origin: String,
        /// How many.
        count: usize,
    },
}

impl Instance {
    /// Reads the instance from a file; `-` is standard input.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read or holds no single machine.
    pub fn from_file(path: &Path) -> Result<Self, InstanceError> {
        let read = |source| InstanceError::Read {
            path: path.to_owned(),
            source,
        };
        let reader: Box<dyn Read> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            Box::new(fs::File::open(path).map_err(read)?)
        };
        let mut text = String::new();
        reader
            .take(MAX_MANIFEST_LEN + 1)
            .read_to_string(&mut text)
            .map_err(read)?;
        Self::from_text(&text, &path.display().to_string())
    }

    /// Reads the instance from a manifest's text, or from the file that the text names: the two ways in
    /// which `STANDALONE_VMI` is set.
    ///
    /// # Errors
    ///
    /// As [`from_file`](Self::from_file).
    pub fn from_variable(value: &str) -> Result<Self, InstanceError> {
        let names_file = !value.contains(['\n', '{', ':']) && !value.trim().is_empty();
        if names_file {
            return Self::from_file(Path::new(value.trim()));
        }
        Self::from_text(value, "STANDALONE_VMI")
    }

    /// Reads the instance from a manifest's text.
    ///
    /// # Errors
    ///
    /// Fails when the text holds no single machine.
    pub fn from_text(text: &str, origin: &str) -> Result<Self, InstanceError> {
        let manifest = |source| InstanceError::Manifest {
            origin: origin.to_owned(),
            source: Box::new(source),
        };
        let mut documents = parse_manifest(text).map_err(manifest)?;
        let count = documents.len();
        let Some(document) = documents.pop().filter(|_| count == 1) else {
            return Err(InstanceError::Several {
                origin: origin.to_owned(),
                count,
            });
        };
        let mut remarks = Remarks::default();
        let (vmi, from_template) = match document.object {
            Object::Vmi(vmi) => (*vmi, false),
            Object::Vm(vm) => {
                remarks = support::vm_remarks(&vm);
                (vm.instance(), true)
            }
        };
        for field in document.unknown_fields {
            let text = "unknown field, it has no effect: check its name and place";
            remarks.warnings.push(FieldError::new(field, text));
        }
        let mut instance = Self {
            vmi,
            remarks,
            from_template,
        };
        instance.complete_identity();
        instance.remark_group();
        Ok(instance)
    }

    /// An instance that no API server has seen gets the uid that follows from its name.
    fn complete_identity(&mut self) {
        let metadata = &mut self.vmi.metadata;
        if metadata.uid.is_empty() {
            let name = format!("{}/{}", metadata.namespace_or_default(), metadata.name);
            metadata.uid = api::defaulting::system_uuid(&name).to_string();
        }
    }

    fn remark_group(&mut self) {
        if !self.vmi.api_version.starts_with(api::manifest::GROUP) {
            self.remarks.warnings.push(FieldError::new(
                FieldPath::new("apiVersion"),
                "API groups are written in lower case: write kubevirt.io",
            ));
        }
    }

    /// Returns the name that a field of the instance has in the manifest.
    pub fn field_in_manifest(&self, field: &FieldPath) -> FieldPath {
        match field.as_str().strip_prefix("spec.") {
            Some(rest) if self.from_template => FieldPath::new("spec.template.spec").child(rest),
            _ => field.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use api::FieldPath;

    use super::Instance;

    const VM: &str = "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: m}\nspec:\n  running: true\n  flavour: x\n  template: {spec: {hostname: h}}\n";

    #[test]
    fn a_template_is_an_instance_whose_fields_keep_their_names() {
        let instance = Instance::from_text(VM, "f").unwrap();
        assert_eq!(instance.vmi.spec.hostname, "h");
        let field = FieldPath::new("spec.domain.cpu");
        assert_eq!(
            instance.field_in_manifest(&field).as_str(),
            "spec.template.spec.domain.cpu"
        );
        assert_eq!(
            instance
                .field_in_manifest(&FieldPath::new("metadata.name"))
                .as_str(),
            "metadata.name"
        );
        assert_eq!(instance.remarks.warnings[0].path.as_str(), "spec.flavour");
        assert_eq!(instance.remarks.notes[0].path.as_str(), "spec.running");
    }

    #[test]
    fn the_variable_holds_text_or_names_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.yaml");
        std::fs::write(&path, VM).unwrap();
        let from_file = Instance::from_variable(path.to_str().unwrap()).unwrap();
        assert_eq!(from_file, Instance::from_variable(VM).unwrap());
        let json = r#"{"apiVersion":"kubevirt.io/v1","kind":"VirtualMachineInstance","metadata":{"name":"j"}}"#;
        assert_eq!(
            Instance::from_variable(json).unwrap().vmi.metadata.name,
            "j"
        );
    }

    #[test]
    fn a_missing_file_several_machines_and_unreadable_text_are_one_line() {
        for (value, expected) in [
            (
                "/nonexistent/vm.yaml",
                "read the manifest /nonexistent/vm.yaml",
            ),
            ("", "STANDALONE_VMI: the manifest is empty"),
            (
                &format!("{VM}---\n{VM}"),
                "STANDALONE_VMI: it holds 2 machines",
            ),
        ] {
            let error = vmm::error_chain(&Instance::from_variable(value).unwrap_err());
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn an_identity_follows_from_namespace_and_name() {
        let uid = |text: &str| Instance::from_text(text, "f").unwrap().vmi.metadata.uid;
        assert_eq!(uid(VM), uid(VM));
        assert_ne!(
            uid(VM),
            uid(&VM.replace("name: m", "name: m, namespace: other"))
        );
    }
}
