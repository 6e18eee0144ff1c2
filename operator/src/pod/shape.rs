//! Which pods cannot be protected: one question each, in the order in which a person would want to hear of them.

use hawser_api::binding::Interception;
use hawser_api::provider::Scheme;
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

use super::{ADMIN_PORT, Denial, INTERCEPTION, REDIRECT_PORT, SIDECAR_UID, Wish};

/// Mirrors of pods that a node runs from a file have it.
const MIRROR: &str = "kubernetes.io/config.mirror";
const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";

/// Containers that meshes inject.
const MESH_CONTAINERS: [&str; 7] =
    ["istio-proxy", "istio-init", "linkerd-proxy", "linkerd-init", "kuma-sidecar", "consul-dataplane", "osm-init"];

/// Marks of a mesh on the pod or its namespace, and the values that say that it will come (`*`: any).
const MESH_MARKS: [(&str, &[&str]); 7] = [
    ("sidecar.istio.io/inject", &["true"]),
    ("istio-injection", &["enabled"]),
    ("istio.io/rev", &["*"]),
    ("istio.io/dataplane-mode", &["ambient"]),
    ("linkerd.io/inject", &["enabled", "ingress"]),
    ("kuma.io/sidecar-injection", &["enabled", "true"]),
    ("consul.hashicorp.com/connect-inject", &["true"]),
];

/// Whether a pod without our parts can be protected.
pub(super) fn check(pod: &Pod, wish: &Wish) -> Result<(), Denial> {
    static_pod(pod)?;
    windows(pod)?;
    host_network(pod)?;
    interception(pod, wish)?;
    net_admin(wish)?;
    mesh(pod, wish)?;
    user(pod)?;
    ports(pod)?;
    proxy(pod, wish)
}

fn static_pod(pod: &Pod) -> Result<(), Denial> {
    let annotations = pod.metadata.annotations.as_ref();
    if annotations.is_some_and(|annotations| annotations.contains_key(MIRROR)) {
        return Err(Denial::StaticPod);
    }
    Ok(())
}

fn windows(pod: &Pod) -> Result<(), Denial> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let by_field = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    let selected = spec.node_selector.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    if by_field || selected.is_some_and(|os| os == "windows") {
        return Err(Denial::Windows);
    }
    Ok(())
}

fn host_network(pod: &Pod) -> Result<(), Denial> {
    if pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)) {
        return Err(Denial::HostNetwork);
    }
    Ok(())
}

/// The annotation is heard before the bindings.
fn interception(pod: &Pod, wish: &Wish) -> Result<(), Denial> {
    let annotations = pod.metadata.annotations.as_ref();
    match annotations.and_then(|annotations| annotations.get(INTERCEPTION)).map(String::as_str) {
        Some("Redirect") => Ok(()),
        Some(other) => Err(Denial::Interception { asked: other.to_owned() }),
        None => match wish.bindings.iter().find(|(binding, _)| binding.spec.interception == Interception::Proxy) {
            Some(_) => Err(Denial::Interception { asked: "Proxy".to_owned() }),
            None => Ok(()),
        },
    }
}

fn net_admin(wish: &Wish) -> Result<(), Denial> {
    match wish.namespace_labels.get(POD_SECURITY).map(String::as_str) {
        Some(level @ ("baseline" | "restricted")) => {
            Err(Denial::NamespaceForbidsNetAdmin { namespace: wish.namespace.clone(), level: level.to_owned() })
        }
        _ => Ok(()),
    }
}

