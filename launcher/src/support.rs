//! Which fields of an instance do something here. What is set and not listed is reported, so that
//! nothing is dropped in silence.

mod fields;

use api::vm::VirtualMachine;
use api::{FieldError, FieldPath, Vmi};
use serde_json::Value;

use fields::{VM_FIELDS, VMI_FIELDS};

/// What we make of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Support {
    /// It is honoured, or reported where it is read.
    Used,
    /// Only a cluster could honour it.
    Cluster,
    /// The machine has it always; only switching it off is worth a word.
    AlwaysOn,
    /// It is not honoured, which means what the text says.
    Missing(&'static str),
    /// It is not honoured, and a guest that asked for it would be another guest without it.
    Vital(&'static str),
    /// It is not honoured, and nobody would notice.
    Idle(&'static str),
}

/// What is to be said about the fields of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// Fields that would do something elsewhere and do nothing here.
    pub warnings: Vec<FieldError>,
    /// Fields without which the guest would not be what it is meant to be.
    pub refusals: Vec<FieldError>,
    /// Fields that mean something to a cluster only.
    pub notes: Vec<FieldError>,
}

/// Returns what is to be said about the fields that are set in an instance.
pub fn remarks(vmi: &Vmi) -> Remarks {
    walk_all(&serde_json::to_value(vmi).unwrap_or_default(), VMI_FIELDS)
}

/// Returns what is to be said about the fields of a virtual machine beside its template.
pub fn vm_remarks(vm: &VirtualMachine) -> Remarks {
    walk_all(&serde_json::to_value(vm).unwrap_or_default(), VM_FIELDS)
}

fn walk_all(value: &Value, table: &[(&str, Support)]) -> Remarks {
    let mut remarks = Remarks::default();
    walk(value, &FieldPath::new(""), "", table, &mut remarks);
    remarks
}

/// Descends to the fields that a row of the table speaks for. `pattern` is the path as the table
/// writes it.
fn walk(
    value: &Value,
    path: &FieldPath,
    pattern: &str,
    table: &[(&str, Support)],
    remarks: &mut Remarks,
) {
    if let Some((_, support)) = table.iter().find(|(row, _)| *row == pattern) {
        return remark(*support, value, path, remarks);
    }
    let leads_on = table.iter().any(|(row, _)| {
        row.strip_prefix(pattern)
            .is_some_and(|rest| pattern.is_empty() || rest.starts_with(['.', '[']))
    });
    match value {
        Value::Object(fields) if leads_on => {
            for (field, value) in fields {
                let deeper = if pattern.is_empty() {
                    field.clone()
                } else {
                    format!("{pattern}.{field}")
                };
                walk(value, &path.child(field), &deeper, table, remarks);
            }
        }
        Value::Array(elements) if leads_on => {
            for (index, value) in elements.iter().enumerate() {
                walk(
                    value,
                    &path.index(index),
                    &format!("{pattern}[]"),
                    table,
                    remarks,
                );
            }
        }
        _ => remark(
            Support::Missing("not supported yet: it has no effect"),
            value,
            path,
            remarks,
        ),
    }
}

fn remark(support: Support, value: &Value, path: &FieldPath, remarks: &mut Remarks) {
    match support {
        Support::Used => {}
        Support::Cluster => remarks.notes.push(FieldError::new(
            path.clone(),
            "has no effect without a cluster",
        )),
        Support::AlwaysOn if *value == Value::Bool(false) => {
            remarks.warnings.push(FieldError::new(
                path.clone(),
                "cannot be switched off yet: the machine has it",
            ));
        }
        Support::AlwaysOn => {}
        _ if asks_for_nothing(value) => {}
        Support::Missing(text) => remarks.warnings.push(FieldError::new(path.clone(), text)),
        Support::Vital(text) => remarks.refusals.push(FieldError::new(path.clone(), text)),
        Support::Idle(text) => remarks.notes.push(FieldError::new(path.clone(), text)),
    }
}

/// What is switched off asks for nothing.
fn asks_for_nothing(value: &Value) -> bool {
    let off = Value::Bool(false);
    *value == off || value.get("enabled") == Some(&off)
}

#[cfg(test)]
mod tests;
