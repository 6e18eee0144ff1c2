//! Why a pod is refused: one reason each, for metrics, and a text that says what to do.

/// A pod asks for protection and cannot have it. The annotation is an explicit wish, so it does not run without.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// An annotation of ours that cannot be understood.
    #[error("the annotation {annotation} cannot be used: {why}")]
    BadAnnotation {
        /// Which one.
        annotation: &'static str,
        /// What to write.
        why: String,
    },
    /// The named binding is not there.
    #[error(
        "namespace {namespace} has no CloudBinding {name}: create it, or correct the annotation hawser.dev/binding; \
         the pod is admitted as soon as it is there"
    )]
    BindingNotFound {
        /// The pod's namespace.
        namespace: String,
        /// The name in the annotation.
        name: String,
    },
    /// The named binding is going away.
    #[error("CloudBinding {name} is being deleted: wait until it is gone and create it anew, or name another")]
    BindingDeleted {
        /// The name in the annotation.
        name: String,
    },
    /// The binding breaks a rule that its CRD does not hold.
    #[error("CloudBinding {name} cannot be used: {why}")]
    BindingInvalid {
        /// The name in the annotation.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A way in that pods do not have.
    #[error("interception {asked} is not for pods: leave it out or write Redirect")]
    Interception {
        /// What the annotation or the binding says.
        asked: String,
    },
    /// The pod has the node's network.
    #[error(
        "the pod has the node's network (spec.hostNetwork), whose packets are not ours to lead: take hostNetwork \
         away, or the annotation"
    )]
    HostNetwork,
    /// A container runs as the user whose connections are not led to the sidecar.
    #[error(
        "container {container} runs as user {}, whose connections go past the sidecar because it is the sidecar's \
         own: choose another runAsUser",
        super::SIDECAR_UID
    )]
    RunsAsSidecarUser {
        /// The container, or `spec.securityContext` for the pod's own.
        container: String,
    },
    /// A service mesh leads the same packets.
    #[error(
        "{found} shows a service mesh, which leads the same packets elsewhere: take the pod out of the mesh (for \
         Istio the label sidecar.istio.io/inject: \"false\", for Linkerd the annotation linkerd.io/inject: disabled), \
         or take the annotation away"
    )]
    MeshPresent {
        /// What shows it.
        found: String,
    },
    /// The application speaks to a proxy instead of the cloud.
    #[error(
        "container {container} sets {variable}, so that its requests go to a proxy and not to {host}: take it away, \
         or add {host} and .{host} to NO_PROXY"
    )]
    BehindProxy {
        /// The container.
        container: String,
        /// The variable.
        variable: String,
        /// A bound host that it leads away from.
        host: String,
    },
    /// Pod Security would refuse the capability.
    #[error(
        "namespace {namespace} enforces the Pod Security level {level}, which forbids the capability NET_ADMIN that \
         the init container hawser-redirect needs: label the namespace \
         pod-security.kubernetes.io/enforce=privileged, or run the pod in one that has it (Hosts, the interception \
         without capabilities, is not in this release)"
    )]
    NamespaceForbidsNetAdmin {
        /// The pod's namespace.
        namespace: String,
        /// `baseline` or `restricted`.
        level: String,
    },
    /// A container listens where the sidecar does.
    #[error(
        "container {container} has the port {port}, which the sidecar needs in every pod: let it listen on another one"
    )]
    PortClash {
        /// The container.
        container: String,
        /// The port.
        port: u16,
    },
    /// A pod for Windows.
    #[error("pods for Windows have no packet rules of this kind: take the annotation away")]
    Windows,
    /// A pod that only mirrors what a node runs.
    #[error(
        "the pod comes from a file on its node and runs there as it is: take the annotation away, or let the API \
         server have the pod"
    )]
    StaticPod,
    /// The API server gave a pod that cannot be read.
    #[error("the pod cannot be read: {why}")]
    Unreadable {
        /// What is wrong with it.
        why: String,
    },
    /// The cluster did not answer in time.
    #[error("{what} cannot be read from the API server just now ({why}): try again")]
    ClusterAway {
        /// What was asked for.
        what: String,
        /// What came instead.
        why: String,
    },
}

impl Denial {
    /// Every reason, in the order of the enum.
    pub const REASONS: [&'static str; 15] = [
        "BadAnnotation",
        "BindingNotFound",
        "BindingDeleted",
        "BindingInvalid",
        "Interception",
        "HostNetwork",
        "RunsAsSidecarUser",
        "MeshPresent",
        "BehindProxy",
        "NamespaceForbidsNetAdmin",
        "PortClash",
        "Windows",
        "StaticPod",
        "Unreadable",
        "ClusterAway",
    ];

    /// The reason's word, in metrics and at the head of the text.
    pub fn reason(&self) -> &'static str {
        match self {
            Denial::BadAnnotation { .. } => "BadAnnotation",
            Denial::BindingNotFound { .. } => "BindingNotFound",
            Denial::BindingDeleted { .. } => "BindingDeleted",
            Denial::BindingInvalid { .. } => "BindingInvalid",
            Denial::Interception { .. } => "Interception",
            Denial::HostNetwork => "HostNetwork",
            Denial::RunsAsSidecarUser { .. } => "RunsAsSidecarUser",
            Denial::MeshPresent { .. } => "MeshPresent",
            Denial::BehindProxy { .. } => "BehindProxy",
            Denial::NamespaceForbidsNetAdmin { .. } => "NamespaceForbidsNetAdmin",
            Denial::PortClash { .. } => "PortClash",
            Denial::Windows => "Windows",
            Denial::StaticPod => "StaticPod",
            Denial::Unreadable { .. } => "Unreadable",
            Denial::ClusterAway { .. } => "ClusterAway",
        }
    }

    /// What the person reads.
    pub fn text(&self) -> String {
        format!("{}: {self}", self.reason())
    }
}
