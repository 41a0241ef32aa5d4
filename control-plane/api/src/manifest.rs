//! Manifests: YAML or JSON text with one object or several.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::field::{FieldError, FieldPath};
use crate::vm::VirtualMachine;
use crate::vmi::Vmi;

/// API group of machines.
pub const GROUP: &str = "kubevirt.io";
/// Versions of [`GROUP`] that we read; they differ in nothing that we use.
pub const VERSIONS: [&str; 2] = ["v1", "v1alpha3"];
/// Group and version that we write.
pub const API_VERSION: &str = "kubevirt.io/v1";
/// Kind of [`Vmi`].
pub const VMI_KIND: &str = "VirtualMachineInstance";
/// Kind of [`VirtualMachine`].
pub const VM_KIND: &str = "VirtualMachine";

/// A manifest beyond this is no description of a machine; etcd's own limit is 1.5 MiB an object.
const MAX_TEXT_LEN: usize = 8 << 20;
/// Nodes of one manifest with its aliases expanded, which bounds what an alias bomb can make.
const MAX_NODES: usize = 200_000;
/// Documents of one manifest.
const MAX_DOCUMENTS: usize = 1000;
/// Nesting; Kubernetes objects stay below twenty.
const MAX_DEPTH: usize = 100;

/// An object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A machine.
    Vmi(Box<Vmi>),
    /// A machine that outlives its instances.
    Vm(Box<VirtualMachine>),
}

/// An object together with what was not understood of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The object.
    pub object: Object,
    /// Fields that no type of ours has.
    pub unknown_fields: Vec<FieldPath>,
}

/// Why a text is no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The text is too long.
    #[error("the manifest has {0} bytes: at most {MAX_TEXT_LEN} are read")]
    TooLong(usize),
    /// The text is neither YAML nor JSON, or exceeds the bounds on nesting and aliases.
    #[error("the manifest is not valid YAML or JSON: {0}")]
    Syntax(String),
    /// There is no object in the text.
    #[error(
        "the manifest is empty: it must hold a VirtualMachineInstance or a VirtualMachine of kubevirt.io/v1"
    )]
    Empty,
    /// A document isn't an object.
    #[error("document {document} of the manifest is not an object: it needs apiVersion and kind")]
    NotAnObject {
        /// Its number, from 1.
        document: usize,
    },
    /// A document has no kind or version.
    #[error("{field}: required in every object of a manifest: add `{field}: {example}`")]
    Untyped {
        /// `kind` or `apiVersion`.
        field: &'static str,
        /// A value that would do.
        example: &'static str,
    },
    /// A kind that we don't read.
    #[error(
        "kind: no matches for kind {kind:?} in version {api_version:?}: use VirtualMachineInstance or VirtualMachine of kubevirt.io/v1 or kubevirt.io/v1alpha3"
    )]
    UnknownKind {
        /// The kind.
        kind: String,
        /// The group and version.
        api_version: String,
    },
    /// A field holds something of the wrong type.
    #[error(transparent)]
    Field(FieldError),
}

/// Reads the objects of a manifest, YAML (several documents) or JSON.
///
/// # Errors
///
/// Fails on the first document that is no known object, naming the field.
pub fn parse_manifest(text: &str) -> Result<Vec<Document>, ManifestError> {
    let documents = documents(text)?;
    if documents.is_empty() {
        return Err(ManifestError::Empty);
    }
    documents
        .into_iter()
        .enumerate()
        .map(|(index, value)| document(index + 1, value))
        .collect()
}

/// Reads one `VirtualMachineInstance` from JSON, as it goes between node agent and launcher.
///
/// # Errors
///
/// Fails when the text is no JSON or a field holds something of the wrong type.
pub fn parse_vmi_json(json: &[u8]) -> Result<(Vmi, Vec<FieldPath>), ManifestError> {
    let value: Value =
        serde_json::from_slice(json).map_err(|error| ManifestError::Syntax(error.to_string()))?;
    typed(value)
}

/// Reads the documents of a manifest of any kinds, YAML or JSON; empty ones are left out.
///
/// # Errors
///
/// Fails when the text is neither, or exceeds the bounds on length, nesting and aliases.
pub fn documents(text: &str) -> Result<Vec<Value>, ManifestError> {
    if text.len() > MAX_TEXT_LEN {
        return Err(ManifestError::TooLong(text.len()));
    }
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(vec![value]);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_documents: MAX_DOCUMENTS,
            max_depth: MAX_DEPTH,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_NODES },
        with_snippet: false,
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| ManifestError::Syntax(one_line(&error.to_string())))?;
    Ok(documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn document(number: usize, value: Value) -> Result<Document, ManifestError> {
    if !value.is_object() {
        return Err(ManifestError::NotAnObject { document: number });
    }
    let api_version = type_field(&value, "apiVersion", "kubevirt.io/v1")?;
    let kind = type_field(&value, "kind", VMI_KIND)?;
    let known_version = api_version.split_once('/').is_some_and(|(group, version)| {
        group.eq_ignore_ascii_case(GROUP) && VERSIONS.contains(&version)
    });
    match kind.as_str() {
        VMI_KIND if known_version => {
            let (vmi, unknown_fields) = typed(value)?;
            Ok(Document {
                object: Object::Vmi(Box::new(vmi)),
                unknown_fields,
            })
        }
        VM_KIND if known_version => {
            let (vm, unknown_fields) = typed(value)?;
            Ok(Document {
                object: Object::Vm(Box::new(vm)),
                unknown_fields,
            })
        }
        _ => Err(ManifestError::UnknownKind { kind, api_version }),
    }
}

fn type_field(
    value: &Value,
    field: &'static str,
    example: &'static str,
) -> Result<String, ManifestError> {
    value
        .get(field)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .ok_or(ManifestError::Untyped { field, example })
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<(T, Vec<FieldPath>), ManifestError> {
    let mut track = serde_path_to_error::Track::new();
    let mut unknown_fields = Vec::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let result = serde_ignored::deserialize(tracked, |path| {
        unknown_fields.push(FieldPath::from(&path));
    });
    match result {
        Ok(object) => Ok((object, unknown_fields)),
        Err(error) => Err(ManifestError::Field(FieldError::new(
            FieldPath::new(&track.path().to_string()),
            error.to_string(),
        ))),
    }
}

#[cfg(test)]
mod tests;
