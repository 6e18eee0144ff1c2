//! What every command needs: the binding, the store, who is in force, and the bounds of the run.
use std::num::NonZeroU32;
use std::sync::Arc;

use hawser_api::ObjectKey;
use hawser_api::binding::{self, CloudBinding, Conflicts, Provider};
use hawser_api::provider::ProviderId;
use hawser_api::v1;
use tokio::signal::unix::{SignalKind, signal as on};

use crate::bandwidth::Bandwidth;
use crate::cloud::Cloud;
use crate::failure::Failure;
use crate::flags::Options;
use crate::store::{self, Store};

/// A run of one command, before it begins to work.
pub struct Run {
    /// The binding.
    pub binding: CloudBinding,
    /// The store.
    pub store: Store,
    /// What the store answered: the provider in force and its tick.
    pub welcome: v1::Welcome,
    /// Objects or parts under way at the same time.
    pub parallelism: usize,
    /// The bound on bytes per second.
    pub bandwidth: Arc<Bandwidth>,
    /// Only keys that begin with this.
    pub prefix: String,
    /// Read and compare every byte.
    pub deep: bool,
    /// Change nothing.
    pub dry_run: bool,
    /// Leave the provider in force as it is.
    pub no_switch: bool,
    /// Write where no guard holds.
    pub unguarded: bool,
    /// Believe a listing that lacks much.
    pub allow_deletes: bool,
    /// What to do with foreign objects.
    pub conflicts: Conflicts,
    /// Come into force though objects may be missing.
    pub accept_missing: bool,
    from: Option<String>,
    to: Option<String>,
    roots: Option<Vec<u8>>,
}

impl Run {
    /// Reads the binding and speaks to the store for the first time.
    pub async fn prepare(options: &Options) -> Result<Run, Failure> {
        let binding = binding::load(&options.binding)
            .map_err(|error| Failure::Usage(Failure::because("read the binding", error).story()))?;
        let migration = &binding.spec.migration;
        let roots = options.upstream_ca.as_deref().map(|path| store::read("--upstream-ca", path)).transpose()?;
        let (token, ca) = (options.token_file.as_deref(), options.store_ca.as_deref());
        let store = Store::connect(&options.store, binding.domain(), token, ca).await?;
        let hello = store::hello(&binding, *uuid::Uuid::new_v4().as_bytes());
        let welcome =
            store.migration.clone().register(hello).await.map_err(store::refusal("register the binding"))?.into_inner();
        let run = Run {
            store,
            welcome,
            parallelism: options.parallelism.map_or(migration.parallelism, NonZeroU32::get).clamp(1, 256) as usize,
            bandwidth: Arc::new(Bandwidth::new(options.bandwidth.or(migration.bandwidth))),
            prefix: options.prefix.clone(),
            deep: options.deep,
            dry_run: options.dry_run || migration.dry_run,
            no_switch: options.no_switch,
            unguarded: options.unguarded,
            allow_deletes: options.allow_deletes,
            conflicts: migration.conflicts,
            accept_missing: migration.accept.contains(&binding::Acceptable::MissingObjects),
            from: options.from.clone(),
            to: options.to.clone(),
            roots,
            binding,
        };
        for name in [&run.from, &run.to].into_iter().flatten() {
            run.named(name)?;
        }
        Ok(run)
    }

    /// The provider to read: `--from`, else the one in force.
    pub fn source(&self) -> Result<&Provider, Failure> {
        match &self.from {
            Some(name) => self.named(name),
            None => self.in_force(),
        }
    }

    /// The provider to write or verify: `--to`, else the one that spec.provider names.
    pub fn target(&self) -> Result<&Provider, Failure> {
        self.named(self.to.as_deref().unwrap_or(&self.binding.spec.provider))
    }

    /// Whether the command line names a provider to read and none to write.
    pub fn asks_for_source(&self) -> bool {
        self.from.is_some() && self.to.is_none()
    }

    /// The provider in force, as the binding has it now.
    pub fn in_force(&self) -> Result<&Provider, Failure> {
        let identity = &self.welcome.provider_identity;
        identity.parse().ok().and_then(|id: ProviderId| self.binding.provider_with_id(&id)).ok_or_else(|| {
            Failure::Usage(format!("the provider in force, {identity}, is not in spec.providers: put it back"))
        })
    }

    fn named(&self, name: &str) -> Result<&Provider, Failure> {
        self.binding.provider(name).ok_or_else(|| {
            let names: Vec<&str> = self.binding.spec.providers.iter().map(|provider| provider.name.as_str()).collect();
            Failure::Usage(format!("no provider {name} in the binding: it names {}", names.join(", ")))
        })
    }

    /// A client of `provider`.
    pub fn cloud(&self, provider: &Provider) -> Result<Cloud, Failure> {
        Cloud::new(provider, self.roots.as_deref())
    }

    /// Whether only a part of the bucket is asked for.
    pub fn is_partial(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// Whether this run speaks of `key`.
    pub fn covers(&self, key: &ObjectKey) -> bool {
        key.as_bytes().starts_with(self.prefix.as_bytes())
    }
}

/// Comes back when SIGTERM or ctrl-c asks for the end.
pub async fn signal() {
    let wait = async |kind| match on(kind) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::interrupt()) => {}
    }
}
