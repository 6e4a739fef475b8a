//! The sidecar's executable: without arguments the proxy, with `init` the redirect rules that bring it its traffic.

mod init;

use linkerd_app::{App, Config, VERSION, log, process};
use std::{collections::BTreeMap, env, future::Future, io::Write as _, process::ExitCode};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// One process in each pod: what it does not use goes back to the kernel (see `.cargo/config.toml`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    process::mark_start();
    let args: Vec<String> = env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    match args.split_first() {
        None => sidecar(),
        Some((command, flags)) if command == "init" => init::run(flags),
        Some((command, _)) if command == "--version" => {
            let _ = writeln!(std::io::stdout(), "linkerd2-proxy {VERSION}");
            ExitCode::SUCCESS
        }
        Some((command, _)) => {
            complain(&format!(
                "error: unknown command `{command}`\nusage: linkerd2-proxy [init FLAGS… | --version]"
            ));
            ExitCode::from(EX_USAGE)
        }
    }
}

fn sidecar() -> ExitCode {
    let vars: BTreeMap<String, String> = env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .collect();
    let json = vars
        .get("LINKERD2_PROXY_LOG_FORMAT")
        .is_some_and(|format| format.trim() == "json");
    let log = log::init(
        vars.get("LINKERD2_PROXY_LOG")
            .map(String::as_str)
            .filter(|filter| !filter.is_empty()),
        json,
    );
    let config = match Config::from_env(vars) {
        Ok(config) => config,
        Err(errors) => {
            complain(&format!("error: Invalid configuration: {errors}"));
            return ExitCode::from(EX_USAGE);
        }
    };
    match run(config, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config, log: log::LogLevel) -> Result<(), Box<dyn std::error::Error>> {
    let (id, destination) = (config.local_id.clone(), config.control.destination.clone());
    for name in &config.without_effect {
        tracing::warn!("LINKERD2_PROXY_{name} is set and has no effect in this proxy");
    }
    let app = App::bind(config, log)?;
    let bound = app.bound()?;
    tracing::info!(version = VERSION, "linkerd2-proxy");
    tracing::info!("Admin interface on {}", bound.admin);
    tracing::info!("Inbound interface on {}", bound.inbound);
    tracing::info!("Outbound interface on {}", bound.outbound);
    match bound.tap {
        Some(tap) => tracing::info!("Tap interface on {tap}"),
        None => tracing::info!("Tap DISABLED"),
    }
    tracing::info!("Local identity is {id}");
    tracing::info!("Destinations resolved via {destination:?}");
    app.run(terminated()?)?;
    Ok(())
}

/// Resolves at the first SIGTERM or SIGINT; a second one ends the process at once, for those who cannot wait.
fn terminated() -> std::io::Result<impl Future<Output = ()>> {
    // Signals are taken in a runtime of their own: the one of the proxy does not exist yet.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let _guard = runtime.enter();
            let (Ok(mut term), Ok(mut int)) =
                (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
            else {
                return;
            };
            runtime.block_on(async {
                either(&mut term, &mut int).await;
                let _ = sender.send(());
                either(&mut term, &mut int).await;
                std::process::exit(SECOND_SIGNAL);
            });
        })?;
    Ok(async move {
        if receiver.await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

async fn either(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn complain(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// sysexits.h
const EX_USAGE: u8 = 64;
const SECOND_SIGNAL: i32 = 1;
