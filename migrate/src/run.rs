//! What every command needs: the binding, the store, who is in force, and the bounds of the run.
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use hawser_api::ObjectKey;
use hawser_api::binding::{self, CloudBinding, Conflicts, Provider};
use hawser_api::provider::ProviderId;
use hawser_api::v1;
use tokio::signal::unix::{SignalKind, signal as on};
use tokio::task::JoinSet;

use crate::cloud::Cloud;
use crate::failure::Failure;
use crate::flags::Options;
use crate::limits::{Bounds, Limits};
use crate::progress::Progress;
use crate::store::lease::Fence;
use crate::store::{self, Store};

/// How often the binding's file is read again.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// A run of one command, before it begins to work.
pub struct Run {
    /// The binding.
    pub binding: CloudBinding,
    /// The store.
    pub store: Store,
    /// What the store answered: the provider in force and its tick.
    pub welcome: v1::Welcome,
    /// How much may be under way, as the binding's file says it while the run lasts.
    pub limits: Arc<Limits>,
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
    options: Options,
    roots: Option<Vec<u8>>,
}

impl Run {
    /// Reads the binding and speaks to the store for the first time, waiting so long until it answers.
    pub async fn prepare(options: &Options, patience: Duration) -> Result<Run, Failure> {
        let binding = binding::load(&options.binding)
            .map_err(|error| Failure::Usage(Failure::because("read the binding", error).story()))?;
        let migration = &binding.spec.migration;
        let roots = options.upstream_ca.as_deref().map(|path| store::read("--upstream-ca", path)).transpose()?;
        let (token, ca) = (options.token_file.as_deref(), options.store_ca.as_deref());
        let store = Store::at(&options.store, binding.domain(), token, ca)?;
        let welcome = store.register(&store::hello(&binding, *uuid::Uuid::new_v4().as_bytes()), patience).await?;
        let run = Run {
            store,
            welcome,
            limits: Arc::new(Limits::new(bounds(options, migration))),
            prefix: options.prefix.clone(),
            deep: options.deep,
            dry_run: options.dry_run || migration.dry_run,
            no_switch: options.no_switch,
            unguarded: options.unguarded,
            allow_deletes: options.allow_deletes,
            conflicts: migration.conflicts,
            accept_missing: migration.accept.contains(&binding::Acceptable::MissingObjects),
            options: options.clone(),
            roots,
            binding,
        };
        for name in [&options.from, &options.to].into_iter().flatten() {
            run.named(name)?;
        }
        Ok(run)
    }

    /// The provider to read: `--from`, else the one in force.
    pub fn source(&self) -> Result<&Provider, Failure> {
        match &self.options.from {
            Some(name) => self.named(name),
            None => self.in_force(),
        }
    }

    /// The provider to write or verify: `--to`, else the one that spec.provider names.
    pub fn target(&self) -> Result<&Provider, Failure> {
        self.named(self.options.to.as_deref().unwrap_or(&self.binding.spec.provider))
    }

    /// Whether the command line names a provider to read and none to write.
    pub fn asks_for_source(&self) -> bool {
        self.options.from.is_some() && self.options.to.is_none()
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

    /// For whom the lease is asked.
    pub fn fence(&self) -> Fence {
        let uid = self.binding.metadata.uid.clone().unwrap_or_default();
        Fence { binding: self.binding.name().to_owned(), uid, epoch: self.options.epoch }
    }

    /// Reads the binding's file again and again, and takes over the bounds that it has; a file that cannot be
    /// read or understood changes nothing. Ends when it is dropped.
    pub fn follow_binding(&self, progress: &Arc<Progress>) -> JoinSet<()> {
        let (options, limits, progress) = (self.options.clone(), self.limits.clone(), progress.clone());
        let mut following = JoinSet::new();
        progress.paused(self.binding.spec.migration.paused);
        following.spawn(async move {
            loop {
                tokio::time::sleep(READ_AGAIN).await;
                let Ok(binding) = binding::load(&options.binding) else { continue };
                let now = bounds(&options, &binding.spec.migration);
                if limits.change(now) {
                    progress.paused(now.paused);
                    progress.note(&said(&now));
                }
            }
        });
        following
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

/// What the command line says, and where it is silent, the binding.
fn bounds(options: &Options, migration: &binding::Migration) -> Bounds {
    Bounds {
        parallelism: options.parallelism.map_or(migration.parallelism, NonZeroU32::get) as usize,
        bandwidth: options.bandwidth.or(migration.bandwidth),
        paused: migration.paused,
    }
}

fn said(bounds: &Bounds) -> String {
    let rate = bounds.bandwidth.map_or("as fast as it goes".to_owned(), |rate| format!("{rate} a second"));
    match bounds.paused {
        true => "the binding says paused: what is under way is finished, nothing new begins".to_owned(),
        false => format!("the binding says {} at a time, {rate}", bounds.parallelism),
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
