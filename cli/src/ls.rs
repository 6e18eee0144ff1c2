//! `hawser ls`: buckets, or the objects of one.

use hawser_api::v1::ObjectEntry;
use serde::Serialize;

use crate::Found;
use crate::address::Address;
use crate::args::LsArgs;
use crate::entry;
use crate::failure::Failure;
use crate::look;
use crate::print::{Align, Out, Table};
use crate::store::Store;
use crate::units;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bucket<'a> {
    bucket: &'a str,
    binding: &'a str,
    objects: u64,
    bytes: u64,
    created: Option<String>,
}

pub(crate) async fn run(args: &LsArgs, out: &mut Out) -> Result<Found, Failure> {
    let mut store = Store::at(&args.store).await?;
    match &args.address {
        None => buckets(&mut store, out).await?,
        Some(address) => objects(args, address, &mut store, out).await?,
    }
    out.flush()?;
    Ok(Found::Fine)
}

async fn buckets(store: &mut Store, out: &mut Out) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("OBJECTS", Align::Right),
        ("SIZE", Align::Right),
        ("BINDING", Align::Left),
        ("BUCKET", Align::Left),
    ]);
    for bucket in store.buckets().await?.buckets {
        if out.json() {
            let created = units::timestamp(bucket.created_unix);
            let (objects, bytes) = (bucket.objects, bucket.bytes);
            out.object(&Bucket { bucket: &bucket.name, binding: &bucket.binding, objects, bytes, created })?;
        } else {
            table.row(
                out,
                vec![units::count(bucket.objects), units::bytes(bucket.bytes), bucket.binding, bucket.name],
            )?;
        }
    }
    table.print(out)
}

async fn objects(args: &LsArgs, address: &Address, store: &mut Store, out: &mut Out) -> Result<(), Failure> {
    let mut listing = Listing::new(args.long);
    let limit = args.limit.unwrap_or(u64::MAX);
    if args.versions {
        let mut stream = store.versions(look::request(address, args.which.provider.as_deref())).await?;
        while listing.rows < limit {
            let Some(entry) = stream.message().await.map_err(|status| store.refused(status))? else { break };
            listing.show(&entry, out)?;
        }
    } else {
        let mut objects = look::objects(store, address, &args.which).await?;
        while listing.rows < limit {
            let Some(entry) = objects.next().await.map_err(|status| store.refused(status))? else { break };
            listing.show(&entry, out)?;
        }
    }
    listing.table.print(out)
}

/// The lines of a listing.
struct Listing {
    table: Table,
    long: bool,
    rows: u64,
}

impl Listing {
    fn new(long: bool) -> Listing {
        let short = [("SIZE", Align::Right), ("RECORDED", Align::Left), ("KEY", Align::Left), ("", Align::Left)];
        let details = [("TICK", Align::Right), ("ETAG", Align::Left), ("VERSION", Align::Left), ("TYPE", Align::Left)];
        let columns = if long { [&short[..2], &details[..], &short[2..]].concat() } else { short.to_vec() };
        Listing { table: Table::new(&columns), long, rows: 0 }
    }

    fn show(&mut self, version: &ObjectEntry, out: &mut Out) -> Result<(), Failure> {
        self.rows += 1;
        if out.json() {
            return out.object(&entry::shown(version));
        }
        let mut cells = vec![entry::size(version), units::time(version.recorded_unix)];
        if self.long {
            let headers = entry::headers(&version.metadata.clone().unwrap_or_default());
            let kind = headers.get("content-type").map(String::as_str).unwrap_or_default();
            cells.extend([
                version.tick.to_string(),
                entry::or_dash(&version.etag),
                entry::or_dash(&version.version_id),
                entry::or_dash(kind),
            ]);
        }
        let note = entry::note(version);
        cells.extend([entry::key(version).to_string(), if note.is_empty() { note } else { format!("({note})") }]);
        self.table.row(out, cells)
    }
}
