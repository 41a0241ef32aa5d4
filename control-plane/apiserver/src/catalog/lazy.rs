//! Schemas that are made when they are first needed: most kinds are never written to, and schemas are large.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::native::{self, Generate};
use crate::schema::Schema;

/// A [`Schema`] that is made at its first use; clones share it.
#[derive(Clone)]
pub struct LazySchema(Arc<Lazy>);

struct Lazy {
    source: Source,
    made: OnceLock<Arc<Schema>>,
}

/// Where a schema comes from.
pub(crate) enum Source {
    /// A schema that exists.
    Made,
    /// A type of k8s-openapi.
    Native(Generate),
    /// `openAPIV3Schema` of a custom resource definition, as JSON text, which takes less memory than its tree.
    Text(Box<str>),
}

impl LazySchema {
    /// Returns one that is made from the JSON text of a structural schema, which has been checked before: a text that
    /// is no schema allows anything.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self::new(Source::Text(text.into()))
    }

    pub(super) fn native(generate: Generate) -> Self {
        Self::new(Source::Native(generate))
    }

    /// Returns the schema.
    #[must_use]
    pub fn get(&self) -> &Arc<Schema> {
        self.0.made.get_or_init(|| self.0.source.schema())
    }

    /// Returns what it is made from.
    pub(crate) fn source(&self) -> &Source {
        &self.0.source
    }

    fn new(source: Source) -> Self {
        let made = OnceLock::new();
        Self(Arc::new(Lazy { source, made }))
    }
}

impl Source {
    fn schema(&self) -> Arc<Schema> {
        match self {
            Self::Made => Arc::new(Schema::anything()),
            Self::Native(generate) => native::schema(*generate),
            Self::Text(text) => Arc::new(of_objects(text)),
        }
    }
}

/// Returns a schema from a text, with the metadata that every object has.
fn of_objects(text: &str) -> Schema {
    let json = serde_json::from_str::<Value>(text).ok();
    let schema = json.and_then(|json| Schema::from_json(&json).ok());
    let mut schema = schema.unwrap_or_else(Schema::anything);
    // Its own rules on metadata can restrict the name alone, which few do.
    schema
        .properties
        .insert("metadata".to_owned(), native::object_meta());
    schema
}

impl From<Schema> for LazySchema {
    fn from(schema: Schema) -> Self {
        Self(Arc::new(Lazy {
            source: Source::Made,
            made: OnceLock::from(Arc::new(schema)),
        }))
    }
}

impl Default for LazySchema {
    fn default() -> Self {
        Schema::anything().into()
    }
}

impl Deref for LazySchema {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        self.get()
    }
}

impl fmt::Debug for LazySchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazySchema")
            .field("is_made", &self.0.made.get().is_some())
            .finish()
    }
}
