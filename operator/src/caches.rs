//! What is known of the cluster, kept true by watches, without anything that no concern reads. A change of whatever
//! belongs to a binding makes that binding due.
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use futures::{Stream, StreamExt};
use hawser_api::CloudBinding;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::{labels, pod};

/// What is due.
#[derive(Clone, Debug)]
pub enum Due {
    /// One binding.
    One(ObjectRef<CloudBinding>),
    /// All of a namespace.
    Namespace(String),
    /// Every one: something was listed anew.
    All,
}

/// Bindings that became due and were not looked at yet; a full queue holds up its watch, nothing is lost.
const DUE_MAX: usize = 1024;

/// Takes what is due to whoever reconciles now. Without a leader here it is dropped: a leader begins with everything.
#[derive(Clone, Default)]
pub struct Queue {
    reader: Arc<RwLock<Option<mpsc::Sender<Due>>>>,
}

impl Queue {
    /// Says that something is due.
    pub async fn put(&self, due: Due) {
        let reader = self.reader.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(reader) = reader {
            let _ = reader.send(due).await; // a reader that is gone has nothing due
        }
    }

    /// Everything that becomes due from now on, for the one who reconciles.
    pub fn read(&self) -> mpsc::Receiver<Due> {
        let (reader, due) = mpsc::channel(DUE_MAX);
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = Some(reader);
        due
    }
}

/// What is known of the cluster besides bindings.
pub struct Caches {
    /// The bindings.
    pub bindings: Store<CloudBinding>,
    /// Their ConfigMaps.
    pub config_maps: Store<ConfigMap>,
    /// The Jobs' accounts.
    pub accounts: Store<ServiceAccount>,
    /// Their Jobs, without what these are made of.
    pub jobs: Store<Job>,
    /// Their CronJobs.
    pub cron_jobs: Store<CronJob>,
    /// The pods of their Jobs.
    pub job_pods: Store<Pod>,
    /// Annotated pods that have not ended.
    pub pods: Store<PartialObjectMeta<Pod>>,
    /// Namespaces: their UIDs are the domains.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
}

/// Watches bindings; on every replica, as the webhook asks for them.
pub fn bindings(client: &Client, due: Queue, tasks: &mut JoinSet<()>) -> Store<CloudBinding> {
    let events = watcher(Api::<CloudBinding>::all(client.clone()), watcher::Config::default());
    watch(events, lean, |binding| vec![Due::One(ObjectRef::from_obj(binding))], due, tasks)
}

impl Caches {
    /// Begins all watches, each a task of `tasks`.
    pub fn watch(client: &Client, bindings: Store<CloudBinding>, due: &Queue, tasks: &mut JoinSet<()>) -> Caches {
        let ours = || watcher::Config::default().labels(labels::SELECTOR);
        // Pods that ended leave the selection: a Job's pod that is done is no protected pod.
        let living = watcher::Config::default()
            .labels(&format!("{}=true", pod::PROTECTED))
            .fields("status.phase!=Succeeded,status.phase!=Failed");
        Caches {
            bindings,
            config_maps: watch(watcher(Api::all(client.clone()), ours()), lean, owner, due.clone(), tasks),
            accounts: watch(watcher(Api::all(client.clone()), ours()), lean, namespace, due.clone(), tasks),
            jobs: watch(watcher(Api::all(client.clone()), ours()), lean_job, owner, due.clone(), tasks),
            cron_jobs: watch(watcher(Api::all(client.clone()), ours()), lean, owner, due.clone(), tasks),
            job_pods: watch(watcher(Api::all(client.clone()), ours()), lean_pod, owner, due.clone(), tasks),
            pods: watch(watcher(Api::all(client.clone()), living), lean_metadata, annotated, due.clone(), tasks),
            namespaces: watch(
                watcher(Api::all(client.clone()), watcher::Config::default()),
                lean_metadata,
                |one: &PartialObjectMeta<Namespace>| vec![Due::Namespace(one.name_any())],
                due.clone(),
                tasks,
            ),
        }
    }

    /// Comes back once every cache has been filled.
    pub async fn filled(&self) {
        // A writer that is gone ends the leader's term; there is nobody to tell here.
        let _ = self.bindings.wait_until_ready().await;
        let _ = self.config_maps.wait_until_ready().await;
        let _ = self.accounts.wait_until_ready().await;
        let _ = self.jobs.wait_until_ready().await;
        let _ = self.cron_jobs.wait_until_ready().await;
        let _ = self.job_pods.wait_until_ready().await;
        let _ = self.pods.wait_until_ready().await;
        let _ = self.namespaces.wait_until_ready().await;
    }
}

/// Keeps a store true in a task of its own. After the first list, each change makes due what `of` says.
fn watch<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    lean: fn(&mut K),
    of: fn(&K) -> Vec<Due>,
    due: Queue,
    tasks: &mut JoinSet<()>,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let (store, writer) = reflector::store();
    tasks.spawn(async move {
        let mut events = std::pin::pin!(reflector(writer, events.default_backoff().modify(lean)));
        while let Some(event) = events.next().await {
            let all = match event {
                Ok(Event::Apply(object) | Event::Delete(object)) => of(&object),
                Ok(Event::InitDone) => vec![Due::All],
                Ok(Event::Init | Event::InitApply(_)) => Vec::new(),
                Err(error) => {
                    let kind = K::plural(&());
                    tracing::warn!(%kind, error = &error as &dyn std::error::Error, "a watch broke off and begins anew");
                    Vec::new()
                }
            };
            for one in all {
                due.put(one).await;
            }
        }
    });
    store
}

fn lean<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// A Job's pod template is never read again: Jobs are immutable.
fn lean_job(job: &mut Job) {
    lean(job);
    if let Some(spec) = &mut job.spec {
        spec.template = PodTemplateSpec::default();
        spec.pod_failure_policy = None;
    }
}

fn lean_pod(pod: &mut Pod) {
    lean(pod);
    pod.spec = None::<PodSpec>;
}

fn lean_metadata<K: Resource>(object: &mut PartialObjectMeta<K>) {
    object.metadata.managed_fields = None;
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.retain(|key, _| matches!(key.as_str(), pod::BINDING | pod::CONFIG_HASH | pod::UNPROTECTED));
    }
}

fn namespace<K: Resource>(object: &K) -> Vec<Due> {
    object.meta().namespace.clone().map(Due::Namespace).into_iter().collect()
}

/// The binding that an object of ours was made for.
fn owner<K: Resource>(object: &K) -> Vec<Due> {
    let meta = object.meta();
    let name = meta.labels.as_ref().and_then(|labels| labels.get(labels::OWNER));
    match (name, &meta.namespace) {
        (Some(name), Some(namespace)) => vec![Due::One(ObjectRef::new(name).within(namespace))],
        _ => Vec::new(),
    }
}

/// The bindings that a pod is annotated with.
fn annotated(of: &PartialObjectMeta<Pod>) -> Vec<Due> {
    let (Some(namespace), Some(names)) = (of.namespace(), of.annotations().get(pod::BINDING)) else {
        return Vec::new();
    };
    let one = |name: &str| Due::One(ObjectRef::new(name.trim()).within(&namespace));
    names.split(',').map(one).collect()
}
