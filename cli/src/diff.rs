//! `hawser diff`: the records of two providers, or the copy and a folder.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hawser_api::ObjectKey;
use hawser_api::v1::{Metadata, ObjectEntry};
use serde::Serialize;

use crate::Found;
use crate::args::{DiffArgs, Which};
use crate::entry::{self, Key};
use crate::failure::{self, Failure};
use crate::file_name;
use crate::get;
use crate::look::{self, Objects};
use crate::print::Out;
use crate::store::{Body, Store};
use crate::units;

/// How the two sides differ in one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Difference {
    OnlyFirst,
    OnlySecond,
    Content,
    Metadata,
    /// One side's content is not in the store: it cannot be compared.
    Unknown,
}

impl Difference {
    fn sign(self) -> char {
        match self {
            Difference::OnlyFirst => '-',
            Difference::OnlySecond => '+',
            Difference::Content => '!',
            Difference::Metadata => '~',
            Difference::Unknown => '?',
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(flatten)]
    key: Key,
    difference: Difference,
    detail: &'a str,
}

/// What was compared so far.
struct Report<'a> {
    out: &'a mut Out,
    same: u64,
    different: u64,
}

impl Report<'_> {
    fn told(&mut self, key: &ObjectKey, found: Option<(Difference, String)>) -> Result<(), Failure> {
        let Some((difference, detail)) = found else {
            self.same += 1;
            return Ok(());
        };
        self.different += 1;
        if self.out.json() {
            return self.out.object(&Line { key: Key::from(key), difference, detail: &detail });
        }
        self.out.line(&format!("{} {key}  ({detail})", difference.sign()))
    }

    fn end(self) -> Result<Found, Failure> {
        if !self.out.json() {
            let same = units::counted(self.same, "object is", "objects are");
            let different = units::counted(self.different, "difference", "differences");
            self.out.line(&format!("{same} the same, {different}"))?;
        }
        self.out.flush()?;
        Ok(if self.different == 0 { Found::Fine } else { Found::Differences })
    }
}

pub(crate) async fn run(args: &DiffArgs, out: &mut Out) -> Result<Found, Failure> {
    let mut store = Store::at(&args.store).await?;
    let mut report = Report { out, same: 0, different: 0 };
    match (&args.with, &args.folder) {
        (Some(provider), _) => providers(args, provider, &mut store, &mut report).await?,
        (None, Some(folder)) => with_folder(args, folder, &mut store, &mut report).await?,
        (None, None) => return Err(Failure::Usage("give --with NAME or --folder FOLDER".into())),
    }
    report.end()
}

/// Goes through both sides in the order of their keys.
async fn providers(args: &DiffArgs, with: &str, store: &mut Store, report: &mut Report<'_>) -> Result<(), Failure> {
    let second = Which { provider: Some(with.to_owned()), at: args.which.at };
    let mut left = look::objects(store, &args.address, &args.which).await?;
    let mut right = look::objects(store, &args.address, &second).await?;
    let (mut a, mut b) = (next(store, &mut left).await?, next(store, &mut right).await?);
    loop {
        let order = match (&a, &b) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => entry::key_bytes(a).cmp(entry::key_bytes(b)),
        };
        if let (Some(a), Some(b), Ordering::Equal) = (&a, &b, order) {
            let found = compare(store, a, b).await?;
            report.told(&entry::key(a), found)?;
        } else if let (Some(a), Ordering::Less) = (&a, order) {
            report.told(&entry::key(a), Some((Difference::OnlyFirst, entry::size(a))))?;
        } else if let (Some(b), Ordering::Greater) = (&b, order) {
            report.told(&entry::key(b), Some((Difference::OnlySecond, entry::size(b))))?;
        }
        if order.is_le() {
            a = next(store, &mut left).await?;
        }
        if order.is_ge() {
            b = next(store, &mut right).await?;
        }
    }
}

async fn next(store: &Store, objects: &mut Objects) -> Result<Option<ObjectEntry>, Failure> {
    objects.next().await.map_err(|status| store.refused(status))
}

async fn compare(store: &mut Store, a: &ObjectEntry, b: &ObjectEntry) -> Result<Option<(Difference, String)>, Failure> {
    if a.size != b.size {
        return Ok(Some((Difference::Content, format!("{} and {}", units::bytes(a.size), units::bytes(b.size)))));
    }
    if !a.content_known || !b.content_known {
        let which = if a.content_known { "second" } else { "first" };
        return Ok(Some((Difference::Unknown, format!("content of the {which} is not in the store"))));
    }
    // Equal names of content are equal content. Unequal ones may come from blocks that were cut elsewhere.
    let same = !a.content.is_empty() && a.content == b.content || same_bytes(store, a, b).await?;
    if !same {
        return Ok(Some((Difference::Content, format!("both {}", units::bytes(a.size)))));
    }
    let differing =
        differing_metadata(&a.metadata.clone().unwrap_or_default(), &b.metadata.clone().unwrap_or_default());
    Ok((!differing.is_empty()).then(|| (Difference::Metadata, differing.join(", "))))
}

async fn same_bytes(store: &mut Store, a: &ObjectEntry, b: &ObjectEntry) -> Result<bool, Failure> {
    let (mut a, mut b) = (store.body(a).await?, store.body(b).await?);
    let (mut of_a, mut of_b) = (Bytes::new(), Bytes::new());
    loop {
        of_a = refill(&mut a, of_a).await?;
        of_b = refill(&mut b, of_b).await?;
        let len = of_a.len().min(of_b.len());
        if len == 0 {
            return Ok(of_a.len() == of_b.len());
        }
        if of_a.split_to(len) != of_b.split_to(len) {
            return Ok(false);
        }
    }
}

