//! What is understood of an S3 connection: every trap of the wire, and recordings of real clients.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use hawser_api::Stamp;
use hawser_api::binding::{self, Provider, S3};
use hawser_sidecar::budget::Budget;
use hawser_sidecar::operation::{
    Acl, Attributes, Deleted, ETag, Event, Extent, Header, Object, Operation, Outcome, Place, Sighted, Source, Tag,
    VersionId,
};
use hawser_sidecar::s3::Observer;
use hawser_sidecar::s3::address::Addressing;
use hawser_sidecar::tee::{Chunk, Seen, Side};
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

#[path = "capture/rows.rs"]
mod rows;

/// What happens on a connection, byte by byte of either side.
#[derive(Clone, Debug)]
enum Act {
    Says(Side, Vec<u8>),
    /// So many bytes pass that the tee could not copy.
    Drops(Side, usize),
    Ends(Side, bool),
    /// The relay goes without another word.
    Gone,
}

fn observer(endpoint: &str, port: u16) -> Observer {
    let s3 = S3 {
        endpoint: endpoint.parse().unwrap(),
        region: None,
        addressing: binding::Addressing::Auto,
        credentials: None,
        ca: None,
    };
    Observer::new(Addressing::new(vec![Arc::new(Provider { name: "cloud".into(), s3 })], port))
}

/// Plays a connection, each act cut into pieces of at most `step` bytes.
fn play(mut observer: Observer, acts: &[Act], step: impl Fn(usize) -> usize) -> Vec<Event> {
    let budget = Budget::new(1 << 30);
    let (mut out, mut counter) = (Vec::new(), 0);
    for act in acts {
        match act {
            Act::Says(side, bytes) => {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(step(counter).clamp(1, rest.len()));
                    counter += 1;
                    let share = budget.try_take(piece.len()).unwrap();
                    let bytes = Some((Bytes::copy_from_slice(piece), share));
                    observer.on(chunk(*side, counter, piece.len(), bytes), &mut out);
                    rest = after;
                }
            }
            Act::Drops(side, len) => {
                counter += 1;
                observer.on(chunk(*side, counter, *len, None), &mut out);
            }
            Act::Ends(side, clean) => {
                counter += 1;
                let stamp = Stamp { counter: counter as u64, ..Stamp::default() };
                observer.on(Seen::End { side: *side, stamp, clean: *clean }, &mut out);
            }
            Act::Gone => observer.close(&mut out),
        }
    }
    every_exchange_that_began_is_finished_once(&out, acts);
    let bodies =
        out.iter().filter_map(|event| if let Event::Body { bytes, .. } = event { Some(bytes.len()) } else { None });
    let kept = bodies.clone().sum::<usize>();
    // The seam of a form's delimiter is copied: less than its length.
    assert!(budget.used() + 128 * bodies.count() >= kept, "bodies own their part of the budget");
    out
}

fn chunk(side: Side, counter: usize, len: usize, bytes: Option<(Bytes, hawser_sidecar::budget::Share)>) -> Seen {
    Seen::Chunk(Chunk { side, stamp: Stamp { counter: counter as u64, ..Stamp::default() }, len, bytes })
}

/// When both sides have ended, or the copy is lost, nothing is left open; and nothing is told of it afterwards.
fn every_exchange_that_began_is_finished_once(events: &[Event], acts: &[Act]) {
    let mut open = Vec::new();
    for event in events {
        match event {
            Event::WriteBegan(began) => open.push(began.exchange),
            Event::ReadBegan(began) => open.push(began.exchange),
            Event::Body { exchange, bytes } => assert!(open.contains(exchange) && !bytes.is_empty()),
            Event::BodyLost { exchange, .. } => assert!(open.contains(exchange)),
            Event::Finished(finished) => {
                let place = open.iter().position(|exchange| *exchange == finished.exchange);
                open.remove(place.expect("it began and has not finished"));
                assert!(finished.begin.counter < finished.end.counter || finished.end == finished.begin);
            }
            Event::Keys { exchange, keys } => assert!(open.contains(exchange) && !keys.is_empty()),
            Event::Sighting(_) | Event::Unparsed { .. } => {}
        }
    }
    let ends = acts.iter().filter(|act| matches!(act, Act::Ends(..))).count();
    let gone = acts.iter().any(|act| matches!(act, Act::Gone));
    assert!(open.is_empty() || (ends < 2 && !gone), "left open: {open:?}");
}

