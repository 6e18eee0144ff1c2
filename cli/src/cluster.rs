//! The cluster as a command asks it: with the rights of whoever calls, through the API server alone. A right that
//! is missing is named, with where to get it.

use hawser_api::CloudBinding;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::args::KubeArgs;
use crate::failure::Failure;

/// The store's pod: its StatefulSet has one.
pub(crate) const STORE_POD: &str = "hawser-store-0";

/// The token that the store asks for.
const AUDIENCE: &str = "hawser-store";

/// A command's token lives for the shortest time that the API server gives.
const TOKEN_SECONDS: i64 = 600;

/// One cluster, seen from one namespace.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// Where the bindings are.
    pub(crate) namespace: String,
    /// Where Hawser itself is installed.
    pub(crate) release: String,
    account: String,
}

impl Cluster {
    /// The cluster of the kubeconfig, or the one that this runs in.
    pub(crate) async fn connect(args: &KubeArgs) -> Result<Cluster, Failure> {
        let unusable = |error: &dyn std::error::Error| Failure::Kubeconfig(crate::failure::chain(error));
        let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
        let config = match (&args.kubeconfig, &args.context) {
            (None, None) => Config::infer().await.map_err(|error| unusable(&error))?,
            (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|error| unusable(&error))?,
            (Some(file), _) => {
                let kubeconfig = Kubeconfig::read_from(file).map_err(|error| unusable(&error))?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unusable(&error))?
            }
        };
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| unusable(&error))?;
        Ok(Cluster { client, namespace, release: args.hawser_namespace.clone(), account: args.account.clone() })
    }

    /// The bindings of the namespace.
    pub(crate) async fn bindings(&self) -> Result<Vec<CloudBinding>, Failure> {
        let api: Api<CloudBinding> = Api::namespaced(self.client.clone(), &self.namespace);
        let listed = api.list(&ListParams::default()).await;
        let listed = listed.map_err(self.denied("list", "cloudbindings.hawser.dev", &self.namespace))?;
        Ok(listed.items)
    }

    /// One binding of the namespace.
    pub(crate) async fn binding(&self, name: &str) -> Result<CloudBinding, Failure> {
        let api: Api<CloudBinding> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = api.get_opt(name).await.map_err(self.denied("get", "cloudbindings.hawser.dev", &self.namespace))?;
        found.ok_or_else(|| Failure::NotFound(format!("there is no CloudBinding {}/{name}", self.namespace)))
    }

    /// A token of an account of the namespace, which the store takes for the namespace's.
    pub(crate) async fn token(&self) -> Result<String, Failure> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        let spec = TokenRequestSpec {
            audiences: vec![AUDIENCE.into()],
            expiration_seconds: Some(TOKEN_SECONDS),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let made = api.create_token_request(&self.account, &PostParams::default(), &request).await;
        let made = made.map_err(self.denied("create", "serviceaccounts/token", &self.namespace))?;
        made.status
            .map(|status| status.token)
            .ok_or_else(|| Failure::Refused("a token was asked for, and none came".into()))
    }

    /// The authority of the store's certificate, as the operator gave it to the namespace.
    pub(crate) async fn store_ca(&self, binding: Option<&str>) -> Result<String, Failure> {
        let name = match binding {
            Some(name) => name.to_owned(),
            None => {
                let bindings = self.bindings().await?;
                let first = bindings.first().and_then(|binding| binding.metadata.name.clone());
                first.ok_or_else(|| {
                    Failure::NotFound(format!(
                        "namespace {} has no CloudBinding, so the store has nothing of it: choose another with -n",
                        self.namespace
                    ))
                })?
            }
        };
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let config = format!("hawser-{name}");
        let found = api.get_opt(&config).await.map_err(self.denied("get", "configmaps", &self.namespace))?;
        let pem = found.and_then(|map| map.data).and_then(|mut data| data.remove("store-ca.pem"));
        pem.ok_or_else(|| {
            Failure::NotFound(format!(
                "ConfigMap {}/{config} has no store-ca.pem yet: is the operator running? kubectl hawser check tells",
                self.namespace
            ))
        })
    }

    /// For `map_err`: what the API server's refusal means.
    pub(crate) fn denied<'a>(
        &self,
        verb: &'static str,
        resource: &'static str,
        namespace: &'a str,
    ) -> impl FnOnce(kube::Error) -> Failure + use<'a> {
        move |error| match error {
            kube::Error::Api(status) if status.code == 403 => {
                Failure::Right { verb, resource, namespace: namespace.to_owned() }
            }
            kube::Error::Api(status) if status.code == 404 && resource.starts_with("cloudbindings") => {
                Failure::NotFound("this cluster has no CloudBindings: install Hawser's chart".into())
            }
            kube::Error::Api(status) => Failure::Refused(status.message.clone()),
            error => Failure::Cluster(crate::failure::chain(&error)),
        }
    }
}
