//! The shape of every Job: hawser-migrate in the binding's namespace, under an account without rights.
use hawser_api::CloudBinding;
use hawser_api::binding::Provider;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EnvVar, EnvVarSource, LocalObjectReference, PodSecurityContext,
    PodSpec, PodTemplateSpec, ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretKeySelector,
    SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::flags::Jobs;
use crate::{account, config, labels};

/// The one container.
pub const CONTAINER: &str = "migrate";
/// The annotation with the binding's generation that a Job was made for: an edit makes another of a failed one.
pub const GENERATION: &str = "hawser.dev/generation";

const CONFIG_DIR: &str = "/etc/hawser";
const TOKEN_DIR: &str = "/var/run/secrets/hawser";
/// Whom the token is for.
const TOKEN_AUDIENCE: &str = "hawser-store";
/// No image of ours has this user, so nothing in it is owned by it.
const UID: i64 = 61337;
/// What failed and may succeed is tried again by the Job, later each time: the last wait is six minutes.
const TRIES_MAX: i32 = 6;
/// A Job that ended goes after so long. One that failed is then made anew: the last way in which it heals by itself.
const KEPT_SECONDS: i32 = 3600;

/// A provider whose keys a Job needs.
pub struct Keys<'a> {
    /// The provider.
    pub provider: &'a Provider,
    /// Whether the Job runs without them too: the source of a migration may be gone.
    pub optional: bool,
}

/// What one Job does.
pub struct Work<'a> {
    /// The commands of hawser-migrate, one after the other.
    pub commands: &'static [&'static str],
    /// Flags beside those of all Jobs.
    pub flags: Vec<String>,
    /// The keys that it needs.
    pub keys: Vec<Keys<'a>>,
}

/// A Job called `name`.
pub fn job(binding: &CloudBinding, name: String, work: &Work<'_>, store: &str, settings: &Jobs) -> Job {
    let mut metadata = labels::owned(binding, name);
    let generation = binding.metadata.generation.unwrap_or_default();
    metadata.annotations = Some([(GENERATION.to_owned(), generation.to_string())].into());
    Job { metadata, spec: Some(spec(binding, work, store, settings)), status: None }
}

/// What a Job is to do, for a Job or a CronJob.
pub fn spec(binding: &CloudBinding, work: &Work<'_>, store: &str, settings: &Jobs) -> JobSpec {
    JobSpec {
        backoff_limit: Some(TRIES_MAX),
        ttl_seconds_after_finished: Some(KEPT_SECONDS),
        pod_failure_policy: Some(PodFailurePolicy {
            rules: vec![
                PodFailurePolicyRule {
                    action: "Ignore".into(), // a drained node is no failure of the Job
                    on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                        type_: "DisruptionTarget".into(),
                        status: "True".into(),
                    }]),
                    on_exit_codes: None,
                },
                PodFailurePolicyRule {
                    action: "FailJob".into(),
                    on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                        container_name: Some(CONTAINER.into()),
                        operator: "In".into(),
                        values: vec![2, 3, 4, 5, 6, 7],
                    }),
                    on_pod_conditions: None,
                },
            ],
        }),
        template: template(binding, work, store, settings),
        ..JobSpec::default()
    }
}

fn template(binding: &CloudBinding, work: &Work<'_>, store: &str, settings: &Jobs) -> PodTemplateSpec {
    let mut labels = labels::of(binding);
    // Only its own two ways out are wanted: the store and the clouds, both with certificates of their own.
    labels.insert("sidecar.istio.io/inject".into(), "false".into());
    labels.insert("kuma.io/sidecar-injection".into(), "disabled".into());
    let meshes = [
        ("linkerd.io/inject", "disabled"),
        ("consul.hashicorp.com/connect-inject", "false"),
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "true"),
    ];
    let annotations = meshes.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let (last, first) = work.commands.split_last().expect("a Job has something to do");
    let first: Vec<Container> =
        first.iter().map(|command| container(command, command, binding, work, store, settings)).collect();
    let last = container(CONTAINER, last, binding, work, store, settings);
    let pull_secrets: Vec<LocalObjectReference> =
        settings.migrate_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect();
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations.into()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            restart_policy: Some("Never".into()), // its exit code is what the Job decides by
            service_account_name: Some(account::NAME.into()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(UID),
                run_as_group: Some(UID),
                fs_group: Some(UID), // or the token could not be read
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
                ..PodSecurityContext::default()
            }),
            init_containers: (!first.is_empty()).then_some(first),
            containers: vec![last],
            volumes: Some(volumes(binding)),
            ..PodSpec::default()
        }),
    }
}

