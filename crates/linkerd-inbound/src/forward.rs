//! Connections that are not HTTP: authorised as a whole, then bytes both ways.

use crate::{Inbound, accept::Connection, labels};
use linkerd_http::copy_duplex;
use linkerd_policy::{ClientInfo, Meta, ServerPolicy};
use linkerd_stack::{Cause, Error};
use linkerd_tap::{Connection as Tapped, Direction};
use std::sync::Arc;
use tokio::net::TcpStream;
use tracing::{debug, info};

/// Forwards a connection to the application; `app` is a connection on which it has already spoken.
pub(crate) async fn serve(
    inbound: &Inbound,
    connection: Connection,
    app: Option<TcpStream>,
) -> Result<(), Error> {
    let Connection {
        mut io,
        client,
        tls,
        tls_labels,
        port,
        policy,
    } = connection;
    let info = ClientInfo {
        ip: client.ip(),
        tls: tls.shown(),
    };
    let counted = |policy: &ServerPolicy, authz: Option<&Meta>| {
        port.target
            .clone()
            .join(&labels::server(policy, port.addr.port()))
            .join(&authz.map(|m| labels::resource("authz", m)).unwrap_or_default())
            .join(&tls_labels)
    };
    let Some(authz) = authorized(&policy, &info) else {
        inbound.metrics.tcp_deny.series(&counted(&policy, None)).incr();
        info!(%client, server = %port.addr, "connection denied");
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
    let tapped = inbound.tap.is_active().then(|| {
        let tapped = Tapped {
            direction: Direction::Inbound,
            client,
            client_labels: crate::session::client_labels(&tls),
            server: port.addr,
            server_labels: crate::session::label_map("srv", &policy.meta),
        };
        inbound.tap.connection(&tapped)
    });
    let mut updates = port.policy.clone();
    let result = tokio::select! {
        copied = copy_duplex(&mut io, &mut app) => Some(copied),
        () = lost_permission(&mut updates, &info) => None,
    };
    let (passed, reason, cause) = match result {
        Some(Ok(passed)) => (passed, "server".to_owned(), None),
        Some(Err(error)) => {
            debug!(%error, %client, "forwarded connection ended");
            (
                linkerd_http::Transferred::default(),
                format!("error: {error}"),
                None,
            )
        }
        None => {
            inbound
                .metrics
                .tcp_terminate
                .series(&counted(&updates.borrow(), None))
                .incr();
            info!(%client, server = %port.addr, "connection is no longer authorized");
            (
                linkerd_http::Transferred::default(),
                "proxy: unauthorized".to_owned(),
                Some(Cause::Unauthorized),
            )
        }
    };
    if let Some(tapped) = tapped.flatten() {
        tapped.closed(passed.to_server, passed.to_client, &reason, cause);
    }
    Ok(())
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
