//! `hawser-store`: the command line of the private store.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use hawser_store::admin::{self, Line, Work};
use hawser_store::config::{Cli, Command, Folder, Serve};
use hawser_store::heap;
use hawser_store::serve::Serving;
use indicatif::{ProgressBar, ProgressStyle};

/// Something is damaged, or was not as it should be.
const UNCLEAN: u8 = 3;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(config) => serve(&config),
        Command::Scrub(folder) => maintain(&folder, &Work::Scrub),
        Command::Gc(folder) => maintain(&folder, &Work::Gc),
        Command::Stats(folder) => maintain(&folder, &Work::Stats),
        Command::Backup(backup) => match std::path::absolute(&backup.to) {
            Ok(to) => maintain(&backup.folder, &Work::Backup { to }), // the server has its own working folder
            Err(error) => Err(error.to_string()),
        },
        Command::RebuildIndex(folder) => rebuild(&folder),
    };
    done.unwrap_or_else(|why| {
        eprintln!("hawser-store: {why}");
        ExitCode::FAILURE
    })
}

fn serve(config: &Serve) -> Result<ExitCode, String> {
    heap::keep();
    // The S3 library calls what a client did wrong an error of its own; the client is told, and that is all.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "info,s3s=off".into()))
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
    let ran = runtime.block_on(async {
        let serving = Serving::prepare(config).await.map_err(|error| admin::causes(&error))?;
        let addr =
            |addr: std::io::Result<std::net::SocketAddr>| addr.map_or_else(|_| "?".into(), |addr| addr.to_string());
        tracing::info!(
            grpc = addr(serving.grpc_addr()),
            s3 = addr(serving.s3_addr()),
            admin = addr(serving.admin_addr()),
            data = %config.data.display(),
            "the store serves"
        );
        warn_of_open_secrets(config);
        serving.run(ended()).await.map_err(|error| admin::causes(&error))
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    ran.map(|()| {
        tracing::info!("the store is closed");
        ExitCode::SUCCESS
    })
}

/// SIGTERM or SIGINT.
async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        }
        // Without handlers the signals end the process as they are, which the log withstands.
        _ => std::future::pending().await,
    }
}

fn warn_of_open_secrets(config: &Serve) {
    use std::os::unix::fs::PermissionsExt;
    for path in [&config.tokens, &config.s3_keys, &config.s3_master, &config.tls_key].into_iter().flatten() {
        // The group may read: a Secret's file belongs to root, and to the pod's own group.
        if std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o037 != 0) {
            tracing::warn!(file = %path.display(), "others on this machine may read this secret: chmod 640 or less");
        }
    }
}

fn maintain(folder: &Folder, work: &Work) -> Result<ExitCode, String> {
    let wait = spinner(folder.json, "working");
    let mut code = ExitCode::SUCCESS;
    let mut failed = None;
    let mut tell = |line: Line| match line {
        Line::Found { what } => wait.suspend(|| print(&what, folder.json, "found ")),
        Line::Done { result, clean } => {
            wait.finish_and_clear();
            print(&result, folder.json, "");
            if !clean {
                code = ExitCode::from(UNCLEAN);
            }
        }
        Line::Failed { why } => failed = Some(why),
    };
    admin::run(&folder.data, work, &mut tell).map_err(|error| admin::causes(&error))?;
    match failed {
        Some(why) => Err(why),
        None => Ok(code),
    }
}

fn rebuild(folder: &Folder) -> Result<ExitCode, String> {
    let wait = spinner(folder.json, "reading the log");
    let line = rebuild_line(&folder.data)?;
    wait.finish_and_clear();
    let Line::Done { result, clean } = line else { return Ok(ExitCode::FAILURE) };
    print(&result, folder.json, "");
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(UNCLEAN) })
}

fn rebuild_line(dir: &Path) -> Result<Line, String> {
    admin::rebuild_index(dir).map_err(|error| admin::causes(&error))
}

/// Something that moves while long work is done, on a terminal; nothing elsewhere.
fn spinner(json: bool, what: &'static str) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let wait = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        wait.set_style(style);
    }
    wait.set_message(what);
    wait.enable_steady_tick(Duration::from_millis(100));
    wait
}

/// One JSON object a line, or one `name value` a line for people.
fn print(value: &serde_json::Value, json: bool, before: &str) {
    if json {
        println!("{value}");
        return;
    }
    print_flat(value, before, "");
}

fn print_flat(value: &serde_json::Value, before: &str, name: &str) {
    match value {
        serde_json::Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                print_flat(value, before, &name);
            }
        }
        serde_json::Value::Array(items) if items.iter().any(serde_json::Value::is_object) => {
            for (at, item) in items.iter().enumerate() {
                print_flat(item, before, &format!("{name}[{at}]"));
            }
        }
        serde_json::Value::String(text) => println!("{before}{name} {text}"),
        other => println!("{before}{name} {other}"),
    }
}
