//! Reading the small files of a folder that a kubelet or a user filled.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::VolumeCause;

/// Reads a small file.
pub(super) fn read_bounded(path: &Path, limit_mib: u64) -> Result<Vec<u8>, VolumeCause> {
    let read = |source| VolumeCause::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    file.take((limit_mib << 20) + 1)
        .read_to_end(&mut bytes)
        .map_err(read)?;
    if bytes.len() as u64 > limit_mib << 20 {
        return Err(VolumeCause::TooLarge {
            path: path.to_owned(),
            limit_mib,
        });
    }
    Ok(bytes)
}

/// Reads the files of a folder, by name. What begins with two dots is the kubelet's own.
pub(super) fn read_files(
    folder: &Path,
    limit_mib: u64,
    cure: &'static str,
) -> Result<Vec<(String, Vec<u8>)>, VolumeCause> {
    if !folder.is_dir() {
        let path = folder.to_owned();
        return Err(VolumeCause::Absent { path, cure });
    }
    let read = |source| VolumeCause::Read {
        path: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        names.push(entry.map_err(read)?.file_name());
    }
    names.sort();
    let mut files = Vec::new();
    let mut total = 0;
    for name in names {
        let path = folder.join(&name);
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("..") || !path.is_file() {
            continue;
        }
        let bytes = read_bounded(&path, limit_mib)?;
        total += bytes.len() as u64;
        if total > limit_mib << 20 {
            return Err(VolumeCause::TooLarge {
                path: folder.to_owned(),
                limit_mib,
            });
        }
        files.push((name, bytes));
    }
    Ok(files)
}
