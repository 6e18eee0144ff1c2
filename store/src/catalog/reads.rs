//! What the cloud's answers to reads teach: a sighting settles what is in doubt, content that was read
//! becomes known. A read never makes a gap, unless it shows that something changed unseen.

use bytes::Bytes;
use hawser_api::{GapReason, v1};

use super::apply::Apply;
use super::entry::span;
use super::objects::{NewVersion, same, same_metadata};
use super::rows::{Address, Extent, GapRow, Kind, Origin, Rows, VersionRow};
use crate::index::IndexError;
use crate::order::{self, Span};

/// What an answer showed of a key.
pub(crate) struct Seen<'a> {
    pub(crate) absent: bool,
    pub(crate) etag: &'a str,
    pub(crate) version_id: &'a str,
    pub(crate) listing: bool,
    /// Where the answer showed it, and how many tags there are.
    pub(crate) metadata: Option<(&'a v1::Metadata, u64)>,
}

/// What a sighting means.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing that was not known.
    Nothing,
    /// This version is current, and these gaps are closed; tick 0 is absence.
    Decides { tick: u64, gaps: Vec<u64> },
    /// The cloud has what nobody recorded.
    Unseen,
}

impl Apply<'_, '_> {
    pub(crate) fn sightings(&mut self, sightings: v1::Sightings) -> Result<(), IndexError> {
        let span = span(&self.session, sightings.head.as_ref(), sightings.answer.as_ref(), self.tick);
        for sighting in sightings.objects {
            let Some(object) = &sighting.object else { continue };
            let at = Address::of(self.domain, object);
            let seen = Seen {
                absent: sighting.absent,
                etag: &sighting.etag,
                version_id: &sighting.version_id,
                listing: sightings.listing,
                metadata: sighting.metadata.as_ref().map(|metadata| (metadata, sighting.tag_count)),
            };
            self.see(&at, &seen, &span)?;
        }
        Ok(())
    }

    /// Takes a sighting into account.
    pub(crate) fn see(&mut self, at: &Address, seen: &Seen<'_>, span: &Span) -> Result<(), IndexError> {
        match self.verdict(at, seen, span)? {
            Verdict::Nothing => Ok(()),
            Verdict::Decides { tick, gaps } => self.decided(at, tick, gaps, span),
            Verdict::Unseen => {
                let mut gap = self.key_gap(at, GapReason::UnseenVersion, "", span);
                (gap.etag, gap.version_id) = (seen.etag.into(), seen.version_id.into());
                gap.saw_absence = seen.absent;
                self.open_gap(gap).map(drop)
            }
        }
    }

    /// Judges a sighting by the state so far.
    pub(crate) fn verdict(&self, at: &Address, seen: &Seen<'_>, span: &Span) -> Result<Verdict, IndexError> {
        let head = self.head(at)?;
        let candidates = self.candidates(at, &head)?;
        if !decides(&candidates, span) {
            return Ok(Verdict::Nothing); // it may have looked before one of them
        }
        let gaps = self.gaps_at(at)?;
        // Of metadata a sighting tells only that there is none any more.
        let told = |gap: &&GapRow| (seen.absent || !gap.of_metadata) && self.closable(gap, span, seen.listing);
        let closable: Vec<&GapRow> = gaps.iter().filter(told).collect();
        let matching: Vec<VersionRow> = self.matching(at, &candidates, seen)?;
        let agreed = matching.windows(2).all(|pair| same(&pair[0], &pair[1]));
        let in_doubt = !closable.is_empty();
        if matching.is_empty() && !seen.absent {
            // Known, over, no write on its way, and yet the cloud has something else.
            let settled = gaps.is_empty() && !candidates.is_empty() && !seen.listing && !seen.etag.is_empty();
            let unseen = settled && !self.has_intent(at)?;
            return Ok(if unseen { Verdict::Unseen } else { Verdict::Nothing });
        }
        if !in_doubt {
            let current = candidates.iter().any(|row| row.is_present());
            let vanished = seen.absent && current && gaps.is_empty() && !seen.listing;
            let unseen = vanished && !self.has_intent(at)?;
            let older = !seen.absent
                && !seen.listing
                && gaps.is_empty()
                && !matching.iter().any(|row| head.candidates.contains(&row.tick));
            let unseen = unseen || (older && !self.has_intent(at)?);
            return Ok(if unseen { Verdict::Unseen } else { Verdict::Nothing });
        }
        let closes: Vec<u64> = closable.iter().map(|gap| gap.id).collect();
        if seen.absent {
            let tombstone = candidates.iter().rev().find(|row| row.kind() != Kind::Object);
            return Ok(Verdict::Decides { tick: tombstone.map_or(0, |row| row.tick), gaps: closes });
        }
        if !agreed {
            return Ok(Verdict::Nothing); // an ETag names content, and these differ in metadata
        }
        // The newest candidate among them, else the newest.
        let of_candidates = matching.iter().filter(|row| head.candidates.contains(&row.tick));
        let chosen = of_candidates.max_by_key(|row| row.tick).or(matching.iter().max_by_key(|row| row.tick));
        let Some(row) = chosen else { return Ok(Verdict::Nothing) };
        // A lost write of the same bytes shows under the same ETag: only its metadata would tell.
        let is_told = |gap: &&GapRow| names_another(gap, seen.etag) || is_shown(seen, row);
        let gaps: Vec<u64> = closable.into_iter().filter(is_told).map(|gap| gap.id).collect();
        Ok(if gaps.is_empty() { Verdict::Nothing } else { Verdict::Decides { tick: row.tick, gaps } })
    }

