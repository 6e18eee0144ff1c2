//! The store's certificate: the Secret `hawser-store-tls`, made anew when half of its time is over. The store reads it
//! again by itself.
use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::authority::{self, Authority, AuthorityError};
use crate::labels;

/// The Secret.
pub const SECRET: &str = "hawser-store-tls";
/// The annotation that says when the certificate is to be made anew.
const RENEW_AT: &str = "hawser.dev/renew-at";
/// The annotation with the names that it is for.
const NAMES: &str = "hawser.dev/names";

/// How often it is looked at: days before it would end.
const LOOK: Duration = Duration::from_secs(3600);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Time(#[from] time::error::Format),
}

/// Keeps the Secret as it should be, for ever.
pub async fn keep(client: Client, namespace: String, store_host: String, authority: Authority) {
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    let names = names(&store_host, &namespace);
    let mut told = false;
    loop {
        let pause = match renew(&secrets, &namespace, &names, &authority).await {
            Ok(()) => {
                told = false;
                LOOK
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        secret = SECRET,
                        "the store's certificate cannot be made"
                    );
                }
                RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// What the store is called: by clients in the cluster, and by people who forward its port.
fn names(host: &str, namespace: &str) -> Vec<String> {
    let service = host.split('.').next().unwrap_or(host);
    let mut names = vec![host.to_owned()];
    for name in [
        service.to_owned(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ] {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

async fn renew(secrets: &Api<Secret>, namespace: &str, names: &[String], authority: &Authority) -> Result<(), Error> {
    let present = secrets.get_opt(SECRET).await?;
    if present.as_ref().is_some_and(|present| is_good(present, names, authority.ca_pem(), authority::now())) {
        return Ok(());
    }
    let leaf = authority.leaf(names)?;
    let annotations = [(RENEW_AT, leaf.renew_at.format(&Rfc3339)?), (NAMES, names.join(","))];
    let data = [("tls.crt", leaf.cert_pem), ("tls.key", leaf.key_pem), ("ca.crt", authority.ca_pem().to_owned())];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.into()),
            namespace: Some(namespace.into()),
            labels: Some(labels::ours()),
            annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value)).into()),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".into()),
        data: Some(BTreeMap::from(data.map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))))),
        ..Secret::default()
    };
    secrets.patch(SECRET, &PatchParams::apply(labels::FIELD_MANAGER).force(), &Patch::Apply(&secret)).await?;
    tracing::info!(secret = SECRET, "made the store's certificate");
    Ok(())
}

/// Whether the Secret is of this authority and these names, and not due yet.
fn is_good(secret: &Secret, names: &[String], ca_pem: &str, now: OffsetDateTime) -> bool {
    let annotation = |key: &str| secret.annotations().get(key).map(String::as_str);
    let due = annotation(RENEW_AT).and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let data = secret.data.as_ref();
    let has = |key: &str| data.and_then(|data| data.get(key)).is_some_and(|bytes| !bytes.0.is_empty());
    let ca = data.and_then(|data| data.get("ca.crt")).is_some_and(|bytes| bytes.0 == ca_pem.as_bytes());
    due.is_some_and(|due| now < due)
        && annotation(NAMES) == Some(&names.join(","))
        && ca
        && has("tls.crt")
        && has("tls.key")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_certificate_is_made_anew_when_it_is_due_or_of_another_authority() {
        let names = names("hawser-store.hawser-system.svc", "hawser-system");
        assert_eq!(names.len(), 6, "{names:?}");
        let data = ["tls.crt", "tls.key", "ca.crt"].map(|key| (key.to_owned(), ByteString(b"CA".to_vec())));
        let secret = |renew_at: &str| Secret {
            metadata: ObjectMeta {
                annotations: Some(
                    [(RENEW_AT, renew_at.to_owned()), (NAMES, names.join(","))]
                        .map(|(key, value)| (key.to_owned(), value))
                        .into(),
                ),
                ..ObjectMeta::default()
            },
            data: Some(data.clone().into()),
            ..Secret::default()
        };
        let now = OffsetDateTime::parse("2026-01-01T00:00:00Z", &Rfc3339).unwrap();
        assert!(is_good(&secret("2026-01-02T00:00:00Z"), &names, "CA", now));
        assert!(!is_good(&secret("2025-12-31T00:00:00Z"), &names, "CA", now));
        assert!(!is_good(&secret("2026-01-02T00:00:00Z"), &names, "OTHER CA", now));
        assert!(!is_good(&secret("2026-01-02T00:00:00Z"), &names[1..], "CA", now));
        assert!(!is_good(&Secret::default(), &names, "CA", now));
    }
}
