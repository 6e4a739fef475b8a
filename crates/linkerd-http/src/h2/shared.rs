//! The connections for all requests to a server: one as long as it does, opened when it is needed.

use super::{Client, ClientParams};
use crate::{Connect, Failed, Request, Response};
use linkerd_stack::{Cause, Error};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use tracing::debug;

/// Sends requests over one HTTP/2 connection, over more where that is full, and opens the next one when one is gone.
#[derive(Debug)]
pub struct Shared<C>(Arc<Inner<C>>);

#[derive(Debug)]
struct Inner<C> {
    connect: C,
    params: ClientParams,
    pool: Mutex<Pool>,
}

#[derive(Debug, Default)]
struct Pool {
    /// Earlier ones are filled first, so that later ones fall idle when they are not needed any more.
    open: Vec<Client>,
    /// The attempt under way, whose outcome is that of all who wait for it.
    opening: Option<Opening>,
    /// When a further connection could last not be had.
    refused: Option<Instant>,
}

type Opening = watch::Receiver<Option<Result<Client, Error>>>;

enum Choice {
    Room(Client),
    /// It would take more requests, but carries many already.
    Crowded(Client),
    /// Its server takes no more requests at the same time.
    Full(Client),
    None,
}

impl<C: Connect> Shared<C> {
    #[must_use]
    pub fn new(connect: C, params: ClientParams) -> Self {
        Self(Arc::new(Inner {
            connect,
            params,
            pool: Mutex::default(),
        }))
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

    /// An open connection with room for one more request.
    #[must_use]
    pub fn ready_now(&self) -> Option<Client> {
        match self.0.pool.lock().choose() {
            Choice::Room(client) => Some(client),
            Choice::Crowded(_) | Choice::Full(_) | Choice::None => None,
        }
    }

    /// An open connection, or a new one.
    ///
    /// # Errors
    /// When there is none and none can be made.
    pub async fn ready(&self) -> Result<Client, Error> {
        let (full, opening) = {
            let mut pool = self.0.pool.lock();
            match pool.choose() {
                Choice::Room(client) => return Ok(client),
                Choice::Crowded(client) => {
                    self.open_further(&mut pool);
                    return Ok(client);
                }
                Choice::Full(client) => match self.open_further(&mut pool) {
                    Some(opening) => (Some(client), opening),
                    None => return Ok(client),
                },
                Choice::None => (None, self.open(&mut pool)),
            }
        };
        match (opened(opening).await, full) {
            (Ok(client), _) | (Err(_), Some(client)) => Ok(client),
            (Err(error), None) => Err(error),
        }
    }

    fn open_further(&self, pool: &mut Pool) -> Option<Opening> {
        let lately = pool.refused.is_some_and(|at| at.elapsed() < PAUSE);
        (pool.open.len() < MAX_CONNECTIONS && !lately).then(|| self.open(pool))
    }

    /// Joins the attempt under way, or begins one. It has a task of its own: whoever began it may be given up while
    /// others wait.
    fn open(&self, pool: &mut Pool) -> Opening {
        if let Some(opening) = &pool.opening {
            return opening.clone();
        }
        let (sender, opening) = watch::channel(None);
        pool.opening = Some(opening.clone());
        let inner = self.0.clone();
        tokio::spawn(async move {
            let result = inner.connect().await;
            inner.pool.lock().opened(&result);
            sender.send_replace(Some(result));
        });
        opening
    }
}

impl<C: Connect> Inner<C> {
    async fn connect(&self) -> Result<Client, Error> {
        let io = self.connect.connect().await?;
        Client::connect(io, &self.params).await
    }
}

async fn opened(mut opening: Opening) -> Result<Client, Error> {
    let ended = || Error::new(Cause::Internal, "the connection's task has ended").unsent();
    match opening.wait_for(Option::is_some).await {
        Ok(result) => result.clone().unwrap_or_else(|| Err(ended())),
        Err(_) => Err(ended()),
    }
}

impl Pool {
    fn choose(&mut self) -> Choice {
        self.open.retain(|client| !client.is_closed());
        self.retire();
        if let Some(roomy) = self.open.iter().find(|client| client.has_room(MANY_STREAMS)) {
            return Choice::Room(roomy.clone());
        }
        let Some(least) = self.open.iter().min_by_key(|client| client.streams()) else {
            return Choice::None;
        };
        if least.has_room(usize::MAX) {
            Choice::Crowded(least.clone())
        } else {
            Choice::Full(least.clone())
        }
    }

    /// Closes the last connection when it is idle and the first could do with twice as much.
    fn retire(&mut self) {
        let [first, .., last] = self.open.as_slice() else {
            return;
        };
        if last.streams() == 0 && first.has_room(MANY_STREAMS) && first.streams() < MANY_STREAMS / 2 {
            self.open.pop();
        }
    }

