//! One connection for all requests to a server, opened when it is needed.

use super::{Client, ClientParams};
use crate::{Connect, Failed, Request, Response};
use linkerd_stack::{Cause, Error};
use parking_lot::Mutex;

/// Sends requests over one HTTP/2 connection, and opens the next one when that is gone.
#[derive(Debug)]
pub struct Shared<C> {
    connect: C,
    params: ClientParams,
    current: Mutex<Option<Client>>,
    /// Held while a connection is opened, so that waiting requests share it.
    opening: tokio::sync::Mutex<()>,
}

impl<C: Connect> Shared<C> {
    #[must_use]
    pub fn new(connect: C, params: ClientParams) -> Self {
        Self {
            connect,
            params,
            current: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }

    /// Sends a request and waits for the response's head.
    ///
    /// # Errors
    /// With the request in it as long as nothing of it was sent.
    pub async fn send(&self, request: Request) -> Result<Response, Failed> {
        let mut request = request;
        for _ in 0..ATTEMPTS {
            let client = match self.ready().await {
                Ok(client) => client,
                Err(error) => return Err(Failed::unsent(error, request)),
            };
            match client.send(request).await {
                // The connection ended since it was last used.
                Err(Failed {
                    request: Some(unsent),
                    ..
                }) => request = *unsent,
                result => return result,
            }
        }
        Err(Failed::unsent(
            Error::new(Cause::UpstreamClosed, "server closes each connection at once"),
            request,
        ))
    }

    /// The open connection, or a new one.
    ///
    /// # Errors
    /// When no connection can be made.
    pub async fn ready(&self) -> Result<Client, Error> {
        match self.current() {
            Some(client) => Ok(client),
            None => self.open().await,
        }
    }

    async fn open(&self) -> Result<Client, Error> {
        let _opening = self.opening.lock().await;
        if let Some(client) = self.current() {
            return Ok(client);
        }
        let io = self.connect.connect().await?;
        let client = Client::connect(io, &self.params).await?;
        *self.current.lock() = Some(client.clone());
        Ok(client)
    }

    fn current(&self) -> Option<Client> {
        self.current.lock().as_ref().filter(|c| !c.is_closed()).cloned()
    }
}

/// How many connections may end before a request is sent on one.
const ATTEMPTS: usize = 3;
