//! The first process of a pod's sidecar and its relays, in a network namespace of the test's own: the pod's folders,
//! its rules, its user. Needs root and nft.
#![allow(clippy::unwrap_used)]

mod wire;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const INSIDE: &str = "HAWSER_TEST_INSIDE_NAMESPACE";
const UID: u32 = 61337;
const PORT: u16 = 8080;
const ADMIN: &str = "127.0.0.1:15090";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

#[test]
fn relays_that_end_are_followed_by_the_next_and_in_the_end_everything_is_passed_through() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let run = Command::new("unshare")
        .arg("-n")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "relays_that_end_are_followed_by_the_next_and_in_the_end_everything_is_passed_through"])
        .arg("--nocapture")
        .env(INSIDE, "1")
        .output()
        .expect("unshare of util-linux is needed");
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "inside the namespace (needs root, unshare, ip and nft):\n{stdout}\n{stderr}");
    println!("{stdout}");
}

fn inside() {
    let pod = Pod::new();
    command(Command::new("ip").args(["link", "set", "lo", "up"]));
    pod.redirect();
    let rules = listed();
    pod.redirect();
    assert_eq!(listed(), rules, "installing twice is installing once");
    assert!(rules.contains("8080"), "{rules}");
    let outcome = std::fs::read_to_string(pod.at("trust/redirect.json")).unwrap();
    assert!(outcome.contains("[8080]") && outcome.contains("\"refused\":null"), "{outcome}");

    let mut supervisor = pod.start();
    command(pod.sidecar().args(["ready", "--admin", ADMIN, "--wait", "10s"]));
    command(pod.sidecar().args(["trust", "--available", "--trust-dir"]).arg(pod.at("trust")));
    let trusted = std::fs::read(pod.at("trust/ca.pem")).unwrap();
    serve();
    exchange("cloud.test").unwrap();
    assert_eq!(metric("hawser_sidecar_led"), Some(1));
    assert!(metric("hawser_sidecar_connections_total{how=\"bound\"}") >= Some(1), "{}", get("/metrics"));

    let load = Load::start();
    let mut delays = Vec::new();
    for crashes in 1..=2 {
        delays.push(kill_the_relay(&supervisor));
        until("the next relay shows its number", || metric("hawser_sidecar_relay_crashes") == Some(crashes));
        assert_eq!(metric("hawser_sidecar_splicing"), Some(0));
    }
    delays.push(kill_the_relay(&supervisor));
    until("everything is passed through", || metric("hawser_sidecar_splicing") == Some(1));
    for host in ["cloud.test", "other.test"] {
        exchange(host).unwrap();
    }
    assert_eq!(metric("hawser_sidecar_connections_total{how=\"bound\"}"), None, "nothing is bound any more");
    assert_eq!(metric("hawser_sidecar_lapses{binding=\"shop/one\",reason=\"crashed\"}"), Some(1));
    delays.push(kill_the_relay(&supervisor));
    until("and it is so again", || metric("hawser_sidecar_splicing") == Some(1));
    until("the load went on through all of it", || load.counts.lock().unwrap().0 > 100);
    let (exchanges, cut) = load.stop();
    println!("{exchanges} exchanges, {cut} cut by 4 ends of relays; the next connection worked after {delays:?}");
    assert!(cut <= 4 * Load::CLIENTS, "only connections of the relay that ended are cut: {cut} of {exchanges}");
    assert!(delays.iter().min() < Some(&Duration::from_millis(100)), "{delays:?}");
    assert!(delays.iter().max() < Some(&Duration::from_secs(2)), "{delays:?}");

    let orphan = relay_of(&supervisor);
    supervisor.0.kill().unwrap();
    supervisor.0.wait().unwrap();
    until("the relay ends with its supervisor", || !Path::new(&format!("/proc/{orphan}/exe")).exists());
    let restarted = Instant::now();
    let mut supervisor = pod.start();
    until("connections are taken again", || exchange("cloud.test").is_ok());
    assert!(
        restarted.elapsed() < Duration::from_secs(3),
        "{:?} after the container was restarted",
        restarted.elapsed()
    );
    assert_eq!(std::fs::read(pod.at("trust/ca.pem")).unwrap(), trusted, "and the pod's trust is the same");
    command(Command::new("kill").args(["-TERM", &supervisor.0.id().to_string()]));
    assert!(supervisor.0.wait().unwrap().success(), "told to end it drains and ends well");
}

#[test]
fn a_pod_whose_rules_are_refused_runs_and_says_so() {
    let pod = Pod::new();
    let mut nothing = pod.sidecar();
    nothing.env("PATH", "/nowhere"); // no nft
    command(nothing.args(["redirect", "--binding"]).arg(pod.at("config")).arg("--outcome").arg(pod.at("out.json")));
    let outcome = std::fs::read_to_string(pod.at("out.json")).unwrap();
    assert!(outcome.contains("RulesRefused") && outcome.contains("nftables"), "{outcome}");
    let mut unreadable = pod.sidecar();
    unreadable.args(["redirect", "--binding"]).arg(pod.at("nowhere")).arg("--outcome").arg(pod.at("out.json"));
    command(&mut unreadable);
    assert!(std::fs::read_to_string(pod.at("out.json")).unwrap().contains("BindingsUnreadable"));
    let strict = pod.sidecar().args(["redirect", "--binding"]).arg(pod.at("nowhere")).status().unwrap();
    assert!(!strict.success(), "without a place for the outcome it is an error");
}

