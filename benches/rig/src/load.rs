//! Clients that ask as fast as they are answered, or at a fixed rate.
//!
//! At a fixed rate a request's latency counts from when it was due, not from when a connection was free for it: what
//! a stalled server keeps from being sent is then not left out (coordinated omission).

use crate::{
    Outcome,
    exchange::{Connection, Protocol, Target},
    say,
};
use hdrhistogram::Histogram;
use serde::Deserialize;
use serde_json::json;
use std::{cell::RefCell, collections::VecDeque, rc::Rc, thread, time::Duration};
use tokio::{
    sync::{Notify, mpsc},
    task::spawn_local,
    time::{Instant, sleep},
};

#[derive(Debug, Deserialize)]
pub(crate) struct Options {
    #[serde(flatten)]
    target: Target,
    connections: usize,
    /// Requests at once on each connection.
    #[serde(default = "one")]
    streams: usize,
    /// Requests per second; absent: as fast as they are answered.
    rate: Option<f64>,
    warm_up: f64,
    seconds: f64,
}

fn one() -> usize {
    1
}

/// What happened since the measurement began.
#[derive(Default)]
struct Tally {
    latencies: Option<Histogram<u64>>,
    errors: u64,
    last_error: String,
}

impl Tally {
    fn begin(&mut self) -> Outcome {
        *self = Self {
            latencies: Some(Histogram::new(3)?),
            ..Self::default()
        };
        Ok(())
    }

    fn record(&mut self, latency: Duration, outcome: &Outcome) {
        if let Err(error) = outcome {
            self.errors += 1;
            self.last_error = error.to_string();
        } else if let Some(latencies) = &mut self.latencies {
            // It grows with what it is given.
            let _ = latencies.record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    fn report(&self, elapsed: Duration) -> Outcome {
        let all = self.latencies.as_ref().ok_or("nothing was measured")?;
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of some seconds")]
        let micros = |quantile| all.value_at_quantile(quantile) as f64 / 1e3;
        say(json!({
            "requests": all.len(),
            "errors": self.errors,
            "last_error": self.last_error,
            "seconds": elapsed.as_secs_f64(),
            "p50_us": micros(0.5),
            "p90_us": micros(0.9),
            "p99_us": micros(0.99),
            "p999_us": micros(0.999),
        }))?;
        Ok(())
    }
}

pub(crate) async fn run(options: Options) -> Outcome {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let clients = clients(&options).await?;
    match options.rate {
        None => saturate(&options, clients, &tally),
        Some(rate) => pace(&options, clients, &tally, rate)?,
    }
    sleep(Duration::from_secs_f64(options.warm_up)).await;
    say("begin")?;
    tally.borrow_mut().begin()?;
    let begun = Instant::now();
    sleep(Duration::from_secs_f64(options.seconds)).await;
    tally.borrow().report(begun.elapsed())
}

async fn clients(options: &Options) -> Result<Vec<Connection>, Box<dyn std::error::Error>> {
    let mut clients = Vec::new();
    for _ in 0..options.connections {
        let connection = options.target.connect().await?;
        let shares = std::iter::repeat_with(|| connection.share()).take(options.streams - 1);
        clients.extend(shares.flatten());
        clients.push(connection);
    }
    Ok(clients)
}

fn saturate(options: &Options, clients: Vec<Connection>, tally: &Rc<RefCell<Tally>>) {
    for mut client in clients {
        let (tally, target) = (tally.clone(), options.target.clone());
        spawn_local(async move {
            loop {
                let begun = Instant::now();
                let outcome = client.exchange().await;
                tally.borrow_mut().record(begun.elapsed(), &outcome);
                if outcome.is_err() {
                    client = reconnected(&target).await;
                }
            }
        });
    }
}

async fn reconnected(target: &Target) -> Connection {
    loop {
        if let Ok(connection) = target.connect().await {
            return connection;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Requests that are due, and clients that are free.
#[derive(Default)]
struct Schedule {
    due: RefCell<VecDeque<Instant>>,
    /// In turn, so that all connections are used.
    free: RefCell<VecDeque<Rc<Notify>>>,
}

impl Schedule {
    fn add(&self, due: Instant) {
        self.due.borrow_mut().push_back(due);
        if let Some(client) = self.free.borrow_mut().pop_front() {
            client.notify_one();
        }
    }

    async fn next(&self, me: &Rc<Notify>) -> Instant {
        loop {
            if let Some(due) = self.due.borrow_mut().pop_front() {
                return due;
            }
            self.free.borrow_mut().push_back(me.clone());
            me.notified().await;
        }
    }
}

fn pace(options: &Options, clients: Vec<Connection>, tally: &Rc<RefCell<Tally>>, rate: f64) -> Outcome {
    let schedule = Rc::new(Schedule::default());
    for mut client in clients {
        let (tally, target, schedule) = (tally.clone(), options.target.clone(), schedule.clone());
        spawn_local(async move {
            let me = Rc::new(Notify::new());
            loop {
                let due = schedule.next(&me).await;
                let outcome = client.exchange().await;
                tally.borrow_mut().record(due.elapsed(), &outcome);
                if outcome.is_err() {
                    client = reconnected(&target).await;
                }
            }
        });
    }
    let mut ticks = ticks(rate)?;
    spawn_local(async move {
        while let Some(due) = ticks.recv().await {
            schedule.add(due);
        }
    });
    Ok(())
}

/// The moments at which requests are due, told by a thread: the runtime's own timers are too coarse.
fn ticks(rate: f64) -> Result<mpsc::UnboundedReceiver<Instant>, Box<dyn std::error::Error>> {
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");
    let (sender, receiver) = mpsc::unbounded_channel();
    let interval = Duration::from_secs_f64(1.0 / rate);
    #[expect(
        clippy::disallowed_methods,
        reason = "a thread of its own, whose only work is to sleep"
    )]
    let tick = move || {
        let mut due = Instant::now();
        loop {
            due += interval;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send(due).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("ticks".into()).spawn(tick)?;
    Ok(receiver)
}

#[derive(Debug, Deserialize)]
pub(crate) struct IdleOptions {
    addr: std::net::SocketAddr,
    connections: usize,
}

/// Keep-alive connections that have each carried one request; held until standard input ends.
pub(crate) async fn idle(options: IdleOptions) -> Outcome {
    let target = Target {
        addr: options.addr,
        protocol: Protocol::H1,
        body_bytes: 0,
    };
    let mut held = Vec::with_capacity(options.connections);
    for _ in 0..options.connections {
        let mut connection = target.connect().await?;
        connection.exchange().await?;
        held.push(connection);
    }
    say("begin")?;
    tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin())).await??;
    drop(held);
    Ok(())
}
