//! From an object's key to a path on this machine, and nowhere else. A key is any bytes; a path made of it stays
//! below its folder, and two keys never share one.
//!
//! Parts between slashes become parts of the path. Written with `%`, as they cannot be a file's name: an empty part
//! is a lone `%`; `.` and `..` are `%2E` and `%2E%2E`; `%` is `%25`; control characters and NUL are `%` and two digits.
//! Where a key is a folder of other keys too, the *folder* has a lone `%` at its end.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use hawser_api::ObjectKey;

/// Bytes in one part of a path at most, on every usual file system.
const PART_LEN_MAX: usize = 255;

/// Why a key has no path here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPath {
    #[error("a part of the key is longer than the {PART_LEN_MAX} bytes that a file's name may have")]
    TooLong,
    #[error("look at {}", path.display())]
    Look {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The file below `folder` that `key` is in. Asks the folder which of the parts are files of other keys already:
/// keys come in order, so that `a` was written before `a/b`.
pub(crate) fn path(folder: &Path, key: &ObjectKey) -> Result<PathBuf, NoPath> {
    let mut parts: Vec<OsString> = key.as_bytes().split(|byte| *byte == b'/').map(part).collect::<Result<_, _>>()?;
    let last = parts.pop().unwrap_or_default();
    let mut path = folder.to_owned();
    for name in parts {
        let taken = path.join(&name);
        path = match taken.symlink_metadata() {
            Ok(found) if !found.is_dir() => {
                let mut beside = name;
                beside.push("%");
                if beside.len() > PART_LEN_MAX {
                    return Err(NoPath::TooLong);
                }
                path.join(beside)
            }
            Ok(_) => taken,
            Err(error) if error.kind() == io::ErrorKind::NotFound => taken,
            Err(source) => return Err(NoPath::Look { path: taken, source }),
        };
    }
    Ok(path.join(last))
}

/// One part of a path for one part of a key.
fn part(bytes: &[u8]) -> Result<OsString, NoPath> {
    let name = match bytes {
        b"" => b"%".to_vec(),
        b"." => b"%2E".to_vec(),
        b".." => b"%2E%2E".to_vec(),
        _ => {
            let mut name = Vec::with_capacity(bytes.len());
            for &byte in bytes {
                match byte {
                    b'%' => name.extend_from_slice(b"%25"),
                    0..0x20 | 0x7f => name.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                    _ => name.push(byte),
                }
            }
            name
        }
    };
    if name.len() > PART_LEN_MAX { Err(NoPath::TooLong) } else { Ok(OsString::from_vec(name)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_that_is_no_file_name_is_written_with_percent_signs() {
        let folder = tempfile::tempdir().unwrap();
        for (key, wanted) in [
            ("a/b.txt", "a/b.txt"),
            ("a//b", "a/%/b"),
            ("/a", "%/a"),
            ("dir/", "dir/%"),
            (".", "%2E"),
            ("../../etc/passwd", "%2E%2E/%2E%2E/etc/passwd"),
            ("a/./b", "a/%2E/b"),
            (".hidden", ".hidden"),
            ("...", "..."),
            ("%2F", "%252F"),
            ("100%", "100%25"),
            ("a\nb\0", "a%0Ab%00"),
            ("ä b+c", "ä b+c"),
        ] {
            let path = path(folder.path(), &ObjectKey::from_bytes(key)).unwrap();
            assert_eq!(path.strip_prefix(folder.path()).unwrap(), Path::new(wanted), "{key:?}");
        }
        assert!(matches!(path(folder.path(), &ObjectKey::from_bytes("x".repeat(256))), Err(NoPath::TooLong)));
    }

    #[test]
    fn a_key_below_another_key_goes_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "file").unwrap();
        let path = path(folder.path(), &ObjectKey::from_bytes("a/b")).unwrap();
        assert_eq!(path, folder.path().join("a%/b"));
    }

    proptest! {
        #[test]
        fn no_key_leaves_the_folder_and_no_two_share_a_path(keys in prop::collection::btree_set("[a/.%\\x00]{1,5}", 1..20)) {
            let folder = tempfile::tempdir().unwrap();
            let mut paths = BTreeSet::new();
            for key in &keys {
                let path = path(folder.path(), &ObjectKey::from_bytes(key.as_str())).unwrap();
                let below = path.strip_prefix(folder.path()).unwrap();
                prop_assert!(below.components().all(|part| matches!(part, Component::Normal(_))), "{key:?} {below:?}");
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, key).unwrap();
                prop_assert!(paths.insert(path), "{key:?}");
            }
        }
    }
}
