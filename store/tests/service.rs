//! A real server and a real client: what a sidecar tells is there to be read, and nothing else is.
#![allow(clippy::unwrap_used)]

#[path = "service/harness.rs"]
mod harness;

use std::time::{Duration, Instant};

use hawser_api::v1::control_up::Message as Up;
use hawser_api::v1::receipt::Verdict;
use hawser_api::{BlockHash, v1};
use tonic::Code;

use harness::{A, B, BLOCK, Server, accepted, body, hello, metadata, noise, object, put_of, recorded};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_can_be_listed_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut session = client.session(hello("photos", 1)).await.unwrap();
    assert_eq!((&*session.welcome.provider_in_force, &*session.welcome.provider_identity), ("a", A));

    let large = noise(1, 5 * BLOCK / 2);
    let blocks: Vec<&[u8]> = large.chunks(BLOCK).collect();
    assert_eq!(client.offer(&blocks).await, [1, 1, 1]);
    let tick = accepted(session.put(object(A, "photos", "dir//large"), &large, "e1").await);
    assert_eq!(client.offer(&blocks).await, [0, 0, 0], "they are durable with their record");
    accepted(session.put(object(A, "photos", "dir/small"), b"hello", "e2").await);
    accepted(session.put(object(A, "photos", "empty"), b"", "e3").await);

    let listed = client.list("photos").await.unwrap();
    let keys: Vec<&[u8]> = listed.iter().map(|entry| &*entry.object.as_ref().unwrap().key).collect();
    assert_eq!(keys, [&b"dir//large"[..], b"dir/small", b"empty"]);
    assert_eq!((listed[0].size, &*listed[0].etag, listed[0].tick), (large.len() as u64, "e1", tick));
    assert_eq!(listed[0].metadata.as_ref().unwrap(), &metadata("text/plain"));
    assert_eq!(client.read(&listed[0], 0, 0).await.unwrap(), large);
    let (from, len) = (BLOCK as u64 - 3, 10);
    assert_eq!(client.read(&listed[0], from, len).await.unwrap(), large[BLOCK - 3..BLOCK + 7]);
    assert_eq!(client.read(&listed[1], 0, 0).await.unwrap(), b"hello");
    assert_eq!(client.read(&listed[2], 0, 0).await.unwrap(), b"");
    assert!(client.gaps().await.is_empty());

    let status = client.catalog().status(v1::StatusRequest::default()).await.unwrap().into_inner();
    assert_eq!((status.bindings[0].objects, status.bindings[0].sessions), (3, 1));
    assert_eq!(status.logical_bytes, large.len() as u64 + 5);
    assert_eq!(status.unique_bytes, large.len() as u64 + 5);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_is_told_soon_after_its_commit() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut writer = client.session(hello("photos", 1)).await.unwrap();
    let mut other = client.session(hello("photos", 2)).await.unwrap();
    let tick = accepted(writer.put(object(A, "photos", "k"), b"1", "e1").await);
    let since = Instant::now();
    other.hear_tick(tick).await;
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_told_again_after_a_restart_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut session = client.session(hello("photos", 1)).await.unwrap();
    let (head, answer) = (session.stamp(), session.stamp());
    let put = recorded(0, put_of(object(A, "photos", "k"), body(b"one"), "e1"), head, answer);
    accepted(session.say(put.clone()).await);
    server.stop().await;

    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut session = client.session(hello("photos", 1)).await.unwrap();
    assert_eq!(session.welcome.last_sequence, 1);
    session.resend(1, put).await;
    accepted(session.receipt(1).await);
    assert_eq!(client.versions("photos").await.len(), 1);
    let entry = client.get("photos", "k").await.unwrap();
    assert_eq!(client.read(&entry, 0, 0).await.unwrap(), b"one");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_domains_see_nothing_of_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let (shop, bank) = (server.client("shop").await, server.client("bank").await);
    let content = noise(3, BLOCK);
    shop.offer(&[&content]).await;
    let mut session = shop.session(hello("photos", 1)).await.unwrap();
    accepted(session.put(object(A, "photos", "k"), &content, "e1").await);
    let entry = shop.get("photos", "k").await.unwrap();

    assert_eq!(bank.list("photos").await.unwrap_err().code(), Code::NotFound);
    let mut theirs = bank.session(hello("photos", 1)).await.unwrap();
    assert_eq!(theirs.welcome.last_sequence, 0, "sessions are a domain's own");
    assert!(bank.list("photos").await.unwrap().is_empty());
    assert_eq!(bank.read(&entry, 0, 0).await.unwrap_err().code(), Code::NotFound);
    // Whoever shows a hash of another domain's block has not got the block.
    let verdict = theirs.put(object(A, "photos", "k"), &content, "e1").await;
    assert!(matches!(verdict, Verdict::Missing(_)), "{verdict:?}");
    assert_eq!(bank.offer(&[&content]).await, [1]);
    let status = bank.catalog().status(v1::StatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(status.bindings.len(), 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_blocks_are_not_there_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut session = client.session(hello("photos", 1)).await.unwrap();
    let content = noise(4, 2 * BLOCK);
    client.offer(&[&content[..BLOCK]]).await;
    match session.put(object(A, "photos", "k"), &content, "e1").await {
        Verdict::Missing(missing) => assert_eq!(&*missing.hashes, BlockHash::of(&content[BLOCK..]).as_bytes()),
        other => panic!("{other:?}"),
    }
    assert!(client.list("photos").await.unwrap().is_empty());
    let gaps = client.await_gaps(&["MissingBlocks"]).await;
    assert_eq!((&*gaps[0].etag, &*gaps[0].scope), ("e1", "Key"));
    // A later write, begun after the gap was over, is all there is to know.
    session.hear_tick(gaps[0].end_tick).await;
    accepted(session.put(object(A, "photos", "k"), b"later", "e2").await);
    client.await_gaps(&[]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_bindings_own_buckets_are_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut session = client.session(hello("photos", 1)).await.unwrap();
    for foreign in [object(A, "films", "k"), object("s3+https://c.test", "photos", "k")] {
        let verdict = session.put(foreign, b"x", "e").await;
        assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}");
    }
    assert!(client.gaps().await.is_empty());

    let mut same_bucket = hello("others", 2);
    same_bucket.buckets = hello("photos", 2).buckets;
    let refused = client.session(same_bucket).await.err().unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("Conflict"), "{}", refused.message());
    let mut other_size = hello("photos", 2);
    other_size.block_size *= 2;
    assert!(client.session(other_size).await.err().unwrap().message().contains("immutable"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_sidecar_vanished_is_a_gap_until_its_record_comes() {
    let dir = tempfile::tempdir().unwrap();
    let lease = ["--session-lease", "500ms"];
    let server = Server::start(dir.path(), &lease).await;
    let client = server.client("shop").await;
    let mut session = client.session(hello("photos", 1)).await.unwrap();
    let head = session.stamp();
    let intent = v1::Intent {
        operation: 7,
        object: Some(object(A, "photos", "k")),
        kind: "put".into(),
        head,
        ..v1::Intent::default()
    };
    accepted(session.say(Up::Intent(intent)).await);
    let status = client.catalog().status(v1::StatusRequest::default()).await.unwrap().into_inner();
    assert_eq!(status.bindings[0].open_intents, 1);
    drop(session);
    // Its lease starts anew with the store.
    server.stop().await;
    let server = Server::start(dir.path(), &lease).await;
    let client = server.client("shop").await;
    let gaps = client.await_gaps(&["IntentLost"]).await;
    assert_eq!((&*gaps[0].object.as_ref().unwrap().key, &*gaps[0].binding), (&b"k"[..], "photos"));

    let mut session = client.session(hello("photos", 1)).await.unwrap();
    let answer = session.stamp();
    accepted(session.say(recorded(7, put_of(object(A, "photos", "k"), body(b"x"), "e"), head, answer)).await);
    client.await_gaps(&[]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_writers_are_in_doubt_until_a_sighting_decides() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut one = client.session(hello("photos", 1)).await.unwrap();
    let mut two = client.session(hello("photos", 2)).await.unwrap();
    let key = || object(A, "photos", "k");
    let tick = accepted(one.put(key(), b"before", "e0").await);
    one.hear_tick(tick).await;
    two.hear_tick(tick).await;

    let (first, second) = (one.stamp(), two.stamp());
    accepted(one.put_since(key(), b"one", "e1", first).await);
    let tick = accepted(two.put_since(key(), b"two", "e2", second).await);
    client.await_gaps(&["Concurrent"]).await;
    let shown = client.get("photos", "k").await.unwrap();
    assert_eq!((&*shown.etag, &*shown.gap), ("e0", "Concurrent"), "the last version before both");

    one.hear_tick(tick).await;
    accepted(one.head(key(), "e1").await);
    client.await_gaps(&[]).await;
    let shown = client.get("photos", "k").await.unwrap();
    assert_eq!((&*shown.etag, &*shown.gap), ("e1", ""));
    assert_eq!(client.read(&shown, 0, 0).await.unwrap(), b"one");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_waits_for_its_settling_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--settle", "2s"]).await;
    let client = server.client("shop").await;
    let mut session = client.session(hello("photos", 1)).await.unwrap();
    let key = || object(A, "photos", "k");
    accepted(session.put(key(), b"before", "e0").await);
    let (head, end) = (session.stamp(), session.stamp());
    let gap = v1::GapFound {
        scope: "Key".into(),
        object: Some(key()),
        reason: "OutcomeUnknown".into(),
        head,
        end,
        ..v1::GapFound::default()
    };
    let tick = accepted(session.say(Up::Gap(gap)).await);
    session.hear_tick(tick).await;
    let tick = accepted(session.head(key(), "e0").await);
    assert_eq!(client.gaps().await.len(), 1, "a HEAD at once proves nothing");
    session.hear_tick(tick + 1).await; // nothing else commits: this is the word that it has settled
    accepted(session.head(key(), "e0").await);
    client.await_gaps(&[]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_waits_for_a_part_that_is_on_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut one = client.session(hello("photos", 1)).await.unwrap();
    let mut two = client.session(hello("photos", 2)).await.unwrap();
    let key = || Some(object(A, "photos", "big"));
    let create = v1::CreateUpload { object: key(), upload_id: "u".into(), metadata: Some(metadata("image/png")) };
    let (head, answer) = (one.stamp(), one.stamp());
    accepted(one.say(recorded(0, v1::write::Change::CreateUpload(create), head, answer)).await);

    let contents = [noise(1, BLOCK + 100), noise(2, 50)];
    client.offer(&contents[0].chunks(BLOCK).collect::<Vec<_>>()).await;
    let part = |number: usize| {
        v1::write::Change::Part(v1::UploadPart {
            object: key(),
            upload_id: "u".into(),
            part_number: number as u32,
            body: Some(body(&contents[number - 1])),
            etag: format!("p{number}"),
        })
    };
    let (head, answer) = (one.stamp(), one.stamp());
    accepted(one.say(recorded(0, part(1), head, answer)).await);
    let late = two.stamp();
    let intent = v1::Intent {
        operation: 1,
        object: key(),
        kind: "part".into(),
        head: late,
        upload_id: "u".into(),
        part_number: 2,
        ..v1::Intent::default()
    };
    accepted(two.say(Up::Intent(intent)).await);

    let listed = |number: u32| v1::CompletedPart { part_number: number, etag: format!("p{number}") };
    let complete = v1::CompleteUpload {
        object: key(),
        upload_id: "u".into(),
        parts: vec![listed(1), listed(2)],
        etag: "e-2".into(),
        ..v1::CompleteUpload::default()
    };
    let (head, answer) = (one.stamp(), one.stamp());
    accepted(one.say(recorded(0, v1::write::Change::Complete(complete), head, answer)).await);
    assert!(client.list("photos").await.unwrap().is_empty());
    client.await_gaps(&["UnknownPart"]).await; // its part is on its way, the cloud has the object already

    let answer = two.stamp();
    accepted(two.say(recorded(1, part(2), late, answer)).await);
    client.await_gaps(&[]).await;
    let entry = client.get("photos", "big").await.unwrap();
    assert_eq!(client.read(&entry, 0, 0).await.unwrap(), contents.concat());
    let lengths: Vec<u64> = entry.parts.iter().map(|part| part.length).collect();
    assert_eq!(lengths, [BLOCK as u64 + 100, 50]);
    assert_eq!(entry.metadata.unwrap(), metadata("image/png"));

    // A range of it becomes a part of another upload, its blocks cut anew.
    let (head, answer) = (one.stamp(), one.stamp());
    let other = || Some(object(A, "photos", "copy"));
    let create = v1::CreateUpload { object: other(), upload_id: "v".into(), metadata: Some(metadata("image/png")) };
    accepted(one.say(recorded(0, v1::write::Change::CreateUpload(create), head, answer)).await);
    one.hear_tick(client.get("photos", "big").await.unwrap().tick).await;
    let source = Some(v1::CopySource { object: key(), version_id: String::new() });
    let copy = v1::UploadPartCopy {
        object: other(),
        upload_id: "v".into(),
        part_number: 1,
        source,
        ranged: true,
        first: 10,
        last: BLOCK as u64 + 120,
        etag: "q".into(),
    };
    let (head, answer) = (one.stamp(), one.stamp());
    accepted(one.say(recorded(0, v1::write::Change::PartCopy(copy), head, answer)).await);
    let complete = v1::CompleteUpload {
        object: other(),
        upload_id: "v".into(),
        parts: vec![v1::CompletedPart { part_number: 1, etag: "q".into() }],
        etag: "e-1".into(),
        ..v1::CompleteUpload::default()
    };
    let (head, answer) = (one.stamp(), one.stamp());
    accepted(one.say(recorded(0, v1::write::Change::Complete(complete), head, answer)).await);
    let entry = client.get("photos", "copy").await.unwrap();
    assert_eq!(client.read(&entry, 0, 0).await.unwrap(), contents.concat()[10..BLOCK + 121]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_tags_and_deletes_follow_the_cloud() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut session = client.session(hello("photos", 1)).await.unwrap();
    let (from, to) = (object(A, "photos", "from"), object(A, "photos", "to"));
    accepted(session.put(from.clone(), b"content", "e1").await);
    let copy = v1::CopyObject {
        object: Some(to.clone()),
        source: Some(v1::CopySource { object: Some(from.clone()), version_id: String::new() }),
        etag: "e2".into(),
        ..v1::CopyObject::default()
    };
    let (head, answer) = (session.stamp(), session.stamp());
    accepted(session.say(recorded(0, v1::write::Change::Copy(copy), head, answer)).await);
    let tags = [("team".to_owned(), "blue".to_owned())].into_iter().collect();
    let set = v1::SetTags { object: Some(to), version_id: String::new(), tags };
    let (head, answer) = (session.stamp(), session.stamp());
    accepted(session.say(recorded(0, v1::write::Change::SetTags(set), head, answer)).await);
    let delete = v1::DeleteObject { object: Some(from.clone()), ..v1::DeleteObject::default() };
    let (head, answer) = (session.stamp(), session.stamp());
    accepted(session.say(recorded(0, v1::write::Change::Delete(delete), head, answer)).await);

    let listed = client.list("photos").await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(client.read(&listed[0], 0, 0).await.unwrap(), b"content");
    assert_eq!(listed[0].metadata.as_ref().unwrap().tags["team"], "blue");
    assert_eq!(client.get("photos", "from").await.unwrap_err().code(), Code::NotFound);
    assert!(client.gaps().await.is_empty());
    // As it was: a bucket can be read at a tick.
    let versions = client.versions("photos").await;
    let first = versions.iter().find(|entry| entry.object.as_ref() == Some(&from) && !entry.tombstone).unwrap();
    let request = v1::ListObjectsRequest { bucket: "photos".into(), at_tick: first.tick, ..Default::default() };
    let then = harness::all(client.catalog().list_objects(request).await.unwrap().into_inner()).await.unwrap();
    assert_eq!(then.len(), 1);
    assert_eq!(then[0].object.as_ref(), Some(&from));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_backfill_closes_gaps_and_finds_what_went() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--settle", "200ms"]).await;
    let client = server.client("shop").await;
    let mut session = client.session(hello("photos", 1)).await.unwrap();
    accepted(session.put(object(A, "photos", "gone"), b"gone", "e-gone").await);
    accepted(session.put(object(A, "photos", "kept"), b"kept", "e-kept").await);
    accepted(session.put(object(A, "photos", "other"), b"old", "e-old").await);
    let begin = session.stamp();
    let open = v1::GapOpen { lapse: 1, reason: "Http2".into(), begin, provider: A.into(), ..v1::GapOpen::default() };
    accepted(session.say(Up::GapOpen(open)).await);
    let end = session.stamp();
    let tick = accepted(session.say(Up::GapClose(v1::GapClose { lapse: 1, end })).await);
    client.await_gaps(&["Http2"]).await;
    session.hear_tick(tick + 1).await; // settled

    let mut migration = client.migration();
    let lease = Some(client.lease("photos").await.unwrap());
    let begin = v1::BeginBackfillRequest { lease: lease.clone(), provider: A.into(), ..Default::default() };
    let begun = migration.begin_backfill(begin).await.unwrap().into_inner();
    assert_eq!(begun.recorded[0].objects, 3);
    let listed = |key: &'static str, etag: &str, size| v1::ListedObject {
        key: key.into(),
        etag: etag.into(),
        size,
        ..v1::ListedObject::default()
    };
    let page = v1::ReconcilePageRequest {
        lease: lease.clone(),
        backfill: begun.backfill,
        bucket: "photos".into(),
        last: true,
        begin_tick: begun.begin_tick,
        incarnation: session.incarnation,
        objects: vec![listed("kept", "e-kept", 4), listed("new", "e-new", 3), listed("other", "e-other", 5)],
        ..v1::ReconcilePageRequest::default()
    };
    let reply = migration.reconcile_page(page).await.unwrap().into_inner();
    // Under the lapse that it closes, "kept" may have other metadata by now.
    assert_eq!(reply.fetch, ["kept", "new", "other"]);
    assert_eq!(reply.confirmed, 0);
    client.await_gaps(&["Http2", "UnseenVersion"]).await;
    for (key, content, etag) in
        [("kept", &b"kept"[..], "e-kept"), ("new", b"new", "e-new"), ("other", b"other", "e-other")]
    {
        let (head, answer) = (session.stamp(), session.stamp());
        let read = v1::ObservedRead {
            head,
            answer,
            object: Some(object(A, "photos", key)),
            etag: etag.into(),
            total_length: content.len() as u64,
            body: Some(body(content)),
            metadata: Some(metadata("text/plain")),
            backfill: begun.backfill,
            ..v1::ObservedRead::default()
        };
        accepted(session.say(Up::Read(read)).await);
    }
    let absent = v1::ListAbsentRequest { lease: lease.clone(), backfill: begun.backfill, bucket: "photos".into() };
    let absent = harness::all(migration.list_absent(absent).await.unwrap().into_inner()).await.unwrap();
    assert_eq!(absent.len(), 1);
    let confirm = v1::ConfirmAbsentRequest {
        lease: lease.clone(),
        backfill: begun.backfill,
        object: absent[0].object.clone(),
        found: false,
        begin_tick: begun.begin_tick,
        incarnation: session.incarnation,
    };
    for incarnation in [session.incarnation + 1, 0] {
        let elsewhere = v1::ConfirmAbsentRequest { incarnation, ..confirm.clone() };
        let reply = migration.confirm_absent(elsewhere).await.unwrap().into_inner();
        assert_eq!(reply.kept_because, "a newer record", "a tick of another life of the store orders nothing");
    }
    assert!(migration.confirm_absent(confirm).await.unwrap().into_inner().tombstoned);
    let end = v1::EndBackfillRequest { lease: lease.clone(), backfill: begun.backfill, complete: true, failed: 0 };
    let ended = migration.end_backfill(end).await.unwrap().into_inner();
    let coverage = ended.coverage.unwrap();
    assert_eq!((coverage.listed_objects, coverage.held_objects), (3, 3));
    assert_eq!((ended.gaps_open, ended.settling_seconds), (0, 0));
    client.await_gaps(&[]).await;
    let etags: Vec<String> = client.list("photos").await.unwrap().into_iter().map(|entry| entry.etag).collect();
    assert_eq!(etags, ["e-kept", "e-new", "e-other"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_lands_objects_and_moves_the_provider_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut session = client.session(hello("photos", 1)).await.unwrap();
    accepted(session.put(object(A, "photos", "k"), b"content", "e-a").await);
    let mut migration = client.migration();
    let lease = client.lease("photos").await.unwrap();
    let held = client.lease("photos").await.unwrap_err();
    assert_eq!(held.code(), Code::FailedPrecondition);
    let lease = Some(lease);

    let ask = v1::ChangesRequest { lease: lease.clone(), provider: A.into(), ..v1::ChangesRequest::default() };
    let changes = harness::all(migration.changes(ask).await.unwrap().into_inner()).await.unwrap();
    let [v1::Change { change: Some(v1::change::Change::Object(entry)) }, through] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert!(matches!(through.change, Some(v1::change::Change::ThroughTick(_))));
    let (source, target) = (entry.object.clone(), Some(object(B, "photos", "k")));
    let checkpoint = v1::Checkpoint {
        lease: lease.clone(),
        source: source.clone(),
        source_tick: entry.tick,
        target: target.clone(),
        ..v1::Checkpoint::default()
    };
    migration.put_checkpoint(checkpoint).await.unwrap();
    let ask = v1::ListCheckpointsRequest { lease: lease.clone(), target: B.into() };
    assert_eq!(
        harness::all(migration.list_checkpoints(ask.clone()).await.unwrap().into_inner()).await.unwrap().len(),
        1
    );
    let landed = v1::LandedObject {
        source,
        source_tick: entry.tick,
        target: target.clone(),
        etag: "e-b".into(),
        ..v1::LandedObject::default()
    };
    migration.landed(v1::LandedRequest { lease: lease.clone(), objects: vec![landed] }).await.unwrap();
    assert!(harness::all(migration.list_checkpoints(ask).await.unwrap().into_inner()).await.unwrap().is_empty());
    let known = v1::KnownRequest { object: target, etag: "e-b".into(), version_id: String::new() };
    let known = migration.known(known).await.unwrap().into_inner();
    assert!(known.recorded && known.ours);

    let move_it = v1::SetForceRequest {
        lease: lease.clone(),
        binding: "photos".into(),
        expected: A.into(),
        provider: B.into(),
        ..v1::SetForceRequest::default()
    };
    let refused = migration.set_force(move_it.clone()).await.unwrap().into_inner();
    assert!(!refused.moved && refused.why_not.contains("backfill"), "{refused:?}");
    let moved = v1::SetForceRequest { accept_gaps: true, ..move_it.clone() };
    let moved = migration.set_force(moved).await.unwrap().into_inner();
    assert!(moved.moved, "{moved:?}");
    assert_eq!(moved.unconfirmed, 1);
    let again = migration.set_force(move_it).await.unwrap().into_inner();
    assert!(!again.moved, "the expected one is in force no more");
    let entry = client.get("photos", "k").await.unwrap();
    assert_eq!((&*entry.etag, &*entry.object.as_ref().unwrap().provider), ("e-b", B));
    assert_eq!(client.read(&entry, 0, 0).await.unwrap(), b"content");
    assert_eq!(migration.register(hello("photos", 0)).await.unwrap().into_inner().provider_in_force, "b");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_stays_in_force_while_it_has_what_was_not_carried() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut session = client.session(hello("photos", 1)).await.unwrap();
    let mut films = client.session(hello("films", 2)).await.unwrap();
    accepted(session.put(object(A, "photos", "k"), b"carried", "e1").await);
    let mut migration = client.migration();
    let lease = Some(client.lease("photos").await.unwrap());
    let carried = async |lease: &Option<v1::Lease>| {
        let ask = v1::ChangesRequest { lease: lease.clone(), provider: A.into(), ..v1::ChangesRequest::default() };
        let changes = harness::all(client.migration().changes(ask).await.unwrap().into_inner()).await.unwrap();
        match changes.last().unwrap().change {
            Some(v1::change::Change::ThroughTick(tick)) => tick,
            _ => panic!("{changes:?}"),
        }
    };
    let move_it = |through_tick: u64| v1::SetForceRequest {
        lease: lease.clone(),
        binding: "photos".into(),
        expected: A.into(),
        provider: B.into(),
        accept_gaps: true, // says nothing of what can still be carried
        through_tick,
    };

    let through = carried(&lease).await;
    accepted(session.put(object(A, "photos", "k"), b"later", "e2").await);
    let refused = migration.set_force(move_it(through)).await.unwrap().into_inner();
    assert!(!refused.moved && refused.behind && refused.why_not.contains("recorded"), "{refused:?}");

    // An announced write is waited for; a delete is a change like any other.
    let intent = |operation: u64, object: v1::ObjectRef, head: Option<v1::Stamp>| {
        let (object, kind) = (Some(object), String::from("put"));
        Up::Intent(v1::Intent { operation, object, kind, head, ..v1::Intent::default() })
    };
    let head = session.stamp();
    accepted(session.say(intent(1, object(A, "photos", "k"), head)).await);
    let through = carried(&lease).await;
    let refused = migration.set_force(move_it(through)).await.unwrap().into_inner();
    assert!(!refused.moved && refused.behind && refused.why_not.contains("under way"), "{refused:?}");
    let answer = session.stamp();
    let gone = v1::DeleteObject { object: Some(object(A, "photos", "k")), ..v1::DeleteObject::default() };
    accepted(session.say(recorded(1, v1::write::Change::Delete(gone), head, answer)).await);
    assert!(migration.set_force(move_it(through)).await.unwrap().into_inner().behind, "the delete was not carried");

    // Writes to the target and another binding's are nobody's concern here.
    let through = carried(&lease).await;
    let head = session.stamp();
    accepted(session.say(intent(2, object(B, "photos", "k"), head)).await);
    let head = films.stamp();
    accepted(films.say(intent(1, object(A, "films", "k"), head)).await);
    accepted(films.put(object(A, "films", "other"), b"not ours", "e3").await);
    let moved = migration.set_force(move_it(through)).await.unwrap().into_inner();
    assert!(moved.moved && !moved.behind && moved.why_not.is_empty(), "{moved:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_lost_its_lease_is_fenced_off() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--session-lease", "300ms"]).await;
    let client = server.client("shop").await;
    let _session = client.session(hello("photos", 1)).await.unwrap();
    let first = client.lease("photos").await.unwrap();
    let since = Instant::now();
    let second = loop {
        match client.lease("photos").await {
            Ok(lease) => break lease,
            Err(held) => assert_eq!(held.code(), Code::FailedPrecondition),
        }
        assert!(since.elapsed() < harness::PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(second.epoch, first.epoch + 1);
    let mut migration = client.migration();
    let landed = v1::LandedRequest { lease: Some(first.clone()), objects: Vec::new() };
    assert_eq!(migration.landed(landed).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(migration.renew_lease(first).await.unwrap_err().code(), Code::FailedPrecondition);
    migration.renew_lease(second.clone()).await.unwrap();
    migration.release_lease(second).await.unwrap();
    client.lease("photos").await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_read_in_ranges_is_whole_once_every_block_was_seen() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut session = client.session(hello("photos", 1)).await.unwrap();
    let content = noise(9, 2 * BLOCK + 77);
    client.offer(&content.chunks(BLOCK).collect::<Vec<_>>()).await;
    for range in [BLOCK..content.len(), 0..BLOCK] {
        assert!(client.list("photos").await.unwrap().is_empty());
        let (head, answer) = (session.stamp(), session.stamp());
        let read = v1::ObservedRead {
            head,
            answer,
            object: Some(object(A, "photos", "k")),
            etag: "e".into(),
            total_length: content.len() as u64,
            offset: range.start as u64,
            body: Some(body(&content[range])),
            metadata: Some(metadata("text/plain")),
            ..v1::ObservedRead::default()
        };
        accepted(session.say(Up::Read(read)).await);
    }
    let entry = client.get("photos", "k").await.unwrap();
    assert_eq!(client.read(&entry, 0, 0).await.unwrap(), content);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_index_shows_what_the_one_before_showed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut one = client.session(hello("photos", 1)).await.unwrap();
    let mut two = client.session(hello("photos", 2)).await.unwrap();
    let mut tick = 0;
    for number in 0..20 {
        tick = accepted(one.put(object(A, "photos", &format!("k{number}")), &noise(number, 3000), "e").await);
    }
    one.hear_tick(tick).await;
    two.hear_tick(tick).await;
    let (first, second) = (one.stamp(), two.stamp());
    accepted(one.put_since(object(A, "photos", "k1"), b"one", "e1", first).await);
    accepted(two.put_since(object(A, "photos", "k1"), b"two", "e2", second).await);
    let (listed, versions, gaps) =
        (client.list("photos").await.unwrap(), client.versions("photos").await, client.gaps().await);
    assert_eq!((listed.len(), gaps.len()), (20, 1));
    drop((one, two));
    server.stop().await;

    let path = dir.path().to_owned();
    let rebuilt =
        tokio::task::spawn_blocking(move || hawser_store::admin::rebuild_index(&path).unwrap()).await.unwrap();
    assert!(matches!(rebuilt, hawser_store::admin::Line::Done { clean: true, .. }), "{rebuilt:?}");
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    assert_eq!(client.list("photos").await.unwrap(), listed);
    assert_eq!(client.versions("photos").await, versions);
    assert_eq!(client.gaps().await, gaps);
    assert_eq!(client.read(&listed[3], 0, 0).await.unwrap().len(), 3000);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_records_of_one_session_share_their_syncs_and_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut session = client.session(hello("photos", 1)).await.unwrap();
    let mut sequences = Vec::new();
    for number in 0..500_u64 {
        // Each object is written twice, so that order shows; its content travels inside.
        let key = object(A, "photos", &format!("k{}", number / 2));
        let (head, answer) = (session.stamp(), session.stamp());
        let put = put_of(key, body(&noise(number, 100)), &format!("e{number}"));
        sequences.push(session.send(recorded(0, put, head, answer)).await);
    }
    let mut last = 0;
    for sequence in sequences {
        let tick = accepted(session.receipt(sequence).await);
        assert!(tick > last, "tick {tick} after {last}");
        last = tick;
    }
    let listed = client.list("photos").await.unwrap();
    assert_eq!(listed.len(), 250);
    for entry in &listed {
        let key = String::from_utf8(entry.object.as_ref().unwrap().key.to_vec()).unwrap();
        let number: u64 = key[1..].parse().unwrap();
        assert_eq!(entry.etag, format!("e{}", 2 * number + 1), "{key}");
    }
    assert!(client.gaps().await.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folders_door_leads_to_the_server_that_has_it() {
    use hawser_store::admin::{self, Line, Work};
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut session = client.session(hello("photos", 1)).await.unwrap();
    accepted(session.put(object(A, "photos", "k"), b"content", "e").await);
    let backup = tempfile::tempdir().unwrap();
    let work = [Work::Stats, Work::Scrub, Work::Gc, Work::Backup { to: backup.path().to_owned() }];
    for work in work {
        let (path, asked) = (dir.path().to_owned(), work.clone());
        let lines = tokio::task::spawn_blocking(move || {
            let mut lines = Vec::new();
            admin::run(&path, &asked, &mut |line| lines.push(line)).unwrap();
            lines
        });
        let lines = lines.await.unwrap();
        assert!(matches!(&lines[..], [Line::Done { clean: true, .. }]), "{work:?}: {lines:?}");
    }
    server.stop().await;
    let server = Server::start(backup.path(), &[]).await;
    let client = server.client("shop").await;
    let entry = client.get("photos", "k").await.unwrap();
    assert_eq!(client.read(&entry, 0, 0).await.unwrap(), b"content");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_orders_versions_of_two_providers_outlives_landing_and_sightings() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]).await;
    let client = server.client("shop").await;
    let mut session = client.session(hello("photos", 1)).await.unwrap();
    let first = accepted(session.put(object(A, "photos", "k"), b"content", "e-a").await);
    let mut migration = client.migration();
    let lease = Some(client.lease("photos").await.unwrap());
    let at_b = || Some(object(B, "photos", "k"));
    let landed = v1::LandedObject {
        source: Some(object(A, "photos", "k")),
        source_tick: first,
        target: at_b(),
        etag: "e-b".into(),
        ..v1::LandedObject::default()
    };
    let landed = v1::LandedRequest { lease: lease.clone(), objects: vec![landed] };
    migration.landed(landed).await.unwrap();
    let known = v1::KnownRequest { object: at_b(), ..v1::KnownRequest::default() };
    let there = migration.known(known.clone()).await.unwrap().into_inner().current.unwrap();
    assert_eq!((&*there.written_at, there.over_tick, there.landed_from), (A, first, first));
    assert!(!there.observed);

    // The provider leaves; what comes later is ordered by what was heard before it began.
    let forced = v1::SetForceRequest {
        lease,
        binding: "photos".into(),
        expected: A.into(),
        provider: B.into(),
        accept_gaps: true,
        through_tick: session.tick.max(first) + 100,
    };
    let through = forced.through_tick;
    assert!(migration.set_force(forced).await.unwrap().into_inner().moved);
    let welcome = migration.register(hello("photos", 0)).await.unwrap().into_inner();
    assert_eq!(welcome.former, [v1::Former { identity: A.into(), through_tick: through }]);
    session.hear_tick(first).await;
    let heard = session.tick;
    let later = accepted(session.put(object(A, "photos", "k"), b"later", "e-2").await);
    let known_at_a = v1::KnownRequest { object: Some(object(A, "photos", "k")), ..v1::KnownRequest::default() };
    let late = migration.known(known_at_a.clone()).await.unwrap().into_inner().current.unwrap();
    assert_eq!((late.begun_tick, late.over_tick, late.observed), (heard, later, true));
    session.hear_tick(later).await;
    session.head(object(A, "photos", "k"), "e-2").await;
    let seen = migration.known(known_at_a).await.unwrap().into_inner().current.unwrap();
    assert_eq!(seen.begun_tick, heard, "a sighting makes no write younger");

    // A pod's own change of what landed makes it the pod's.
    let (head, answer) = (session.stamp(), session.stamp());
    let tags =
        v1::SetTags { object: at_b(), tags: [("a".to_owned(), "b".to_owned())].into(), ..v1::SetTags::default() };
    let tagged = accepted(session.say(harness::recorded(0, v1::write::Change::SetTags(tags), head, answer)).await);
    let reply = migration.known(known).await.unwrap().into_inner();
    let there = reply.current.unwrap();
    assert_eq!((&*there.written_at, there.over_tick, there.landed_from, reply.ours), (B, tagged, 0, false));
    server.stop().await;
}
