//! Bindings: what a Hello may say, which bucket is whose, and which provider is in force.

use bytes::Bytes;
use hawser_api::v1;

use super::apply::Apply;
use super::entry::Leased;
use super::intents::intent_keys;
use super::rows::{
    Address, BindingRow, BucketRow, CHANGES, FACTS, ForceRow, IntentRow, KEYS, KeyBytes, KeyRow, Origin, Rows,
    VERSIONS, VersionRow, decode, take_text,
};
use crate::index::{IndexError, Keys};
use crate::names::DomainId;

/// What a migration hears that lost its lease.
pub(crate) const FENCED: &str = "the lease was lost: another migration holds the binding, or it ran out";

/// Why a provider stays in force: what would be left behind.
pub(crate) const CHANGED: &str = "something was recorded at the provider in force after what was carried";

/// Why a provider stays in force: what may yet come.
pub(crate) const UNDER_WAY: &str = "a write to the provider in force is under way";

/// A provider came into force so often that the oldest lines of its history go.
const HISTORY_MAX: usize = 100;

impl Apply<'_, '_> {
    /// A binding was told for the first time, or differently.
    pub(crate) fn bound(&mut self, mut hello: v1::Hello) -> Result<(), IndexError> {
        hello.session = Default::default();
        hello.open_operations.clear();
        let key = binding_key(self.domain, &hello.binding);
        let row = match self.batch.row::<BindingRow>(FACTS, &key)? {
            Some(mut row) => {
                if let Err(why) = unchanged(&row, &hello) {
                    self.answer.refused = why;
                    return Ok(());
                }
                row.hello = hello;
                row
            }
            None => {
                let force = identity(&hello, &hello.spec_provider).unwrap_or_default().to_owned();
                let first = ForceRow { provider: force.clone(), tick: self.tick, at_unix: self.unix, through: 0 };
                BindingRow { hello, force, history: vec![first], created_unix: self.unix, ..BindingRow::default() }
            }
        };
        self.put(FACTS, &key, &row);
        Ok(())
    }

    pub(crate) fn leased(&mut self, leased: Leased) -> Result<(), IndexError> {
        let key = lease_key(self.domain, &self.binding);
        self.put(FACTS, &key, &leased);
        Ok(())
    }

    /// Whether a lease is the binding's present one.
    pub(crate) fn holds(&self, lease: Option<&v1::Lease>) -> Result<bool, IndexError> {
        let row: Leased = self.batch.row(FACTS, &lease_key(self.domain, &self.binding))?.unwrap_or_default();
        Ok(lease.is_some_and(|lease| lease.id == row.id && lease.epoch == row.epoch && !row.released))
    }

    /// Moves the provider in force, if it still is the expected one and leaves nothing behind.
    pub(crate) fn forced(&mut self, forced: v1::SetForceRequest) -> Result<(), IndexError> {
        let key = binding_key(self.domain, &self.binding);
        let Some(mut row) = self.batch.row::<BindingRow>(FACTS, &key)? else {
            self.answer.refused = "the binding is not known".into();
            return Ok(());
        };
        if !self.holds(forced.lease.as_ref())? {
            self.answer.refused = FENCED.into();
            return Ok(());
        }
        if row.force != forced.expected {
            self.answer.refused = format!("{} is in force", row.force);
            return Ok(());
        }
        if !self.may_force(&row, &forced.provider)? {
            self.answer.refused = FENCED.into();
            return Ok(());
        }
        if forced.through_tick != 0
            && let Some(why) = self.left_behind(&row, forced.through_tick)?
        {
            self.answer.refused = why.into();
            return Ok(());
        }
        row.force.clone_from(&forced.provider);
        let through = forced.through_tick;
        row.history.push(ForceRow { provider: forced.provider, tick: self.tick, at_unix: self.unix, through });
        if row.history.len() > HISTORY_MAX {
            row.history.remove(0);
        }
        self.put(FACTS, &key, &row);
        Ok(())
    }

