//! Who speaks: a binding is registered, compared with what is known of it and with its neighbours.

use std::sync::Arc;

use bytes::Bytes;
use hawser_api::v1;
use tonic::Status;

use super::{Service, commit_status, list_status};
use crate::catalog::entry::Fact;
use crate::catalog::{
    BindingRow, FACTS, Rows, Said, SessionRow, check_hello, conflict, former, provider_name, session_key, unchanged,
};
use crate::domain::Domain;

impl Service {
    /// Registers the binding of a Hello and answers it. The session, where there is one, lives from now on.
    ///
    /// Where an operator tells what a binding is, its word replaces the caller's in `hello`.
    pub(super) async fn welcome(
        self: &Arc<Self>,
        domain: &Domain,
        hello: &mut v1::Hello,
    ) -> Result<v1::Welcome, Status> {
        check_hello(hello).map_err(Status::invalid_argument)?;
        let row = self.bind(domain, hello).await?;
        hello.providers.clone_from(&row.hello.providers);
        hello.buckets.clone_from(&row.hello.buckets);
        let mut last_sequence = 0;
        if !hello.session.is_empty() {
            let session = super::session_id(&hello.session)?;
            let known: Option<SessionRow> = {
                let view = self.catalog.store().view();
                view.row(FACTS, &session_key(domain.id(), &session)).map_err(|error| list_status(error.into()))?
            };
            last_sequence = known.unwrap_or_default().last_sequence;
            let told = self.sessions.hello(domain.id(), &session, &hello.binding, &hello.open_operations);
            told.map_err(|error| Status::internal(error.to_string()))?;
            self.sessions.of_pod(domain.id(), &session, hello.pod.clone());
        }
        let times = self.sessions.times();
        let seconds = |time: std::time::Duration| u32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        Ok(v1::Welcome {
            incarnation: self.catalog.store().incarnation(),
            tick: self.durable_tick(),
            provider_in_force: provider_name(hello, &row.force).unwrap_or_default().to_owned(),
            former: former(&row),
            provider_identity: row.force,
            lease_seconds: seconds(times.lease),
            settle_seconds: seconds(times.settle),
            last_sequence,
        })
    }

    async fn bind(&self, domain: &Domain, hello: &v1::Hello) -> Result<BindingRow, Status> {
        if self.auth.has_operator() {
            return self.told_by_operator(domain, hello);
        }
        let _one_at_a_time = self.hello.lock().await;
        let mut told = hello.clone();
        (told.session, told.role, told.client, told.pod) = (Bytes::new(), 0, String::new(), None);
        told.open_operations.clear();
        let known = self.catalog.bindings(domain.id()).map_err(list_status)?;
        for other in &known {
            if let Some(why) = conflict(&told, &other.hello).filter(|_| !other.forgotten) {
                return Err(Status::failed_precondition(why));
            }
        }
        if let Some(row) = known.into_iter().find(|row| row.hello.binding == told.binding) {
            unchanged(&row, &told).map_err(Status::failed_precondition)?;
            let mut before = row.hello.clone();
            // An edit of spec.provider means nothing here until a migration moves the provider in force.
            before.spec_provider.clone_from(&told.spec_provider);
            if before == told {
                return Ok(row);
            }
        }
        let said = Said::by_store(&told.binding, Fact::Bound(told.clone()));
        let (_, answer) = self.catalog.commit(domain, said, &[]).await.map_err(|error| commit_status(&error))?;
        if !answer.refused.is_empty() {
            return Err(Status::failed_precondition(answer.refused));
        }
        let row = self.catalog.binding(domain.id(), &told.binding).map_err(list_status)?;
        row.ok_or_else(|| Status::internal("a binding was committed and is not there"))
    }

    /// A binding of a cluster is what its operator told, whatever a pod says.
    fn told_by_operator(&self, domain: &Domain, hello: &v1::Hello) -> Result<BindingRow, Status> {
        let row = self.catalog.binding(domain.id(), &hello.binding).map_err(list_status)?;
        let row = row.filter(|row| !row.uid.is_empty() && !row.forgotten).ok_or_else(|| {
            Status::failed_precondition(format!(
                "binding {} is not registered by the operator yet: it is waited for",
                hello.binding
            ))
        })?;
        if row.hello.block_size != hello.block_size {
            return Err(Status::failed_precondition(format!(
                "blockSize of binding {} is immutable: it is {}, not {}",
                hello.binding, row.hello.block_size, hello.block_size
            )));
        }
        Ok(row)
    }
}
