//! Reads CloudBindings from files. What a person wrote wrongly is said with the file, the field, what is wrong there
//! and what is allowed.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

use super::rules::{self, Violation};
use super::{CloudBinding, CloudBindingSpec, CloudBindingStatus};

/// Bindings in one folder: far more than a pod or a machine has, far fewer than would be a mistake's folder.
const BINDINGS_MAX: usize = 100;

/// Why no binding could be had from a file or folder.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file or folder cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file is no CloudBinding, or one that breaks rules.
    #[error("{}: {}", path.display(), violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, at least one thing.
        violations: Vec<Violation>,
    },
    /// The folder has no manifests, or too many.
    #[error("{}: must hold 1 to {BINDINGS_MAX} files NAME.yaml or NAME.yml with a CloudBinding each, not {count}", path.display())]
    Count {
        /// The folder.
        path: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// Two files describe one binding.
    #[error("{} and {} are both CloudBinding {name}: remove one", first.display(), second.display())]
    Twice {
        /// Namespace and name.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
}

/// Reads one manifest, in YAML or JSON, and checks it.
///
/// # Errors
/// [`LoadError::Read`] and [`LoadError::Invalid`].
pub fn load(path: &Path) -> Result<CloudBinding, LoadError> {
    let text = fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(|violations| LoadError::Invalid { path: path.to_owned(), violations })
}

/// Reads a manifest, or every `*.yaml` and `*.yml` of a folder in the order of their names (hidden files left out).
///
/// # Errors
/// [`LoadError`] for the first file that cannot be used: bindings that share hosts are only right together.
pub fn load_all(path: &Path) -> Result<Vec<CloudBinding>, LoadError> {
    if !path.is_dir() {
        return load(path).map(|binding| vec![binding]);
    }
    let files = manifests(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    if files.is_empty() || files.len() > BINDINGS_MAX {
        return Err(LoadError::Count { path: path.to_owned(), count: files.len() });
    }
    let mut bindings: Vec<CloudBinding> = Vec::new();
    for (at, file) in files.iter().enumerate() {
        let binding = load(file)?;
        let same = |other: &CloudBinding| other.name() == binding.name() && other.domain() == binding.domain();
        if let Some(earlier) = bindings.iter().position(same) {
            let name = format!("{}/{}", binding.domain(), binding.name());
            return Err(LoadError::Twice { name, first: files[earlier].clone(), second: files[at].clone() });
        }
        bindings.push(binding);
    }
    Ok(bindings)
}

fn manifests(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
        if yaml && !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads and checks the text of a manifest.
///
/// # Errors
/// What is wrong with it: the first thing that cannot be read, or every rule that is broken.
pub fn parse(text: &str) -> Result<CloudBinding, Vec<Violation>> {
    let binding = read(text).map_err(|violation| vec![violation])?;
    let violations = rules::check(&binding);
    if violations.is_empty() { Ok(binding) } else { Err(violations) }
}

/// The manifest as a whole. The resource's own type lets unknown fields beside `spec` pass; this one does not.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: CloudBindingSpec,
    #[serde(default)]
    status: Option<CloudBindingStatus>,
}

fn read(text: &str) -> Result<CloudBinding, Violation> {
    let mut at = String::new();
    let manifest: Manifest = serde_saphyr::with_deserializer_from_str(text, |yaml| {
        serde_path_to_error::deserialize(yaml).map_err(|error| {
            at = error.path().to_string();
            error.into_inner()
        })
    })
    .map_err(|error| unreadable(&at, &error))?;
    let constants = [
        ("apiVersion", manifest.api_version, CloudBinding::api_version(&())),
        ("kind", manifest.kind, CloudBinding::kind(&())),
    ];
    for (field, is, must) in constants {
        if is != must {
            return Err(Violation { path: field.into(), value: Some(is), message: format!("must be {must}") });
        }
    }
    Ok(CloudBinding { metadata: manifest.metadata, spec: manifest.spec, status: manifest.status })
}

/// Words for what the YAML reader or serde refused at the place `at`.
fn unreadable(at: &str, error: &serde_saphyr::Error) -> Violation {
    use serde_saphyr::Error;
    let (field, said) = match error.without_snippet() {
        // The unknown field is the last part of the place already.
        Error::SerdeUnknownField { expected, .. } => {
            (None, format!("unknown field: must be one of {}", expected.join(", ")))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            (None, format!("invalid value {variant:?}: must be one of {}", expected.join(", ")))
        }
        Error::SerdeMissingField { field, .. } => (Some((*field).to_owned()), "must be there".to_owned()),
        Error::DuplicateMappingKey { key, .. } => (key.clone(), "must be there only once".to_owned()),
        Error::InvalidScalar { ty: "boolean", .. } => (None, "must be true or false".to_owned()),
        Error::InvalidScalar { ty: "u32", .. } => (None, "must be a whole number".to_owned()),
        Error::Message { msg, .. } => (None, msg.clone()),
        Error::MultipleDocuments { .. } => (None, "must be one document, not several".to_owned()),
        other => {
            let whole = other.to_string();
            let said = whole.split_once(" at line ").map_or(whole.as_str(), |(said, _)| said);
            (None, said.to_owned())
        }
    };
    let missing = matches!(error.without_snippet(), Error::SerdeMissingField { .. }); // its line is where the block ends
    let line =
        error.location().filter(|_| !missing).map(|place| format!(" (line {})", place.line())).unwrap_or_default();
    let place = at.trim_end_matches('?').trim_end_matches('.');
    let path =
        [place, field.as_deref().unwrap_or_default()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let path = if path.is_empty() { "manifest".to_owned() } else { path.join(".") };
    Violation { path, value: None, message: format!("{said}{line}") }
}