    /// Recorded versions that an answer may have shown.
    fn matching(
        &self,
        at: &Address,
        candidates: &[VersionRow],
        seen: &Seen<'_>,
    ) -> Result<Vec<VersionRow>, IndexError> {
        if seen.absent {
            return Ok(Vec::new());
        }
        let mut versions = self.versions(at)?;
        for row in candidates {
            if !versions.iter().any(|other| other.tick == row.tick) {
                versions.push(row.clone());
            }
        }
        versions.retain(|row| {
            let version = seen.version_id.is_empty() || row.version_id.is_empty() || seen.version_id == row.version_id;
            row.kind() == Kind::Object && row.etag == seen.etag && version && !seen.etag.is_empty()
        });
        if !seen.version_id.is_empty() && versions.iter().any(|row| row.version_id == seen.version_id) {
            versions.retain(|row| row.version_id == seen.version_id);
        }
        Ok(versions)
    }

    /// Makes what was seen current, from the sighting on.
    pub(crate) fn decided(&mut self, at: &Address, tick: u64, gaps: Vec<u64>, span: &Span) -> Result<(), IndexError> {
        let head = self.head(at)?;
        let decided = match self.version_row(at, tick)? {
            // Its own span would let a write in between pass for later, which the cloud may have
            // overwritten with a late attempt of the same content: from now on it is as old as the sighting.
            Some(mut row) if head.candidates.contains(&tick) => {
                row.span = span.clone();
                self.put(super::rows::VERSIONS, &at.at(tick), &row);
                tick
            }
            Some(mut row) => {
                let extents = self.manifest(at, tick)?;
                (row.tick, row.span, row.recorded_unix, row.gone) = (self.tick, span.clone(), self.unix, false);
                self.put_version(at, NewVersion { row, extents })?;
                self.tick
            }
            None => {
                let mut new = self.version(Kind::Tombstone, span, v1::Metadata::default(), Vec::new());
                (new.row.origin, new.row.begun) = (Origin::Sighted.into(), 0);
                self.put_version(at, new)?;
                self.tick
            }
        };
        for gap in gaps {
            self.close_gap(gap, "sighting")?;
        }
        self.decide(at, decided, "sighting")
    }

