//! One page of a listing: keys in order, folded at a delimiter, resumable after any row.

use hawser_api::v1::ObjectEntry;

/// Rows in one page at most, as at S3.
pub const PAGE_ROWS_MAX: usize = 1000;

/// What a client asks a listing for.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// Only keys that begin so.
    pub prefix: Vec<u8>,
    /// Folds everything behind its first occurrence after the prefix; empty for none.
    pub delimiter: Vec<u8>,
    /// Only rows after this key or folded prefix.
    pub after: Vec<u8>,
    /// Rows at most.
    pub rows_max: usize,
}

/// One row of a page.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// An object (or one of its versions).
    Object(Box<ObjectEntry>),
    /// All keys that begin so, folded into one row.
    Prefix(Vec<u8>),
}

/// A page, and whether more follows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Rows in key order.
    pub rows: Vec<Row>,
    /// The last row's name when more rows follow: the `after` of the next page.
    pub next: Option<Vec<u8>>,
}

/// Collects one page from `fetch(start_after, limit)`, which gives entries in key order, each key
/// greater than `start_after`; fewer than `limit` of them mean the end, and more are allowed where
/// a key has several versions.
///
/// Folded prefixes cost one fetch each, not one per key below them.
///
/// # Errors
/// Whatever `fetch` says.
pub fn page<E>(ask: &Ask, mut fetch: impl FnMut(&[u8], usize) -> Result<Vec<ObjectEntry>, E>) -> Result<Page, E> {
    let mut page = Page::default();
    let rows_max = ask.rows_max.min(PAGE_ROWS_MAX);
    if rows_max == 0 {
        return Ok(page);
    }
    let mut start =
        if !ask.delimiter.is_empty() && is_folded(ask, &ask.after) { below(&ask.after) } else { ask.after.clone() };
    loop {
        // One more than fits tells whether a further page exists; a fetch gives a page at most.
        let limit = (rows_max + 1 - page.rows.len()).min(PAGE_ROWS_MAX);
        let entries = fetch(&start, limit)?;
        let ended = entries.len() < limit;
        let mut jumped = false;
        for entry in entries {
            let key = entry.object.as_ref().map(|object| object.key.to_vec()).unwrap_or_default();
            if page.rows.len() == rows_max {
                page.next = page.rows.last().map(name);
                return Ok(page);
            }
            start.clone_from(&key);
            match folded(ask, &key) {
                Some(prefix) => {
                    start = below(&prefix);
                    page.rows.push(Row::Prefix(prefix));
                    jumped = true;
                    break;
                }
                None => page.rows.push(Row::Object(Box::new(entry))),
            }
        }
        if ended && !jumped {
            return Ok(page);
        }
    }
}

/// The prefix that `key` folds into: up to and with the first delimiter behind the asked prefix.
fn folded(ask: &Ask, key: &[u8]) -> Option<Vec<u8>> {
    if ask.delimiter.is_empty() {
        return None;
    }
    let rest = key.get(ask.prefix.len()..)?;
    let at = rest.windows(ask.delimiter.len()).position(|window| window == ask.delimiter)?;
    Some(key[..ask.prefix.len() + at + ask.delimiter.len()].to_vec())
}

/// Whether `after` is itself a folded row, so that all keys below it were told already.
fn is_folded(ask: &Ask, after: &[u8]) -> bool {
    after.starts_with(&ask.prefix) && folded(ask, after).as_deref() == Some(after)
}

/// A start that skips every key beginning with `prefix`: 0xFF stands in no UTF-8 key.
fn below(prefix: &[u8]) -> Vec<u8> {
    let mut start = prefix.to_vec();
    start.push(0xff);
    start
}

/// A row's name: what a next page starts after.
fn name(row: &Row) -> Vec<u8> {
    match row {
        Row::Object(entry) => entry.object.as_ref().map(|object| object.key.to_vec()).unwrap_or_default(),
        Row::Prefix(prefix) => prefix.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use hawser_api::v1::ObjectRef;

    use super::*;

    fn all_pages(keys: &[&str], prefix: &str, delimiter: &str, rows_max: usize) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut after = Vec::new();
        loop {
            let ask = Ask { prefix: prefix.into(), delimiter: delimiter.into(), after, rows_max };
            let page = page::<Infallible>(&ask, |start, limit| {
                let mut keys: Vec<&str> = keys.to_vec();
                keys.sort_unstable();
                Ok(keys
                    .into_iter()
                    .filter(|key| key.starts_with(prefix) && key.as_bytes() > start)
                    .take(limit)
                    .map(|key| ObjectEntry {
                        object: Some(ObjectRef { key: key.as_bytes().to_vec().into(), ..ObjectRef::default() }),
                        ..ObjectEntry::default()
                    })
                    .collect())
            })
            .unwrap();
            pages.push(page.rows.iter().map(|row| String::from_utf8(name(row)).unwrap()).collect());
            match page.next {
                Some(next) => after = next,
                None => return pages,
            }
        }
    }

    #[test]
    fn every_row_comes_once_however_the_pages_fall() {
        let keys = ["a", "a/1", "a/2", "a//3", "a0", "b/", "b/x/y", "c", "dir", "dir/"];
        for (prefix, delimiter, rows) in [
            ("", "", vec!["a", "a//3", "a/1", "a/2", "a0", "b/", "b/x/y", "c", "dir", "dir/"]),
            ("", "/", vec!["a", "a/", "a0", "b/", "c", "dir", "dir/"]),
            ("a/", "/", vec!["a//", "a/1", "a/2"]),
            ("b/", "/", vec!["b/", "b/x/"]),
            ("dir", "/", vec!["dir", "dir/"]),
            ("zz", "/", vec![]),
        ] {
            for rows_max in 1..=11 {
                let pages = all_pages(&keys, prefix, delimiter, rows_max);
                assert_eq!(pages.concat(), rows, "prefix {prefix:?}, delimiter {delimiter:?}, {rows_max} a page");
                assert!(pages.iter().all(|page| page.len() <= rows_max));
                assert!(pages.iter().rev().skip(1).all(|page| page.len() == rows_max), "{pages:?}");
            }
        }
    }
}
