//! Packets that rules lead to the sidecar, in a network namespace of the test's own. Needs root and nft, as `redirect` does.
#![allow(clippy::unwrap_used)]

mod wire;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use hawser_sidecar::trust;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::version::TLS13;
use wire::Step::{End, Fin, Read as Take, Send};
use wire::{Line, TestCa};

/// Says to the second run of this test that it is inside the namespace.
const INSIDE: &str = "HAWSER_TEST_INSIDE_NAMESPACE";
const UID: u32 = 61337;
const BOUND: u16 = 8443;
const BOUND_PLAIN: u16 = 8080;
const NOT_LED: u16 = 8444;
const REDIRECT: u16 = 15001;
const ADMIN: u16 = 15002;

#[test]
fn redirected_connections_reach_where_they_were_going() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let this = std::env::current_exe().unwrap();
    let run = Command::new("unshare")
        .arg("-n")
        .arg(this)
        .args(["--exact", "redirected_connections_reach_where_they_were_going", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare of util-linux is needed");
    let (stdout, stderr) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(
        run.status.success(),
        "inside the namespace (this test needs root, unshare, ip and nft with nat in the kernel):\n{stdout}\n{stderr}"
    );
}

fn inside() {
    command("ip", &["link", "set", "lo", "up"]);
    command("ip", &["addr", "add", "169.254.169.254/32", "dev", "lo"]);
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path());
    let at = |name: &str| folder.path().join(name);
    let binary = at("hawser-sidecar"); // the build folder may be closed to the sidecar's user
    std::fs::copy(env!("CARGO_BIN_EXE_hawser-sidecar"), &binary).unwrap();
    let endpoints = [format!("https://cloud.test:{BOUND}"), format!("http://cloud.test:{BOUND_PLAIN}")];
    std::fs::write(at("binding.yaml"), wire::manifest(&endpoints)).unwrap();
    let ca = TestCa::new();
    std::fs::write(at("cloud-ca.pem"), &ca.pem).unwrap();
    std::fs::create_dir(at("trust")).unwrap();
    open_to_all(&at("trust"));

    let ports = format!("{BOUND},{BOUND_PLAIN}");
    let (uid, to) = (UID.to_string(), REDIRECT.to_string());
    let rules = ["redirect", "--ports", &ports, "--uid", &uid, "--to", &to];
    let binary_name = binary.to_str().unwrap();
    command(binary_name, &rules);
    let once = listed();
    command(binary_name, &rules);
    assert_eq!(listed(), once, "installing twice is installing once");

    let mut sidecar = Running::start(&binary, folder.path());
    sidecar.wait_until_ready(folder.path());
    let pod_ca = trust::read(&at("trust").join(trust::CA_FILE)).unwrap()[0].clone();
    let server = ca.server(&["cloud.test", "other.test", "127.0.0.1"], &[], |_| {});
    let clouds = [&ca.certificate, &pod_ca];

    for ip in ["127.0.0.1", "::1"] {
        let address = SocketAddr::new(ip.parse::<IpAddr>().unwrap(), BOUND);
        assert_eq!(issuer(address, "cloud.test", &server, clouds), &pod_ca, "{ip}: a bound host is decrypted");
        assert_eq!(issuer(address, "photos.cloud.test", &bucket_server(&ca), clouds), &pod_ca, "{ip}: and its buckets");
        assert_eq!(issuer(address, "other.test", &server, clouds), &ca.certificate, "{ip}: another is not");
        plain(SocketAddr::new(address.ip(), BOUND_PLAIN));
    }
    slowly(SocketAddr::new("127.0.0.1".parse().unwrap(), BOUND_PLAIN));
    let not_led = SocketAddr::new("127.0.0.1".parse().unwrap(), NOT_LED);
    assert_eq!(issuer(not_led, "cloud.test", &server, clouds), &ca.certificate, "other ports are not led");
    let metadata = SocketAddr::new("169.254.169.254".parse().unwrap(), BOUND_PLAIN);
    assert!(plain(metadata).ip().to_string() == "169.254.169.254", "metadata is reached without us");

    let closed = SocketAddr::new("127.0.0.1".parse().unwrap(), BOUND);
    let mut refused = TcpStream::connect(closed).unwrap();
    assert!(refused.read(&mut [0]).is_err(), "where nobody listens the connection is reset");
    let mut direct = TcpStream::connect(("127.0.0.1", REDIRECT)).unwrap();
    let _ = direct.write_all(b"GET / HTTP/1.1\r\n\r\n");
    assert!(!matches!(direct.read(&mut [0]), Ok(1..)), "the redirect port itself is no proxy, and no loop");

    command(binary_name, &["redirect", "--remove"]);
    command(binary_name, &["redirect", "--remove"]);
    assert_eq!(listed(), "", "removing twice is removing once");
    assert_eq!(issuer(closed, "cloud.test", &server, clouds), &ca.certificate, "without rules nothing is led");
}

