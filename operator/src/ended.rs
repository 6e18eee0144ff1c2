//! How a Job stands, read from it and its pods, and what its exit code means.
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;

use crate::job;
use crate::outcome::{AGAIN, Outcome};

/// Longest text of a Job that a condition repeats.
const TEXT_LEN_MAX: usize = 600;
/// What a Job did shows in the store at once.
const SHOWS_WITHIN: Duration = Duration::from_secs(30);
/// Refused keys and a missing bucket are repaired where the API server sees nothing of it.
const REPAIRED_ELSEWHERE: Duration = Duration::from_secs(300);

/// How a Job stands.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// There is none.
    Absent,
    /// It works, or waits for its next try.
    Running {
        /// Why its pod does not start, where it does not, or why it had to try again.
        held: Option<Outcome>,
    },
    /// It was told to rest.
    Suspended,
    /// It did what it was for.
    Done {
        /// When.
        at: Option<Timestamp>,
    },
    /// It gave up.
    Failed(Ended),
}

/// Whether the store should long know what a Job did that ended at `at`: it was restored, or lost what it had.
pub fn shows_no_more(at: Option<Timestamp>, now: Timestamp) -> bool {
    at.is_some_and(|at| now.duration_since(at).unsigned_abs() > SHOWS_WITHIN)
}

/// The end of a Job that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The exit code of its last try; none where no container of it ever ended.
    pub exit: Option<i32>,
    /// What it said last.
    pub text: String,
    /// When.
    pub at: Option<Timestamp>,
    /// The generation of the binding that it was made for.
    pub generation: i64,
}

/// How `job` stands, of whose namespace `pods` are.
pub fn state(job: Option<&Job>, pods: &[impl AsRef<Pod>]) -> State {
    let Some(job) = job else { return State::Absent };
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let when = |type_: &str| conditions.iter().find(|is| is.type_ == type_ && is.status == "True");
    if when("Complete").is_some() || when("SuccessCriteriaMet").is_some() {
        let at = job.status.as_ref().and_then(|status| status.completion_time.as_ref()).map(|time| time.0);
        return State::Done { at };
    }
    let uid = job.uid().unwrap_or_default();
    let own = |pod: &&Pod| pod.owner_references().iter().any(|owner| owner.uid == uid);
    let mut own: Vec<&Pod> = pods.iter().map(AsRef::as_ref).filter(own).collect();
    own.sort_by_key(|pod| pod.creation_timestamp());
    if let Some(failed) = when("Failed").or_else(|| when("FailureTarget")) {
        let last = own.iter().rev().find_map(|pod| terminated(pod));
        let said = || failed.message.clone().unwrap_or_default();
        return State::Failed(Ended {
            exit: last.as_ref().map(|(exit, _)| *exit),
            text: last.map(|(_, message)| text(&message)).filter(|text| !text.is_empty()).unwrap_or_else(said),
            at: failed.last_transition_time.as_ref().map(|time| time.0),
            generation: job::generation(job),
        });
    }
    if job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true)) {
        return State::Suspended;
    }
    let retried = own.iter().rev().find_map(|pod| terminated(pod)).filter(|(exit, _)| *exit != 0);
    let retried = retried.map(|(exit, message)| {
        let message = text(&message);
        let message =
            format!("Job {} is tried again; its last try ended with exit code {exit}: {message}", job.name_any());
        Outcome::waiting("JobRetrying", message, AGAIN)
    });
    State::Running { held: own.last().and_then(|pod| held(pod)).or(retried) }
}

fn terminated(pod: &Pod) -> Option<(i32, String)> {
    let statuses = pod.status.as_ref()?.container_statuses.as_deref()?;
    let ended = statuses.iter().find(|one| one.name == job::CONTAINER)?.state.as_ref()?.terminated.as_ref()?;
    Some((ended.exit_code, ended.message.clone().unwrap_or_else(|| ended.reason.clone().unwrap_or_default())))
}