    fn opened(&mut self, result: &Result<Client, Error>) {
        self.opening = None;
        match result {
            Ok(client) => {
                self.refused = None;
                self.open.push(client.clone());
            }
            Err(error) => {
                debug!(%error, "no connection");
                self.refused = Some(Instant::now());
            }
        }
    }
}

/// How many connections may end before a request is sent on one.
const ATTEMPTS: usize = 3;
/// From so many requests on at the same time a further connection is worth its cost: one task handles each.
const MANY_STREAMS: usize = 256;
const MAX_CONNECTIONS: usize = 8;
/// Between attempts to get a further connection.
const PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Body;
    use http_body_util::BodyExt as _;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use tokio::{io::DuplexStream, sync::Semaphore};

    /// A server that answers a request when it is allowed to, and takes `limit` at a time on each connection.
    #[derive(Clone)]
    struct Server {
        limit: u32,
        dialled: Arc<AtomicUsize>,
        answers: Arc<Semaphore>,
        reachable: bool,
    }

    impl Server {
        fn new(limit: u32) -> Self {
            Self {
                limit,
                dialled: Arc::default(),
                answers: Arc::new(Semaphore::new(0)),
                reachable: true,
            }
        }

        async fn serve(self, io: DuplexStream) {
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(self.limit);
            let mut connection = builder.handshake::<_, bytes::Bytes>(io).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let answers = self.answers.clone();
                tokio::spawn(async move {
                    answers.acquire().await.unwrap().forget();
                    let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
                    stream.send_data("x".into(), true).unwrap();
                });
            }
        }
    }

    impl Connect for Server {
        type Io = DuplexStream;

        async fn connect(&self) -> Result<DuplexStream, Error> {
            self.dialled.fetch_add(1, Relaxed);
            if !self.reachable {
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Err(Error::new(Cause::ConnectTimeout, "nobody there"));
            }
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(self.clone().serve(far));
            Ok(near)
        }
    }

    fn request() -> Request {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = "http://test/".parse().unwrap();
        *request.version_mut() = http::Version::HTTP_2;
        request
    }

    /// `n` requests at the same time, all under way.
    async fn send(
        shared: &Arc<Shared<Server>>,
        n: usize,
    ) -> Vec<tokio::task::JoinHandle<Result<usize, Error>>> {
        let mut tasks = Vec::new();
        for _ in 0..n {
            let shared = shared.clone();
            tasks.push(tokio::spawn(async move {
                let response = shared.send(request()).await.map_err(|f| f.error)?;
                Ok(response.into_body().collect().await?.to_bytes().len())
            }));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tasks
    }

    fn open(shared: &Shared<Server>) -> usize {
        shared.0.pool.lock().open.len()
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_requests_share_one_failure() {
        let server = Server {
            reachable: false,
            ..Server::new(10)
        };
        let shared = Arc::new(Shared::new(server.clone(), ClientParams::default()));
        let start = Instant::now();
        for task in send(&shared, 20).await {
            assert_eq!(task.await.unwrap().unwrap_err().cause(), Cause::ConnectTimeout);
        }
        assert_eq!(server.dialled.load(Relaxed), 1);
        assert!(start.elapsed() < Duration::from_millis(1_100));
    }

    #[tokio::test(start_paused = true)]
    async fn who_began_to_connect_may_go() {
        let shared = Arc::new(Shared::new(Server::new(10), ClientParams::default()));
        let first = tokio::time::timeout(Duration::ZERO, shared.ready()).await;
        assert!(first.is_err());
        assert!(shared.ready().await.is_ok());
        assert_eq!(shared.0.connect.dialled.load(Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_connection_gets_company_which_leaves_when_it_is_idle() {
        let server = Server::new(10);
        let shared = Arc::new(Shared::new(server.clone(), ClientParams::default()));
        let first = send(&shared, 1).await;
        server.answers.add_permits(1);
        for task in first {
            assert_eq!(task.await.unwrap().unwrap(), 1);
        }
        let tasks = send(&shared, 25).await;
        assert_eq!(open(&shared), 3);
        server.answers.add_permits(25);
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap(), 1);
        }
        for _ in 0..3 {
            shared.ready().await.unwrap();
        }
        assert_eq!(open(&shared), 1);
        assert_eq!(server.dialled.load(Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_connections_is_bounded() {
        let server = Server::new(1);
        let shared = Arc::new(Shared::new(server.clone(), ClientParams::default()));
        server.answers.add_permits(1);
        for task in send(&shared, 1).await {
            task.await.unwrap().unwrap();
        }
        let tasks = send(&shared, 30).await;
        assert_eq!(open(&shared), MAX_CONNECTIONS);
        server.answers.add_permits(30);
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap(), 1);
        }
    }
}
