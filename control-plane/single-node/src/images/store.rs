//! The folder of the images.
//!
//! ```text
//! images.json      what there is; an image exists when it is here
//! lock             held while images.json and roots change
//! roots/<hex>/     files of an image, by the digest of its configuration; nobody changes them
//! blobs/<hex>      packed layers that were fetched of an image whose other layers are missing yet
//! work/<any>/      where an image is made; its `lock` is held by who makes it
//! ```
//!
//! Several processes may use the folder: `ferrovirt image` while `ferrovirt up` runs.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use super::digest::Digest;
use super::records::{Record, Records};
use super::{ImagesError, usage};

/// Fetched layers of an image that was never completed are kept this long.
const BLOB_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Store {
    path: PathBuf,
}

/// A place to make one image.
#[derive(Debug)]
pub(super) struct Work {
    folder: tempfile::TempDir,
    _lock: Flock<File>,
}

impl Work {
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the files of the image go.
    pub(super) fn root(&self) -> PathBuf {
        self.path().join("root")
    }
}

impl Store {
    /// Opens a folder, made where it is missing, and removes what a crash has left.
    pub(super) fn open(path: &Path) -> Result<Self, ImagesError> {
        let store = Self {
            path: path.to_owned(),
        };
        for folder in [path.to_owned(), store.roots(), store.blobs(), store.works()] {
            // Programs in images may have rights by their files, so nobody else gets at them.
            let made = DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder);
            made.map_err(ImagesError::file("make", &folder))?;
        }
        store.clean()?;
        Ok(store)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Files of an image.
    pub(super) fn root(&self, id: &Digest) -> PathBuf {
        self.roots().join(id.hex())
    }

    /// Where a fetched layer is.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Folder of fetched layers.
    pub(super) fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    fn roots(&self) -> PathBuf {
        self.path.join("roots")
    }

    fn works(&self) -> PathBuf {
        self.path.join("work")
    }

    /// Folder of the sandboxes of the same state, which tell what is in use.
    fn sandboxes(&self) -> PathBuf {
        self.path.with_file_name("sandboxes")
    }

    fn lock(&self) -> Result<Flock<File>, ImagesError> {
        let path = self.path.join("lock");
        let failed = ImagesError::file("lock", &path);
        take(&path, FlockArg::LockExclusive).map_err(failed)
    }

    pub(super) fn records(&self) -> Result<Records, ImagesError> {
        Records::read(&self.path).map_err(ImagesError::file(
            "read",
            &self.path.join(super::records::FILE),
        ))
    }

    fn write(&self, records: &Records) -> Result<(), ImagesError> {
        let failed = ImagesError::file("write", &self.path.join(super::records::FILE));
        records.write(&self.path).map_err(failed)
    }

    /// Begins to make an image.
    pub(super) fn work(&self) -> Result<Work, ImagesError> {
        let works = self.works();
        let make = || {
            let _nobody_cleans = self.lock();
            let folder = tempfile::Builder::new().prefix("").tempdir_in(&works)?;
            let lock = take(&folder.path().join("lock"), FlockArg::LockExclusiveNonblock)?;
            Ok(Work {
                folder,
                _lock: lock,
            })
        };
        make().map_err(ImagesError::file("make a folder in", &works))
    }

    /// Adds an image whose files are in the work's root; or only its names, when it is there already.
    pub(super) fn commit(&self, work: &Work, record: Record) -> Result<Record, ImagesError> {
        let _held = self.lock()?;
        let mut records = self.records()?;
        let root = self.root(&record.id);
        let id = record.id.clone();
        let is_there = records.images.iter().any(|it| it.id == id) && root.is_dir();
        if !is_there {
            let moved = remove_all(&root).and_then(|()| settle(&work.root(), &root));
            moved.map_err(ImagesError::file("make", &root))?;
        }
        records.add(record);
        self.write(&records)?;
        let found = records.images.into_iter().find(|it| it.id == id);
        Ok(found.expect("the image was just added"))
    }

    /// Gives an image that is there more names and digests.
    pub(super) fn name(&self, record: Record) -> Result<(), ImagesError> {
        let _held = self.lock()?;
        let mut records = self.records()?;
        records.add(record);
        self.write(&records)
    }

    /// Changes the records, and then removes the files of images that are in them no more.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut Records) -> Result<T, ImagesError>,
    ) -> Result<T, ImagesError> {
        let _held = self.lock()?;
        let mut records = self.records()?;
        let before: Vec<_> = records.images.iter().map(|it| it.id.clone()).collect();
        let changed = change(&mut records)?;
        self.write(&records)?;
        for id in before {
            if !records.images.iter().any(|it| it.id == id) {
                let root = self.root(&id);
                remove_all(&root).map_err(ImagesError::file("remove", &root))?;
            }
        }
        Ok(changed)
    }

    /// Returns the containers and volumes that use an image, as texts.
    pub(super) fn users(&self, id: &Digest) -> Vec<String> {
        usage::users(&self.sandboxes(), &self.root(id))
    }

    fn clean(&self) -> Result<(), ImagesError> {
        let _held = self.lock()?;
        let mut records = self.records()?;
        let count = records.images.len();
        records.images.retain(|it| {
            let is_kept = !it.names.is_empty() || !self.users(&it.id).is_empty();
            is_kept && self.root(&it.id).is_dir()
        });
        if records.images.len() != count {
            self.write(&records)?;
        }
        self.sweep(&records)
            .map_err(ImagesError::file("clean", &self.path))
    }

    /// Removes what belongs to no image.
    fn sweep(&self, records: &Records) -> io::Result<()> {
        for entry in fs::read_dir(self.roots())? {
            let entry = entry?;
            let name = entry.file_name();
            if !records.images.iter().any(|it| name == *it.id.hex()) {
                remove_all(&entry.path())?;
            }
        }
        for entry in fs::read_dir(self.works())? {
            let path = entry?.path();
            // The lock is free when who made the folder is gone.
            let free = take(&path.join("lock"), FlockArg::LockExclusiveNonblock);
            if free.is_ok() || !path.is_dir() {
                remove_all(&path)?;
            }
        }
        for entry in fs::read_dir(self.blobs())? {
            let entry = entry?;
            let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
            if age > BLOB_AGE_MAX {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn take(path: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    Flock::lock(file, how).map_err(|(_, error)| error.into())
}

/// Makes files last, and gives their folder its name.
fn settle(made: &Path, root: &Path) -> io::Result<()> {
    rustix::fs::syncfs(File::open(made)?)?;
    fs::rename(made, root)?;
    let parent = root.parent().unwrap_or(root);
    File::open(parent)?.sync_all()
}

/// Removes a folder with all that is in it, if there is one.
fn remove_all(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
