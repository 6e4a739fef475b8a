//! The end of a proxy, and what is under way then.

use crate::rig::{Alone, echo, get, in_front_of};
use hyper_util::rt::TokioIo;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Far below the grace period, which is two minutes.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn connections_that_say_nothing_do_not_hold_the_end_up() {
    let (app, _tasks) = echo("").await;
    let (_plane, proxy) = in_front_of(app, &[]).await;
    let mut silent = TcpStream::connect(proxy.bound.inbound).await.unwrap();
    timeout(SOON, proxy.stopped()).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or_default(), 0);
}

#[tokio::test]
async fn idle_connections_of_http_do_not_hold_the_end_up() {
    let rig = Alone::new(&[]).await;
    let mut idle = rig.http1().await;
    assert_eq!(idle.ask(get("/status/200")).await.status, 200);
    timeout(SOON, rig.proxy.stopped()).await.unwrap();
}

#[tokio::test]
async fn a_stream_of_bytes_goes_on_until_its_end() {
    let (app, _tasks) = echo("").await;
    let (_plane, mut proxy) = in_front_of(app, &[]).await;
    let mut io = TcpStream::connect(proxy.bound.inbound).await.unwrap();
    let mut heard = [0; 2];
    proxy.drain();
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        io.write_all(b"\0\0").await.unwrap();
        io.read_exact(&mut heard).await.unwrap();
    }
    drop(io);
    timeout(SOON, proxy.ended()).await.unwrap();
}

#[tokio::test]
async fn a_stream_of_bytes_ends_with_the_grace_period() {
    let (app, _tasks) = echo("").await;
    let (_plane, proxy) = in_front_of(app, &[("SHUTDOWN_GRACE_PERIOD", "1s")]).await;
    let mut io = TcpStream::connect(proxy.bound.inbound).await.unwrap();
    let mut heard = [0; 2];
    io.write_all(b"\0\0").await.unwrap();
    io.read_exact(&mut heard).await.unwrap();
    timeout(SOON, proxy.stopped()).await.unwrap();
    assert_eq!(io.read(&mut heard).await.unwrap_or_default(), 0);
}

#[tokio::test]
async fn an_upgraded_connection_goes_on_until_the_grace_period_is_over() {
    let mut rig = Alone::new(&[("SHUTDOWN_GRACE_PERIOD", "3s")]).await;
    let mut client = rig.http1().await;
    let mut request = get("/upgrade");
    for (name, value) in [("connection", "upgrade"), ("upgrade", "echo")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let response = client.send(request).await.unwrap();
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    rig.proxy.drain();
    let (begun, mut heard) = (Instant::now(), [0; 2]);
    while begun.elapsed() < Duration::from_secs(2) {
        io.write_all(b"hi").await.unwrap();
        io.read_exact(&mut heard).await.unwrap();
    }
    timeout(SOON, rig.proxy.ended()).await.unwrap();
    assert_eq!(io.read(&mut heard).await.unwrap_or_default(), 0);
}