    /// Whether the provider in force has, or may yet have, what nobody carried who knows it up to `through`.
    fn left_behind(&self, row: &BindingRow, through: u64) -> Result<Option<&'static str>, IndexError> {
        let stem = super::rows::changes(self.domain, &row.force);
        let keys = stem.keys().starting_at(&stem.clone().number(through.saturating_add(1)).0);
        for pair in self.batch.scan(CHANGES, &keys) {
            let (key, _) = pair?;
            let Some((bucket, _)) = key.get(stem.0.len() + 8..).and_then(take_text) else { continue };
            if store_bucket(&row.hello, &row.force, &String::from_utf8_lossy(&bucket)).is_some() {
                return Ok(Some(CHANGED));
            }
        }
        let keys = intent_keys(self.domain);
        for pair in self.batch.scan(FACTS, &keys) {
            let IntentRow { intent, binding } = decode(FACTS, &pair?.1)?;
            // A part's counts too: a Complete that waits for it is no change yet.
            if binding == self.binding && intent.object.is_some_and(|object| object.provider == row.force) {
                return Ok(Some(UNDER_WAY));
            }
        }
        Ok(None)
    }
}

/// Providers of a binding that were in force and are no more, the latest of them first.
pub(crate) fn former(row: &BindingRow) -> Vec<v1::Former> {
    let mut former: Vec<v1::Former> = Vec::new();
    for pair in row.history.windows(2).rev() {
        let identity = &pair[0].provider;
        let known = former.iter().any(|other| other.identity == *identity);
        if *identity != row.force && !known && provider_name(&row.hello, identity).is_some() {
            former.push(v1::Former { identity: identity.clone(), through_tick: pair[1].through });
        }
    }
    former
}

/// Whether a Hello may follow what is known of its binding.
///
/// # Errors
/// What was changed that must not be, and what to do.
pub(crate) fn unchanged(row: &BindingRow, hello: &v1::Hello) -> Result<(), String> {
    if row.hello.block_size != hello.block_size {
        return Err(format!(
            "blockSize of binding {} is immutable: it is {}, not {}; make a new binding for another size",
            hello.binding, row.hello.block_size, hello.block_size
        ));
    }
    if !hello.providers.iter().any(|provider| provider.identity == row.force) {
        return Err(format!(
            "binding {}: {} is in force and none of its providers: put it back, and migrate first",
            hello.binding, row.force
        ));
    }
    Ok(())
}

/// Whether two bindings would be in each other's way: one store's name for a bucket, or one bucket of one
/// provider, belongs to one binding of a domain.
pub(crate) fn conflict(one: &v1::Hello, other: &v1::Hello) -> Option<String> {
    if one.binding == other.binding {
        return None;
    }
    for bucket in &one.buckets {
        for theirs in &other.buckets {
            if bucket.name == theirs.name && bucket.name != "*" {
                return Some(format!("Conflict: bucket {} belongs to binding {}", bucket.name, other.binding));
            }
            for (name, id) in one.providers.iter().map(|provider| (&provider.name, &provider.identity)) {
                let Some(their) = other.providers.iter().find(|provider| provider.identity == *id) else { continue };
                if named(bucket, name) == named(theirs, &their.name) {
                    return Some(format!(
                        "Conflict: bucket {} of {id} belongs to binding {}",
                        named(bucket, name),
                        other.binding
                    ));
                }
            }
        }
    }
    None
}

/// What a Hello must be to be understood at all.
pub(crate) fn check(hello: &v1::Hello) -> Result<(), String> {
    if hello.binding.is_empty() || hello.binding.len() > 253 {
        return Err("the binding's name must have 1 to 253 characters".into());
    }
    if hawser_api::BlockSize::new(hello.block_size).is_none() {
        return Err(format!("block size {} is no power of two from 16 KiB to 8 MiB", hello.block_size));
    }
    if hello.providers.is_empty() || identity(hello, &hello.spec_provider).is_none() {
        return Err(format!("spec.provider names {:?}, which is none of spec.providers", hello.spec_provider));
    }
    for (at, provider) in hello.providers.iter().enumerate() {
        if hello.providers[..at].iter().any(|other| other.identity == provider.identity) {
            return Err(format!("two providers are {}: a provider has one name", provider.identity));
        }
    }
    Ok(())
}

