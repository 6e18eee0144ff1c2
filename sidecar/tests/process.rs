//! The program as it is run: what it writes, what it gives to a command, how it ends.
#![allow(clippy::unwrap_used)]

mod wire;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use wire::Step::{End, Fin, Read as Take, Send};
use wire::{DEADLINE, Line, TestCa};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &[u8] = b"GET /photos/a HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A running sidecar with a proxy and an admin port, and the folder that it works in.
struct Running {
    child: Child,
    proxy: SocketAddr,
    admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Running {
    fn start(endpoints: &[String], more: &[&str]) -> Running {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("binding.yaml"), wire::manifest(endpoints)).unwrap();
        Running::start_in(folder, more)
    }

    fn start_in(folder: tempfile::TempDir, more: &[&str]) -> Running {
        let (proxy, admin) = (free(), free());
        let child = sidecar()
            .args([
                "run",
                "--store",
                "http://127.0.0.1:1",
                "--proxy",
                &proxy.to_string(),
                "--admin",
                &admin.to_string(),
            ])
            .arg("--binding")
            .arg(folder.path().join("binding.yaml"))
            .arg("--trust-dir")
            .arg(folder.path().join("trust"))
            .arg("--state-dir")
            .arg(folder.path().join("state"))
            .args(more)
            .spawn()
            .unwrap();
        let mut running = Running { child, proxy, admin, folder };
        wait("ready", || {
            assert!(running.child.try_wait().unwrap().is_none(), "it ended at once");
            running.get("/readyz").starts_with("HTTP/1.1 200 ")
        });
        running
    }

    fn get(&self, path: &str) -> String {
        let Ok(mut socket) = TcpStream::connect(self.admin) else { return String::new() };
        let _ = socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        answer
    }

    fn terminate(&self) {
        let status = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, in an environment that does not know this machine.
fn sidecar() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hawser-sidecar"));
    for name in [
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "AWS_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
    ] {
        command.env_remove(name);
    }
    command
}

/// An address that nobody listens on at the moment.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < DEADLINE, "not {what} within {DEADLINE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn it_drains_idle_connections_close_and_exchanges_end() {
    let (listener, address) = wire::listener();
    let mut sidecar = Running::start(&[format!("http://localhost:{}", address.port())], &["--drain-grace", "15s"]);
    let connect = || {
        let client = wire::tunnel(sidecar.proxy, "localhost", address.port());
        (client, listener.accept().unwrap().0)
    };
    let (mut idle, mut idle_cloud) = connect();
    let (mut silent, _silent_cloud) = connect();
    let (mut busy, mut busy_cloud) = connect();
    for (client, cloud) in [(&mut idle, &mut idle_cloud), (&mut busy, &mut busy_cloud)] {
        client.write_all(GET).unwrap();
        cloud.read_exact(&mut vec![0; GET.len()]).unwrap();
    }
    idle_cloud.write_all(OK).unwrap();
    idle.read_exact(&mut vec![0; OK.len()]).unwrap();
    busy_cloud.write_all(&OK[..20]).unwrap();
    busy.read_exact(&mut [0; 20]).unwrap();

    let begun = Instant::now();
    sidecar.terminate();
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "an idle connection ends");
    assert_eq!(silent.read(&mut [0]).unwrap(), 0, "so does one that never asked for anything");
    assert!(begun.elapsed() < Duration::from_secs(10), "at once, not when the grace ends");
    wait("closed to new connections", || TcpStream::connect(sidecar.proxy).is_err());
    busy_cloud.write_all(&OK[20..]).unwrap();
    busy.read_exact(&mut vec![0; OK.len() - 20]).unwrap();
    assert_eq!(busy.read(&mut [0]).unwrap(), 0, "and then it ends too");
    let status = sidecar.child.wait().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn an_edited_binding_takes_effect_and_a_bad_one_is_reported_and_ignored() {
    let ca = TestCa::new();
    let (listener, address) = wire::listener();
    let server = ca.server(&["localhost"], &[], |_| {});
    let folder = tempfile::tempdir().unwrap();
    let manifest = |host: &str| wire::manifest(&[format!("https://{host}:{}", address.port())]);
    std::fs::write(folder.path().join("binding.yaml"), manifest("other.test")).unwrap();
    std::fs::write(folder.path().join("cloud-ca.pem"), &ca.pem).unwrap();
    let upstream_ca = folder.path().join("cloud-ca.pem");
    let sidecar = Running::start_in(folder, &["--upstream-ca", upstream_ca.to_str().unwrap()]);
    let pod_ca = hawser_sidecar::trust::read(&sidecar.folder.path().join("trust/ca.pem")).unwrap();
    let is_decrypted = || {
        let config = wire::client(&pod_ca, &[], &[&rustls::version::TLS13]);
        thread::scope(|scope| {
            let cloud = scope
                .spawn(|| Line::accept(listener.accept().unwrap().0, &server).map(|line| line.play(&[End, Fin])).ok());
            let socket = wire::tunnel(sidecar.proxy, "localhost", address.port());
            let line = Line::connect(socket, &config, "localhost").map(|line| line.play(&[Fin, End])).is_ok();
            cloud.join().unwrap();
            line
        })
    };
    assert!(!is_decrypted(), "not bound yet");
    let file = sidecar.folder.path().join("binding.yaml");
    let edited = Instant::now();
    std::fs::write(&file, manifest("localhost")).unwrap();
    wait("decrypted", is_decrypted);
    assert!(edited.elapsed() < Duration::from_secs(2), "an edit is seen within two seconds");
    assert!(sidecar.get("/metrics").contains("hawser_sidecar_bindings_valid 1\n"));
    std::fs::write(&file, "kind: Nonsense").unwrap();
    wait("reported", || sidecar.get("/metrics").contains("hawser_sidecar_bindings_valid 0\n"));
    assert!(is_decrypted(), "the last good one stays in force");
}

