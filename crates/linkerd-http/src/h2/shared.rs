//! One connection for all requests to a server, opened when it is needed.

use super::{Client, ClientParams};
use crate::{Connect, Failed, Request, Response};
use linkerd_stack::Error;
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
        let Some(client) = self.current() else {
            return self.send_on_new(request).await;
        };
        match client.send(request).await {
            // The connection ended since it was last used.
            Err(Failed {
                request: Some(unsent), ..
            }) => self.send_on_new(*unsent).await,
            result => result,
        }
    }

    async fn send_on_new(&self, request: Request) -> Result<Response, Failed> {
        match self.open().await {
            Ok(client) => client.send(request).await,
            Err(error) => Err(Failed::unsent(error, request)),
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