/// A provider's identity by its name in a binding.
pub(crate) fn identity<'a>(hello: &'a v1::Hello, name: &str) -> Option<&'a str> {
    hello.providers.iter().find(|provider| provider.name == name).map(|provider| &*provider.identity)
}

/// A provider's name in a binding by its identity.
pub(crate) fn provider_name<'a>(hello: &'a v1::Hello, identity: &str) -> Option<&'a str> {
    hello.providers.iter().find(|provider| provider.identity == identity).map(|provider| &*provider.name)
}

/// What a provider calls a bucket.
pub(crate) fn named<'a>(bucket: &'a v1::Bucket, provider: &str) -> &'a str {
    bucket.names.get(provider).map_or(&bucket.name, |name| name)
}

/// The store's name of a provider's bucket in this binding; `None` when the bucket is not the binding's.
pub(crate) fn store_bucket(hello: &v1::Hello, identity: &str, bucket: &str) -> Option<String> {
    let provider = provider_name(hello, identity)?;
    let mut any = false;
    for ours in &hello.buckets {
        if ours.name == "*" {
            any = true;
        } else if named(ours, provider) == bucket {
            return Some(ours.name.clone());
        }
    }
    any.then(|| bucket.to_owned())
}

/// What the provider calls the bucket that the store calls `bucket`; `None` when it is not the binding's.
pub(crate) fn provider_bucket(hello: &v1::Hello, identity: &str, bucket: &str) -> Option<String> {
    let provider = provider_name(hello, identity)?;
    if let Some(ours) = hello.buckets.iter().find(|ours| ours.name == bucket && ours.name != "*") {
        return Some(named(ours, provider).to_owned());
    }
    hello.buckets.iter().any(|ours| ours.name == "*").then(|| bucket.to_owned())
}

/// Every binding of a domain.
pub(crate) fn all(rows: &impl Rows, domain: DomainId) -> Result<Vec<BindingRow>, IndexError> {
    let keys = KeyBytes::letter(b'B', domain).keys();
    rows.scan(FACTS, &keys).map(|pair| decode(FACTS, &pair?.1)).collect()
}

/// One binding.
pub(crate) fn one(rows: &impl Rows, domain: DomainId, binding: &str) -> Result<Option<BindingRow>, IndexError> {
    rows.row(FACTS, &binding_key(domain, binding))
}

/// The buckets of a provider that a binding has, as the provider calls them: those it names, and for `*`
/// those that anything is recorded of.
pub(crate) fn buckets_at(
    rows: &impl Rows,
    domain: DomainId,
    hello: &v1::Hello,
    identity: &str,
) -> Result<Vec<(String, BucketRow)>, IndexError> {
    let stem = KeyBytes::letter(b'N', domain).text(identity.as_bytes());
    let keys = stem.keys();
    let mut buckets = Vec::new();
    for pair in rows.scan(FACTS, &keys) {
        let (key, value) = pair?;
        let malformed = || IndexError::Malformed { family: FACTS.0 };
        let (name, _) = take_text(&key[stem.0.len()..]).ok_or_else(malformed)?;
        let name = String::from_utf8(name).map_err(|_| malformed())?;
        if store_bucket(hello, identity, &name).is_some() {
            buckets.push((name, decode(FACTS, &value)?));
        }
    }
    Ok(buckets)
}

