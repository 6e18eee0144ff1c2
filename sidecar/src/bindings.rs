//! Which hosts are bound, and to what: the manifests as a table that follows its files.
//!
//! May not enter here: Kubernetes. A binding is a file, wherever it came from.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hawser_api::binding::{CloudBinding, LoadError, Provider};
use hawser_api::hosts;
use hawser_api::provider::Scheme;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::trust::{self, TrustError};

mod folder;

/// How often the files are looked at: an edit takes effect within two seconds.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What (host, port) of one connection belongs to. Several bindings may share a host; the bucket of
/// an operation selects one of them.
#[derive(Debug)]
pub struct Bound {
    /// The name or address that the connection was made for: SNI, CONNECT authority or Host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Every binding and provider that has this host among its own; never empty.
    pub entries: Vec<Entry>,
}

impl Bound {
    /// What of it `host` belongs to; `None` when it is nobody's.
    pub fn of_host(&self, host: &str) -> Option<Bound> {
        let theirs = |entry: &&Entry| hosts::classify(&entry.provider, host, self.port).is_some();
        let entries: Vec<Entry> = self.entries.iter().filter(theirs).cloned().collect();
        (!entries.is_empty()).then(|| Bound { host: host.to_owned(), port: self.port, entries })
    }
}

/// One provider of one binding. Where the bucket stands in a request (path or host) is answered by
/// [`hawser_api::hosts::classify`] for the Host of that request.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The binding as its file said when the connection began.
    pub binding: Arc<CloudBinding>,
    /// One of `binding.spec.providers`.
    pub provider: Arc<Provider>,
    /// The provider's own roots, beside the public ones.
    pub roots: Arc<[CertificateDer<'static>]>,
}

/// All bindings as their files said at one moment.
#[derive(Debug, Default)]
pub struct Table {
    entries: Vec<Entry>,
    ports: BTreeSet<u16>,
    /// Something could not be read, and an earlier word for it is in force.
    is_partial: bool,
    /// Providers that the manifest gives roots of their own, which are not there.
    rootless: Vec<(Arc<CloudBinding>, String)>,
}

impl Table {
    /// What `host`:`port` is bound to; `None` when it is nobody's.
    pub fn bound(&self, host: &str, port: u16) -> Option<Bound> {
        if !self.has_port(port) {
            return None;
        }
        Bound { host: host.to_owned(), port, entries: self.entries.clone() }.of_host(host)
    }

    /// Everything that a connection in the clear to this port may belong to; `None` when nothing is bound there
    /// without TLS. [`Bound::of_host`] says to which of it, once the host is known.
    pub fn in_the_clear(&self, host: &str, port: u16) -> Option<Bound> {
        let clear = |entry: &&Entry| {
            let endpoint = &entry.provider.s3.endpoint;
            endpoint.port() == port && endpoint.scheme() == Scheme::Http
        };
        let entries: Vec<Entry> = self.entries.iter().filter(clear).cloned().collect();
        (!entries.is_empty()).then(|| Bound { host: host.to_owned(), port, entries })
    }