#[test]
fn a_restart_keeps_the_trust_and_the_key_is_nowhere_but_in_the_state() {
    let mut sidecar = Running::start(&["http://localhost:1".into()], &[]);
    let trust = sidecar.folder.path().join("trust");
    let before = std::fs::read(trust.join("ca.pem")).unwrap();
    for file in std::fs::read_dir(&trust).unwrap() {
        let path = file.unwrap().path();
        let content = std::fs::read(&path).unwrap();
        assert!(!String::from_utf8_lossy(&content).contains("PRIVATE KEY"), "{}", path.display());
    }
    sidecar.child.kill().unwrap();
    sidecar.child.wait().unwrap();
    let folder = std::mem::replace(&mut sidecar.folder, tempfile::tempdir().unwrap());
    std::fs::remove_dir_all(folder.path().join("trust")).unwrap();
    let again = Running::start_in(folder, &[]);
    assert_eq!(std::fs::read(again.folder.path().join("trust/ca.pem")).unwrap(), before);
}

fn exec(folder: &Path, script: &str, change: impl FnOnce(&mut Command)) -> Output {
    let mut command = sidecar();
    command.args(["exec", "--store", "http://127.0.0.1:1", "--binding"]).arg(folder.join("binding.yaml"));
    command.args(["--", "sh", "-c", script]);
    change(&mut command);
    command.output().unwrap()
}

#[test]
fn exec_sets_everything_for_the_command_and_ends_as_it_does() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("binding.yaml"), wire::manifest(&["http://localhost:1".into()])).unwrap();
    let own = folder.path().join("own.pem");
    std::fs::write(&own, &TestCa::new().pem).unwrap();
    let script = "echo $HTTPS_PROXY $https_proxy $HTTP_PROXY $http_proxy; echo ${NO_PROXY-none}${no_proxy-none}; \
        grep -c BEGIN $NODE_EXTRA_CA_CERTS $AWS_CA_BUNDLE; test -s $SSL_CERT_FILE || exit 1; test -s $REQUESTS_CA_BUNDLE || exit 1; \
        echo $JAVA_TOOL_OPTIONS; echo $AWS_SECRET_ACCESS_KEY; exit 7";
    let output = exec(folder.path(), script, |command| {
        command
            .env("NO_PROXY", "*")
            .env("AWS_CA_BUNDLE", &own)
            .env("JAVA_TOOL_OPTIONS", "-Xmx1g")
            .env("AWS_SECRET_ACCESS_KEY", "its own");
    });
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(output.status.code(), Some(7), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    let proxies: Vec<&str> = lines[0].split(' ').collect();
    assert!(
        proxies.len() == 4
            && proxies.iter().all(|proxy| *proxy == proxies[0] && proxy.starts_with("http://127.0.0.1:"))
    );
    assert_eq!(lines[1], "nonenone");
    assert!(lines[2].ends_with(":1"), "the CA alone is added: {}", lines[2]);
    assert!(lines[3].ends_with(":2"), "its own file and the CA: {}", lines[3]);
    assert!(lines[4].starts_with("-Xmx1g -Djavax.net.ssl.trustStore="), "{}", lines[4]);
    assert_eq!(lines[5], "its own");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("its own"), "a secret is logged");
}

#[test]
fn exec_gives_the_code_of_a_signal_and_passes_signals_on() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("binding.yaml"), wire::manifest(&["http://localhost:1".into()])).unwrap();
    assert_eq!(exec(folder.path(), "kill -KILL $$", |_| {}).status.code(), Some(128 + 9));
    let missing = sidecar()
        .args(["exec", "--store", "http://127.0.0.1:1", "--binding"])
        .arg(folder.path().join("binding.yaml"))
        .args(["--", "/no/such/command"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(127), "{}", String::from_utf8_lossy(&missing.stderr));

    let mut command = sidecar();
    command.args(["exec", "--store", "http://127.0.0.1:1", "--binding"]).arg(folder.path().join("binding.yaml"));
    command.args(["--", "sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    assert!(Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(9), None));
}

#[test]
fn a_bad_manifest_is_named_with_its_field() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = wire::manifest(&["ftp://localhost".into()]);
    std::fs::write(folder.path().join("binding.yaml"), manifest).unwrap();
    let output = exec(folder.path(), "true", |_| {});
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr.contains("binding.yaml") && stderr.contains("endpoint"), "{stderr}");
}

#[test]
fn a_slow_reader_holds_its_sender_up_and_memory_stays_small() {
    let (listener, address) = wire::listener();
    let sidecar = Running::start(&[format!("http://localhost:{}", address.port())], &[]);
    let client = wire::tunnel(sidecar.proxy, "localhost", address.port());
    let (mut cloud, _) = listener.accept().unwrap();
    cloud.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let piece = vec![0; 1 << 20];
    let mut sent = 0_usize;
    while let Ok(len) = cloud.write(&piece) {
        sent += len;
        assert!(sent < 256 << 20, "the sender is never held up");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: usize = peak.trim().trim_end_matches(" kB").trim().parse().unwrap();
    assert!(peak < 64 << 10, "{peak} KiB for one slow reader");
    drop(client);
    let rest = Line::plain(cloud).play(&[Take(1), End, Send(Vec::new())]);
    assert!(rest.received.is_empty());
}
