//! The conformance suite of HTTP/2, all its cases, against each listener that speaks it.

use crate::rig;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, net::SocketAddr, path::PathBuf};
use tokio::{net::TcpListener, process::Command, task::JoinSet};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_paths_pass_h2spec() {
    let Some(program) = program() else {
        eprintln!("skipped: h2spec is not built; `make h2spec` says why");
        return;
    };
    let (app, _tasks) = application().await;
    let paths = [
        ("inbound", rig::inbound(app).await),
        ("outbound", rig::meshed(app).await),
        ("direct", rig::direct(app).await),
    ];
    let mut runs = JoinSet::new();
    for (name, path) in &paths {
        runs.spawn(run(program.clone(), name, path.addr));
    }
    let failures: Vec<_> = runs.join_all().await.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What `make h2spec` has built from the pinned module.
fn program() -> Option<PathBuf> {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.build/h2spec");
    let program = std::env::var_os("H2SPEC").map_or(built, PathBuf::from);
    program.exists().then_some(program)
}

/// The suite's report when a case failed.
async fn run(program: PathBuf, name: &'static str, addr: SocketAddr) -> Option<String> {
    let output = Command::new(program)
        .args(["--strict", "--timeout", "2", "--path", "/", "--host", "127.0.0.1"])
        .args(["--port", &addr.port().to_string()])
        .output()
        .await
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let passed = report.contains(&format!("{CASES} tests, {CASES} passed, 0 skipped, 0 failed"));
    (!passed || !output.status.success()).then(|| format!("{name}: {report}"))
}

const CASES: usize = 146;

/// Reads each request to its end and answers with some bytes.
async fn application() -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((io, _)) = listener.accept().await {
            let service = service_fn(answer);
            connections.spawn(async move {
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(io), service)
                    .await;
            });
        }
    });
    (addr, tasks)
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match *request.method() {
        Method::HEAD => Bytes::new(),
        _ => Bytes::from_static(b"hello"),
    };
    let _ = request.into_body().collect().await;
    Ok(Response::new(Full::new(body)))
}