/// Events as lines for people; neighbouring bytes of one body are one line.
fn told(events: &[Event]) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut bodies: Vec<(usize, u64, Vec<u8>)> = Vec::new();
    for event in events {
        match event {
            Event::WriteBegan(began) => {
                let mut line = format!("began{} {:?} {}", began.exchange.0, began.kind, place(&began.place));
                if let Some((upload, part)) = &began.upload {
                    let part = part.map_or(String::new(), |part| format!("#{}", part.get()));
                    write!(line, " of {}{part}", upload.0).unwrap();
                }
                if let Some(length) = began.length {
                    write!(line, " length {length}").unwrap();
                }
                lines.push(line);
            }
            Event::ReadBegan(read) => {
                let extent = match read.extent {
                    Extent::Whole { length } => length.map_or("all".into(), |length| format!("all {length}")),
                    Extent::Range { first, last, total } => format!("{first}-{last}/{total}"),
                };
                let part = read.part.map_or(String::new(), |(part, of)| format!(" part {}/{of:?}", part.get()));
                let own = read.attributes.as_ref().map_or(" headers overridden".into(), attributes);
                let which = if read.version_was_asked { " asked" } else { "" };
                lines.push(format!(
                    "reads{} {} {extent} {}{}{which}{part}{own}",
                    read.exchange.0,
                    object(&read.object),
                    etag(&read.etag),
                    version(read.version.as_ref())
                ));
            }
            Event::Body { exchange, bytes } => match bodies.last_mut() {
                Some((_, own, body)) if *own == exchange.0 => body.extend_from_slice(bytes),
                _ => {
                    bodies.push((lines.len(), exchange.0, bytes.to_vec()));
                    lines.push(String::new());
                }
            },
            Event::Keys { .. } => {} // the outcome has them too
            Event::BodyLost { exchange, reason } => lines.push(format!("body lost{} {reason}", exchange.0)),
            Event::Finished(finished) => lines.push(format!("{}", Ended(finished.exchange.0, &finished.outcome))),
            Event::Sighting(sighting) => {
                let seen = match &sighting.seen {
                    Sighted::Present { etag: name, size } => {
                        format!("{}{}", etag(name), size.map_or(String::new(), |size| format!(" size {size}")))
                    }
                    Sighted::Absent => "absent".into(),
                };
                let current = if sighting.current { "" } else { " not current" };
                lines.push(format!(
                    "sighted{} {:?} {} {seen}{}{current}",
                    sighting.exchange.0,
                    sighting.by,
                    object(&sighting.object),
                    version(sighting.version.as_ref())
                ));
            }
            Event::Unparsed { reason } => lines.push(format!("unparsed {reason}")),
        }
    }
    for (at, exchange, body) in bodies {
        let text = if body.len() > 60 { format!("{} bytes", body.len()) } else { body.escape_ascii().to_string() };
        lines[at] = format!("body{exchange} {text}");
    }
    lines.join("\n")
}

struct Ended<'a>(u64, &'a Outcome);

impl std::fmt::Display for Ended<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ended(n, outcome) = self;
        match outcome {
            Outcome::Refused => write!(f, "refused{n}"),
            Outcome::Read { whole } => write!(f, "read{n}{}", if *whole { "" } else { " cut" }),
            Outcome::Lost { reason, place: at, etag: name, version: id } => {
                let name = name.as_ref().map_or(String::new(), |name| format!(" {}", etag(name)));
                write!(f, "gap{n} {reason} {}{name}{}", place(at), version(id.as_ref()))
            }
            Outcome::Done(operation) => write!(f, "done{n} {}", done(operation)),
        }
    }
}