    /// Whether any bound host has this port; the bytes of others need not be looked at.
    pub fn has_port(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    /// All hosts of all bindings at once; `None` when nothing is bound.
    pub fn everything(&self) -> Option<Bound> {
        let entries = self.entries.clone();
        (!entries.is_empty()).then(|| Bound { host: String::new(), port: 0, entries })
    }

    /// The bindings, each once.
    pub fn bindings(&self) -> Vec<Arc<CloudBinding>> {
        let mut bindings: Vec<Arc<CloudBinding>> = Vec::new();
        for entry in &self.entries {
            if !bindings.iter().any(|binding| Arc::ptr_eq(binding, &entry.binding)) {
                bindings.push(Arc::clone(&entry.binding));
            }
        }
        bindings
    }

    /// Keeps what was in force of providers whose roots are gone: a binding that is deleted takes its ConfigMap along,
    /// and an application that trusts this pod's authority alone must go on as it began.
    fn keep(&mut self, before: &Table) {
        for (binding, provider) in std::mem::take(&mut self.rootless) {
            let same = |entry: &&Entry| entry.binding.name() == binding.name() && entry.provider.name == provider;
            if let Some(entry) = before.entries.iter().find(same) {
                self.ports.insert(entry.provider.s3.endpoint.port());
                self.entries.push(entry.clone());
            }
        }
    }

    fn of(path: &Path, files: &[File]) -> Result<Table, BindingsError> {
        let mut table = Table::default();
        let (manifests, failed) = folder::manifests(path)?;
        if let Some(error) = failed {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a binding cannot be read: what was stamped on the pod is in force in its place"
            );
            table.is_partial = true;
        }
        for manifest in manifests {
            let binding = Arc::new(manifest.binding);
            for provider in &binding.spec.providers {
                let wanted = manifest.folder.join(roots_file(&provider.name));
                let own = files.iter().find(|file| file.path == wanted);
                if manifest.stamped && provider.s3.ca.is_some() {
                    // Its cloud would not verify, and an application that cannot reach it is worse than one that is
                    // not protected for its first minute.
                    tracing::warn!(
                        binding = binding.name(),
                        provider = provider.name,
                        "the provider's own roots have not arrived yet: until then it is passed through"
                    );
                    table.is_partial = true;
                    table.rootless.push((Arc::clone(&binding), provider.name.clone()));
                    continue;
                }
                let roots = match own {
                    Some(file) => trust::read(&file.path)?,
                    None => Vec::new(),
                };
                if provider.s3.ca.is_some() && own.is_none() {
                    tracing::warn!(
                        binding = binding.name(),
                        provider = provider.name,
                        "the binding names roots of its own, but there is no {} beside it: the public ones and --upstream-ca alone are trusted",
                        roots_file(&provider.name)
                    );
                }
                table.ports.insert(provider.s3.endpoint.port());
                table.entries.push(Entry {
                    binding: Arc::clone(&binding),
                    provider: Arc::new(provider.clone()),
                    roots: roots.into(),
                });
            }
        }
        Ok(table)
    }
}

/// Why the files make no table.
#[derive(Debug, thiserror::Error)]
pub enum BindingsError {
    /// A manifest.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The roots of a provider.
    #[error(transparent)]
    Roots(#[from] TrustError),
}

/// The table in force. Connections take it when they begin and keep it.
#[derive(Clone, Debug)]
pub struct Bindings {
    table: watch::Receiver<Arc<Table>>,
}

impl Bindings {
    /// The table as of now.
    pub fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.borrow())
    }

    /// No host is bound, for ever.
    pub fn none() -> Bindings {
        Bindings { table: watch::channel(Arc::default()).1 }
    }

    /// A view that tells when the table changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Table>> {
        self.table.clone()
    }
}

/// Follows the files; runs for the life of the process.
pub struct Follower {
    path: PathBuf,
    seen: u64,
    table: watch::Sender<Arc<Table>>,
    metrics: Arc<Metrics>,
}

/// Reads the bindings of a manifest or a folder of them. Beside a manifest, `upstream-PROVIDER.pem` has that provider's roots.
///
/// # Errors
/// [`BindingsError`]: at the start there is no earlier table to keep.
pub fn open(path: &Path, metrics: Arc<Metrics>) -> Result<(Bindings, Follower), BindingsError> {
    let files = read_all(path);
    let table = Table::of(path, &files)?;
    metrics.bindings_valid.set(i64::from(!table.is_partial));
    let (to, from) = watch::channel(Arc::new(table));
    let follower = Follower { path: path.to_owned(), seen: fingerprint(&files), table: to, metrics };
    Ok((Bindings { table: from }, follower))
}