fn bucket_server(ca: &TestCa) -> Arc<ServerConfig> {
    ca.server(&["photos.cloud.test"], &[], |_| {})
}

/// Whose certificate a client gets at `address` when it asks for `name`.
fn issuer<'a>(
    address: SocketAddr,
    name: &str,
    server: &Arc<ServerConfig>,
    of: [&'a CertificateDer<'static>; 2],
) -> &'a CertificateDer<'static> {
    let listener = TcpListener::bind(address).unwrap();
    let found = of.into_iter().find(|root| {
        thread::scope(|scope| {
            let cloud = scope.spawn(|| {
                Line::accept(listener.accept().unwrap().0, server)
                    .map(|line| line.play(&[Take(4), Send(b"pong".into()), End, Fin]))
                    .ok()
            });
            // A client of a kind of its own for each root and place, so that distrust of one does not open the way for the next.
            let alpn = if std::ptr::eq(*root, of[0]) { "one" } else { "two" };
            let place = address.to_string();
            let config = wire::client(&[(*root).clone()], &[alpn, &place], &[&TLS13]);
            let line = Line::connect(TcpStream::connect(address).unwrap(), &config, name);
            let seen = line.map(|line| line.play(&[Send(b"ping".into()), Take(4), Fin, End]));
            let cloud = cloud.join().unwrap();
            seen.is_ok_and(|seen| {
                assert_eq!((seen.received, cloud.unwrap().received), (b"pong".to_vec(), b"ping".to_vec()));
                true
            })
        })
    });
    found.unwrap_or_else(|| panic!("{name} at {address}: nobody's certificate"))
}

/// An exchange in the clear; gives the address that the cloud was reached at.
fn plain(address: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: cloud.test\r\n\r\n".to_vec();
    thread::scope(|scope| {
        let cloud = scope.spawn(|| {
            let socket = listener.accept().unwrap().0;
            let reached = socket.local_addr().unwrap();
            (Line::plain(socket).play(&[Take(request.len()), Send(b"pong".into()), End, Fin]), reached)
        });
        let client =
            Line::plain(TcpStream::connect(address).unwrap()).play(&[Send(request.clone()), Take(4), Fin, End]);
        let (seen, reached) = cloud.join().unwrap();
        assert_eq!((client.received, seen.received), (b"pong".to_vec(), request.clone()));
        reached
    })
}

/// An exchange in the clear whose head is not held back for its Host, and not forgotten for it either.
fn slowly(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    thread::scope(|scope| {
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        let cloud = scope.spawn(|| {
            let mut socket = listener.accept().unwrap().0;
            socket.set_read_timeout(Some(wire::DEADLINE)).unwrap();
            let mut line = [0; 16];
            socket.read_exact(&mut line).expect("the first line, before the rest of the head is sent");
            socket
        });
        let mut cloud = cloud.join().unwrap();
        client.write_all(b"Host: cloud.test\r\n\r\n").unwrap();
        let mut rest = [0; 20];
        cloud.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"Host: cloud.test\r\n\r\n");
    });
    let mut admin = TcpStream::connect(("127.0.0.1", ADMIN)).unwrap();
    admin.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut metrics = String::new();
    admin.read_to_string(&mut metrics).unwrap();
    assert!(metrics.contains("connections_total{how=\"undecided\"} 1"), "it has an observer:\n{metrics}");
}

fn command(name: &str, arguments: &[&str]) {
    let output = Command::new(name).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn listed() -> String {
    let output = Command::new("nft").args(["list", "table", "inet", "hawser"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn open_to_all(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
}

struct Running(Child);

impl Running {
    fn start(binary: &Path, folder: &Path) -> Running {
        let child = Command::new(binary)
            .args(["run", "--store", "http://127.0.0.1:1", "--redirect", &format!("[::]:{REDIRECT}")])
            .args(["--admin", &format!("127.0.0.1:{ADMIN}")])
            .arg("--binding")
            .arg(folder.join("binding.yaml"))
            .arg("--trust-dir")
            .arg(folder.join("trust"))
            .arg("--upstream-ca")
            .arg(folder.join("cloud-ca.pem"))
            .uid(UID)
            .spawn();
        Running(child.unwrap())
    }

    /// The bundles are written last, when it listens.
    fn wait_until_ready(&mut self, folder: &Path) {
        let begun = Instant::now();
        while !folder.join("trust").join(trust::CA_FILE).exists() {
            assert!(self.0.try_wait().unwrap().is_none(), "the sidecar ended at once");
            assert!(begun.elapsed() < wire::DEADLINE, "the sidecar does not become ready");
            thread::yield_now();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