    /// Content that a whole read showed.
    pub(crate) fn read(&mut self, read: v1::ObservedRead) -> Result<(), IndexError> {
        let Some(object) = &read.object else { return Ok(()) };
        let at = Address::of(self.domain, object);
        let span = span(&self.session, read.head.as_ref(), read.answer.as_ref(), self.tick);
        let extents = extents_of_parts(&read);
        let metadata = read.metadata.clone().unwrap_or_default();
        let mut new = self.version(Kind::Object, &span, metadata, extents);
        (new.row.origin, new.row.begun) = (Origin::Read.into(), 0); // it was written at some time before
        (new.row.etag, new.row.version_id) = (read.etag.clone(), read.version_id.clone());
        new.row.last_modified = read.last_modified.clone();
        self.learn(&at, &new)?;
        if read.version_was_asked {
            return Ok(());
        }
        let fits = self.fits(&at, &span)?;
        let head = self.head(&at)?;
        let candidates = self.candidates(&at, &head)?;
        if !fits && !candidates.is_empty() {
            self.answer.refused = "a write of the key overlaps the read".into();
            return Ok(());
        }
        let known = candidates.iter().find(|row| {
            // A backfill's word on tags counts, also against a write that named none.
            let tags = read.backfill == 0 || !shows_tags(&read);
            let metadata = read.metadata.as_ref().is_none_or(|metadata| {
                (tags || metadata.tags == row.metadata.tags) && same_metadata(metadata, &row.metadata, true)
            });
            row.kind() == Kind::Object && row.etag == read.etag && row.content == new.row.content && metadata
        });
        let in_doubt = self.gaps_at(&at)?;
        let closes: Vec<u64> =
            in_doubt.iter().filter(|gap| self.closable_by_read(gap, &span, &read)).map(|gap| gap.id).collect();
        match known {
            Some(row) if in_doubt.is_empty() => {
                // It is as was recorded.
                let tick = row.tick;
                self.note_modified(&at, tick, &read.last_modified)?;
            }
            Some(row) => {
                let tick = row.tick;
                // Without its tags, an application's answer is no more than its head was as a sighting.
                let told = |gap: &&GapRow| read.backfill != 0 || names_another(gap, &read.etag) || shows_content(gap);
                let told: Vec<u64> = in_doubt.iter().filter(told).map(|gap| gap.id).collect();
                let closes = closes.into_iter().filter(|id| told.contains(id)).collect();
                self.decided(&at, tick, closes, &span)?;
            }
            None => {
                // A GET without a change in between is no reason to believe other metadata: clouds add
                // headers of their own. Backfill asks for the truth.
                let same_content = candidates.iter().any(|row| row.etag == read.etag && !row.etag.is_empty());
                if same_content && in_doubt.is_empty() && read.backfill == 0 {
                    return Ok(());
                }
                self.put_version(&at, new)?;
                for gap in closes {
                    self.close_gap(gap, if read.backfill == 0 { "read" } else { "backfill" })?;
                }
                self.decide(&at, self.tick, "read")?;
            }
        }
        self.held_by_backfill(read.backfill, read.total_length)
    }

    /// Fills the content of versions that are known by their ETag alone.
    fn learn(&mut self, at: &Address, read: &NewVersion) -> Result<(), IndexError> {
        for mut row in self.versions(at)? {
            let same_id = row.version_id.is_empty() || read.row.version_id.is_empty();
            let this = row.etag == read.row.etag && (same_id || row.version_id == read.row.version_id);
            let lacking = !row.content_known() && row.kind() == Kind::Object && !row.etag.is_empty();
            if this && lacking {
                (row.content, row.size, row.damaged) = (read.row.content.clone(), read.row.size, false);
                if !row.metadata.headers_known {
                    row.metadata = read.row.metadata.clone();
                }
                self.put(super::rows::VERSIONS, &at.at(row.tick), &row);
                let manifest = super::rows::ManifestRow { extents: read.extents.clone() };
                self.put(super::rows::MANIFESTS, &at.at(row.tick), &manifest);
            }
        }
        Ok(())
    }

    /// Whether a read may say what is current: no write overlaps it, as far as is known.
    fn fits(&self, at: &Address, span: &Span) -> Result<bool, IndexError> {
        let head = self.head(at)?;
        let candidates = self.candidates(at, &head)?;
        Ok(decides(&candidates, span) && !self.has_intent(at)?)
    }

    fn closable_by_read(&self, gap: &GapRow, span: &Span, read: &v1::ObservedRead) -> bool {
        if gap.of_metadata && (read.backfill == 0 || !shows_tags(read)) {
            return false;
        }
        let etag = &read.etag;
        // A read shows content and metadata, so it also closes what no sighting can: damage, and the very
        // version that a listing showed.
        let reason = GapReason::from_wire(&gap.reason);
        let unseen = reason == GapReason::UnseenVersion && !gap.saw_absence && gap.etag == *etag && !etag.is_empty();
        let again = reason == GapReason::Damaged && order::precedes(&gap.span, span);
        unseen || again || self.closable(gap, span, false)
    }

    fn note_modified(&mut self, at: &Address, tick: u64, last_modified: &str) -> Result<(), IndexError> {
        if let Some(mut row) = self.version_row(at, tick)?
            && row.last_modified.is_empty()
            && !last_modified.is_empty()
        {
            row.last_modified = last_modified.into();
            self.put(super::rows::VERSIONS, &at.at(tick), &row);
        }
        Ok(())
    }

