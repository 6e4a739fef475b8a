//! How long a proxy takes from its start to its readiness.

use crate::{Outcome, say};
use serde::Deserialize;
use serde_json::json;
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::{Instant, sleep},
};

#[derive(Debug, Deserialize)]
pub(crate) struct Options {
    program: String,
    env: BTreeMap<String, String>,
    admin: SocketAddr,
}

pub(crate) async fn run(options: Options) -> Outcome {
    let begun = Instant::now();
    let mut child = Command::new(&options.program)
        .env_clear()
        .envs(&options.env)
        .kill_on_drop(true)
        .spawn()?;
    while !is_ready(options.admin).await {
        sleep(Duration::from_millis(1)).await;
    }
    say(json!({ "milliseconds": begun.elapsed().as_secs_f64() * 1e3 }))?;
    child.kill().await?;
    Ok(())
}

async fn is_ready(admin: SocketAddr) -> bool {
    let asked = async {
        let mut io = TcpStream::connect(admin).await?;
        io.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        io.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with("HTTP/1.1 200"))
    };
    asked.await.unwrap_or(false)
}