/// Objects of a provider whose current version is younger than `tick`, when its last backfill began, up to
/// `limit` of them. What was read there since is as good as listed.
pub(crate) fn unconfirmed(
    rows: &impl Rows,
    domain: DomainId,
    hello: &v1::Hello,
    identity: &str,
    tick: u64,
    limit: u64,
) -> Result<u64, IndexError> {
    let stem = super::rows::changes(domain, identity);
    let keys = stem.keys().starting_at(&stem.clone().number(tick.saturating_add(1)).0);
    let mut count = 0;
    for pair in rows.scan(CHANGES, &keys) {
        if count >= limit {
            break;
        }
        let (key, _) = pair?;
        let Some((bucket, object)) = key.get(stem.0.len() + 8..).and_then(take_text) else { continue };
        let bucket = String::from_utf8_lossy(&bucket).into_owned();
        if store_bucket(hello, identity, &bucket).is_none() {
            continue;
        }
        let at = Address { domain, provider: identity.into(), bucket, key: Bytes::copy_from_slice(object) };
        let head: KeyRow = rows.row(KEYS, &at.head())?.unwrap_or_default();
        if !head.present || head.served <= tick {
            continue;
        }
        let row: VersionRow = rows.row(VERSIONS, &at.at(head.served))?.unwrap_or_default();
        let read_since = row.origin() == Origin::Read && row.span.begin.tick >= tick;
        count += u64::from(!read_since);
    }
    Ok(count)
}

pub(crate) fn binding_key(domain: DomainId, binding: &str) -> Vec<u8> {
    KeyBytes::letter(b'B', domain).bytes(binding.as_bytes()).0
}

pub(crate) fn lease_key(domain: DomainId, binding: &str) -> Vec<u8> {
    KeyBytes::letter(b'L', domain).bytes(binding.as_bytes()).0
}

/// Leases of a domain.
pub(crate) fn lease_keys(domain: DomainId) -> Keys {
    KeyBytes::letter(b'L', domain).keys()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(binding: &str, buckets: &[(&str, &[(&str, &str)])]) -> v1::Hello {
        let provider = |name: &str| v1::Provider { name: name.into(), identity: format!("s3+https://{name}.test") };
        let bucket = |(name, names): &(&str, &[(&str, &str)])| v1::Bucket {
            name: (*name).into(),
            names: names.iter().map(|(provider, name)| ((*provider).into(), (*name).into())).collect(),
        };
        v1::Hello {
            binding: binding.into(),
            providers: vec![provider("a"), provider("b")],
            spec_provider: "a".into(),
            buckets: buckets.iter().map(bucket).collect(),
            block_size: 16384,
            ..v1::Hello::default()
        }
    }

    #[test]
    fn a_bucket_belongs_to_one_binding() {
        let photos = hello("photos", &[("photos", &[("b", "photos-eu")])]);
        let rows: [(&str, v1::Hello, bool); 5] = [
            ("another bucket", hello("x", &[("films", &[])]), false),
            ("the same name", hello("x", &[("photos", &[])]), true),
            ("the same bucket of one provider", hello("x", &[("eu", &[("b", "photos-eu")])]), true),
            ("a name that is the other's at another provider", hello("x", &[("photos-eu", &[])]), true),
            ("every bucket that nobody named", hello("x", &[("*", &[])]), false),
        ];
        for (why, other, wanted) in rows {
            assert_eq!(conflict(&other, &photos).is_some(), wanted, "{why}");
        }
    }

    #[test]
    fn names_of_buckets_go_both_ways() {
        let hello = hello("photos", &[("photos", &[("b", "photos-eu")])]);
        assert_eq!(provider_bucket(&hello, "s3+https://b.test", "photos").as_deref(), Some("photos-eu"));
        assert_eq!(store_bucket(&hello, "s3+https://b.test", "photos-eu").as_deref(), Some("photos"));
        assert_eq!(store_bucket(&hello, "s3+https://b.test", "photos"), None);
        assert_eq!(store_bucket(&hello, "s3+https://c.test", "photos"), None);
    }
}