/// A mesh that is there, or that will come: its webhook may be asked after ours.
fn mesh(pod: &Pod, wish: &Wish) -> Result<(), Denial> {
    if let Some(container) = all(pod).find(|container| MESH_CONTAINERS.contains(&container.name.as_str())) {
        return Err(Denial::MeshPresent { found: format!("container {}", container.name) });
    }
    let of_pod = [&pod.metadata.labels, &pod.metadata.annotations];
    let on_pod = |mark: &str| of_pod.iter().find_map(|marks| marks.as_ref()?.get(mark)).map(String::as_str);
    let says_yes = |value: &str, yes: &[&str]| yes.contains(&"*") || yes.contains(&value);
    for (mark, yes) in MESH_MARKS {
        if on_pod(mark).is_some_and(|value| says_yes(value, yes)) {
            return Err(Denial::MeshPresent { found: format!("{mark} on the pod") });
        }
        // A pod that says no is not asked for by its namespace.
        let family = mark.split_once('/').map_or(mark, |(family, _)| family);
        let declined = MESH_MARKS.iter().any(|(own, yes)| {
            let same = own.starts_with(family) || (own.contains("istio") && mark.contains("istio"));
            same && on_pod(own).is_some_and(|value| !says_yes(value, yes))
        });
        let of_namespace = wish.namespace_labels.get(mark);
        if !declined && of_namespace.is_some_and(|value| says_yes(value, yes)) {
            return Err(Denial::MeshPresent { found: format!("{mark} on the namespace") });
        }
    }
    Ok(())
}

fn user(pod: &Pod) -> Result<(), Denial> {
    let is_ours = |user: Option<i64>| user == Some(SIDECAR_UID);
    let of_pod =
        pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()).and_then(|context| context.run_as_user);
    if is_ours(of_pod) {
        return Err(Denial::RunsAsSidecarUser { container: "spec.securityContext".to_owned() });
    }
    let ours =
        all(pod).find(|container| is_ours(container.security_context.as_ref().and_then(|context| context.run_as_user)));
    match ours {
        Some(container) => Err(Denial::RunsAsSidecarUser { container: container.name.clone() }),
        None => Ok(()),
    }
}

fn ports(pod: &Pod) -> Result<(), Denial> {
    for container in all(pod) {
        for port in container.ports.iter().flatten() {
            let tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
            for ours in [REDIRECT_PORT, ADMIN_PORT] {
                if tcp && port.container_port == i32::from(ours) {
                    return Err(Denial::PortClash { container: container.name.clone(), port: ours });
                }
            }
        }
    }
    Ok(())
}

/// Variables from ConfigMaps and Secrets (`envFrom`) cannot be seen here.
fn proxy(pod: &Pod, wish: &Wish) -> Result<(), Denial> {
    let endpoints = wish.bindings.iter().flat_map(|(binding, _)| &binding.spec.providers).map(|of| &of.s3.endpoint);
    for endpoint in endpoints {
        let variables: [&str; 4] = match endpoint.scheme() {
            Scheme::Https => ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
            Scheme::Http => ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
        };
        for container in all(pod) {
            let set =
                |name: &str| container.env.iter().flatten().find(|variable| variable.name == name && is_set(variable));
            let excepted =
                ["NO_PROXY", "no_proxy"].into_iter().filter_map(set).any(|none| excepts(none, endpoint.host()));
            let Some(variable) = variables.into_iter().find_map(set).filter(|_| !excepted) else { continue };
            return Err(Denial::BehindProxy {
                container: container.name.clone(),
                variable: variable.name.clone(),
                host: endpoint.host().to_owned(),
            });
        }
    }
    Ok(())
}

fn is_set(variable: &EnvVar) -> bool {
    variable.value_from.is_some() || variable.value.as_ref().is_some_and(|value| !value.is_empty())
}

/// Whether a `NO_PROXY` has the host among its own: `*`, the name, or a domain above it.
fn excepts(none: &EnvVar, host: &str) -> bool {
    let entries = none.value.as_deref().unwrap_or_default().split([',', ' ']).map(str::trim);
    entries.filter(|entry| !entry.is_empty()).any(|entry| {
        let domain = entry.trim_start_matches('*').trim_start_matches('.');
        entry == "*" || host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
    })
}

fn all(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    let inits = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    inits.chain(spec.map(|spec| &spec.containers).into_iter().flatten())
}
