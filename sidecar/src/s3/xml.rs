//! S3's XML documents, read whole into a small tree. Bounded, without document types or entities of its own.

use bytes::Bytes;
use quick_xml::Reader;
use quick_xml::events::Event;

use crate::http::Piece;

/// Largest document that is read. The largest real ones: 10 000 parts with checksums (2.5 MiB), a page of
/// 1 000 keys of 1 KiB each, URL-encoded (3.5 MiB).
pub const DOCUMENT_MAX: u64 = 4 * 1024 * 1024;

/// Deepest nesting. S3's own documents have at most five levels.
const DEPTH_MAX: usize = 16;

/// Most elements in one document: 10 000 parts of three to eight elements. So many take some 15 MB while the document
/// is looked at, and nothing afterwards; a page of 1 000 keys takes 1 MB.
const ELEMENTS_MAX: usize = 100_000;

/// One element, with its text or its children.
#[derive(Debug, Default, PartialEq)]
pub struct Element {
    /// Without its namespace's prefix.
    pub name: String,
    /// The text in it, entities resolved; of the children's text there is none here.
    pub text: String,
    /// In their order.
    pub children: Vec<Element>,
}

/// The document is not one that is read: malformed, or past a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl Element {
    /// Reads a document; white space before it is borne (S3 keeps connections alive with it).
    pub fn parse(document: &[u8]) -> Result<Element, Unreadable> {
        let text = std::str::from_utf8(document).map_err(|_| Unreadable)?;
        let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}').trim_ascii_start());
        reader.config_mut().expand_empty_elements = true;
        let mut open: Vec<Element> = Vec::new();
        let mut count = 0;
        let mut root = None;
        loop {
            let event = reader.read_event().map_err(|_| Unreadable)?;
            match event {
                Event::Start(start) => {
                    count += 1;
                    if open.len() >= DEPTH_MAX || count > ELEMENTS_MAX || root.is_some() {
                        return Err(Unreadable);
                    }
                    let name = start.local_name().as_ref().to_owned();
                    open.push(Element { name, ..Element::default() });
                }
                Event::End(_) => {
                    let element = open.pop().ok_or(Unreadable)?;
                    match open.last_mut() {
                        Some(parent) => parent.children.push(element),
                        None => root = Some(element),
                    }
                }
                Event::Text(part) => push(&mut open, &part.xml10_content()),
                Event::CData(part) => push(&mut open, &part.xml10_content()),
                Event::GeneralRef(entity) => {
                    let c = match entity.resolve_char_ref() {
                        Ok(Some(c)) => c,
                        Ok(None) => named(&entity.xml10_content()).ok_or(Unreadable)?,
                        Err(_) => return Err(Unreadable),
                    };
                    push(&mut open, c.encode_utf8(&mut [0; 4]));
                }
                Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
                Event::DocType(_) => return Err(Unreadable),
                Event::Eof => return root.filter(|_| open.is_empty()).ok_or(Unreadable),
                Event::Empty(_) => return Err(Unreadable), // expanded above
            }
        }
    }

    /// The first child of that name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The children of that name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of the first child of that name, when it has some.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.as_str()).filter(|text| !text.is_empty())
    }
}

fn push(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

/// The entities that every XML reader knows.
fn named(entity: &str) -> Option<char> {
    match entity {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}

/// A document on its way, kept in the slices that it came in, within the pod's budget.
#[derive(Debug, Default)]
pub struct Document {
    pieces: Vec<Bytes>,
    len: u64,
    lost: Option<Incomplete>,
}

/// Why a document is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incomplete {
    /// It is larger than [`DOCUMENT_MAX`].
    TooLarge,
    /// Bytes of it were dropped for want of budget.
    Dropped,
}

impl Document {
    /// Takes the next piece.
    pub fn push(&mut self, piece: Piece) {
        self.len += piece.len();
        match piece {
            _ if self.lost.is_some() => {}
            _ if self.len > DOCUMENT_MAX => self.lose(Incomplete::TooLarge),
            Piece::Bytes(bytes) => self.pieces.push(bytes),
            Piece::Dropped(_) => self.lose(Incomplete::Dropped),
        }
    }

    fn lose(&mut self, why: Incomplete) {
        self.lost = Some(why);
        self.pieces = Vec::new();
    }

    /// The whole document.
    pub fn whole(&self) -> Result<Bytes, Incomplete> {
        match (self.lost, &self.pieces[..]) {
            (Some(why), _) => Err(why),
            (None, [one]) => Ok(one.clone()),
            (None, many) => Ok(many.concat().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn text_is_read_with_its_entities_and_without_prefixes() {
        let document = b"  \r\n <?xml version=\"1.0\"?>\n<s:R xmlns:s=\"x\"><A>a&amp;b&#x41;&#13;<![CDATA[<]]></A><B/><C> x </C></s:R>";
        let root = Element::parse(document).unwrap();
        assert_eq!(root.name, "R");
        assert_eq!(root.text_of("A"), Some("a&bA\r<"));
        assert_eq!((root.text_of("B"), root.text_of("C")), (None, Some(" x ")));
    }

    #[test]
    fn what_is_unsafe_or_broken_is_unreadable() {
        let deep = "<a>".repeat(DEPTH_MAX + 1) + &"</a>".repeat(DEPTH_MAX + 1);
        let many = format!("<a>{}</a>", "<b/>".repeat(ELEMENTS_MAX));
        for document in [
            "",
            "  ",
            "text",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
            "<a>&unknown;</a>",
            "<a>&#xD800;</a>",
            &deep,
            &many,
        ] {
            assert_eq!(Element::parse(document.as_bytes()), Err(Unreadable), "{}", &document[..document.len().min(60)]);
        }
        assert_eq!(Element::parse(b"<a>\xff</a>"), Err(Unreadable));
    }

    #[test]
    fn a_document_past_its_bound_is_not_kept() {
        let mut document = Document::default();
        let piece = || Piece::Bytes(Bytes::from(vec![b' '; 1024 * 1024]));
        for _ in 0..4 {
            document.push(piece());
        }
        assert_eq!(document.whole().map(|bytes| bytes.len() as u64), Ok(DOCUMENT_MAX));
        document.push(Piece::Bytes(Bytes::from_static(b" ")));
        assert_eq!(document.whole(), Err(Incomplete::TooLarge));
        assert!(document.pieces.is_empty());
    }
}