/// The folders that a pod has, with the configuration stamped on it alone.
struct Pod {
    folder: tempfile::TempDir,
    binary: PathBuf,
}

impl Pod {
    fn new() -> Pod {
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("hawser-sidecar"); // the build folder may be closed to the sidecar's user
        std::fs::copy(env!("CARGO_BIN_EXE_hawser-sidecar"), &binary).unwrap();
        let pod = Pod { folder, binary };
        let manifest = wire::manifest(&[format!("http://cloud.test:{PORT}")]);
        let manifest = manifest.replace("name: photos, namespace", "name: one, namespace");
        for folder in ["config/stamped", "trust", "state"] {
            std::fs::create_dir_all(pod.at(folder)).unwrap();
        }
        for folder in ["", "trust", "state"] {
            std::fs::set_permissions(pod.at(folder), std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        std::fs::write(pod.at("config/stamped/configuration.yaml"), manifest).unwrap();
        pod
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sidecar(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
        command
    }

    fn redirect(&self) {
        let mut redirect = self.sidecar();
        redirect.args(["redirect", "--uid", &UID.to_string(), "--to", "15001", "--binding"]).arg(self.at("config"));
        command(redirect.arg("--outcome").arg(self.at("trust/redirect.json")));
    }

    fn start(&self) -> Supervisor {
        let mut run = self.sidecar();
        run.args(["run", "--supervise", "--store", "http://127.0.0.1:1", "--redirect", "[::]:15001"]);
        run.args(["--admin", "[::]:15090", "--drain-grace", "5s"]);
        for (flag, path) in [
            ("--binding", "config"),
            ("--trust-dir", "trust"),
            ("--state-dir", "state"),
            ("--redirect-outcome", "trust/redirect.json"),
        ] {
            run.arg(flag).arg(self.at(path));
        }
        Supervisor(run.uid(UID).spawn().unwrap())
    }
}

/// The first process of the sidecar; a test that fails takes it along.
struct Supervisor(Child);

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cloud that answers everything, until the process ends.
fn serve() {
    let listener = TcpListener::bind(("127.0.0.1", PORT)).unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            thread::spawn(move || -> Option<()> {
                let mut socket = socket.ok()?;
                head(&mut socket)?;
                socket.write_all(OK).ok()
            });
        }
    });
}

fn head(socket: &mut TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(())
}

/// One request over a connection of its own.
fn exchange(host: &str) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], PORT)))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.write_all(format!("GET /photos/a HTTP/1.1\r\nHost: {host}:{PORT}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    if answer == OK { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

/// Clients that ask again and again, each over new connections, for bound and for other hosts.
struct Load {
    ends: Arc<AtomicBool>,
    counts: Arc<Mutex<(usize, usize)>>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Load {
    const CLIENTS: usize = 4;

    fn start() -> Load {
        let (ends, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new((0, 0))));
        let client = |host: &'static str| {
            let (ends, counts) = (Arc::clone(&ends), Arc::clone(&counts));
            thread::spawn(move || {
                while !ends.load(Ordering::Acquire) {
                    let done = exchange(host).is_ok();
                    let mut counts = counts.lock().unwrap();
                    counts.0 += 1;
                    counts.1 += usize::from(!done);
                    drop(counts);
                    thread::sleep(Duration::from_millis(2));
                }
            })
        };
        let clients = (0..Load::CLIENTS).map(|at| client(["cloud.test", "other.test"][at % 2])).collect();
        Load { ends, counts, clients }
    }

    /// Exchanges, and those of them that were cut.
    fn stop(self) -> (usize, usize) {
        self.ends.store(true, Ordering::Release);
        for client in self.clients {
            client.join().unwrap();
        }
        *self.counts.lock().unwrap()
    }
}

/// Kills the relay as a crash would, and gives the time until a connection that was begun afterwards was served.
fn kill_the_relay(supervisor: &Supervisor) -> Duration {
    let relay = relay_of(supervisor);
    command(Command::new("kill").args(["-KILL", &relay.to_string()]));
    let killed = Instant::now();
    exchange("other.test").unwrap();
    let delay = killed.elapsed();
    until("there is another relay", || relay_of(supervisor) != relay);
    delay
}

fn relay_of(supervisor: &Supervisor) -> u32 {
    let children = format!("/proc/{0}/task/{0}/children", supervisor.0.id());
    let mut relay = None;
    until("there is a relay", || {
        let children = std::fs::read_to_string(&children).unwrap();
        relay = children.split_whitespace().next().and_then(|id| id.parse().ok());
        relay.is_some()
    });
    relay.unwrap()
}

fn get(path: &str) -> String {
    let Ok(mut socket) = TcpStream::connect(ADMIN) else { return String::new() };
    let _ = socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer);
    answer
}

fn metric(name: &str) -> Option<u64> {
    let metrics = get("/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < wire::DEADLINE, "not within {:?}: {what}\n{}", wire::DEADLINE, get("/metrics"));
        thread::sleep(Duration::from_millis(2));
    }
}

fn command(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn listed() -> String {
    let output = Command::new("nft").args(["list", "table", "inet", "hawser"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