/// Why a pod does not start, where a person can do something about it.
fn held(pod: &Pod) -> Option<Outcome> {
    let status = pod.status.as_ref()?;
    let waiting = status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|one| one.state.as_ref()?.waiting.as_ref())
        .and_then(|waiting| Some((waiting.reason.as_deref()?, waiting.message.as_deref().unwrap_or_default())));
    match waiting {
        Some(("CreateContainerConfigError", message)) => Some(Outcome::stalled(
            "CredentialsMissing",
            format!("{message}: make it, or correct s3.credentials of the provider"),
            AGAIN,
        )),
        Some(("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull", message)) => {
            Some(Outcome::stalled("ImageUnavailable", format!("pod {}: {message}", pod.name_any()), AGAIN))
        }
        _ => {
            let conditions = status.conditions.as_deref().unwrap_or_default();
            let unplaced = conditions.iter().find(|is| is.type_ == "PodScheduled" && is.status == "False")?;
            let message = unplaced.message.as_deref().unwrap_or_default();
            Some(Outcome::waiting("Unschedulable", format!("pod {}: {message}", pod.name_any()), AGAIN))
        }
    }
}

/// What hawser-migrate said at its end, in its termination message or the last line of its log, or whatever is there.
fn text(message: &str) -> String {
    let end = message.lines().rev().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["exit"].is_number().then_some(line)
    });
    let said = match end {
        Some(end) => match end["text"].as_str() {
            Some(text) => text.to_owned(),
            None => {
                let notes: Vec<&str> =
                    end["notes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                notes.join("; ")
            }
        },
        None => message.trim().to_owned(),
    };
    match said.char_indices().nth(TEXT_LEN_MAX) {
        Some((at, _)) => format!("{}…", &said[..at]),
        None => said,
    }
}

impl Ended {
    /// What the end means, for the Job called `job`, and when it is tried again.
    pub fn outcome(&self, job: &str) -> Outcome {
        let (reason, advice, again_in) = self.meaning();
        let text = match self.text.trim_end_matches('.') {
            "" => "it said nothing",
            text => text,
        };
        let exit = self.exit.map(|exit| format!(" with exit code {exit}")).unwrap_or_default();
        Outcome::stalled(reason, format!("Job {job} ended{exit}: {text}. {advice}"), again_in)
    }

    fn meaning(&self) -> (&'static str, &'static str, Duration) {
        match self.exit {
            Some(2) => ("DecisionNeeded", "Correct the binding: the next edit tries again", Duration::from_secs(3600)),
            Some(3) => (
                "Conflicts",
                "Objects at the new provider differ and are not Hawser's: move them away, or set spec.migration.conflicts to KeepTarget or Overwrite",
                AGAIN,
            ),
            Some(4) => (
                "CoverageIncomplete",
                "The store is not known to have everything: let a comparison with the source end (it is tried again), or set spec.migration.accept to [MissingObjects]",
                AGAIN,
            ),
            Some(5) => (
                "CredentialsRejected",
                "Correct the Secret that the provider names in s3.credentials: it is tried again every 5 minutes",
                REPAIRED_ELSEWHERE,
            ),
            Some(6) => (
                "BucketMissing",
                "Make the bucket, or set create: true for it in spec.buckets: it is tried again every 5 minutes",
                REPAIRED_ELSEWHERE,
            ),
            Some(7) => (
                "ListingRefused",
                "The provider's listing is empty, forbidden, or lacks more than 20 % of what the store has: look at the bucket and at the rights of the key",
                REPAIRED_ELSEWHERE,
            ),
            _ => ("JobFailed", "It is tried again", REPAIRED_ELSEWHERE),
        }
    }

    /// Whether another Job is due: the binding was edited since, or the wait is over.
    pub fn is_over(&self, generation: i64, now: Timestamp) -> bool {
        let (_, _, again_in) = self.meaning();
        let waited = self.at.is_none_or(|at| now.duration_since(at).unsigned_abs() >= again_in);
        self.generation != generation || waited
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn job(condition: Option<&str>, suspend: bool) -> Job {
        let conditions = condition.map(|type_| {
            json!([{"type": type_, "status": "True", "message": "the Job says", "lastTransitionTime": "2026-01-01T00:00:00Z"}])
        });
        serde_json::from_value(json!({
            "metadata": {"name": "hawser-photos-backfill", "uid": "u", "annotations": {"hawser.dev/generation": "3"}},
            "spec": {"suspend": suspend, "template": {}},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn pod(state: Value) -> Arc<Pod> {
        let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u"}]);
        let status = json!({"containerStatuses": [{
            "name": "migrate", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state,
        }]});
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "p", "ownerReferences": owner}, "status": status}))
                .unwrap(),
        )
    }