/// What is left, or the next bytes; empty at the end.
async fn refill(body: &mut Body, mut left: Bytes) -> Result<Bytes, Failure> {
    while left.is_empty() {
        match body.next().await? {
            Some(bytes) => left = bytes,
            None => break,
        }
    }
    Ok(left)
}

/// Headers that an application sets, and that go along when an object moves. Others belong to the service.
const OWN_HEADERS: [&str; 7] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-website-redirect-location",
];

/// Names of the headers and tags that differ, as far as both sides know theirs.
fn differing_metadata(a: &Metadata, b: &Metadata) -> Vec<String> {
    let own = |metadata: &Metadata| {
        let mut headers = entry::headers(metadata);
        headers.retain(|name, _| OWN_HEADERS.contains(&name.as_str()) || name.starts_with("x-amz-meta-"));
        headers
    };
    let mut differing = Vec::new();
    if a.headers_known && b.headers_known {
        let (a, b) = (own(a), own(b));
        let mut names: Vec<&String> = a.keys().chain(b.keys()).filter(|name| a.get(*name) != b.get(*name)).collect();
        names.sort();
        names.dedup();
        differing.extend(names.into_iter().cloned());
    }
    if a.tags_known && b.tags_known && a.tags != b.tags {
        differing.push("tags".into());
    }
    differing
}

/// Compares with a folder as `export` writes it. Holds the paths that were met, to tell which files are more.
async fn with_folder(
    args: &DiffArgs,
    folder: &Path,
    store: &mut Store,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    if !folder.is_dir() {
        return Err(Failure::Usage(format!("--folder {}: must be a folder", folder.display())));
    }
    let mut met: HashSet<PathBuf> = HashSet::new();
    let mut objects = look::objects(store, &args.address, &args.which).await?;
    while let Some(object) = next(store, &mut objects).await? {
        let key = entry::key(&object);
        let found = match file_name::path(folder, &args.address.below(&key)) {
            Err(error) => Some((Difference::OnlyFirst, failure::chain(&error))),
            Ok(path) => {
                let found = with_file(store, &object, &key, &path).await?;
                met.insert(path);
                found
            }
        };
        report.told(&key, found)?;
    }
    let mut more = Vec::new();
    files(folder, &mut more).map_err(Failure::file("read", folder))?;
    more.retain(|path| !met.contains(path));
    more.sort();
    for path in more {
        let below = path.strip_prefix(folder).unwrap_or(&path).as_os_str().as_encoded_bytes();
        report.told(&ObjectKey::from_bytes(below), Some((Difference::OnlySecond, "file".into())))?;
    }
    Ok(())
}

async fn with_file(
    store: &mut Store,
    object: &ObjectEntry,
    key: &ObjectKey,
    path: &Path,
) -> Result<Option<(Difference, String)>, Failure> {
    let found = match path.symlink_metadata() {
        Ok(found) if found.is_file() => found,
        Ok(_) => return Ok(Some((Difference::OnlyFirst, "no file there".into()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Some((Difference::OnlyFirst, entry::size(object))));
        }
        Err(source) => return Err(Failure::File { doing: "read", path: path.to_owned(), source }),
    };
    if found.len() != object.size {
        let sizes = format!("{} and {}", units::bytes(object.size), units::bytes(found.len()));
        return Ok(Some((Difference::Content, sizes)));
    }
    if !object.content_known {
        return Ok(Some((Difference::Unknown, "content of the first is not in the store".into())));
    }
    let mut file = File::open(path).map_err(Failure::file("read", path))?;
    let (mut same, mut buffer) = (true, Vec::new());
    get::copy(store, object, &key.to_string(), |bytes| {
        if same {
            buffer.resize(bytes.len(), 0);
            same = file.read_exact(&mut buffer).map_err(Failure::file("read", path)).map(|()| buffer == bytes)?;
        }
        Ok(())
    })
    .await?;
    Ok((!same).then(|| (Difference::Content, format!("both {}", units::bytes(object.size)))))
}

/// Every file below a folder; links are not followed.
fn files(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for item in fs::read_dir(folder)? {
        let item = item?;
        if item.file_type()?.is_dir() { files(&item.path(), found)? } else { found.push(item.path()) }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hawser_api::v1::Header;

    use super::*;

    fn metadata(headers: &[(&str, &str)], tags: &[(&str, &str)]) -> Metadata {
        let header = |(name, value): &(&str, &str)| Header { name: (*name).into(), value: (*value).to_owned().into() };
        Metadata {
            headers: headers.iter().map(header).collect(),
            tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            headers_known: true,
            tags_known: true,
            ..Metadata::default()
        }
    }

    #[test]
    fn what_an_application_set_is_compared_and_what_a_service_added_is_not() {
        let a = metadata(&[("content-type", "a/b"), ("etag", "1"), ("x-amz-meta-x", "1")], &[("t", "1")]);
        assert_eq!(differing_metadata(&a, &a), [""; 0]);
        let b = metadata(&[("content-type", "a/b"), ("etag", "2"), ("x-amz-meta-x", "1")], &[("t", "1")]);
        assert_eq!(differing_metadata(&a, &b), [""; 0]);
        let b = metadata(&[("content-type", "a/c"), ("x-amz-meta-y", "1")], &[]);
        assert_eq!(differing_metadata(&a, &b), ["content-type", "x-amz-meta-x", "x-amz-meta-y", "tags"]);
        assert_eq!(differing_metadata(&a, &Metadata::default()), [""; 0], "what is not known does not differ");
    }
}
