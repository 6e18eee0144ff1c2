//! How an object is cut for its way to the target: in one piece, or in the parts that its source had, so
//! that an ETag made of parts can survive.
use hawser_api::v1;

/// Objects above this go in parts.
const SINGLE_MAX: u64 = 64 * 1024 * 1024;
/// Our own parts are of this length, or longer where there would be too many.
const PART_LEN: u64 = 16 * 1024 * 1024;
/// Bounds of S3.
const PARTS_MAX: u64 = 10_000;
const PART_LEN_MAX: u64 = 5 * 1024 * 1024 * 1024;
const PART_LEN_MIN: u64 = 5 * 1024 * 1024;

/// One part on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its number at the target.
    pub number: u32,
    /// Where it begins in the object.
    pub offset: u64,
    /// Its length.
    pub len: u64,
}

/// How an object travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One PUT.
    Single,
    /// An upload of parts, in order.
    Parts(Vec<Piece>),
}

impl Layout {
    /// The layout of an object of `size` bytes that its source had in `parts` (empty: in one piece, or unknown).
    pub fn plan(size: u64, parts: &[v1::PartLayout]) -> Layout {
        if let Some(pieces) = repeated(size, parts) {
            return Layout::Parts(pieces);
        }
        if size <= SINGLE_MAX {
            return Layout::Single;
        }
        let len = PART_LEN.max(size.div_ceil(PARTS_MAX).next_multiple_of(1024 * 1024));
        let count = size.div_ceil(len);
        let piece = |at: u64| Piece { number: at as u32 + 1, offset: at * len, len: len.min(size - at * len) };
        Layout::Parts((0..count).map(piece).collect())
    }

    /// The lengths, as a checkpoint keeps them.
    pub fn lengths(&self) -> Vec<u64> {
        match self {
            Layout::Single => Vec::new(),
            Layout::Parts(pieces) => pieces.iter().map(|piece| piece.len).collect(),
        }
    }
}

/// The source's parts, where they make up the object and any service takes them.
fn repeated(size: u64, parts: &[v1::PartLayout]) -> Option<Vec<Piece>> {
    let mut pieces: Vec<Piece> = Vec::with_capacity(parts.len());
    let mut offset = 0_u64;
    for (at, part) in parts.iter().enumerate() {
        let last = at + 1 == parts.len();
        let follows = pieces.last().is_none_or(|before| before.number < part.part_number);
        let fits = part.length <= PART_LEN_MAX && (last || part.length >= PART_LEN_MIN);
        if !follows || !fits || part.part_number == 0 || u64::from(part.part_number) > PARTS_MAX {
            return None;
        }
        pieces.push(Piece { number: part.part_number, offset, len: part.length });
        offset = offset.checked_add(part.length)?;
    }
    (!pieces.is_empty() && offset == size).then_some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MI: u64 = 1024 * 1024;

    fn parts(list: &[(u32, u64)]) -> Vec<v1::PartLayout> {
        list.iter()
            .map(|(part_number, length)| v1::PartLayout {
                part_number: *part_number,
                length: *length,
                etag: String::new(),
            })
            .collect()
    }

    #[test]
    fn the_sources_parts_are_repeated_where_they_make_up_the_object() {
        let rows = [
            ("even parts", 12 * MI, vec![(1, 5 * MI), (2, 5 * MI), (3, 2 * MI)], Some(vec![5 * MI, 5 * MI, 2 * MI])),
            ("one part", MI, vec![(1, MI)], Some(vec![MI])),
            ("numbers with holes", 10 * MI, vec![(3, 5 * MI), (9, 5 * MI)], Some(vec![5 * MI, 5 * MI])),
            ("one empty part", 0, vec![(1, 0)], Some(vec![0])),
            ("unknown", 10 * MI, vec![], None),
            ("not the whole object", 11 * MI, vec![(1, 5 * MI), (2, 5 * MI)], None),
            ("out of order", 10 * MI, vec![(2, 5 * MI), (1, 5 * MI)], None),
            ("a small part in the middle", 8 * MI, vec![(1, 5 * MI), (2, MI), (3, 2 * MI)], None),
        ];
        for (what, size, list, wanted) in rows {
            let layout = Layout::plan(size, &parts(&list));
            match wanted {
                Some(lengths) => assert_eq!(layout.lengths(), lengths, "{what}"),
                None => assert_eq!(layout, Layout::Single, "{what}"),
            }
        }
    }

    #[test]
    fn a_large_object_goes_in_parts_that_any_service_takes() {
        for size in [SINGLE_MAX + 1, 200 * MI, 1 << 40, 5 << 40] {
            let Layout::Parts(pieces) = Layout::plan(size, &[]) else { panic!("{size} in one piece") };
            assert!(pieces.len() as u64 <= PARTS_MAX, "{size}");
            assert_eq!(pieces.iter().map(|piece| piece.len).sum::<u64>(), size);
            assert!(pieces.iter().all(|piece| piece.len <= PART_LEN_MAX && piece.len > 0), "{size}");
            assert!(pieces.windows(2).all(|two| two[0].offset + two[0].len == two[1].offset), "{size}");
        }
        assert_eq!(Layout::plan(SINGLE_MAX, &[]), Layout::Single);
    }
}
