//! From a copied connection to the store: what is told, when, how often, and what is left when the store is away.
#![allow(clippy::unwrap_used)]

mod delivery {
    pub(crate) mod store;
}

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use delivery::store::{HAVE, Heard, LATER, Scripted, free};
use hawser_api::binding::CloudBinding;
use hawser_api::v1;
use hawser_api::v1::control_up::Message as Up;
use hawser_api::v1::receipt::Verdict;
use hawser_api::v1::write::Change;
use hawser_sidecar::bindings::{self, Bound};
use hawser_sidecar::budget::Budget;
use hawser_sidecar::journal::Journal;
use hawser_sidecar::lapse::{Lapse, Lapses};
use hawser_sidecar::metrics::Metrics;
use hawser_sidecar::observe::{self, Ctx};
use hawser_sidecar::session::{Place, Sessions};
use hawser_sidecar::tally::Tally;
use hawser_sidecar::tee::{self, Side};
use hawser_sidecar::ticks::Ticks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::time::Instant;

const BLOCK: usize = 16 * 1024;
const BUDGET: usize = 4 << 20;

/// The copy's half of a sidecar, without the live half: connections are played into it.
struct Sidecar {
    ctx: Arc<Ctx>,
    sessions: Arc<Sessions>,
    lapses: Arc<Lapses>,
    budget: Arc<Budget>,
    ticks: Arc<Ticks>,
    bound: Arc<Bound>,
}

impl Sidecar {
    fn start(store: SocketAddr, state_dir: Option<&Path>) -> Sidecar {
        Sidecar::with_budget(store, state_dir, BUDGET)
    }

    fn with_budget(store: SocketAddr, state_dir: Option<&Path>, budget: usize) -> Sidecar {
        let (ticks, budget, metrics) =
            (Arc::new(Ticks::default()), Budget::new(budget), Arc::new(Metrics::registered()));
        let tally = Arc::new(Tally::registered(&metrics));
        let journal = Arc::new(state_dir.map_or_else(Journal::in_memory, |dir| Journal::open(dir).unwrap()));
        let place = Place { url: format!("http://{store}"), token_file: None, ca_file: None, pod: None };
        let sessions = Sessions::new(
            place,
            journal,
            Arc::clone(&budget),
            Arc::clone(&ticks),
            Arc::clone(&tally),
            Handle::current(),
        );
        let bound = bound();
        let bindings: Vec<Arc<CloudBinding>> = vec![Arc::clone(&bound.entries[0].binding)];
        sessions.bind(&bindings);
        let ctx = Arc::new(Ctx::on(Handle::current(), Arc::clone(&sessions), Arc::clone(&budget), tally));
        let lapses = Lapses::new(Arc::clone(&ticks), metrics, Arc::clone(&ctx).on_lapse());
        ctx.lend(Arc::clone(&lapses));
        Sidecar { ctx, sessions, lapses, budget, ticks, bound }
    }

