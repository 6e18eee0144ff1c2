//! Where manifests come from: a file, a folder of files, or a pod's folder, in which every binding has a subfolder
//! (its ConfigMap) and [`STAMPED_DIR`] has them as the webhook knew them, for as long as a ConfigMap has not arrived
//! or cannot be read by this release.

use std::path::{Path, PathBuf};

use hawser_api::CloudBinding;
use hawser_api::binding::{LoadError, load, load::parse, load_all};

use crate::pod::STAMPED_DIR;

const MANIFEST_FILE: &str = "binding.yaml";
const STAMPED_FILE: &str = "configuration.yaml";

/// One binding, and where its providers' roots are looked for.
pub(super) struct Manifest {
    pub(super) binding: CloudBinding,
    pub(super) folder: PathBuf,
    /// It is the webhook's: no roots are beside it.
    pub(super) stamped: bool,
}

/// Every binding of `path`, and why a part of it could not be used, where there was something in its place.
pub(super) fn manifests(path: &Path) -> Result<(Vec<Manifest>, Option<LoadError>), LoadError> {
    let subfolders = subfolders(path);
    if subfolders.is_empty() {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
        let of_file = |binding| Manifest { binding, folder: folder.to_owned(), stamped: false };
        return Ok((load_all(path)?.into_iter().map(of_file).collect(), None));
    }
    let mut failed = None;
    let mut found: Vec<Manifest> = Vec::new();
    for folder in subfolders.into_iter().filter(|folder| folder.join(MANIFEST_FILE).is_file()) {
        match load(&folder.join(MANIFEST_FILE)) {
            Ok(binding) => found.push(Manifest { binding, folder, stamped: false }),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match stamped(&path.join(STAMPED_DIR)) {
        Ok(stamped) => {
            for manifest in stamped {
                let same = |known: &Manifest| {
                    known.binding.name() == manifest.binding.name()
                        && known.binding.domain() == manifest.binding.domain()
                };
                if !found.iter().any(same) {
                    found.push(manifest);
                }
            }
        }
        Err(error) => failed = failed.or(Some(error)),
    }
    match failed {
        Some(error) if found.is_empty() => Err(error),
        None if found.is_empty() => Err(LoadError::Count { path: path.to_owned(), count: 0 }),
        failed => Ok((found, failed)),
    }
}

/// The files whose content makes the table, besides those in `path` itself.
pub(super) fn files(path: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in subfolders(path) {
        files.extend([folder.join(MANIFEST_FILE), folder.join(STAMPED_FILE)].into_iter().filter(|file| file.is_file()));
        files.extend(super::roots_in(&folder));
    }
    files
}

/// The subfolders of a pod's folder; none of another one's. Kubernetes keeps its own behind two dots.
fn subfolders(path: &Path) -> Vec<PathBuf> {
    let is_part = |folder: &PathBuf| {
        let hidden = folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && (folder.join(MANIFEST_FILE).is_file() || folder.join(STAMPED_FILE).is_file())
    };
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_part).collect();
    folders.sort();
    folders
}

/// What was stamped on the pod: documents one after the other. A pod that has none has nothing stamped.
fn stamped(folder: &Path) -> Result<Vec<Manifest>, LoadError> {
    let path = folder.join(STAMPED_FILE);
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(Vec::new()) };
    let documents = text.split("\n---\n").filter(|document| !document.trim().is_empty());
    let read = |document: &str| {
        let binding = parse(document).map_err(|violations| LoadError::Invalid { path: path.clone(), violations })?;
        Ok(Manifest { binding, folder: folder.to_owned(), stamped: true })
    };
    documents.map(read).collect()
}
