//! The executable as its environment sees it: exit codes, words on its streams, its end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use linkerd_testkit::{ControlPlane, Workspace};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::{Duration, Instant},
};

const NAME: &str = "a.test";

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_linkerd2-proxy"));
    command.env_clear();
    command
}

/// A proxy that believes `plane`, on ports that the kernel chooses.
fn sidecar(plane: &ControlPlane, directory: &Workspace) -> Command {
    let token = directory.path().join("token");
    std::fs::write(&token, "token").unwrap();
    let mut command = program();
    let mut set = |name: &str, value: &str| {
        command.env(format!("LINKERD2_PROXY_{name}"), value);
    };
    for listener in ["ADMIN", "INBOUND", "OUTBOUND", "CONTROL"] {
        set(&format!("{listener}_LISTEN_ADDR"), "127.0.0.1:0");
    }
    for service in ["IDENTITY", "DESTINATION", "POLICY"] {
        set(&format!("{service}_SVC_ADDR"), &plane.addr.to_string());
    }
    set("IDENTITY_LOCAL_NAME", NAME);
    set("IDENTITY_TRUST_ANCHORS", plane.services.ca.pem());
    set("IDENTITY_TOKEN_FILE", &token.display().to_string());
    set("IDENTITY_DIR", &directory.path().display().to_string());
    set("POLICY_WORKLOAD", "{}");
    set("LOG_FORMAT", "json");
    command.stdout(Stdio::piped());
    command
}

/// A sidecar that is running, with the log that it has written.
struct Running {
    child: Child,
    log: BufReader<ChildStdout>,
    admin: SocketAddr,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut this = Self {
            log: BufReader::new(child.stdout.take().unwrap()),
            child,
            admin: SocketAddr::from(([0, 0, 0, 0], 0)),
        };
        let line = this.until("Admin interface on ");
        this.admin = line.rsplit(' ').next().unwrap().parse().unwrap();
        this
    }

    /// The message of the next line with `text` in its message. Each line has to be JSON.
    fn until(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.log.read_line(&mut line).unwrap(), 0, "no line has {text:?}");
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            let message = line["fields"]["message"].as_str().unwrap_or_default();
            if message.contains(text) {
                return message.to_owned();
            }
        }
    }

    fn is_ready(&self) -> bool {
        let mut io = TcpStream::connect(self.admin).unwrap();
        io.write_all(b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).unwrap();
        answer.starts_with("HTTP/1.1 200")
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    fn code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_wrong_environment_is_told_variable_by_variable() {
    let output = program()
        .env("LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT", "soon")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = stderr(&output);
    for words in [
        "LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT: not a duration: \"soon\"",
        "LINKERD2_PROXY_IDENTITY_LOCAL_NAME: has to be set",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named() {
    let (plane, directory) = (ControlPlane::start().await, Workspace::new());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = sidecar(&plane, &directory)
        .env("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", &addr)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("cannot listen on {addr} (inbound)")));
}

#[test]
fn an_unknown_command_is_a_mistake_of_usage() {
    let output = program().arg("whatever").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("unknown command `whatever`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_logs_json_and_ends_when_told() {
    let (plane, directory) = (ControlPlane::start().await, Workspace::new());
    let mut running = Running::start(&mut sidecar(&plane, &directory));
    running.until("Certified identity");
    assert!(running.is_ready());
    running.signal("-TERM");
    running.until("Draining");
    assert_eq!(running.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_after_the_application() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("skipped: only root can start an application as another user");
        return;
    }
    let (plane, directory) = (ControlPlane::start().await, Workspace::new());
    let mut application = Command::new("python3")
        .args(["-c", APPLICATION])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    BufReader::new(application.stdout.take().unwrap())
        .read_line(&mut port)
        .unwrap();
    let mut running =
        Running::start(sidecar(&plane, &directory).env("LINKERD2_PROXY_INBOUND_PORTS", port.trim()));
    running.until("Certified identity");
    running.signal("-TERM");
    running.until("Draining");
    // Longer than a proxy without application or traffic takes.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(running.child.try_wait().unwrap(), None);
    application.kill().unwrap();
    application.wait().unwrap();
    let gone = Instant::now();
    assert_eq!(running.code(), Some(0));
    assert!(gone.elapsed() < Duration::from_secs(10));
}

const APPLICATION: &str = "
import os, socket, time
os.setuid(65534)
listener = socket.create_server(('127.0.0.1', 0))
print(listener.getsockname()[1], flush=True)
time.sleep(60)
";