    /// Waits until the store's welcome is heard: only then does an intent leave at once.
    async fn until_connected(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.ticks.stamp().tick == 0 {
            assert!(Instant::now() < deadline, "no welcome");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Plays one connection: each side in turn says something, then both end.
    async fn play(&self, turns: &[(Side, &[u8])]) {
        let (live, copy) = tee::bounded(Arc::clone(&self.budget));
        let observer = tokio::spawn(observe::observe(copy, Arc::clone(&self.bound), Arc::clone(&self.ctx)));
        self.play_to(live, observer, turns).await;
    }

    /// The same for one whose host was not known when it began.
    async fn play_undecided(&self, turns: &[(Side, &[u8])]) {
        let (live, copy) = tee::bounded(Arc::clone(&self.budget));
        let observer = tokio::spawn(observe::observe_undecided(copy, Arc::clone(&self.bound), Arc::clone(&self.ctx)));
        self.play_to(live, observer, turns).await;
    }

    async fn play_to(&self, mut live: tee::Tee, observer: tokio::task::JoinHandle<()>, turns: &[(Side, &[u8])]) {
        for (side, bytes) in turns {
            for piece in bytes.chunks(10_000) {
                live.saw(*side, self.ticks.stamp(), piece);
                tokio::task::yield_now().await;
            }
        }
        live.ended(Side::Client, self.ticks.stamp(), true);
        live.ended(Side::Cloud, self.ticks.stamp(), true);
        drop(live);
        observer.await.unwrap();
    }

    async fn put(&self, key: &str, content: &[u8]) {
        let head =
            format!("PUT /photos/{key} HTTP/1.1\r\nHost: cloud.test\r\nContent-Length: {}\r\n\r\n", content.len());
        let request = [head.as_bytes(), content].concat();
        self.play(&[
            (Side::Client, &request),
            (Side::Cloud, b"HTTP/1.1 200 OK\r\nETag: \"e1\"\r\nContent-Length: 0\r\n\r\n"),
        ])
        .await;
    }

    async fn flush(&self) -> (usize, usize) {
        let flushed = self.sessions.flush(Instant::now() + Duration::from_secs(10)).await;
        (flushed.untold, flushed.kept)
    }
}

fn bound() -> Arc<Bound> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("binding.yaml");
    let manifest = "apiVersion: hawser.dev/v1alpha1\nkind: CloudBinding\nmetadata: {name: photos, namespace: shop}\nspec:\n  provider: a\n  providers:\n  - {name: a, s3: {endpoint: \"http://cloud.test\"}}\n  buckets: [{name: photos}]\n  blockSize: 16Ki\n";
    std::fs::write(&file, manifest).unwrap();
    let (bindings, _) = bindings::open(&file, Arc::new(Metrics::registered())).unwrap();
    Arc::new(bindings.table().bound("cloud.test", 80).unwrap())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 251) as u8).collect()
}

fn record(up: &Up) -> Option<v1::Recorded> {
    match up {
        Up::Recorded(recorded) => Some(recorded.clone()),
        _ => None,
    }
}

fn gap(up: &Up) -> Option<v1::GapFound> {
    match up {
        Up::Gap(gap) => Some(gap.clone()),
        _ => None,
    }
}

