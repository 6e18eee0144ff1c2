//! What a person, a script and the store see of a run while it works, and its report at the end.
//!
//! On a terminal: bars. Elsewhere: a line for each phase and each trouble. With `--json`: one object a line.
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hawser_api::v1;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::store::Store;

/// How often the bars move, and how often scripts and the store are told.
const DRAW: Duration = Duration::from_millis(200);
const TELL: Duration = Duration::from_secs(2);
/// Troubles that are printed one by one; the rest are only counted.
const TROUBLES_MAX: u64 = 100;
/// Characters of the text in a termination log: Kubernetes reads 4 096 bytes of all.
const TERMINATION_MAX: usize = 900;

/// Counters of a run. Every part of it adds; one task shows.
#[derive(Default)]
pub struct Counts {
    /// Objects known to be due so far.
    pub objects_total: AtomicU64,
    /// Objects that are done, however.
    pub objects_done: AtomicU64,
    /// Their bytes.
    pub bytes_total: AtomicU64,
    /// Bytes that are done.
    pub bytes_done: AtomicU64,
    /// Objects that failed.
    pub failed: AtomicU64,
    /// Objects whose target was verified.
    pub verified: AtomicU64,
    /// Foreign objects that stand in the way.
    pub conflicts: AtomicU64,
    /// Seconds that the last round was behind.
    pub lag_seconds: AtomicU64,
}

impl Counts {
    /// Begins anew with what is there now.
    pub fn reset(&self) {
        let Counts { objects_total, objects_done, bytes_total, bytes_done, failed, verified, conflicts, lag_seconds } =
            self;
        for count in [objects_total, objects_done, bytes_total, bytes_done, failed, verified, conflicts, lag_seconds] {
            count.store(0, Ordering::Relaxed);
        }
    }
}

/// How a run shows itself.
enum Show {
    Bars(ProgressBar),
    Lines,
    Json,
}

/// The run as it is seen from outside.
pub struct Progress {
    /// The counters.
    pub counts: Counts,
    show: Show,
    phase: Mutex<&'static str>,
    paused: AtomicBool,
    troubles: AtomicU64,
    started: u64,
}

/// What a run says at its end.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The exit code's number.
    pub exit: u8,
    /// Its name.
    pub reason: String,
    /// What it was asked to do.
    pub command: &'static str,
    /// The provider that was read, by its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// The provider that was written or verified, by its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Numbers with their names, in the order in which people read them.
    pub counts: Vec<(&'static str, u64)>,
    /// Sentences for people.
    pub notes: Vec<String>,
}

impl Report {
    /// What kept it from being done, in few words; else what there is to note.
    fn troubles(&self) -> String {
        const TROUBLES: [&str; 5] = ["conflicts", "content unknown", "differences", "objects failed", "gaps open"];
        let counts = self.counts.iter().filter(|(name, count)| *count > 0 && TROUBLES.contains(name));
        let troubles: Vec<String> = counts.map(|(name, count)| format!("{name}: {count}")).collect();
        if troubles.is_empty() { self.notes.join("; ") } else { troubles.join(", ") }
    }
}

impl Progress {
    /// A run that shows itself as the flags and the terminal allow.
    pub fn new(json: bool) -> Progress {
        let show = match (json, std::io::stderr().is_terminal()) {
            (true, _) => Show::Json,
            (false, true) => Show::Bars(bar()),
            (false, false) => Show::Lines,
        };
        Progress {
            counts: Counts::default(),
            show,
            phase: Mutex::new("Pending"),
            paused: AtomicBool::new(false),
            troubles: AtomicU64::new(0),
            started: unix_now(),
        }
    }

