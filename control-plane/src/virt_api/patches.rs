//! JSON patches (RFC 6902) that apply only to the object that they were made from.

use json_patch::jsonptr::PointerBuf;
use json_patch::{
    AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation,
};
use serde_json::Value;

/// Operations on an object as it was read.
///
/// What is replaced is tested to be still what it was. Where nothing is that could be tested, the whole object is
/// tested to be unchanged, by its resource version: implementations differ on what a test of nothing means.
#[derive(Clone, Debug)]
pub(crate) struct Operations<'o> {
    object: &'o Value,
    operations: Vec<PatchOperation>,
}

impl<'o> Operations<'o> {
    /// Starts a patch of an object.
    pub(crate) fn on(object: &'o Value) -> Self {
        Self {
            object,
            operations: Vec::new(),
        }
    }

    /// Sets a field.
    pub(crate) fn change(mut self, pointer: &str, value: Value) -> Self {
        let path = path(pointer);
        match self.object.pointer(pointer) {
            Some(old) => {
                self.test(pointer, old.clone());
                let replace = ReplaceOperation { path, value };
                self.operations.push(PatchOperation::Replace(replace));
            }
            None => {
                self.test_version();
                let add = AddOperation { path, value };
                self.operations.push(PatchOperation::Add(add));
            }
        }
        self
    }

    /// Removes a field that is there.
    pub(crate) fn remove(mut self, pointer: &str) -> Self {
        if self.object.pointer(pointer).is_some() {
            let path = path(pointer);
            self.operations
                .push(PatchOperation::Remove(RemoveOperation { path }));
        }
        self
    }

    /// Requires a field to have a value.
    pub(crate) fn test(&mut self, pointer: &str, value: Value) {
        let path = path(pointer);
        self.operations
            .push(PatchOperation::Test(TestOperation { path, value }));
    }

    fn test_version(&mut self) {
        const VERSION: &str = "/metadata/resourceVersion";
        if let Some(version) = self.object.pointer(VERSION) {
            self.test(VERSION, version.clone());
        }
    }

    /// Returns the patch.
    pub(crate) fn patch(self) -> Patch {
        Patch(self.operations)
    }
}

/// Whether a field has a value.
pub(crate) fn is_set(object: &Value, pointer: &str) -> bool {
    object
        .pointer(pointer)
        .is_some_and(|value| !value.is_null())
}

/// Reads a pointer; ours are all well-formed.
pub(crate) fn path(pointer: &str) -> PointerBuf {
    PointerBuf::parse(pointer).expect("pointers in this crate begin with a slash")
}