fn done(operation: &Operation) -> String {
    match operation {
        Operation::Put { object: o, length, etag: e, version: v, attributes: a } => {
            format!("Put {} length {length} {}{}{}", object(o), etag(e), version(v.as_ref()), attributes(a))
        }
        Operation::CreateMultipart { object: o, upload, attributes: a } => {
            format!("CreateMultipart {} {}{}", object(o), upload.0, attributes(a))
        }
        Operation::PutPart { object: o, upload, number, length, etag: e } => {
            format!("PutPart {} {}#{} length {length} {}", object(o), upload.0, number.get(), etag(e))
        }
        Operation::CopyPart { object: o, upload, number, etag: e, source: s, range } => {
            format!("CopyPart {} {}#{} {} from {} {range:?}", object(o), upload.0, number.get(), etag(e), source(s))
        }
        Operation::CompleteMultipart { object: o, upload, parts, etag: e, version: v, attributes: a } => {
            let parts: Vec<String> =
                parts.iter().map(|(number, name)| format!("{}={}", number.get(), name.0)).collect();
            let parts = parts.join(",");
            format!("Complete {} {} [{parts}] {}{}{}", object(o), upload.0, etag(e), version(v.as_ref()), attributes(a))
        }
        Operation::AbortMultipart { object: o, upload } => format!("Abort {} {}", object(o), upload.0),
        Operation::Copy { object: o, source: s, etag: e, version: v, metadata, tagging, attributes: a } => format!(
            "Copy {} from {} {}{} {metadata:?} {tagging:?}{}",
            object(o),
            source(s),
            etag(e),
            version(v.as_ref()),
            attributes(a)
        ),
        Operation::Delete(deleted) => format!("Delete {}", gone(deleted)),
        Operation::DeleteMany { bucket, deleted, unknown } => {
            let deleted: Vec<String> = deleted.iter().map(gone).collect();
            let unknown: Vec<String> = unknown.iter().map(place).collect();
            format!("DeleteMany {bucket} [{}] unknown [{}]", deleted.join(", "), unknown.join(", "))
        }
        Operation::SetTags { object: o, version: v, tags: t } => {
            format!("SetTags {}{} {}", object(o), version(v.as_ref()), tags(t))
        }
        Operation::SetAcl { object: o, version: v, acl } => {
            let acl = match acl {
                Acl::Headers(own) => headers(own),
                Acl::Policy(document) => format!(" {} bytes", document.len()),
            };
            format!("SetAcl {}{}{acl}", object(o), version(v.as_ref()))
        }
        Operation::SetLock { object: o, version: v, lock } => {
            format!("SetLock {}{}{}", object(o), version(v.as_ref()), headers(lock))
        }
        Operation::CreateBucket { bucket } => format!("CreateBucket {bucket}"),
        Operation::DeleteBucket { bucket } => format!("DeleteBucket {bucket}"),
    }
}

fn gone(deleted: &Deleted) -> String {
    let marker = deleted.marker.as_ref().map_or(String::new(), |marker| format!(" marker {}", marker.0));
    format!("{}{}{marker}", object(&deleted.object), version(deleted.version.as_ref()))
}

fn object(object: &Object) -> String {
    format!("{}/{}", object.bucket, object.key)
}

fn place(place: &Place) -> String {
    match place {
        Place::Version(o, v) => format!("{}{}", object(o), version(Some(v))),
        Place::Object(o) => object(o),
        Place::Bucket(bucket) => format!("{bucket}/*"),
        Place::Unknown => "*".into(),
    }
}

fn source(source: &Source) -> String {
    format!("{}{}", object(&source.object), version(source.version.as_ref()))
}

fn etag(etag: &ETag) -> String {
    format!("\"{}\"", etag.0)
}

fn version(version: Option<&VersionId>) -> String {
    version.map_or(String::new(), |id| format!("@{}", id.0))
}

