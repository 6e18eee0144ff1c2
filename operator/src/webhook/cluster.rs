//! What has to be known of the cluster before a pod can be rendered.

use std::future::Future;
use std::time::Duration;

use hawser_api::CloudBinding;
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client};

use crate::config;
use crate::pod::{Denial, Wish};

/// How long the API server may take; it gives the whole review 5 seconds.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Cluster {
    client: Client,
    bindings: Store<CloudBinding>,
}

impl Cluster {
    pub(super) fn new(client: Client, bindings: Store<CloudBinding>) -> Cluster {
        Cluster { client, bindings }
    }

    /// What a pod of `namespace` that names these bindings asks for.
    pub(super) async fn wish(&self, namespace: &str, names: &[String]) -> Result<Wish, Denial> {
        let mut bindings = Vec::with_capacity(names.len());
        for name in names {
            let binding = self.binding(namespace, name).await?;
            let manifest = config::manifest(&binding);
            bindings.push((binding, manifest));
        }
        let what = format!("namespace {namespace}");
        let found = in_time(&what, Api::<Namespace>::all(self.client.clone()).get(namespace)).await?;
        let found = found.map_err(|error| away(&what, &error))?;
        let namespace_labels = found.metadata.labels.unwrap_or_default();
        Ok(Wish { namespace: namespace.to_owned(), namespace_labels, bindings })
    }

    /// The binding as the watch has it, else as the API server does: a pod may be made a moment after its binding.
    async fn binding(&self, namespace: &str, name: &str) -> Result<CloudBinding, Denial> {
        let known = self.bindings.get(&ObjectRef::new(name).within(namespace));
        let binding = match known.filter(|binding| binding.metadata.deletion_timestamp.is_none()) {
            Some(known) => (*known).clone(),
            None => self.live(namespace, name).await?,
        };
        match binding.metadata.deletion_timestamp {
            Some(_) => Err(Denial::BindingDeleted { name: name.to_owned() }),
            None => Ok(binding),
        }
    }

    async fn live(&self, namespace: &str, name: &str) -> Result<CloudBinding, Denial> {
        let what = format!("CloudBinding {name}");
        let api = Api::<CloudBinding>::namespaced(self.client.clone(), namespace);
        match in_time(&what, api.get_opt(name)).await? {
            Ok(Some(binding)) => Ok(binding),
            Ok(None) => Err(Denial::BindingNotFound { namespace: namespace.to_owned(), name: name.to_owned() }),
            Err(kube::Error::SerdeError(error)) => {
                Err(Denial::BindingInvalid { name: name.to_owned(), why: error.to_string() })
            }
            Err(error) => Err(away(&what, &error)),
        }
    }
}

async fn in_time<T>(what: &str, asked: impl Future<Output = T>) -> Result<T, Denial> {
    let late = |_| Denial::ClusterAway { what: what.to_owned(), why: "no answer in time".to_owned() };
    tokio::time::timeout(PATIENCE, asked).await.map_err(late)
}

fn away(what: &str, error: &kube::Error) -> Denial {
    Denial::ClusterAway { what: what.to_owned(), why: error.to_string() }
}
