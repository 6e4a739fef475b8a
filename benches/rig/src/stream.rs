//! Takes bytes from the application's source, as fast as they come.

use crate::{Outcome, say};
use serde::Deserialize;
use serde_json::json;
use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    task::spawn_local,
    time::{Instant, sleep},
};

#[derive(Debug, Deserialize)]
pub(crate) struct Options {
    addr: SocketAddr,
    connections: usize,
    warm_up: f64,
    seconds: f64,
}

pub(crate) async fn run(options: Options) -> Outcome {
    let total = Rc::new(Cell::new(0_u64));
    for _ in 0..options.connections {
        let mut io = TcpStream::connect(options.addr).await?;
        let total = total.clone();
        spawn_local(async move {
            let mut buf = vec![0; 256 * 1024];
            while let Ok(n @ 1..) = io.read(&mut buf).await {
                total.set(total.get() + n as u64);
            }
        });
    }
    sleep(Duration::from_secs_f64(options.warm_up)).await;
    say("begin")?;
    let (begun, before) = (Instant::now(), total.get());
    sleep(Duration::from_secs_f64(options.seconds)).await;
    let bytes = total.get() - before;
    say(json!({ "bytes": bytes, "seconds": begun.elapsed().as_secs_f64() }))?;
    if bytes == 0 {
        return Err("nothing came".into());
    }
    Ok(())
}