/// The ports of every provider of every binding, for the packet rules.
///
/// # Errors
/// [`BindingsError::Load`].
pub fn ports(path: &Path) -> Result<BTreeSet<u16>, BindingsError> {
    let (manifests, _) = folder::manifests(path)?;
    let providers = manifests.iter().flat_map(|manifest| &manifest.binding.spec.providers);
    Ok(providers.map(|provider| provider.s3.endpoint.port()).collect())
}

impl Follower {
    /// Looks at the files again and again. What cannot be used is reported once and changes nothing.
    pub async fn run(mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.look();
        }
    }

    fn look(&mut self) {
        let files = read_all(&self.path);
        let seen = fingerprint(&files);
        if seen == self.seen {
            return;
        }
        match Table::of(&self.path, &files) {
            Ok(mut table) => {
                table.keep(&self.table.borrow());
                tracing::info!(
                    bindings = table.bindings().len(),
                    "the bindings changed; open connections keep what they began with"
                );
                self.metrics.bindings_valid.set(i64::from(!table.is_partial));
                self.table.send_replace(Arc::new(table));
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the bindings changed and cannot be used; the last good ones stay in force"
                );
                self.metrics.bindings_valid.set(0);
            }
        }
        self.seen = seen;
    }
}

struct File {
    path: PathBuf,
    content: io::Result<Vec<u8>>,
}

/// Every file that the bindings may come from: small ones, so that looking at their content costs nothing and sees
/// every edit, also one by symbolic links as Kubernetes makes it.
fn read_all(path: &Path) -> Vec<File> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let is_manifest = |path: &Path| path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
    let mut paths = roots_in(folder);
    if path.is_dir() {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        paths.extend(entries.filter(|file| is_manifest(file)));
        paths.extend(folder::files(path));
    }
    if !path.is_dir() {
        paths.push(path.to_owned());
    }
    paths.sort();
    paths.into_iter().map(|path| File { content: std::fs::read(&path), path }).collect()
}

/// The files `upstream-PROVIDER.pem` of a folder.
fn roots_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_roots = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("upstream-") && name.ends_with(".pem")
    };
    entries.filter(is_roots).collect()
}

fn fingerprint(files: &[File]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.path.hash(&mut hasher);
        match &file.content {
            Ok(content) => content.hash(&mut hasher),
            Err(error) => error.kind().hash(&mut hasher),
        }
    }
    hasher.finish()
}

