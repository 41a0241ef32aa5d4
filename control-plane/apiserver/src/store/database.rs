//! The objects on disk: one table of objects, one of numbers, in one redb file.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Bytes;
use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::{Key, StoreError, Stored};

/// Format of the tables; another one is refused.
const FORMAT: u64 = 1;
/// Pages that redb keeps: all objects are in memory anyway, so it reads at start alone.
const CACHE_BYTES: usize = 4 << 20;

/// Resource, namespace and name to compact JSON.
const OBJECTS: TableDefinition<'_, (&str, &str, &str), &[u8]> = TableDefinition::new("objects");
/// `format` and `revision`, and under `resource/…` the revision of a resource's last change.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

/// What the database held when it was opened.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) revision: u64,
    /// Last change of each resource.
    pub(super) changed: BTreeMap<String, u64>,
    pub(super) objects: Vec<(String, Arc<Stored>)>,
}

/// A write of a transaction: an object, or its end.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) json: Option<Bytes>,
    pub(super) revision: u64,
}

#[derive(Debug)]
pub(super) struct Database {
    file: redb::Database,
}

impl Database {
    pub(super) fn open(path: &Path) -> Result<(Self, Loaded), StoreError> {
        let fail = |problem: String| StoreError::Open {
            path: PathBuf::from(path),
            problem,
        };
        if let Some(directory) = path.parent() {
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory);
            made.map_err(|error| fail(error.to_string()))?;
        }
        let mut builder = redb::Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let file = builder
            .create(path)
            .map_err(|error| fail(explain(&error)))?;
        let database = Self { file };
        let found = database.prepare().map_err(|error| fail(damaged(&error)))?;
        if found != FORMAT {
            return Err(StoreError::Format {
                path: path.into(),
                found,
                known: FORMAT,
            });
        }
        let loaded = database.load().map_err(|error| fail(damaged(&error)))?;
        Ok((database, loaded))
    }

    /// Makes the tables of a new database and returns the format.
    fn prepare(&self) -> Result<u64, redb::Error> {
        let transaction = self.file.begin_write()?;
        let format = {
            transaction.open_table(OBJECTS)?;
            let mut numbers = transaction.open_table(NUMBERS)?;
            let found = numbers.get("format")?.map(|it| it.value());
            match found {
                Some(format) => format,
                None => {
                    numbers.insert("format", FORMAT)?;
                    FORMAT
                }
            }
        };
        transaction.commit()?;
        Ok(format)
    }

    fn load(&self) -> Result<Loaded, redb::Error> {
        let transaction = self.file.begin_read()?;
        let mut loaded = Loaded::default();
        for row in transaction.open_table(NUMBERS)?.iter()? {
            let (name, number) = row?;
            match name.value().split_once('/') {
                Some(("resource", resource)) => {
                    loaded.changed.insert(resource.to_owned(), number.value());
                }
                _ if name.value() == "revision" => loaded.revision = number.value(),
                _ => {}
            }
        }
        for row in transaction.open_table(OBJECTS)?.iter()? {
            let (key, json) = row?;
            let (resource, namespace, name) = key.value();
            let object = Stored::read(Bytes::copy_from_slice(json.value())).map_err(|error| {
                redb::Error::Corrupted(format!("{resource} {namespace}/{name}: {error}"))
            })?;
            loaded.objects.push((resource.to_owned(), Arc::new(object)));
        }
        Ok(loaded)
    }

    /// Writes rows in one transaction, which is on disk when this returns.
    pub(super) fn commit(&self, rows: &[Row]) -> Result<(), redb::Error> {
        let transaction = self.file.begin_write()?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            let mut changed = BTreeMap::new();
            for row in rows {
                let Key {
                    resource,
                    namespace,
                    name,
                } = &row.key;
                let key = (resource.as_ref(), namespace.as_str(), name.as_str());
                match &row.json {
                    Some(json) => drop(objects.insert(key, json.as_ref())?),
                    None => drop(objects.remove(key)?),
                }
                changed.insert(format!("resource/{resource}"), row.revision);
            }
            let mut numbers = transaction.open_table(NUMBERS)?;
            for (name, revision) in &changed {
                numbers.insert(name.as_str(), revision)?;
            }
            if let Some(last) = rows.last() {
                numbers.insert("revision", last.revision)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn explain(error: &redb::DatabaseError) -> String {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => {
            "another process has it open; end that one first".to_owned()
        }
        other => damaged(other),
    }
}

fn damaged(error: &dyn std::error::Error) -> String {
    format!("{error}; when the file is damaged, put back a copy of it or remove it to begin anew")
}