/// No tags, and no word of tags, look alike here.
fn attributes(attributes: &Attributes) -> String {
    let own = attributes.tags.as_deref().unwrap_or_default();
    let own = if own.is_empty() { String::new() } else { format!(" tags {}", tags(own)) };
    format!("{}{own}", headers(&attributes.headers))
}

fn headers(headers: &[Header]) -> String {
    headers.iter().map(|header| format!(" {}={}", header.name, header.value.escape_ascii())).collect()
}

fn tags(tags: &[Tag]) -> String {
    let tags: Vec<String> = tags.iter().map(|tag| format!("{}:{}", tag.key, tag.value)).collect();
    format!("[{}]", tags.join(","))
}

/// Reads a recording: its connections, each a list of acts.
fn recording(path: &Path) -> Vec<Vec<Act>> {
    let file = std::fs::read(path).unwrap();
    let (mut rest, mut connections) = (&file[..], vec![Vec::new()]);
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
        let line = std::str::from_utf8(&rest[..end]).unwrap();
        rest = &rest[end + 1..];
        let acts = connections.last_mut().unwrap();
        let side = if line.starts_with('>') { Side::Client } else { Side::Cloud };
        match line {
            "=" => connections.push(Vec::new()),
            ">|" | "<|" => acts.push(Act::Ends(side, true)),
            frame => {
                let len: usize = frame[2..].parse().unwrap();
                acts.push(Act::Says(side, rest[..len].to_vec()));
                rest = &rest[len + 1..];
            }
        }
    }
    connections
}

fn recordings() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|ending| ending == "http")).collect();
    files.sort();
    assert!(files.len() > 30, "the recordings are there");
    files
}

/// `UPDATE=1` writes what is told now beside each recording, to be reviewed as a diff.
#[test]
fn recordings_of_real_clients_tell_what_they_did() {
    for path in recordings() {
        let connections = recording(&path);
        let all: Vec<String> = connections
            .iter()
            .map(|acts| told(&play(observer("https://localhost", 443), acts, |_| usize::MAX)))
            .collect();
        let seen = all.join("\n=\n") + "\n";
        let golden = path.with_extension("told");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&golden, &seen).unwrap();
        }
        let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(seen, wanted, "{}", path.display());
    }
}

#[test]
fn recordings_tell_the_same_one_byte_at_a_time() {
    for path in recordings() {
        for acts in recording(&path) {
            let whole = told(&play(observer("https://localhost", 443), &acts, |_| usize::MAX));
            let bytes = told(&play(observer("https://localhost", 443), &acts, |_| 1));
            assert_eq!(whole, bytes, "{}", path.display());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn recordings_tell_the_same_however_they_are_cut(steps in proptest::collection::vec(1usize..400, 1..20)) {
        for path in recordings() {
            for acts in recording(&path) {
                let whole = told(&play(observer("https://localhost", 443), &acts, |_| usize::MAX));
                let cut = told(&play(observer("https://localhost", 443), &acts, |n| steps[n % steps.len()]));
                prop_assert_eq!(whole, cut);
            }
        }
    }

    #[test]
    fn a_recording_with_dropped_or_damaged_bytes_never_panics_and_never_proves_what_was_damaged(
        which in any::<proptest::sample::Index>(),
        frame in any::<proptest::sample::Index>(),
        byte in any::<proptest::sample::Index>(),
        flip in any::<Option<u8>>(),
    ) {
        let files = recordings();
        let path = which.get(&files);
        for mut acts in recording(path) {
            let at = frame.index(acts.len());
            if let Act::Says(side, bytes) = &mut acts[at] {
                match flip {
                    Some(flip) => { let at = byte.index(bytes.len()); bytes[at] ^= flip; }
                    None => acts[at] = Act::Drops(*side, bytes.len()),
                }
            }
            play(observer("https://localhost", 443), &acts, |_| usize::MAX);
        }
    }
}
