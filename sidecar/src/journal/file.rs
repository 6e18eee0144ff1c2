//! The journal's file: a header, then lines that are only appended. Rewritten beside itself and renamed.
//!
//! | offset | bytes | of a line |
//! |---|---|---|
//! | 0 | 4 | length of the body, little-endian |
//! | 4 | 8 | the first bytes of the body's BLAKE3 hash |
//! | 12 | 1 | kind: 1 keep, 2 done |
//! | 13 | … | keep: length of the binding's name (2), the name, a `Journalled` message; done: session (16), sequence (8) |
//!
//! The file is private to one pod and outlives no upgrade of its image, so it has no older versions to read.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hawser_api::v1;
use hawser_api::v1::journalled::Outcome;
use prost::Message;

use super::{Entry, JOURNAL_LEN_MAX, Key, message};

const MAGIC: [u8; 8] = *b"hawserJ1";
const HEAD_LEN: usize = 12;

/// Names of buckets and keys are in it: nobody else's to read.
const MODE: u32 = 0o600;

const KEEP: u8 = 1;
const DONE: u8 = 2;

/// One thing that the file says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Line {
    /// This is to be told.
    Keep(Key, Box<Entry>),
    /// This has been told.
    Done(Key),
}

/// Most bytes that `entry` takes in the file: head, kind, lengths and tags of the message are below 64.
pub(super) fn len_of(entry: &Entry) -> usize {
    let outcome = match &entry.outcome {
        Outcome::Gap(gap) => gap.encoded_len(),
        Outcome::Recorded(recorded) => recorded.encoded_len(),
    };
    64 + entry.binding.len() + outcome
}

/// Most bytes that `line` takes in the file.
pub(super) fn line_len(line: &Line) -> usize {
    match line {
        Line::Keep(_, entry) => len_of(entry),
        Line::Done(_) => 64,
    }
}

/// The open file, at its end.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    file: std::fs::File,
    len: usize,
}

impl File {
    /// Opens or makes the file in `dir`, and reads what it says up to the first line that is not whole.
    pub(super) fn open(dir: &Path) -> io::Result<(File, Vec<Line>)> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join("journal");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(&path)?;
        let mut bytes = Vec::new();
        (&mut file).take(JOURNAL_LEN_MAX as u64).read_to_end(&mut bytes)?;
        let (lines, len) = read(&bytes);
        if len < bytes.len() {
            tracing::info!(cut_bytes = bytes.len() - len, "the end of the journal is torn, as after a kill");
        }
        let mut file = File { path, file, len };
        file.file.set_len(len as u64)?;
        file.file.seek(SeekFrom::Start(len as u64))?;
        if len == 0 {
            file.file.write_all(&MAGIC)?;
            file.len = MAGIC.len();
        }
        Ok((file, lines))
    }

    /// Bytes in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a line. It is in the page cache on return, which a killed process leaves behind; a machine that
    /// goes down takes a pod's memory volume with it anyway, so nothing is synced.
    pub(super) fn append(&mut self, line: &Line) -> io::Result<()> {
        let bytes = encode(line);
        self.file.write_all(&bytes)?;
        self.len += bytes.len();
        Ok(())
    }

    /// Makes the file say `live` and nothing else. A kill leaves the old file or the new one.
    pub(super) fn rewrite(&mut self, live: &BTreeMap<Key, Entry>) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        for (key, entry) in live {
            bytes.extend(encode(&Line::Keep(*key, Box::new(entry.clone()))));
        }
        let beside = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&beside)?;
        file.write_all(&bytes)?;
        std::fs::rename(&beside, &self.path)?;
        *self = File { path: self.path.clone(), file, len: bytes.len() };
        Ok(())
    }
}

fn encode(line: &Line) -> Vec<u8> {
    let mut body = Vec::new();
    match line {
        Line::Keep(key, entry) => {
            body.push(KEEP);
            let name = &entry.binding.as_bytes()[..entry.binding.len().min(usize::from(u16::MAX))];
            body.extend((name.len() as u16).to_le_bytes());
            body.extend(name);
            body.extend(message(key, entry.outcome.clone()).encode_to_vec());
        }
        Line::Done(key) => {
            body.push(DONE);
            body.extend(key.session);
            body.extend(key.sequence.to_le_bytes());
        }
    }
    let mut bytes = Vec::with_capacity(HEAD_LEN + body.len());
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(check(&body));
    bytes.extend(body);
    bytes
}

/// Every whole line, and where the last of them ends; 0 when not even the header is there.
pub(super) fn read(bytes: &[u8]) -> (Vec<Line>, usize) {
    let Some(mut rest) = bytes.strip_prefix(&MAGIC) else { return (Vec::new(), 0) };
    let mut lines = Vec::new();
    while let Some((line, next)) = first_line(rest) {
        lines.push(line);
        rest = next;
    }
    (lines, bytes.len() - rest.len())
}

fn first_line(bytes: &[u8]) -> Option<(Line, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let (body, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    (check(body) == *sum).then(|| decode(body)).flatten().map(|line| (line, rest))
}

fn decode(body: &[u8]) -> Option<Line> {
    let (kind, rest) = body.split_first()?;
    match *kind {
        KEEP => {
            let (len, rest) = rest.split_first_chunk::<2>()?;
            let (name, message) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
            let message = v1::Journalled::decode(message).ok()?;
            let key = Key { session: message.session.as_ref().try_into().ok()?, sequence: message.old_sequence };
            let binding = String::from_utf8(name.to_vec()).ok()?;
            Some(Line::Keep(key, Box::new(Entry { binding, outcome: message.outcome? })))
        }
        DONE => {
            let (session, sequence) = rest.split_first_chunk::<16>()?;
            let sequence = u64::from_le_bytes(sequence.try_into().ok()?);
            Some(Line::Done(Key { session: *session, sequence }))
        }
        _ => None,
    }
}

fn check(body: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(body);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    first
}
