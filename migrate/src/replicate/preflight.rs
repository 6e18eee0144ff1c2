//! Before the first byte: do the credentials work, are the buckets there and writable, which conditions does
//! this service honour, and what is not carried. What it finds is measured on scratch objects, not believed
//! from a list of services.
use std::collections::{BTreeMap, HashSet};

use aws_sdk_s3::primitives::SdkBody;
use futures::StreamExt;
use hawser_api::ObjectKey;
use hawser_api::v1;

use super::carry::Guards;
use crate::cloud::write::{Carried, Guard, Part, Written};
use crate::cloud::{Cloud, Fault, Place};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::run::Run;
use crate::store::refusal;

/// An ETag that no object of ours has.
const NO_ETAG: &str = "00000000000000000000000000000000";
/// Length of a scratch object.
const LEN: u64 = 6;

/// What is known of the target before the first byte.
#[derive(Debug, Default)]
pub struct Ready {
    /// Conditions that hold on a PUT.
    pub put: Guards,
    /// Conditions that hold on a Complete; deletes as with a PUT.
    pub complete: Guards,
    /// Whether a PUT takes tags along.
    pub tags_with_put: bool,
    /// Whether the beginning of an upload takes tags along.
    pub tags_with_upload: bool,
    /// The target's buckets of which the store has no record yet.
    pub fresh: HashSet<String>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// A bucket at the target.
struct Target {
    name: String,
    /// The store's name of it.
    stored: String,
    create: bool,
}

/// Looks at the target and probes it; a dry run writes nothing there.
pub async fn check(run: &Run, progress: &Progress, cloud: &Cloud) -> Result<Ready, Failure> {
    let mut ready = Ready { tags_with_put: true, tags_with_upload: true, ..Ready::default() };
    let mut probed = false;
    for target in targets(run, cloud).await? {
        let empty = match cloud.is_empty(&target.name).await {
            Ok(empty) => empty,
            Err(Fault::NoBucket) => create(run, progress, cloud, &target).await?,
            Err(fault) => return Err(fault.failure(&cloud.name, &target.name)),
        };
        let fresh = !has_records(run, cloud, &target).await?;
        if fresh {
            ready.fresh.insert(target.name.clone());
        }
        if run.dry_run {
            continue;
        }
        if !std::mem::replace(&mut probed, true) {
            probe(cloud, &target.name, &mut ready).await.map_err(|fault| unwritable(cloud, &target, fault))?;
        } else {
            let scratch = scratch(&target.name);
            let written =
                put(cloud, &scratch, &Guard::None).await.map_err(|fault| unwritable(cloud, &target, fault))?;
            clear(cloud, &scratch, vec![written], false).await;
        }
        let guarded = ready.put.create && ready.put.replace && ready.complete.create && ready.complete.replace;
        if !empty && fresh && !guarded && !run.unguarded {
            return Err(Failure::Usage(format!(
                "{} at {} is not empty and this service does not honour every conditional write: an object that \
                 somebody writes there meanwhile could be replaced: empty it, or say --unguarded",
                target.name, cloud.name
            )));
        }
        let versioning = cloud.versioning(&target.name).await;
        ready.notes.push(format!("{}: versioning at {} is {versioning}", target.name, cloud.name));
    }
    if !run.dry_run {
        ready.notes.push(guards(&ready));
    }
    ready.notes.push(
        "not carried: ACLs, storage classes, encryption, and the buckets' policy, lifecycle, CORS, notifications and lock"
            .to_owned(),
    );
    Ok(ready)
}

/// The buckets to write; those of a `*` are what the store has.
async fn targets(run: &Run, cloud: &Cloud) -> Result<Vec<Target>, Failure> {
    let bound = &run.binding.spec.buckets;
    let Some(every) = bound.iter().find(|bucket| bucket.is_every()) else {
        let target = |bucket: &hawser_api::binding::Bucket| Target {
            name: bucket.name_at(&cloud.name).to_owned(),
            stored: bucket.name.clone(),
            create: bucket.create,
        };
        return Ok(bound.iter().map(target).collect());
    };
    let request = v1::ListBucketsRequest { binding: run.binding.name().to_owned() };
    let reply = run.store.catalog.clone().list_buckets(request).await.map_err(refusal("list the store's buckets"))?;
    let target =
        |bucket: v1::BucketEntry| Target { name: bucket.name.clone(), stored: bucket.name, create: every.create };
    Ok(reply.into_inner().buckets.into_iter().map(target).collect())
}

/// Creates a missing bucket where the binding allows it; a new one is empty.
async fn create(run: &Run, progress: &Progress, cloud: &Cloud, target: &Target) -> Result<bool, Failure> {
    if !target.create {
        return Err(Failure::BucketMissing(format!(
            "provider {} has no bucket {}: create it, or set create: true for it in the binding",
            cloud.name, target.name
        )));
    }
    if run.dry_run {
        progress.note(&format!("bucket {} would be created at {}", target.name, cloud.name));
        return Ok(true);
    }
    cloud.create_bucket(&target.name).await.map_err(|fault| fault.failure(&cloud.name, &target.name))?;
    progress.note(&format!("created bucket {} at {}", target.name, cloud.name));
    Ok(true)
}

/// Whether the store ever recorded anything of this bucket at the target, deletes included.
async fn has_records(run: &Run, cloud: &Cloud, target: &Target) -> Result<bool, Failure> {
    let doing = "look for records of the target";
    let request = v1::ListObjectsRequest {
        bucket: target.stored.clone(),
        provider: cloud.identity.clone(),
        limit: 1,
        binding: run.binding.name().to_owned(),
        ..v1::ListObjectsRequest::default()
    };
    let versions = run.store.catalog.clone().list_versions(request).await;
    match versions {
        Ok(versions) => Ok(versions.into_inner().next().await.transpose().map_err(refusal(doing))?.is_some()),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(false),
        Err(status) => Err(refusal(doing)(status)),
    }
}

fn unwritable(cloud: &Cloud, target: &Target, fault: Fault) -> Failure {
    fault.failure(&cloud.name, &format!("write a scratch object into {}", target.name))
}

/// Measures on scratch objects what the service honours, and clears them away. A condition holds only where
/// the service takes it when it is true and refuses it when it is not.
async fn probe(cloud: &Cloud, bucket: &str, ready: &mut Ready) -> Result<(), Fault> {
    let (single, parts) = (scratch(bucket), scratch(bucket));
    let (mut written, mut uploaded) = (Vec::new(), Vec::new());
    let wrong = Guard::Is(NO_ETAG.to_owned());

    let taken = note(put(cloud, &single, &Guard::Absent).await, &mut written);
    if !taken {
        written.push(put(cloud, &single, &Guard::None).await?); // not even so: the bucket cannot be written
    }
    ready.put.create = taken && refused(put(cloud, &single, &Guard::Absent).await, &mut written);
    ready.put.replace = refused(put(cloud, &single, &wrong).await, &mut written)
        && note(put(cloud, &single, &Guard::Is(last(&written))).await, &mut written);

    let taken = note(multipart(cloud, &parts, &Guard::Absent).await, &mut uploaded);
    if !taken {
        uploaded.push(multipart(cloud, &parts, &Guard::None).await?);
    }
    ready.complete.create = taken && refused(multipart(cloud, &parts, &Guard::Absent).await, &mut uploaded);
    ready.complete.replace = refused(multipart(cloud, &parts, &wrong).await, &mut uploaded)
        && note(multipart(cloud, &parts, &Guard::Is(last(&uploaded))).await, &mut uploaded);

    // Of its own key: some services take no tags onto a delete marker.
    let (tags, mut tagged) = (scratch(bucket), Vec::new());
    let carried = Carried { headers: BTreeMap::new(), tags: probe_tags() };
    let took = note(cloud.put(&tags, body(), LEN, &carried, &Guard::None).await, &mut tagged);
    ready.tags_with_put = took && has_tags(cloud, &tags).await;
    let took = note(complete(cloud, &parts, &carried, &Guard::None).await, &mut uploaded);
    ready.tags_with_upload = took && has_tags(cloud, &parts).await;

    let kept = refused(cloud.delete(&single, &wrong).await, &mut written);
    let deleted = !kept || note(cloud.delete(&single, &Guard::Is(last(&written))).await, &mut written);
    (ready.put.delete, ready.complete.delete) = (kept && deleted, kept && deleted);

    clear(cloud, &single, written, deleted).await;
    clear(cloud, &parts, uploaded, false).await;
    clear(cloud, &tags, tagged, false).await;
    Ok(())
}

/// Whether a write went through; what it wrote is cleared away later.
fn note(outcome: Result<Written, Fault>, written: &mut Vec<Written>) -> bool {
    outcome.map(|answer| written.push(answer)).is_ok()
}

/// Whether a write was refused because of its condition.
fn refused(outcome: Result<Written, Fault>, written: &mut Vec<Written>) -> bool {
    let refused = matches!(outcome, Err(Fault::Precondition));
    note(outcome, written);
    refused
}

fn last(written: &[Written]) -> String {
    written.last().map(|written| written.etag.clone()).unwrap_or_default()
}

fn scratch(bucket: &str) -> Place {
    let key = format!(".hawser-probe-{}", uuid::Uuid::new_v4());
    Place { bucket: bucket.to_owned(), key: ObjectKey::from_bytes(key) }
}

fn probe_tags() -> BTreeMap<String, String> {
    BTreeMap::from([("hawser".to_owned(), "probe".to_owned())])
}

async fn has_tags(cloud: &Cloud, place: &Place) -> bool {
    matches!(cloud.tags(place).await, Ok(Some(tags)) if tags == probe_tags())
}

fn body() -> SdkBody {
    SdkBody::from("hawser")
}

async fn put(cloud: &Cloud, place: &Place, guard: &Guard) -> Result<Written, Fault> {
    cloud.put(place, body(), LEN, &Carried::default(), guard).await
}

async fn multipart(cloud: &Cloud, place: &Place, guard: &Guard) -> Result<Written, Fault> {
    complete(cloud, place, &Carried::default(), guard).await
}

async fn complete(cloud: &Cloud, place: &Place, carried: &Carried, guard: &Guard) -> Result<Written, Fault> {
    let upload = cloud.create_upload(place, carried).await?;
    let part: Part = cloud.upload_part(place, &upload, 1, body(), LEN).await?;
    let written = cloud.complete(place, &upload, &[part], LEN, guard).await;
    if written.is_err() {
        let _ = cloud.abort(place, &upload).await; // a scratch upload left behind is harmless
    }
    written
}

/// Deletes the scratch object, unless it is `deleted` already, and where the bucket keeps versions each of
/// them and the marker, newest first.
async fn clear(cloud: &Cloud, place: &Place, mut written: Vec<Written>, deleted: bool) {
    if !deleted {
        note(cloud.delete(place, &Guard::None).await, &mut written);
    }
    let versions = written.iter().rev().map(|written| written.version_id.as_str());
    for version in versions.filter(|version| !version.is_empty()) {
        let _ = cloud.delete_version(place, version).await; // a scratch version left behind is harmless
    }
}

fn guards(ready: &Ready) -> String {
    let word = |held: bool| if held { "yes" } else { "no" };
    format!(
        "guards that hold: PutObject If-None-Match {}, If-Match {}; CompleteMultipartUpload If-None-Match {}, \
         If-Match {}; DeleteObject If-Match {}",
        word(ready.put.create),
        word(ready.put.replace),
        word(ready.complete.create),
        word(ready.complete.replace),
        word(ready.put.delete)
    )
}
