//! Connections that are not HTTP: authorised as a whole, then bytes both ways.

use crate::{Inbound, accept::Connection, labels, port::Port};
use linkerd_http::{Transferred, copy_duplex};
use linkerd_policy::{ClientInfo, Meta, ServerPolicy};
use linkerd_stack::{Cause, Error, Throttle, drain};
use linkerd_tap::{Connection as Tapped, Direction, TcpTaps};
use linkerd_tls::ServerTls;
use std::{io, net::SocketAddr, sync::Arc};
use tokio::net::TcpStream;
use tracing::{debug, info};

/// Forwards a connection to the application; `app` is a connection on which it has already spoken.
pub(crate) async fn serve(
    inbound: &Inbound,
    connection: Connection,
    app: Option<TcpStream>,
    mut drain: drain::Watch,
) -> Result<(), Error> {
    let Connection {
        mut io,
        client,
        tls,
        tls_labels,
        port,
        policy: _,
    } = connection;
    let policy = port.policy();
    let info = ClientInfo {
        ip: client.ip(),
        tls: tls.shown(),
    };
    let counted = |policy: &ServerPolicy, authz: Option<&Meta>| {
        port.target
            .clone()
            .join(&port.server_labels(policy))
            .join(&authz.map(|m| labels::resource("authz", m)).unwrap_or_default())
            .join(&tls_labels)
    };
    let tapped = tap(inbound, &port, &policy, client, &tls);
    let end = End {
        client,
        server: port.addr,
        tapped,
    };
    let Some(authz) = authorized(&policy, &info) else {
        inbound.metrics.tcp_deny.series(&counted(&policy, None)).incr();
        end.refused(Cause::Unauthorized, "no authorization admits the client");
        return Ok(());
    };
    inbound
        .metrics
        .tcp_allow
        .series(&counted(&policy, Some(&authz)))
        .incr();
    let app = match app {
        Some(app) => app,
        None => port.app.dial().await?,
    };
    let mut app = port.app.counted(app);
    let mut updates = port.policy.clone();
    tokio::select! {
        copied = copy_duplex(&mut io, &mut app) => end.copied(copied),
        () = lost_permission(&mut updates, &info) => {
            let labels = counted(&updates.borrow(), None);
            inbound.metrics.tcp_terminate.series(&labels).incr();
            end.refused(Cause::Unauthorized, "the policy does not admit the client any more");
        }
        () = drain.over() => end.refused(Cause::ShuttingDown, "the grace period is over"),
    }
    Ok(())
}

/// Tells how a connection ended, to the log and to whoever taps it.
struct End {
    client: SocketAddr,
    server: SocketAddr,
    tapped: Option<TcpTaps>,
}

impl End {
    fn copied(self, result: io::Result<Transferred>) {
        let (passed, reason) = match result {
            Ok(passed) => (passed, "server".to_owned()),
            Err(error) => {
                debug!(%error, client = %self.client, "forwarded connection ended");
                (Transferred::default(), format!("error: {error}"))
            }
        };
        if let Some(tapped) = self.tapped {
            tapped.closed(passed.to_server, passed.to_client, &reason, None);
        }
    }

    /// By the proxy.
    fn refused(self, cause: Cause, error: &str) {
        static REFUSALS: Throttle = Throttle::new();
        let (client, server, code) = (self.client, self.server, cause.code());
        REFUSALS.line(|left_out| info!(%client, %server, code, error, left_out, "connection closed"));
        if let Some(tapped) = self.tapped {
            tapped.closed(0, 0, &format!("proxy: {code}"), Some(cause));
        }
    }
}

fn tap(
    inbound: &Inbound,
    port: &Port,
    policy: &ServerPolicy,
    client: SocketAddr,
    tls: &ServerTls,
) -> Option<TcpTaps> {
    if !inbound.tap.is_active() {
        return None;
    }
    inbound.tap.connection(&Tapped {
        direction: Direction::Inbound,
        client,
        client_labels: crate::session::client_labels(tls),
        server: port.addr,
        server_labels: crate::session::label_map("srv", &policy.meta),
    })
}

/// The policy that admits a client, if any; the audit policy admits whom the others do not.
fn authorized(policy: &ServerPolicy, client: &ClientInfo<'_>) -> Option<Arc<Meta>> {
    match policy.authorize(client) {
        Ok(authz) => Some(authz.meta.clone()),
        Err(_) if policy.audit => Some(policy.meta.clone()),
        Err(_) => None,
    }
}

/// Resolves when an update of the policy takes the client's permission away.
async fn lost_permission(
    updates: &mut tokio::sync::watch::Receiver<Arc<ServerPolicy>>,
    client: &ClientInfo<'_>,
) {
    loop {
        if updates.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        if authorized(&updates.borrow_and_update(), client).is_none() {
            return;
        }
    }
}