fn container(
    name: &str,
    command: &str,
    binding: &CloudBinding,
    work: &Work<'_>,
    store: &str,
    settings: &Jobs,
) -> Container {
    let mut args: Vec<String> = vec![
        command.into(),
        format!("--binding={CONFIG_DIR}/{}", config::BINDING),
        format!("--store={store}"),
        format!("--token-file={TOKEN_DIR}/token"),
        format!("--store-ca={CONFIG_DIR}/{}", config::STORE_CA),
        "--json".into(),
    ];
    if binding.spec.providers.iter().any(|provider| provider.s3.ca.is_some()) {
        args.push(format!("--upstream-ca={CONFIG_DIR}/{}", config::UPSTREAM_CA));
    }
    args.extend(work.flags.iter().cloned());
    let env: Vec<EnvVar> = work.keys.iter().flat_map(variables).collect();
    let amounts = |amounts: &[(&str, &str)]| {
        Some(amounts.iter().map(|(what, much)| ((*what).to_owned(), Quantity((*much).to_owned()))).collect())
    };
    Container {
        name: name.into(),
        image: Some(settings.migrate_image.clone()),
        image_pull_policy: Some(settings.migrate_pull_policy.clone()),
        command: Some(vec!["hawser-migrate".into()]),
        args: Some(args),
        env: (!env.is_empty()).then_some(env),
        resources: Some(ResourceRequirements {
            requests: amounts(&[("cpu", "100m"), ("memory", "256Mi")]),
            limits: amounts(&[("memory", "1Gi")]),
            claims: None,
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        // With --json the last line says how it ended.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(vec![mount("config", CONFIG_DIR), mount("token", TOKEN_DIR)]),
        ..Container::default()
    }
}

/// The variables with a provider's keys, from the Secret that it names.
fn variables(keys: &Keys<'_>) -> Vec<EnvVar> {
    let Some(credentials) = &keys.provider.s3.credentials else { return Vec::new() };
    [("AWS_ACCESS_KEY_ID", keys.optional), ("AWS_SECRET_ACCESS_KEY", keys.optional), ("AWS_SESSION_TOKEN", true)]
        .map(|(key, optional)| EnvVar {
            name: keys.provider.variable(key),
            value: None,
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: credentials.secret_name.clone(),
                    key: key.into(),
                    optional: Some(optional),
                }),
                ..EnvVarSource::default()
            }),
        })
        .into()
}

fn volumes(binding: &CloudBinding) -> Vec<Volume> {
    let config_map = ConfigMapVolumeSource { name: labels::config_map(binding), ..ConfigMapVolumeSource::default() };
    let token = ServiceAccountTokenProjection {
        audience: Some(TOKEN_AUDIENCE.into()),
        expiration_seconds: Some(3600),
        path: "token".into(),
    };
    let sources = vec![VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() }];
    vec![
        Volume { name: "config".into(), config_map: Some(config_map), ..Volume::default() },
        Volume {
            name: "token".into(),
            projected: Some(ProjectedVolumeSource { sources: Some(sources), default_mode: None }),
            ..Volume::default()
        },
    ]
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.into(), mount_path: path.into(), read_only: Some(true), ..VolumeMount::default() }
}

/// The generation that a Job was made for.
pub fn generation(job: &Job) -> i64 {
    job.annotations().get(GENERATION).and_then(|text| text.parse().ok()).unwrap_or_default()
}