fn roots_file(provider: &str) -> String {
    format!("upstream-{provider}.pem")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::open;
    use crate::metrics::Metrics;

    fn manifest(name: &str, endpoint: &str) -> String {
        format!(
            "apiVersion: hawser.dev/v1alpha1\nkind: CloudBinding\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  provider: a\n  \
             providers:\n  - name: a\n    s3: {{endpoint: \"{endpoint}\"}}\n  buckets:\n  - name: photos\n"
        )
    }

    #[test]
    fn an_edit_is_seen_and_a_bad_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("binding.yaml");
        fs::write(&file, manifest("one", "https://a.test")).unwrap();
        let metrics = Arc::new(Metrics::default());
        let (bindings, mut follower) = open(&file, Arc::clone(&metrics)).unwrap();
        let before = bindings.table();
        assert!(before.bound("photos.a.test", 443).is_some() && before.bound("b.test", 443).is_none());
        fs::write(&file, manifest("one", "https://b.test:8443")).unwrap();
        follower.look();
        assert!(bindings.table().bound("B.test", 8443).is_some() && bindings.table().bound("a.test", 443).is_none());
        assert!(before.bound("a.test", 443).is_some(), "who has the old table keeps it");
        fs::write(&file, "kind: CloudBinding").unwrap();
        follower.look();
        assert!(bindings.table().bound("b.test", 8443).is_some());
        assert_eq!(metrics.bindings_valid.get(), 0);
        fs::remove_file(&file).unwrap();
        follower.look();
        assert!(bindings.table().bound("b.test", 8443).is_some(), "nor does a missing one");
        fs::write(&file, manifest("one", "https://c.test")).unwrap();
        follower.look();
        assert!(bindings.table().bound("c.test", 443).is_some());
        assert_eq!(metrics.bindings_valid.get(), 1);
    }

    #[test]
    fn a_folder_is_followed_through_the_links_of_a_mounted_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, endpoint) in [("..1", "https://a.test"), ("..2", "https://b.test")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("binding.yaml"), manifest("one", endpoint)).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/binding.yaml", at("binding.yaml")).unwrap();
        let (bindings, mut follower) = open(folder.path(), Arc::new(Metrics::default())).unwrap();
        assert!(bindings.table().bound("a.test", 443).is_some());
        symlink("..2", at("..next")).unwrap();
        fs::rename(at("..next"), at("..data")).unwrap();
        follower.look();
        assert!(bindings.table().bound("b.test", 443).is_some());
    }

    #[test]
    fn bindings_that_share_a_host_are_all_found() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("1.yaml"), manifest("one", "https://a.test")).unwrap();
        fs::write(folder.path().join("2.yaml"), manifest("two", "https://a.test")).unwrap();
        let (bindings, _) = open(folder.path(), Arc::new(Metrics::default())).unwrap();
        let bound = bindings.table().bound("a.test", 443).unwrap();
        assert_eq!(bound.entries.iter().map(|entry| entry.binding.name()).collect::<Vec<_>>(), ["one", "two"]);
    }

    #[test]
    fn a_pod_reads_what_was_stamped_on_it_until_its_configuration_arrives() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let stamped = [manifest("one", "https://a.test"), manifest("two", "https://b.test:8443")].join("---\n");
        fs::create_dir(at("stamped")).unwrap();
        fs::write(at("stamped/configuration.yaml"), stamped).unwrap();
        let metrics = Arc::new(Metrics::default());
        let (bindings, mut follower) = open(folder.path(), Arc::clone(&metrics)).unwrap();
        let is_bound = |host: &str, port| bindings.table().bound(host, port).is_some();
        assert!(is_bound("a.test", 443) && is_bound("b.test", 8443));
        assert_eq!(super::ports(folder.path()).unwrap().into_iter().collect::<Vec<_>>(), [443, 8443]);

        fs::create_dir(at("one")).unwrap();
        fs::write(at("one/binding.yaml"), manifest("one", "https://c.test")).unwrap();
        follower.look();
        assert!(is_bound("c.test", 443) && is_bound("b.test", 8443), "one has arrived, the other has not");
        assert!(!is_bound("a.test", 443), "what has arrived replaces what was stamped");
        assert_eq!(metrics.bindings_valid.get(), 1);

        fs::write(at("one/binding.yaml"), "apiVersion: of/the/future").unwrap();
        let (bindings, _) = open(folder.path(), Arc::clone(&metrics)).unwrap();
        assert!(bindings.table().bound("a.test", 443).is_some(), "a restart falls back on what was stamped");
        assert_eq!(metrics.bindings_valid.get(), 0, "and says so");
    }

    #[test]
    fn a_provider_with_roots_of_its_own_is_passed_through_until_they_arrive() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let own = manifest("one", "https://a.test")
            .replace("\"https://a.test\"", "\"https://a.test\", ca: {configMapName: r, key: k}");
        fs::create_dir_all(at("stamped")).unwrap();
        fs::write(at("stamped/configuration.yaml"), &own).unwrap();
        let (bindings, mut follower) = open(folder.path(), Arc::new(Metrics::default())).unwrap();
        assert!(bindings.table().bound("a.test", 443).is_none());
        assert!(super::ports(folder.path()).unwrap().contains(&443), "the rules lead it here all the same");
        fs::create_dir(at("one")).unwrap();
        let root = crate::authority::Authority::open(None).unwrap();
        crate::trust::write_merged(&at("one/upstream-a.pem"), root.certificate(), &[]).unwrap();
        fs::write(at("one/binding.yaml"), own).unwrap();
        follower.look();
        let bound = bindings.table().bound("a.test", 443).unwrap();
        assert_eq!(*bound.entries[0].roots, [root.certificate().clone()]);
    }
}
