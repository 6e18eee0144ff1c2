//! The browser's form (S3 PostObject): `multipart/form-data` whose part `file` is the object. Fields before it
//! name and describe the object, what comes after it is ignored, as S3 does.

use bytes::{Bytes, BytesMut};
use hawser_api::{GapReason, ObjectKey};

use super::{attributes, metadata};
use crate::http::Piece;
use crate::operation::{Attributes, Header};

/// Largest sum of everything before the file; S3 allows 20 KB.
pub const FIELDS_MAX: usize = 64 * 1024;

/// A form on its way.
#[derive(Debug)]
pub struct Form {
    /// CR LF, two hyphens and the boundary.
    delimiter: Vec<u8>,
    state: State,
    /// Bytes that are not decided on yet. Before the file: all of the part; in the file: what may be the
    /// beginning of the delimiter.
    held: BytesMut,
    fields: Vec<(String, Bytes)>,
    filename: String,
    length: u64,
}

#[derive(Debug, PartialEq)]
enum State {
    /// Before the file: parts are gathered whole.
    Fields,
    File,
    /// Behind the file.
    After,
}

impl Form {
    /// For a request with that Content-Type; `None` without a boundary.
    pub fn of(content_type: &str) -> Option<Form> {
        let boundary = parameter(content_type, "boundary")?;
        // RFC 2046 §5.1.1 allows 70 characters.
        if boundary.is_empty() || boundary.len() > 200 {
            return None;
        }
        let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
        // The first delimiter may stand at the very start; a line end before it makes all delimiters alike.
        let held = BytesMut::from(&b"\r\n"[..]);
        Some(Form { delimiter, state: State::Fields, held, fields: Vec::new(), filename: String::new(), length: 0 })
    }

    /// Takes a piece of the form and gives the file's content in it.
    ///
    /// # Errors
    /// Why the file cannot be known any more.
    pub fn take(&mut self, piece: Piece, mut give: impl FnMut(Bytes)) -> Result<(), GapReason> {
        let Piece::Bytes(mut bytes) = piece else { return Err(GapReason::Overflow) };
        if self.state == State::Fields {
            self.held.extend_from_slice(&bytes);
            while self.state == State::Fields && self.take_field()? {}
            if self.state == State::Fields {
                return if self.held.len() > FIELDS_MAX { Err(GapReason::TooLarge) } else { Ok(()) };
            }
            // What is held now came with this piece, as the file's head ends in it.
            bytes = bytes.split_off(bytes.len() - self.held.len());
            self.held.clear();
        }
        if self.state == State::File && !bytes.is_empty() {
            self.take_file(bytes, &mut give);
        }
        Ok(())
    }

    /// Whether the file's end was seen.
    pub fn is_whole(&self) -> bool {
        self.state == State::After
    }

    /// Length of the file so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The object's key; known when the file has begun.
    pub fn key(&self) -> Option<ObjectKey> {
        let key = String::from_utf8_lossy(self.field("key")?).replace("${filename}", &self.filename);
        (!key.is_empty() && self.state != State::Fields).then(|| ObjectKey::from_bytes(key))
    }

    /// Whether a 303 is a yes: the form names where to go afterwards.
    pub fn redirects(&self) -> bool {
        self.field("success_action_redirect").or_else(|| self.field("redirect")).is_some_and(|url| !url.is_empty())
    }

    /// Whether the client keeps the object's key to itself.
    pub fn is_sse_c(&self) -> bool {
        self.fields.iter().any(|(name, _)| name.starts_with("x-amz-server-side-encryption-customer-"))
    }

    /// What the fields give to the object.
    ///
    /// # Errors
    /// When the field `tagging` is not understood.
    pub fn attributes(&self) -> Result<Attributes, GapReason> {
        let headers = self.fields.iter().filter_map(|(name, value)| {
            let name = if name == "acl" { "x-amz-acl" } else { name };
            let given = attributes::is_given(name) && !value.is_empty();
            given.then(|| Header { name: name.to_owned(), value: value.clone() })
        });
        let headers = headers.collect();
        let tags = match self.field("tagging").filter(|document| !document.is_empty()) {
            Some(document) => Some(metadata::tags(document)?),
            None => Some(Vec::new()),
        };
        Ok(Attributes { headers, tags })
    }

    fn field(&self, name: &str) -> Option<&Bytes> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// Takes one part that is no file off `held`, or finds the file's beginning. `Ok(false)`: more is needed.
    fn take_field(&mut self) -> Result<bool, GapReason> {
        let Some(start) = find(&self.held, &self.delimiter) else { return Ok(false) };
        let after = start + self.delimiter.len();
        match self.held.get(after..after + 2) {
            None => return Ok(false),
            Some(b"--") => return Err(GapReason::Malformed), // the end of a form without a file
            Some(_) => {}
        }
        let Some(line_end) = find(&self.held[after..], b"\r\n") else { return Ok(false) };
        let head_start = after + line_end;
        let Some(head_len) = find(&self.held[head_start..], b"\r\n\r\n") else { return Ok(false) };
        let body = head_start + head_len + 4;
        let (name, filename) = disposition(&self.held[head_start..body]).ok_or(GapReason::Malformed)?;
        if name == "file" {
            self.filename = filename.unwrap_or_default();
            let _ = self.held.split_to(body);
            self.state = State::File;
            return Ok(true);
        }
        let Some(len) = find(&self.held[body..], &self.delimiter) else { return Ok(false) };
        let value = Bytes::copy_from_slice(&self.held[body..body + len]);
        let _ = self.held.split_to(body + len);
        self.fields.push((name.to_ascii_lowercase(), value));
        if self.fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > FIELDS_MAX {
            return Err(GapReason::TooLarge);
        }
        Ok(true)
    }

