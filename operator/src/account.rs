//! The account `hawser-job` in a binding's namespace: Jobs run under it, and it may do nothing in the API.
use hawser_api::CloudBinding;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::context::Context;
use crate::outcome::Outcome;
use crate::{apply, labels};

/// Its name. One for all bindings of a namespace, so none of them owns it: it goes with the namespace.
pub const NAME: &str = "hawser-job";

/// Makes the account where it is missing.
pub async fn reconcile(binding: &CloudBinding, present: Option<&ServiceAccount>, ctx: &Context) -> Outcome {
    match apply::apply(&ctx.client, present, account(&binding.namespace().unwrap_or_default())).await {
        Ok(()) => Outcome::Settled,
        Err(error) => Outcome::of_api(&format!("apply ServiceAccount {NAME}"), &error),
    }
}

fn account(namespace: &str) -> ServiceAccount {
    ServiceAccount {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            namespace: Some(namespace.into()),
            labels: Some(labels::ours()),
            ..ObjectMeta::default()
        },
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn the_account_has_no_token_of_its_own() {
        golden::check("account", &account("shop"));
    }
}
