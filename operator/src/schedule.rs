//! The comparison that comes again and again: the CronJob `hawser-NAME-reconcile`. After a migration it also carries
//! over what was written to a provider that is in force no more. On demand:
//! `kubectl create job --from=cronjob/hawser-NAME-reconcile NAME`.
use hawser_api::CloudBinding;
use hawser_api::binding::Provider;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::context::Context;
use crate::flags::Jobs;
use crate::job::{self, Keys, Work};
use crate::outcome::Outcome;
use crate::{apply, labels};

/// A comparison that could not begin for so long, since another was under way, is left out.
const LATE_SECONDS: i64 = 600;

/// Applies the CronJob. It is `resting` during a migration and until the first comparison is complete; once the binding
/// has `migrated`, there are former providers to look at.
pub async fn reconcile(
    binding: &CloudBinding,
    present: Option<&CronJob>,
    in_force: &Provider,
    (resting, migrated): (bool, bool),
    ctx: &Context,
) -> Outcome {
    let wanted = cron_job(binding, in_force, (resting, migrated), &ctx.store_url, &ctx.jobs);
    match apply::apply(&ctx.client, present, wanted).await {
        Ok(()) => Outcome::Settled,
        Err(error) => Outcome::of_api(&format!("apply CronJob hawser-{}-reconcile", binding.name_any()), &error),
    }
}

fn cron_job(
    binding: &CloudBinding,
    in_force: &Provider,
    (resting, migrated): (bool, bool),
    store: &str,
    settings: &Jobs,
) -> CronJob {
    let mut keys = vec![Keys { provider: in_force, optional: false }];
    let mut commands: &[&str] = &["backfill"];
    if migrated {
        commands = &["backfill", "replicate"];
        let former = binding.spec.providers.iter().filter(|provider| provider.name != in_force.name);
        keys.extend(former.map(|provider| Keys { provider, optional: true }));
    }
    let work = Work { commands, flags: Vec::new(), keys };
    let mut spec = job::spec(binding, &work, store, settings);
    spec.backoff_limit = Some(1); // the next hour tries again
    CronJob {
        metadata: labels::owned(binding, format!("hawser-{}-reconcile", binding.name_any())),
        spec: Some(CronJobSpec {
            schedule: cron(&binding.spec.reconcile.schedule, &binding.uid().unwrap_or_default()),
            time_zone: Some("Etc/UTC".into()),
            concurrency_policy: Some("Forbid".into()),
            suspend: Some(resting),
            starting_deadline_seconds: Some(LATE_SECONDS),
            successful_jobs_history_limit: Some(1),
            failed_jobs_history_limit: Some(1),
            job_template: JobTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels::of(binding)), ..ObjectMeta::default() }),
                spec: Some(spec),
            },
        }),
        status: None,
    }
}

/// The five fields of a schedule. A word gets a minute, and an hour, of the binding's own: a thousand bindings do not
/// list their buckets all at once.
fn cron(schedule: &str, uid: &str) -> String {
    let hash = blake3::hash(uid.as_bytes());
    let (minute, hour) = (u16::from(hash.as_bytes()[0]) * 60 / 256, u16::from(hash.as_bytes()[1]) * 24 / 256);
    match schedule {
        "@hourly" => format!("{minute} * * * *"),
        "@daily" => format!("{minute} {hour} * * *"),
        "@weekly" => format!("{minute} {hour} * * {}", u16::from(hash.as_bytes()[2]) * 7 / 256),
        "@monthly" => format!("{minute} {hour} {} * *", 1 + u16::from(hash.as_bytes()[2]) * 28 / 256),
        fields => fields.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::golden;

    #[test]
    fn the_cron_job_compares_the_provider_in_force() {
        let binding = golden::binding();
        let store = "https://hawser-store.hawser-system.svc:7070";
        let aws = binding.provider("aws").unwrap();
        golden::check("reconcile", &cron_job(&binding, aws, (false, false), store, &golden::jobs()));
        golden::check("reconcile-after-migration", &cron_job(&binding, aws, (false, true), store, &golden::jobs()));
    }

    #[test]
    fn a_word_becomes_a_time_of_the_bindings_own() {
        for word in ["@hourly", "@daily", "@weekly", "@monthly"] {
            let at: Vec<String> = (0..50).map(|n| cron(word, &n.to_string())).collect();
            assert!(at.iter().collect::<std::collections::BTreeSet<_>>().len() > 10, "{word}: {at:?}");
            for fields in &at {
                let fields: Vec<&str> = fields.split(' ').collect();
                assert_eq!(fields.len(), 5, "{word}");
                for (field, (least, most)) in fields.iter().zip([(0, 59), (0, 23), (1, 28), (1, 12), (0, 6)]) {
                    assert!(
                        *field == "*" || (least..=most).contains(&field.parse::<u32>().unwrap()),
                        "{word}: {fields:?}"
                    );
                }
            }
        }
        assert_eq!(cron("17 3 * * MON", "u"), "17 3 * * MON");
    }
}