    /// Looks for the delimiter; what is held back is shorter than it, and only that is ever copied.
    fn take_file(&mut self, mut bytes: Bytes, give: &mut impl FnMut(Bytes)) {
        if !self.held.is_empty() {
            let seam = bytes.len().min(self.delimiter.len() - 1);
            let held = self.held.len();
            self.held.extend_from_slice(&bytes[..seam]);
            let joined = self.held.split().freeze();
            if let Some(end) = find(&joined, &self.delimiter) {
                self.state = State::After;
                return self.give(joined.slice(..end), give);
            }
            if seam == bytes.len() {
                let begun = self.begun(&joined);
                self.held.extend_from_slice(&joined[joined.len() - begun..]);
                return self.give(joined.slice(..joined.len() - begun), give);
            }
            self.give(joined.slice(..held), give);
        }
        match find(&bytes, &self.delimiter) {
            Some(end) => {
                self.state = State::After;
                bytes.truncate(end);
            }
            None => {
                let begun = self.begun(&bytes);
                self.held.extend_from_slice(&bytes[bytes.len() - begun..]);
                bytes.truncate(bytes.len() - begun);
            }
        }
        self.give(bytes, give);
    }

    /// How many bytes at the end may be the delimiter's beginning.
    fn begun(&self, bytes: &[u8]) -> usize {
        let longest = bytes.len().min(self.delimiter.len() - 1);
        (1..=longest).rev().find(|len| bytes.ends_with(&self.delimiter[..*len])).unwrap_or(0)
    }

    fn give(&mut self, content: Bytes, give: &mut impl FnMut(Bytes)) {
        if !content.is_empty() {
            self.length += content.len() as u64;
            give(content);
        }
    }
}

/// Name and file name of a part's Content-Disposition.
fn disposition(head: &[u8]) -> Option<(String, Option<String>)> {
    let head = String::from_utf8_lossy(head);
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))?;
    let filename =
        parameter(line, "filename").map(|path| path.rsplit(['/', '\\']).next().unwrap_or_default().to_owned());
    Some((parameter(line, "name")?, filename))
}

/// A parameter of a header's value, with its quotes off.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (own, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                // Browsers write a quote in a name as %22 or \", so the next bare quote ends it.
                let mut escaped = false;
                let end = quoted.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                })?;
                (&quoted[..end], quoted[end + 1..].split_once(';').map(|halves| halves.1))
            }
            None => match after.split_once(';') {
                Some((own, next)) => (own.trim(), Some(next)),
                None => (after.trim(), None),
            },
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(own.to_owned());
        }
        rest = next?;
    }
}

/// Where `needle` begins.
fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TYPE: &str = "multipart/form-data; charset=utf-8; boundary=\"xYz\"";

    fn form(parts: &[(&str, &str)]) -> Vec<u8> {
        let mut wire = Vec::new();
        for (disposition, value) in parts {
            wire.extend_from_slice(
                format!("--xYz\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n").as_bytes(),
            );
        }
        wire.extend_from_slice(b"--xYz--\r\n");
        wire
    }

    fn read(wire: &[u8], step: usize) -> Result<(Form, Vec<u8>), GapReason> {
        let (mut form, mut file) = (Form::of(TYPE).unwrap(), Vec::new());
        for piece in wire.chunks(step) {
            form.take(Piece::Bytes(Bytes::copy_from_slice(piece)), |bytes| file.extend_from_slice(&bytes))?;
        }
        Ok((form, file))
    }

    #[test]
    fn the_file_part_is_the_object_however_the_form_is_split() {
        let content = "a\r\n--xY\r\n\r\n--x-- no end\r";
        let wire = form(&[
            ("name=\"key\"", "in/${filename}"),
            ("name=\"acl\"", "public-read"),
            ("name=\"Content-Type\"", "text/plain"),
            ("name=\"x-amz-meta-a\"", "1"),
            ("name=\"policy\"", "SECRET"),
            ("name=\"tagging\"", "<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>"),
            ("name=\"file\"; filename=\"C:\\dir/photo.jpg\"", content),
            ("name=\"x-amz-meta-late\"", "ignored"),
        ]);
        for step in 1..=wire.len() {
            let (form, file) = read(&wire, step).unwrap();
            assert_eq!(
                (String::from_utf8(file).unwrap().as_str(), form.is_whole()),
                (content, true),
                "{step} at a time"
            );
            assert_eq!(form.key(), Some(ObjectKey::from_bytes("in/photo.jpg")));
            assert_eq!(form.length(), content.len() as u64);
            let attributes = form.attributes().unwrap();
            let names: Vec<&str> = attributes.headers.iter().map(|header| header.name.as_str()).collect();
            assert_eq!(names, ["x-amz-acl", "content-type", "x-amz-meta-a"]);
            assert_eq!(attributes.tags.unwrap()[0].value, "v");
        }
    }

    #[test]
    fn a_form_that_is_none_is_malformed_and_a_long_one_too_large() {
        assert!(Form::of("multipart/form-data").is_none());
        assert_eq!(read(b"--xYz--\r\n", 3).err(), Some(GapReason::Malformed));
        assert_eq!(read(b"--xYz\r\nX: y\r\n\r\nv\r\n--xYz--\r\n", 3).err(), Some(GapReason::Malformed));
        let long = form(&[("name=\"key\"", &"k".repeat(FIELDS_MAX)), ("name=\"file\"", "x")]);
        assert_eq!(read(&long, 1000).err(), Some(GapReason::TooLarge));
        let (unfinished, _) = read(b"--xYz\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nabc", 100).unwrap();
        assert!(!unfinished.is_whole());
        assert_eq!(Form::of(TYPE).unwrap().take(Piece::Dropped(3), |_| ()), Err(GapReason::Overflow));
    }
}
