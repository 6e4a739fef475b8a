//! What stands around a proxy that is measured. `rig COMMAND JSON`: the benches know the fields of each command.

mod control;
mod exchange;
mod load;
mod server;
mod starting;
mod stream;
mod tap;

use serde::de::DeserializeOwned;
use std::{
    error::Error,
    future::Future,
    io::{Write as _, stdout},
    process::ExitCode,
    time::Duration,
};
use tokio::{runtime, task::LocalSet, time::timeout};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (command, json) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
    match run(&command, &json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "rig {command}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, json: &str) -> Outcome {
    match command {
        "certificates" => control::certificates(&options(json)?),
        "control" => block_on(control::serve(options(json)?)),
        "serve" => block_on(server::serve(options(json)?)),
        "probe" => block_on(bounded(exchange::probe(options(json)?))),
        "load" => block_on(load::run(options(json)?)),
        "idle" => block_on(load::idle(options(json)?)),
        "stream" => block_on(stream::run(options(json)?)),
        "tap" => block_on(tap::run(options(json)?)),
        "start" => block_on(bounded(starting::run(options(json)?))),
        _ => Err("unknown command".into()),
    }
}

fn options<T: DeserializeOwned>(json: &str) -> Result<T, Box<dyn Error>> {
    Ok(serde_json::from_str(json)?)
}

/// One thread, so that what is measured is disturbed by as few wake-ups as possible.
fn block_on(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

async fn bounded(work: impl Future<Output = Outcome>) -> Outcome {
    timeout(PATIENCE, work)
        .await
        .map_err(|_| format!("not done after {PATIENCE:?}"))?
}

/// Tells the bench one line.
fn say(line: impl std::fmt::Display) -> std::io::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

const PATIENCE: Duration = Duration::from_secs(20);