    fn exit(code: i32, message: &str) -> Arc<Pod> {
        pod(json!({"terminated": {"exitCode": code, "message": message}}))
    }

    fn failed(pods: &[Arc<Pod>]) -> Ended {
        match state(Some(&job(Some("Failed"), false)), pods) {
            State::Failed(ended) => ended,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_job_stands_as_its_conditions_and_pods_say() {
        let none: [Arc<Pod>; 0] = [];
        assert_eq!(state(None, &none), State::Absent);
        assert_eq!(state(Some(&job(None, false)), &none), State::Running { held: None });
        assert_eq!(state(Some(&job(None, true)), &none), State::Suspended);
        assert_eq!(state(Some(&job(Some("Complete"), false)), &none), State::Done { at: None });
        let lacks =
            pod(json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"x\" not found"}}));
        let State::Running { held: Some(Outcome::Stalled(why)) } = state(Some(&job(None, false)), &[lacks]) else {
            panic!("a pod without its Secret stalls");
        };
        assert_eq!(why.reason, "CredentialsMissing");
        assert!(why.message.starts_with("secret \"x\" not found"), "{}", why.message);
        let tried = State::Running {
            held: Some(Outcome::waiting(
                "JobRetrying",
                "Job hawser-photos-backfill is tried again; its last try ended with exit code 1: no answer",
                AGAIN,
            )),
        };
        assert_eq!(state(Some(&job(None, false)), &[exit(1, "no answer")]), tried);
        assert_eq!(failed(&none).text, "the Job says");
    }

    #[test]
    fn an_exit_code_has_its_reason_and_the_jobs_own_words() {
        let end = |code: i32| {
            format!("{{\"event\":\"phase\"}}\n{{\"event\":\"end\",\"exit\":{code},\"text\":\"so it is\"}}\n")
        };
        for (code, reason, seconds) in [
            (1, "JobFailed", 300),
            (2, "DecisionNeeded", 3600),
            (3, "Conflicts", 600),
            (4, "CoverageIncomplete", 600),
            (5, "CredentialsRejected", 300),
            (6, "BucketMissing", 300),
            (7, "ListingRefused", 300),
            (8, "JobFailed", 300),
            (137, "JobFailed", 300),
        ] {
            let ended = failed(&[exit(code, &end(code))]);
            let Outcome::Stalled(why) = ended.outcome("j") else { panic!("{code}") };
            assert_eq!((why.reason, why.again_in.as_secs()), (reason, seconds), "{code}");
            assert!(
                why.message.starts_with(&format!("Job j ended with exit code {code}: so it is. ")),
                "{}",
                why.message
            );
        }
        let message = exit(4, "{\"exit\":4,\"reason\":\"GapsLeft\",\"text\":\"two gaps\"}");
        assert_eq!(failed(&[message]).text, "two gaps");
        let notes = exit(3, "{\"event\":\"end\",\"exit\":3,\"notes\":[\"one\",\"two\"]}");
        assert_eq!(failed(&[notes]).text, "one; two");
        assert_eq!(failed(&[exit(137, "OOMKilled")]).text, "OOMKilled");
        assert_eq!(failed(&[exit(1, &"x".repeat(5000))]).text.chars().count(), TEXT_LEN_MAX + 1);
    }

    #[test]
    fn a_failed_job_gives_way_after_an_edit_or_its_wait() {
        let ended = failed(&[exit(5, "")]);
        let at = |seconds| "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + Duration::from_secs(seconds);
        assert!(!ended.is_over(3, at(299)));
        assert!(ended.is_over(3, at(300)));
        assert!(ended.is_over(4, at(1)));
    }
}
