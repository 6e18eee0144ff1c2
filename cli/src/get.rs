//! `hawser get`: one object out of the copy.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use hawser_api::ObjectKey;
use hawser_api::v1::{GetObjectRequest, ObjectEntry, ObjectRef};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::Found;
use crate::address::{Address, KeyAddress};
use crate::args::GetArgs;
use crate::entry;
use crate::failure::Failure;
use crate::file_name;
use crate::landing::Landing;
use crate::look;
use crate::store::Store;
use crate::versions;

pub(crate) async fn run(args: &GetArgs) -> Result<Found, Failure> {
    let output = args.output.as_deref().filter(|path| *path != Path::new("-"));
    if args.output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "standard output is a terminal: give -o FILE, or -o - to see the bytes here".into(),
        ));
    }
    let mut store = Store::at(&args.store).await?;
    let Some(version) = find(&mut store, args).await? else { return Err(why_not(&mut store, args).await?) };
    let what = format!("{}/{}", args.object.bucket, args.object.key);
    if !version.content_known {
        return Err(Failure::NotFound(format!(
            "the content of {what} is not in the store: hawser-migrate backfill reads it"
        )));
    }
    if !version.gap.is_empty() {
        eprintln!("hawser: note: gap {} is open: this is the last version that is known for sure", version.gap);
    }
    let bar = bar(version.size, output.is_some());
    match output {
        Some(path) => {
            let mut landing = Landing::begin(&place(path, args)?)?;
            copy(&mut store, &version, &what, |bytes| {
                bar.inc(bytes.len() as u64);
                landing.write(bytes)
            })
            .await?;
            landing.land()?;
        }
        None => {
            let mut stdout = io::stdout().lock();
            copy(&mut store, &version, &what, |bytes| stdout.write_all(bytes).map_err(Failure::Output)).await?;
            stdout.flush().map_err(Failure::Output)?;
        }
    }
    bar.finish_and_clear();
    Ok(Found::Fine)
}

/// The version that is meant.
async fn find(store: &mut Store, args: &GetArgs) -> Result<Option<ObjectEntry>, Failure> {
    let key = args.object.key.as_bytes();
    if args.which.at.is_some() {
        let address = Address { bucket: args.object.bucket.clone(), prefix: key.to_vec() };
        let mut objects = look::objects(store, &address, &args.which).await?;
        let first = objects.next().await.map_err(|status| store.refused(status))?;
        return Ok(first.filter(|entry| entry::key_bytes(entry) == key));
    }
    let provider = args.which.provider.clone().unwrap_or_default();
    let found = store
        .object(GetObjectRequest {
            object: Some(ObjectRef { provider, bucket: String::new(), key: key.to_vec().into() }),
            version_id: args.version.clone().unwrap_or_default(),
            store_bucket: args.object.bucket.clone(),
            ..GetObjectRequest::default()
        })
        .await?;
    Ok(found.filter(|version| !entry::is_deleted(version)))
}

/// Why there is no such version: the object is deleted, or that version is unknown, or all of it is.
async fn why_not(store: &mut Store, args: &GetArgs) -> Result<Failure, Failure> {
    let KeyAddress { bucket, key } = &args.object;
    let kept = versions::of(store, &args.object, args.which.provider.as_deref()).await?;
    let current = kept.iter().find(|version| version.current);
    Ok(match current {
        _ if kept.is_empty() => versions::not_recorded(&args.object),
        Some(current) if entry::is_deleted(current) && args.version.is_none() && args.which.at.is_none() => {
            Failure::NotFound(format!("{bucket}/{key} is deleted: hawser versions shows what it was, --at reads it"))
        }
        _ => Failure::NotFound(format!("{bucket}/{key} has no such version: hawser versions shows which there are")),
    })
}

/// Reads a version's bytes into `take`, and sees that all of them came.
pub(crate) async fn copy(
    store: &mut Store,
    version: &ObjectEntry,
    what: &str,
    mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut body = store.body(version).await?;
    let mut sent = 0;
    while let Some(bytes) = body.next().await? {
        sent += bytes.len() as u64;
        take(&bytes)?;
    }
    if sent == version.size {
        Ok(())
    } else {
        Err(Failure::Short { what: what.to_owned(), announced: version.size, sent })
    }
}

/// `-o FOLDER` means a file in it, named as the last part of the key.
fn place(output: &Path, args: &GetArgs) -> Result<PathBuf, Failure> {
    if !output.is_dir() {
        return Ok(output.to_owned());
    }
    let last = args.object.key.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    file_name::path(output, &ObjectKey::from_bytes(last))
        .map_err(|error| Failure::Usage(format!("{}: {error}: give -o FILE", args.object.key)))
}

/// A bar on a terminal, nothing elsewhere.
pub(crate) fn bar(len: u64, wanted: bool) -> ProgressBar {
    let target = if wanted { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(
        "{msg}{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
    );
    ProgressBar::with_draw_target(Some(len), target).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
