//! `hawser versions`: every kept version of one object.

use hawser_api::v1::ObjectEntry;

use crate::Found;
use crate::address::{Address, KeyAddress};
use crate::args::VersionsArgs;
use crate::entry;
use crate::failure::Failure;
use crate::look;
use crate::print::{Align, Out, Table};
use crate::store::Store;
use crate::units;

pub(crate) async fn run(args: &VersionsArgs, out: &mut Out) -> Result<Found, Failure> {
    let mut store = Store::at(&args.store).await?;
    let versions = of(&mut store, &args.object, args.provider.as_deref()).await?;
    if versions.is_empty() {
        return Err(not_recorded(&args.object));
    }
    let mut table = Table::new(&[
        ("", Align::Left),
        ("RECORDED", Align::Left),
        ("TICK", Align::Right),
        ("SIZE", Align::Right),
        ("ETAG", Align::Left),
        ("VERSION", Align::Left),
        ("", Align::Left),
    ]);
    for version in &versions {
        if out.json() {
            out.object(&entry::shown(version))?;
            continue;
        }
        let cells = vec![
            if version.current { "*".into() } else { String::new() },
            units::time(version.recorded_unix),
            version.tick.to_string(),
            entry::size(version),
            entry::or_dash(&version.etag),
            entry::or_dash(&version.version_id),
            entry::note(version),
        ];
        table.row(out, cells)?;
    }
    table.print(out)?;
    out.flush()?;
    Ok(Found::Fine)
}

/// Every kept version of one object, the newest first.
pub(crate) async fn of(
    store: &mut Store,
    object: &KeyAddress,
    provider: Option<&str>,
) -> Result<Vec<ObjectEntry>, Failure> {
    let key = object.key.as_bytes();
    let address = Address { bucket: object.bucket.clone(), prefix: key.to_vec() };
    let mut stream = store.versions(look::request(&address, provider)).await?;
    let mut versions = Vec::new();
    while let Some(entry) = stream.message().await.map_err(|status| store.refused(status))? {
        if entry::key_bytes(&entry) != key {
            break; // longer keys follow
        }
        versions.push(entry);
    }
    Ok(versions)
}

/// For commands that wanted one object.
pub(crate) fn not_recorded(object: &KeyAddress) -> Failure {
    Failure::NotFound(format!(
        "{}/{} is not in the copy: hawser gaps tells what it is known not to know",
        object.bucket, object.key
    ))
}