fn put_of(recorded: &v1::Recorded) -> v1::PutObject {
    match recorded.writes[0].change.clone().unwrap() {
        Change::Put(put) => put,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_put_is_announced_then_its_blocks_go_and_only_then_is_it_recorded() {
    let store = Scripted::default();
    let serving = store.serve(free()).await;
    let sidecar = Sidecar::start(serving.address, None);
    sidecar.until_connected().await;
    let content = pattern(3 * BLOCK + 5);
    sidecar.put("a//b%2F", &content).await;
    let recorded = store.until_told("the record", record).await;
    assert_eq!(sidecar.flush().await, (0, 0));

    let heard = store.heard();
    let at = |is: &dyn Fn(&Heard) -> bool| heard.iter().position(is).unwrap();
    let intent = at(&|heard| matches!(heard, Heard::Told(_, up) if matches!(up.message, Some(Up::Intent(_)))));
    let last_block = heard.iter().rposition(|heard| matches!(heard, Heard::Block(_))).unwrap();
    let record = at(&|heard| matches!(heard, Heard::Told(_, up) if matches!(up.message, Some(Up::Recorded(_)))));
    assert!(intent < record && last_block < record, "{heard:#?}");

    let blocks: Vec<Vec<u8>> = heard
        .iter()
        .filter_map(|heard| match heard {
            Heard::Block(block) => Some(block.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(blocks.concat(), content);
    let put = put_of(&recorded);
    let object = put.object.unwrap();
    assert_eq!((object.provider.as_str(), object.bucket.as_str()), ("s3+http://cloud.test", "photos"));
    assert_eq!((object.key.as_ref(), put.etag.as_str(), recorded.operation), (&b"a//b/"[..], "e1", 1));
    let Some(v1::body::Content::Run(run)) = put.body.unwrap().content else { panic!("a run") };
    assert_eq!((run.length, run.hashes.len(), run.paged), (content.len() as u64, 4 * 32, false));
    assert_eq!(sidecar.budget.used(), 0);
}

#[tokio::test]
async fn a_host_that_is_named_late_is_observed_from_the_first_byte_and_a_foreign_one_not_at_all() {
    let store = Scripted::default();
    let serving = store.serve(free()).await;
    let sidecar = Sidecar::start(serving.address, None);
    sidecar.until_connected().await;
    let yes: &[u8] = b"HTTP/1.1 200 OK\r\nETag: \"e1\"\r\nContent-Length: 0\r\n\r\n";
    for host in ["other.test", "cloud.test"] {
        let slow = [
            format!("PUT /photos/{host} HTTP/1.1\r\nContent-Le"),
            format!("ngth: 4\r\nHost: {host}"),
            "\r\n\r\nsl".to_owned(),
            "ow".to_owned(),
        ];
        let mut turns: Vec<(Side, &[u8])> = slow.iter().map(|piece| (Side::Client, piece.as_bytes())).collect();
        turns.push((Side::Cloud, yes));
        sidecar.play_undecided(&turns).await;
    }
    let recorded = store.until_told("the record", record).await;
    assert_eq!(put_of(&recorded).object.unwrap().key.as_ref(), b"cloud.test");
    let lapse = |heard: &[Heard]| {
        let is = |heard: &&Heard| matches!(heard, Heard::Told(_, up) if matches!(up.message, Some(Up::GapOpen(_))));
        heard.iter().filter(is).count()
    };
    sidecar.play_undecided(&[(Side::Client, b"\x00\x01 nothing that writes objects")]).await;
    sidecar.play_undecided(&[(Side::Client, b"PUT /photos/cut HTTP/1.1\r\nHo")]).await;
    assert_eq!(sidecar.flush().await, (0, 0));
    let records = store.told().iter().filter(|(_, up)| record(up.message.as_ref().unwrap()).is_some()).count();
    assert_eq!((records, lapse(&store.heard())), (1, 0), "{:#?}", store.told());

    let nameless: [&[u8]; 2] = [b"PUT /photos/a HTTP/1.0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"];
    for (count, opening) in nameless.iter().enumerate() {
        sidecar.play_undecided(&[(Side::Client, *opening)]).await;
        store.until("a lapse", |heard| (lapse(heard) == count + 1).then_some(())).await;
    }
    assert_eq!(sidecar.budget.used(), 0);
}

#[tokio::test]
async fn a_delete_of_many_objects_names_them_as_soon_as_they_are_known() {
    let store = Scripted::default();
    let serving = store.serve(free()).await;
    let sidecar = Sidecar::start(serving.address, None);
    sidecar.until_connected().await;
    let body = "<Delete><Object><Key>a</Key></Object><Object><Key>b</Key></Object></Delete>";
    let head = format!("POST /photos?delete HTTP/1.1\r\nHost: cloud.test\r\nContent-Length: {}\r\n\r\n", body.len());
    let (mut live, copy) = tee::bounded(Arc::clone(&sidecar.budget));
    let observer = tokio::spawn(observe::observe(copy, Arc::clone(&sidecar.bound), Arc::clone(&sidecar.ctx)));
    live.saw(Side::Client, sidecar.ticks.stamp(), head.as_bytes());
    let intents = |keys: usize| {
        move |up: &Up| match up {
            Up::Intent(intent) if intent.keys.len() == keys => Some(intent.operation),
            _ => None,
        }
    };
    let announced = store.until_told("the intent", intents(0)).await;
    live.saw(Side::Client, sidecar.ticks.stamp(), body.as_bytes());
    let again = store.until_told("its keys", intents(2)).await;
    assert_eq!(again, announced, "before the cloud's answer, under the same number");
    drop(live);
    observer.await.unwrap();
}

#[tokio::test]
async fn a_head_shows_the_store_the_metadata_and_how_many_tags_there_are() {
    let store = Scripted::default();
    let serving = store.serve(free()).await;
    let sidecar = Sidecar::start(serving.address, None);
    sidecar.until_connected().await;
    let head = b"HEAD /photos/a HTTP/1.1\r\nHost: cloud.test\r\n\r\n";
    let answer =
        b"HTTP/1.1 200 OK\r\nETag: \"e1\"\r\nContent-Length: 4\r\nx-amz-meta-a: 1\r\nx-amz-tagging-count: 2\r\n\r\n";
    sidecar.play(&[(Side::Client, head), (Side::Cloud, answer)]).await;
    let sighting = |up: &Up| match up {
        Up::Sightings(page) => Some(page.objects[0].clone()),
        _ => None,
    };
    let seen = store.until_told("the sighting", sighting).await;
    let metadata = seen.metadata.unwrap();
    let headers: Vec<_> = metadata.headers.iter().map(|header| (header.name.as_str(), &header.value[..])).collect();
    assert_eq!((headers, seen.tag_count, metadata.headers_known), (vec![("x-amz-meta-a", &b"1"[..])], 2, true));
}

#[tokio::test]
async fn nothing_is_recorded_before_the_clouds_answer() {
    let store = Scripted::default();
    let serving = store.serve(free()).await;
    let sidecar = Sidecar::start(serving.address, None);
    sidecar.until_connected().await;
    let (mut live, copy) = tee::bounded(Arc::clone(&sidecar.budget));
    let observer = tokio::spawn(observe::observe(copy, Arc::clone(&sidecar.bound), Arc::clone(&sidecar.ctx)));
    let head = format!("PUT /photos/a HTTP/1.1\r\nHost: cloud.test\r\nContent-Length: {}\r\n\r\n", 2 * BLOCK);
    live.saw(Side::Client, sidecar.ticks.stamp(), &[head.as_bytes(), &pattern(2 * BLOCK)].concat());
    let blocks =
        |heard: &[Heard]| (heard.iter().filter(|heard| matches!(heard, Heard::Block(_))).count() == 2).then_some(());
    store.until("both blocks", blocks).await;
    let kinds: Vec<_> = store.told().iter().map(|(_, up)| record(up.message.as_ref().unwrap()).is_some()).collect();
    assert_eq!(kinds, [false], "the intent, and no more: {:?}", store.told());
    let asked = sidecar.ticks.stamp();
    live.saw(Side::Cloud, asked, b"HTTP/1.1 200 OK\r\nETag: \"e1\"\r\nContent-Length: 0\r\n\r\n");
    let recorded = store.until_told("the record", record).await;
    assert_eq!(recorded.answer.unwrap().counter, asked.counter);
    assert_eq!(recorded.head.unwrap().tick, 40, "what the store had said before the head went out");
    drop(live);
    observer.await.unwrap();
}

#[tokio::test]
async fn known_blocks_do_not_travel_and_small_content_is_in_the_record() {
    let store = Scripted::default();
    store.set(|manners| manners.answer = |_, _| HAVE);
    let serving = store.serve(free()).await;
    let sidecar = Sidecar::start(serving.address, None);
    sidecar.put("small", b"hello").await;
    sidecar.put("large", &pattern(4 * BLOCK)).await;
    let is = |key: &'static [u8]| {
        move |up: &Up| {
            record(up).map(|recorded| put_of(&recorded)).filter(|put| put.object.as_ref().unwrap().key.as_ref() == key)
        }
    };
    let small = store.until_told("the small one", is(b"small")).await;
    assert_eq!(small.body.unwrap().content, Some(v1::body::Content::Inline(b"hello".to_vec().into())));
    store.until_told("the large one", is(b"large")).await;
    assert!(!store.heard().iter().any(|heard| matches!(heard, Heard::Block(_))));
}

#[tokio::test]
async fn after_a_break_each_unreceipted_message_is_told_again_once() {
    let store = Scripted::default();
    store.set(|manners| manners.receipts = false);
    let serving = store.serve(free()).await;
    let sidecar = Sidecar::start(serving.address, None);
    sidecar.until_connected().await;
    for key in ["a", "b", "c"] {
        sidecar.put(key, b"content").await;
    }
    let all = |heard: &[Heard], stream| {
        let told = heard.iter().filter(|heard| matches!(heard, Heard::Told(n, up) if *n == stream && record(up.message.as_ref().unwrap()).is_some()));
        (told.count() == 3).then_some(())
    };
    store.until("three records", |heard| all(heard, 1)).await;
    let address = serving.kill();
    store.set(|manners| manners.receipts = true);
    let serving = store.serve(address).await;
    store.until("three records again", |heard| all(heard, 2)).await;
    assert_eq!(sidecar.flush().await, (0, 0));
    let hello = store.until("the second hello", |heard| {
        heard.iter().find_map(|heard| match heard {
            Heard::Hello(2, hello) => Some(hello.clone()),
            _ => None,
        })
    });
    assert_eq!(hello.await.open_operations, [1, 2, 3], "their outcomes are not receipted");

    let address = serving.kill();
    let _serving = store.serve(address).await;
    store
        .until("a third stream", |heard| heard.iter().any(|heard| matches!(heard, Heard::Hello(3, _))).then_some(()))
        .await;
    sidecar.put("d", b"content").await;
    assert_eq!(sidecar.flush().await, (0, 0));
    let mut count: BTreeMap<(usize, u64), usize> = BTreeMap::new();
    for (stream, message) in store.told() {
        *count.entry((stream, message.sequence)).or_default() += 1;
    }
    assert!(count.values().all(|times| *times == 1), "once on each stream: {count:?}");
    assert!(
        count.keys().all(|(stream, sequence)| *stream != 3 || *sequence > 6),
        "nothing receipted comes again: {count:?}"
    );
}

#[tokio::test]
async fn blocks_that_the_store_misses_at_the_record_are_its_gap_and_the_end_of_it() {
    let store = Scripted::default();
    store.set(|manners| {
        manners.verdict = |up| match up.message {
            Some(Up::Recorded(_)) => Verdict::Missing(v1::Missing::default()),
            _ => Verdict::Accepted(v1::Accepted { tick: 1 }),
        }
    });
    let serving = store.serve(free()).await;
    let sidecar = Sidecar::start(serving.address, None);
    sidecar.put("a", b"content").await;
    store.until_told("the record", record).await;
    assert_eq!(sidecar.flush().await, (0, 0));
    assert!(store.told().iter().all(|(_, up)| gap(up.message.as_ref().unwrap()).is_none()));
}

#[tokio::test]
async fn what_a_dead_process_could_not_tell_is_told_by_the_next() {
    let (dir, store) = (tempfile::tempdir().unwrap(), Scripted::default());
    let address = free();
    let sidecar = Sidecar::start(address, Some(dir.path()));
    sidecar.put("a", b"content").await;
    let delete = b"DELETE /photos/b HTTP/1.1\r\nHost: cloud.test\r\n\r\n";
    sidecar.play(&[(Side::Client, delete), (Side::Cloud, b"HTTP/1.1 204 No Content\r\n\r\n")]).await;
    let flushed = sidecar.flush().await;
    assert_eq!(flushed, (2, 2), "the store is away: flushing does not wait for it");
    std::mem::forget(sidecar); // killed: nothing of it runs down

    let _serving = store.serve(address).await;
    let copied = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("journal"), copied.path().join("journal")).unwrap();
    let next = Sidecar::start(address, Some(copied.path()));
    let journalled = |heard: &[Heard]| {
        let told: Vec<v1::Journalled> = heard
            .iter()
            .filter_map(|heard| match heard {
                Heard::Told(_, v1::ControlUp { message: Some(Up::Journalled(told)), .. }) => Some(told.clone()),
                _ => None,
            })
            .collect();
        (told.len() == 2).then_some(told)
    };
    let told = store.until("both outcomes", journalled).await;
    let Some(v1::journalled::Outcome::Gap(gap)) = &told[0].outcome else { panic!("a put is a gap") };
    assert_eq!((gap.reason.as_str(), gap.scope.as_str(), gap.etag.as_str()), ("StoreAway", "Key", "e1"));
    assert!(gap.head.unwrap().counter < gap.end.unwrap().counter, "the original stamps");
    let Some(v1::journalled::Outcome::Recorded(deleted)) = &told[1].outcome else { panic!("a delete stays one") };
    assert!(matches!(deleted.writes[0].change, Some(Change::Delete(_))));
    assert_eq!(told[0].session.len(), 16);
    assert_eq!(next.flush().await, (0, 0), "receipted, and then forgotten");
}

#[tokio::test]
async fn a_store_that_comes_back_soon_costs_nothing() {
    let store = Scripted::default();
    let address = free();
    let sidecar = Sidecar::start(address, None);
    sidecar.put("a", &pattern(2 * BLOCK)).await;
    let _serving = store.serve(address).await;
    store.until_told("the record", record).await;
    assert_eq!(sidecar.flush().await, (0, 0));
}

#[tokio::test]
async fn a_store_that_stays_away_is_a_gap_and_gives_the_budget_back() {
    let store = Scripted::default();
    let address = free();
    let sidecar = Sidecar::start(address, None);
    sidecar.put("a", &pattern(2 * BLOCK)).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while sidecar.budget.used() > 0 {
        assert!(Instant::now() < deadline, "blocks are not held for ever");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sidecar.put("b", &pattern(2 * BLOCK)).await;
    assert_eq!(sidecar.budget.used(), 0, "and now not at all");
    let _serving = store.serve(address).await;
    for key in [b"a", b"b"] {
        let found = store
            .until_told("its gap", |up| gap(up).filter(|gap| gap.object.as_ref().unwrap().key.as_ref() == key))
            .await;
        assert_eq!((found.reason.as_str(), found.etag.as_str()), ("StoreAway", "e1"));
    }
}

#[tokio::test]
async fn a_store_without_room_is_asked_again() {
    let store = Scripted::default();
    store.set(|manners| manners.answer = |_, before| if before < 2 { LATER } else { HAVE });
    let serving = store.serve(free()).await;
    let sidecar = Sidecar::start(serving.address, None);
    sidecar.put("a", &pattern(BLOCK)).await;
    store.until_told("the record", record).await;
    let offers = store.heard().iter().filter(|heard| matches!(heard, Heard::Offer(_))).count();
    assert_eq!(offers, 3);
}

#[tokio::test]
async fn content_beyond_the_budget_is_a_gap_and_the_next_object_is_recorded() {
    let store = Scripted::default();
    let serving = store.serve(free()).await;
    let sidecar = Sidecar::with_budget(serving.address, None, 3 * BLOCK);
    sidecar.until_connected().await;
    let (mut live, copy) = tee::bounded(Arc::clone(&sidecar.budget));
    let head = format!("PUT /photos/a HTTP/1.1\r\nHost: cloud.test\r\nContent-Length: {}\r\n\r\n", 8 * BLOCK);
    live.saw(Side::Client, sidecar.ticks.stamp(), head.as_bytes());
    for _ in 0..8 {
        live.saw(Side::Client, sidecar.ticks.stamp(), &pattern(BLOCK)); // nobody takes it meanwhile
    }
    let observer = tokio::spawn(observe::observe(copy, Arc::clone(&sidecar.bound), Arc::clone(&sidecar.ctx)));
    store.until_told("the intent", |up| matches!(up, Up::Intent(_)).then_some(())).await;
    live.saw(Side::Cloud, sidecar.ticks.stamp(), b"HTTP/1.1 200 OK\r\nETag: \"e1\"\r\nContent-Length: 0\r\n\r\n");
    let found = store.until_told("the gap", gap).await;
    assert_eq!((found.reason.as_str(), found.scope.as_str(), found.operation), ("Overflow", "Key", 1));
    live.saw(
        Side::Client,
        sidecar.ticks.stamp(),
        b"PUT /photos/b HTTP/1.1\r\nHost: cloud.test\r\nContent-Length: 2\r\n\r\nok",
    );
    live.saw(Side::Cloud, sidecar.ticks.stamp(), b"HTTP/1.1 200 OK\r\nETag: \"e2\"\r\nContent-Length: 0\r\n\r\n");
    drop(live);
    observer.await.unwrap();
    let recorded = store.until_told("the record", record).await;
    assert_eq!(put_of(&recorded).etag, "e2");
}

#[tokio::test]
async fn a_refused_write_is_abandoned_and_another_bucket_is_not_mentioned() {
    let store = Scripted::default();
    let serving = store.serve(free()).await;
    let sidecar = Sidecar::start(serving.address, None);
    let request = b"PUT /photos/a HTTP/1.1\r\nHost: cloud.test\r\nContent-Length: 2\r\n\r\nok";
    let no = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    let foreign = b"PUT /other/a HTTP/1.1\r\nHost: cloud.test\r\nContent-Length: 2\r\n\r\nok";
    let yes = b"HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 0\r\n\r\n";
    sidecar.until_connected().await;
    let (mut live, copy) = tee::bounded(Arc::clone(&sidecar.budget));
    let observer = tokio::spawn(observe::observe(copy, Arc::clone(&sidecar.bound), Arc::clone(&sidecar.ctx)));
    live.saw(Side::Client, sidecar.ticks.stamp(), request);
    store.until_told("the intent", |up| matches!(up, Up::Intent(_)).then_some(())).await;
    live.saw(Side::Cloud, sidecar.ticks.stamp(), no);
    store.until_told("the end of it", |up| matches!(up, Up::Abandoned(_)).then_some(())).await;
    live.saw(Side::Client, sidecar.ticks.stamp(), foreign);
    live.saw(Side::Cloud, sidecar.ticks.stamp(), yes);
    live.ended(Side::Client, sidecar.ticks.stamp(), true);
    live.ended(Side::Cloud, sidecar.ticks.stamp(), true);
    drop(live);
    observer.await.unwrap();
    assert_eq!(sidecar.flush().await, (0, 0));
    assert_eq!(store.told().len(), 2, "{:#?}", store.told());
}

#[tokio::test]
async fn a_range_teaches_its_whole_blocks() {
    let store = Scripted::default();
    let serving = store.serve(free()).await;
    let sidecar = Sidecar::start(serving.address, None);
    sidecar.until_connected().await;
    let whole = pattern(4 * BLOCK + 7);
    let (first, last) = (100, whole.len() - 1);
    let answer = format!(
        "HTTP/1.1 206 Partial Content\r\nETag: \"e1\"\r\nContent-Range: bytes {first}-{last}/{}\r\nContent-Length: {}\r\n\r\n",
        whole.len(),
        whole.len() - first
    );
    let request = format!("GET /photos/a HTTP/1.1\r\nHost: cloud.test\r\nRange: bytes={first}-{last}\r\n\r\n");
    let answer = [answer.as_bytes(), &whole[first..]].concat();
    sidecar.play(&[(Side::Client, request.as_bytes()), (Side::Cloud, &answer)]).await;
    let read = store.until_told("the read", |up| match up {
        Up::Read(read) => Some(read.clone()),
        _ => None,
    });
    let read = read.await;
    assert_eq!((read.offset, read.total_length), (BLOCK as u64, whole.len() as u64));
    let Some(v1::body::Content::Run(run)) = read.body.unwrap().content else { panic!("a run") };
    assert_eq!((run.length, run.hashes.len()), (3 * BLOCK as u64 + 7, 4 * 32));
}

#[tokio::test]
async fn a_lapse_is_told_when_it_begins_and_when_it_ends() {
    let store = Scripted::default();
    let serving = store.serve(free()).await;
    let sidecar = Sidecar::start(serving.address, None);
    let lapse = sidecar.lapses.open(&sidecar.bound, Lapse::Http2);
    let opened = store.until_told("its beginning", |up| match up {
        Up::GapOpen(open) => Some(open.clone()),
        _ => None,
    });
    let opened = opened.await;
    assert_eq!(opened.reason, "Http2");
    drop(lapse);
    let closed = store.until_told("its end", |up| match up {
        Up::GapClose(close) => Some(*close),
        _ => None,
    });
    assert_eq!(closed.await.lapse, opened.lapse);
}

#[tokio::test]
async fn bytes_that_are_not_understood_are_a_lapse_until_their_connection_ends() {
    let store = Scripted::default();
    let serving = store.serve(free()).await;
    let sidecar = Sidecar::start(serving.address, None);
    sidecar.play(&[(Side::Client, b"\x00\x01 this is no http\r\n\r\n")]).await;
    store
        .until_told("its beginning", |up| matches!(up, Up::GapOpen(open) if open.reason == "Unparsed").then_some(()))
        .await;
    store.until_told("its end", |up| matches!(up, Up::GapClose(_)).then_some(())).await;
}

#[tokio::test]
async fn an_operation_that_is_dropped_without_a_word_is_a_gap() {
    let store = Scripted::default();
    let serving = store.serve(free()).await;
    let sidecar = Sidecar::start(serving.address, None);
    let session = sidecar.sessions.of(&sidecar.bound.entries[0].binding);
    let lost = v1::GapFound { reason: "OutcomeUnknown".into(), scope: "Key".into(), ..v1::GapFound::default() };
    drop(session.announce(v1::Intent::default(), lost));
    let found = store.until_told("the gap", gap).await;
    assert_eq!(found.reason, "OutcomeUnknown");
    assert!(found.end.unwrap().counter > 0, "it ends now");
}

/// A cloud that takes requests with the body `ok` and answers 200. It stands for a real one where only the sidecar's
/// process matters.
async fn cloud() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                while socket.read_buf(&mut request).await.is_ok_and(|len| len > 0) {
                    if request.ends_with(b"\r\n\r\nok") {
                        request.clear();
                        let answer = b"HTTP/1.1 200 OK\r\nETag: \"e1\"\r\nContent-Length: 0\r\n\r\n";
                        socket.write_all(answer).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_killed_process_leaves_its_outcomes_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (cloud, store_at, proxy) = (cloud().await, free(), free());
    let manifest = format!(
        "apiVersion: hawser.dev/v1alpha1\nkind: CloudBinding\nmetadata: {{name: photos, namespace: shop}}\nspec:\n  provider: a\n  providers:\n  - {{name: a, s3: {{endpoint: \"http://{cloud}\"}}}}\n  buckets: [{{name: photos}}]\n"
    );
    std::fs::write(dir.path().join("binding.yaml"), manifest).unwrap();
    let start = || {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_hawser-sidecar"));
        let at = |name: &str| dir.path().join(name);
        command.arg("run").arg("--binding").arg(at("binding.yaml")).arg("--store").arg(format!("http://{store_at}"));
        command.arg("--trust-dir").arg(at("trust")).arg("--state-dir").arg(at("state"));
        command.arg("--proxy").arg(proxy.to_string()).kill_on_drop(true).spawn().unwrap()
    };
    let mut process = start();
    let mut client = loop {
        match tokio::net::TcpStream::connect(proxy).await {
            Ok(client) => break client,
            Err(_) => assert!(process.try_wait().unwrap().is_none(), "it ended at once"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    for key in ["a", "b"] {
        let request =
            format!("PUT http://{cloud}/photos/{key} HTTP/1.1\r\nHost: {cloud}\r\nContent-Length: 2\r\n\r\nok");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 64];
        assert!(client.read(&mut answer).await.unwrap() > 0);
    }
    let journal = dir.path().join("state").join("journal");
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::fs::metadata(&journal).map_or(0, |file| file.len()) < 200 {
        assert!(Instant::now() < deadline, "both outcomes are kept");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    process.kill().await.unwrap();

    let store = Scripted::default();
    let _serving = store.serve(store_at).await;
    let _process = start();
    let keys = |heard: &[Heard]| {
        let told: Vec<_> = heard
            .iter()
            .filter_map(|heard| match heard {
                Heard::Told(_, v1::ControlUp { message: Some(Up::Journalled(told)), .. }) => told.outcome.clone(),
                _ => None,
            })
            .map(|outcome| hawser_sidecar::gap::place_of(&outcome).unwrap().key)
            .collect();
        (told.len() >= 2).then_some(told)
    };
    assert_eq!(store.until("both outcomes", keys).await, ["a", "b"]);
    // What a third process would find; the file itself may keep its length for a while.
    let left = || {
        let copied = tempfile::tempdir().unwrap();
        std::fs::copy(&journal, copied.path().join("journal")).unwrap();
        Journal::open(copied.path()).unwrap().count()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while left() > 0 {
        assert!(Instant::now() < deadline, "what is receipted is forgotten");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