    /// Versions whose stored bytes turned out to be damaged.
    pub(crate) fn damaged(&mut self, damaged: super::entry::Damaged) -> Result<(), IndexError> {
        for version in damaged.versions {
            let at = Address::of(self.domain, &version.object);
            let Some(mut row) = self.version_row(&at, version.tick)?.filter(|row| !row.damaged) else { continue };
            row.damaged = true;
            self.put(super::rows::VERSIONS, &at.at(row.tick), &row);
            let span =
                Span { begin: row.span.begin.clone(), end: order::Mark { tick: self.tick, ..row.span.end.clone() } };
            let mut gap = self.key_gap(&at, GapReason::Damaged, "", &span);
            (gap.etag, gap.version_id) = (row.etag.clone(), row.version_id.clone());
            self.open_gap(gap)?;
        }
        Ok(())
    }
}

fn decides(candidates: &[VersionRow], sighting: &Span) -> bool {
    let spans: Vec<&Span> = candidates.iter().map(|row| &row.span).collect();
    order::decides(sighting, &spans)
}

/// Whether what a gap may hide cannot be the content of this ETag with other metadata.
fn names_another(gap: &GapRow, etag: &str) -> bool {
    let is_of_versions = GapReason::from_wire(&gap.reason) == GapReason::Concurrent; // all of them are recorded
    is_of_versions || (!gap.etag.is_empty() && gap.etag != etag)
}

/// Whether a read closes a gap by the content that it shows.
fn shows_content(gap: &GapRow) -> bool {
    matches!(GapReason::from_wire(&gap.reason), GapReason::Damaged | GapReason::UnseenVersion)
}

/// Whether an answer shows the metadata of a version: all that it can show, and no tags on either side, whose values
/// it does not show.
fn is_shown(seen: &Seen<'_>, row: &VersionRow) -> bool {
    let Some((metadata, tag_count)) = seen.metadata else { return false };
    let class = |metadata: &v1::Metadata, name: &str| -> Option<Bytes> {
        metadata.headers.iter().find(|header| header.name == name).map(|header| header.value.clone())
    };
    // What a cloud says where the write said nothing.
    let by_default = |name: &str, defaults: &[&str]| match (class(metadata, name), class(&row.metadata, name)) {
        (Some(shown), None) => defaults.iter().any(|default| shown == default.as_bytes()),
        (None, Some(written)) => defaults.iter().any(|default| written == default.as_bytes()),
        _ => true, // compared below
    };
    let known = metadata.headers_known && row.metadata.headers_known;
    known
        && by_default("content-type", &["binary/octet-stream", "application/octet-stream"])
        && by_default("x-amz-storage-class", &["STANDARD"])
        && same_metadata(metadata, &row.metadata, true)
        && tag_count == 0
        && row.metadata.tags.is_empty()
}

fn shows_tags(read: &v1::ObservedRead) -> bool {
    read.metadata.as_ref().is_some_and(|metadata| metadata.tags_known)
}

/// The extents of a read, its parts apart where the reader knows them and its blocks allow.
fn extents_of_parts(read: &v1::ObservedRead) -> Vec<Extent> {
    let whole = super::objects::extents_of(read.body.as_ref());
    let [run] = &whole[..] else { return whole };
    let block = u64::from(run.block_size.max(1));
    let (last, others) = match read.parts.split_last() {
        Some(split) if !run.paged => split,
        _ => return whole,
    };
    let sum: u64 = read.parts.iter().map(|part| part.length).sum();
    if sum != run.length || others.iter().any(|part| part.length % block != 0) || last.length == 0 {
        return whole;
    }
    let (mut extents, mut at) = (Vec::new(), 0);
    for part in &read.parts {
        let blocks = part.length.div_ceil(block) as usize * 32;
        let Some(hashes) = run.hashes.get(at..at + blocks) else { return whole };
        extents.push(Extent {
            length: part.length,
            block_size: run.block_size,
            hashes: run.hashes.slice_ref(hashes),
            paged: false,
            part_number: part.part_number,
            part_etag: part.etag.clone(),
        });
        at += blocks;
    }
    extents
}

/// Whether any row of `versions` says the same as a sighting: for the service, which drops sightings that
/// teach nothing before they cost a commit.
pub(crate) fn is_news(rows: &impl Rows, at: &Address, sighting: &v1::Sighting) -> Result<bool, IndexError> {
    use super::rows::{KEYS, KeyRow, VERSIONS};
    let Some(head) = rows.row::<KeyRow>(KEYS, &at.head())? else { return Ok(false) };
    if head.gaps > 0 {
        return Ok(true);
    }
    if head.served == 0 {
        return Ok(false);
    }
    let Some(row) = rows.row::<VersionRow>(VERSIONS, &at.at(head.served))? else { return Ok(false) };
    Ok(if sighting.absent { row.is_present() } else { !row.is_present() || row.etag != sighting.etag })
}
