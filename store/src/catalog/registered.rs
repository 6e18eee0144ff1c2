//! What an operator says of bindings: that one is there, that it is no more, and which migration of it is the
//! present one. An epoch is raised by compare-and-set; what Jobs of earlier ones say is fenced off from then on.

use hawser_api::v1;

use super::apply::Apply;
use super::bindings::{binding_key, conflict, lease_key, unchanged};
use super::entry::{Leased, Registered};
use super::rows::{BindingRow, FACTS, ForceRow, Rows};
use crate::index::IndexError;

/// Why an epoch was not raised: somebody else raised it.
pub(crate) const RAISED: &str = "the migration epoch is another: look at the binding again";

impl Apply<'_, '_> {
    /// The operator told a binding.
    pub(crate) fn registered(&mut self, told: Registered) -> Result<(), IndexError> {
        for other in super::bindings::all(&*self.batch, self.domain)? {
            if let Some(why) = conflict(&told.hello, &other.hello).filter(|_| !other.forgotten) {
                self.answer.refused = why;
                return Ok(());
            }
        }
        let key = binding_key(self.domain, &told.hello.binding);
        let known: Option<BindingRow> = self.batch.row(FACTS, &key)?;
        let row = match known {
            Some(row) => {
                if let Err(why) = unchanged(&row, &told.hello) {
                    self.answer.refused = why;
                    return Ok(());
                }
                if row.uid != told.uid {
                    self.revoke(|lease| !lease.binding_uid.is_empty() && lease.binding_uid != told.uid)?;
                }
                BindingRow { hello: told.hello, uid: told.uid, forgotten: false, ..row }
            }
            None => {
                let force = super::bindings::identity(&told.hello, &told.hello.spec_provider).unwrap_or_default();
                let force = force.to_owned();
                let first =
                    ForceRow { provider: force.clone(), tick: self.tick, at_unix: self.unix, ..ForceRow::default() };
                BindingRow {
                    hello: told.hello,
                    force,
                    history: vec![first],
                    created_unix: self.unix,
                    uid: told.uid,
                    ..BindingRow::default()
                }
            }
        };
        self.put(FACTS, &key, &row);
        Ok(())
    }

    /// The binding is no more. What is known of its buckets stays.
    pub(crate) fn forgotten(&mut self, uid: &str) -> Result<(), IndexError> {
        let key = binding_key(self.domain, &self.binding);
        let Some(row) = self.batch.row::<BindingRow>(FACTS, &key)? else { return Ok(()) };
        if row.uid != uid {
            return Ok(()); // one of the same name has come since
        }
        self.revoke(|lease| !lease.binding_uid.is_empty())?;
        self.put(FACTS, &key, &BindingRow { forgotten: true, ..row });
        Ok(())
    }

    /// A migration begins, or is given up.
    pub(crate) fn epoch_raised(&mut self, asked: &v1::StartMigrationRequest) -> Result<(), IndexError> {
        let key = binding_key(self.domain, &self.binding);
        let Some(mut row) = self.batch.row::<BindingRow>(FACTS, &key)? else {
            self.answer.refused = "the binding is not known".into();
            return Ok(());
        };
        if row.migration.epoch != asked.expected {
            self.answer.refused = RAISED.into();
            return Ok(());
        }
        let epoch = row.migration.epoch + 1;
        row.migration = v1::MigrationEpoch {
            epoch,
            source: asked.source.clone(),
            target: asked.target.clone(),
            dry_run: asked.dry_run,
        };
        self.revoke(|lease| lease.migration_epoch != 0 && lease.migration_epoch < epoch)?;
        self.put(FACTS, &key, &row);
        Ok(())
    }

    /// Whether the binding's lease lets `provider` come into force: any that no epoch fences, else the one that
    /// its epoch is about.
    pub(crate) fn may_force(&self, row: &BindingRow, provider: &str) -> Result<bool, IndexError> {
        let lease: Leased = self.batch.row(FACTS, &lease_key(self.domain, &self.binding))?.unwrap_or_default();
        let present = &row.migration;
        Ok(lease.migration_epoch == 0
            || (lease.migration_epoch == present.epoch && present.target == provider && !present.dry_run))
    }

    /// Takes the lease from whoever `which` names.
    fn revoke(&mut self, which: impl FnOnce(&Leased) -> bool) -> Result<(), IndexError> {
        let key = lease_key(self.domain, &self.binding);
        if let Some(lease) = self.batch.row::<Leased>(FACTS, &key)?.filter(|lease| !lease.released && which(lease)) {
            self.put(FACTS, &key, &Leased { released: true, ..lease });
        }
        Ok(())
    }
}
