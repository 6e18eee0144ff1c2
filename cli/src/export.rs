//! `hawser export`: a bucket, or what is below a prefix, into a new folder.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use hawser_api::v1::ObjectEntry;
use serde::Serialize;

use crate::Found;
use crate::args::ExportArgs;
use crate::entry::{self, Key};
use crate::failure::{self, Failure};
use crate::file_name;
use crate::get;
use crate::landing::Landing;
use crate::look;
use crate::print::Out;
use crate::store::Store;
use crate::units;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Exported {
    bucket: String,
    #[serde(flatten)]
    key: Key,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(crate) async fn run(args: &ExportArgs, out: &mut Out) -> Result<Found, Failure> {
    let mut store = Store::at(&args.store).await?;
    vacant(&args.to)?;
    let mut objects = look::objects(&mut store, &args.address, &args.which).await?;
    fs::create_dir_all(&args.to).map_err(Failure::file("make", &args.to))?;
    let bar = indicatif::ProgressBar::new_spinner();
    if out.json() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    let (mut count, mut failed, mut len) = (0, 0, 0);
    while let Some(object) = objects.next().await.map_err(|status| store.refused(status))? {
        count += 1;
        bar.set_message(format!("{}, {}", units::counted(count, "object", "objects"), units::bytes(len)));
        bar.tick();
        let key = entry::key(&object);
        let written = write(&mut store, &object, args).await;
        match &written {
            Ok(_) => len += object.size,
            // Nothing that follows can be better: the disk, or the store itself.
            Err(failure) if is_final(failure) => {
                bar.finish_and_clear();
                return written.map(|_| Found::Fine);
            }
            Err(failure) => {
                failed += 1;
                bar.suspend(|| eprintln!("hawser: {}/{key}: {}", args.address.bucket, failure::chain(failure)));
            }
        }
        if out.json() {
            let (file, error) = match &written {
                Ok(file) => (Some(file.clone()), None),
                Err(failure) => (None, Some(failure::chain(failure))),
            };
            let bucket = args.address.bucket.clone();
            out.object(&Exported { bucket, key: Key::from(&key), size: object.size, file, error })?;
        }
    }
    bar.finish_and_clear();
    if !out.json() {
        let written = units::counted(count - failed, "object", "objects");
        out.line(&format!("{written}, {}, written to {}", units::bytes(len), args.to.display()))?;
    }
    out.flush()?;
    if failed > 0 {
        return Err(Failure::Some { failed, all: count, what: "objects could not be written" });
    }
    Ok(Found::Fine)
}

/// A folder that has something in it is refused: what is in the way, or leads elsewhere, is not ours.
fn vacant(folder: &Path) -> Result<(), Failure> {
    let first = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next(),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(source) => return Err(Failure::File { doing: "read", path: folder.to_owned(), source }),
    };
    match first {
        None => Ok(()),
        Some(_) => Err(Failure::Usage(format!("--to {} is not empty: name a new folder", folder.display()))),
    }
}

async fn write(store: &mut Store, object: &ObjectEntry, args: &ExportArgs) -> Result<String, Failure> {
    let key = entry::key(object);
    if !object.content_known {
        return Err(Failure::NotFound("its content is not in the store: hawser-migrate backfill reads it".into()));
    }
    let path = file_name::path(&args.to, &args.address.below(&key))
        .map_err(|error| Failure::NotFound(failure::chain(&error)))?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Failure::file("make", parent))?;
    }
    let mut landing = Landing::begin(&path)?;
    get::copy(store, object, &key.to_string(), |bytes| landing.write(bytes)).await?;
    landing.land()?;
    Ok(path.to_string_lossy().into_owned())
}

/// Whether every object after this one would fail the same way.
fn is_final(failure: &Failure) -> bool {
    match failure {
        Failure::Away { .. } => true,
        Failure::File { source, .. } => {
            matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::ReadOnlyFilesystem | ErrorKind::QuotaExceeded)
        }
        _ => false,
    }
}