    /// Enters a phase, one of control-plane's words, with a sentence for people.
    pub fn phase(&self, phase: &'static str, sentence: &str) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        match &self.show {
            Show::Bars(bar) => {
                bar.set_message(phase);
                bar.suspend(|| eprintln!("{sentence}"));
            }
            Show::Lines => eprintln!("{sentence}"),
            Show::Json => line(&json!({"event": "phase", "phase": phase, "text": sentence})),
        }
    }

    /// Whether it waits until the binding says otherwise; then this is shown as the phase.
    pub fn paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Says something that a person should know.
    pub fn note(&self, sentence: &str) {
        match &self.show {
            Show::Bars(bar) => bar.suspend(|| eprintln!("{sentence}")),
            Show::Lines => eprintln!("{sentence}"),
            Show::Json => line(&json!({"event": "note", "text": sentence})),
        }
    }

    /// Says something of one object: `what` is a word of the program, like "conflict" or "failed".
    pub fn trouble(&self, what: &'static str, place: &crate::cloud::Place, why: &str) {
        if self.troubles.fetch_add(1, Ordering::Relaxed) >= TROUBLES_MAX {
            return;
        }
        match &self.show {
            Show::Bars(bar) => bar.suspend(|| eprintln!("{what}: {place}: {why}")),
            Show::Lines => eprintln!("{what}: {place}: {why}"),
            Show::Json => line(&json!({
                "event": what, "bucket": place.bucket, "key": place.key.to_string(), "why": why,
            })),
        }
    }

    /// One line of a list that was asked for, like what a dry run would send.
    pub fn item(&self, what: &'static str, place: &crate::cloud::Place, size: u64) {
        match &self.show {
            Show::Bars(bar) => bar.suspend(|| println!("{what} {place} {size}")),
            Show::Lines => println!("{what} {place} {size}"),
            Show::Json => line(&json!({
                "event": what, "bucket": place.bucket, "key": place.key.to_string(), "size": size,
            })),
        }
    }

    /// Moves the bars and tells scripts and the store, until it is dropped.
    pub async fn keep_showing(&self, store: &Store, lease: Option<&v1::Lease>, names: (&str, &str)) {
        let mut told = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(DRAW).await;
            if let Show::Bars(bar) = &self.show {
                let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
                bar.set_length(get(&self.counts.bytes_total).max(1));
                bar.set_position(get(&self.counts.bytes_done));
                bar.set_prefix(format!("{}/{}", get(&self.counts.objects_done), get(&self.counts.objects_total)));
            }
            if told.elapsed() >= TELL {
                told = tokio::time::Instant::now();
                let now = self.now(names, false);
                if matches!(self.show, Show::Json) {
                    line(&json!({
                        "event": "progress", "phase": now.phase,
                        "objectsTotal": now.objects_total, "objectsDone": now.objects_done,
                        "bytesTotal": now.bytes_total, "bytesDone": now.bytes_done,
                        "failed": now.objects_failed, "verified": now.objects_verified, "conflicts": now.conflicts,
                    }));
                }
                self.tell(store, lease, now).await;
            }
        }
    }

    /// Tells the store how it ended.
    pub async fn tell_end(&self, store: &Store, lease: Option<&v1::Lease>, names: (&str, &str)) {
        self.tell(store, lease, self.now(names, true)).await;
    }

    async fn tell(&self, store: &Store, lease: Option<&v1::Lease>, mut now: v1::Progress) {
        let Some(lease) = lease else { return };
        now.lease = Some(lease.clone());
        now.binding = lease.binding.clone();
        // Nothing is decided by it, so its failure is none.
        let _ = tokio::time::timeout(TELL, store.migration.clone().report_progress(now)).await;
    }

    fn now(&self, (source, target): (&str, &str), ended: bool) -> v1::Progress {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        v1::Progress {
            lease: None,
            binding: String::new(),
            phase: match self.paused.load(Ordering::Relaxed) {
                true => "Paused".to_owned(),
                false => (*self.phase.lock().unwrap_or_else(PoisonError::into_inner)).to_owned(),
            },
            source: source.to_owned(),
            target: target.to_owned(),
            objects_total: get(&self.counts.objects_total),
            objects_done: get(&self.counts.objects_done),
            bytes_total: get(&self.counts.bytes_total),
            bytes_done: get(&self.counts.bytes_done),
            objects_failed: get(&self.counts.failed),
            objects_verified: get(&self.counts.verified),
            conflicts: get(&self.counts.conflicts),
            lag_seconds: get(&self.counts.lag_seconds),
            started_unix: self.started as i64,
            finished_unix: if ended { unix_now() as i64 } else { 0 },
            migration_epoch: 0,
        }
    }

    /// Prints the end of the run and gives its exit code. `log`: where Kubernetes reads the reason from.
    pub fn end(&self, outcome: Result<(Exit, Report), Failure>, log: Option<&Path>) -> Exit {
        if let Some(log) = log {
            let (exit, text) = match &outcome {
                Ok((exit, report)) => (*exit, report.troubles()),
                Err(failure) => (failure.exit(), failure.story()),
            };
            let text: String = text.chars().take(TERMINATION_MAX).collect();
            let reason = json!({"exit": exit as u8, "reason": format!("{exit:?}"), "text": text});
            // It tells people why; the exit code tells programs, so its failure is none.
            let _ = std::fs::write(log, format!("{reason}\n"));
        }
        if let Show::Bars(bar) = &self.show {
            bar.finish_and_clear();
        }
        match outcome {
            Ok((exit, mut report)) => {
                (report.exit, report.reason) = (exit as u8, format!("{exit:?}"));
                self.print(&report);
                exit
            }
            Err(failure) => {
                let exit = failure.exit();
                match &self.show {
                    Show::Json => line(
                        &json!({"event": "end", "exit": exit as u8, "reason": format!("{exit:?}"), "text": failure.story()}),
                    ),
                    Show::Bars(_) | Show::Lines => eprintln!("hawser-migrate: {}", failure.story()),
                }
                exit
            }
        }
    }

    fn print(&self, report: &Report) {
        if matches!(self.show, Show::Json) {
            let counts: serde_json::Map<String, serde_json::Value> =
                report.counts.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
            return line(&json!({
                "event": "end", "exit": report.exit, "reason": report.reason, "command": report.command, "source": report.source,
                "target": report.target, "counts": counts, "notes": report.notes,
            }));
        }
        let way = match (report.source.as_str(), report.target.as_str()) {
            ("", "") => String::new(),
            (source, "") => format!(" {source}"),
            ("", target) => format!(" {target}"),
            (source, target) => format!(" {source} → {target}"),
        };
        println!("{}{way}", report.command);
        for (name, count) in &report.counts {
            println!("  {name:<28} {count:>14}");
        }
        for note in &report.notes {
            println!("  {note}");
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(1);
    let style = "{msg:12} {bar:30} {prefix} objects  {bytes}/{total_bytes}  {binary_bytes_per_sec}  {eta}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// One object, one line, even when a reader is gone.
fn line(object: &serde_json::Value) {
    let _ = writeln!(std::io::stdout().lock(), "{object}");
}

#[expect(clippy::disallowed_methods, reason = "begin and end of a run, for people; orders nothing")]
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
