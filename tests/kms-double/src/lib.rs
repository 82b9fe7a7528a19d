#![doc = include_str!("../README.md")]

mod call;
pub mod console;
mod fault;
mod keys;
mod service;
mod wire;

use std::{convert::Infallible, fmt, io, net::SocketAddr, sync::Arc};

use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::service::Service;
pub use crate::{call::Call, fault::Action, keys::VersionState, service::Request};

/// Cloud KMS on a loopback socket. Clones are the same double; the socket closes with the last of them.
#[derive(Clone)]
pub struct KmsDouble {
    shared: Arc<Shared>,
}

struct Shared {
    address: SocketAddr,
    service: Arc<Service>,
    listening: Mutex<Option<JoinHandle<()>>>,
}

impl KmsDouble {
    /// Starts it on a free port. It needs a tokio runtime.
    ///
    /// # Errors
    /// What the socket met.
    pub fn start() -> io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Starts it at this address. It needs a tokio runtime.
    ///
    /// # Errors
    /// What the socket met.
    pub fn start_at(address: SocketAddr) -> io::Result<Self> {
        Self::serve(address, Service::default())
    }

    /// Another socket before the same keys, with faults and requests of its own: the service as another caller meets it,
    /// who has other rights.
    ///
    /// # Errors
    /// What the socket met.
    pub fn beside(&self) -> io::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::serve(address, self.service().beside())
    }

    fn serve(address: SocketAddr, service: Service) -> io::Result<Self> {
        let listener = listen(address)?;
        let shared = Shared {
            address: listener.local_addr()?,
            service: Arc::new(service),
            listening: Mutex::default(),
        };
        let double = Self {
            shared: Arc::new(shared),
        };
        double.accept(listener);
        Ok(double)
    }

    /// Its URL, `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// Closes the socket and all its connections. What it holds stays.
    pub async fn down(&self) {
        let listening = self.shared.listening.lock().take();
        if let Some(listening) = listening {
            listening.abort();
            // An error says that it was aborted.
            let _ = listening.await;
        }
    }

    /// Opens the socket again, at the same address.
    ///
    /// # Errors
    /// What the socket met.
    pub fn up(&self) -> io::Result<()> {
        if self.shared.listening.lock().is_none() {
            self.accept(listen(self.shared.address)?);
        }
        Ok(())
    }

    /// From now on every such request meets this, until [`clear`](Self::clear).
    pub fn fault(&self, call: Call, action: Action) {
        self.service().faults.lock().set(Some(call), action, None);
    }

    /// The next `times` such requests meet this.
    pub fn fault_times(&self, call: Call, action: Action, times: u32) {
        let mut faults = self.service().faults.lock();
        faults.set(Some(call), action, Some(times));
    }

    /// From now on every request meets this, until [`clear`](Self::clear).
    pub fn fault_all(&self, action: Action) {
        self.service().faults.lock().set(None, action, None);
    }

    /// No more faults.
    pub fn clear(&self) {
        self.service().faults.lock().clear();
    }

    /// The requests so far, in the order they came.
    pub fn requests(&self) -> Vec<Request> {
        self.service().requests.lock().clone()
    }

    /// How many requests of this call came so far.
    pub fn count(&self, call: Call) -> usize {
        let requests = self.service().requests.lock();
        requests
            .iter()
            .filter(|request| request.call == call)
            .count()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.service().requests.lock().clear();
    }

    /// Sets the state of the key version of this full name.
    ///
    /// # Errors
    /// What the service would say.
    pub fn set_state(&self, version: &str, state: VersionState) -> Result<(), String> {
        let result = self.service().keys.lock().set_state(version, state);
        result.map(drop).map_err(|refusal| refusal.message)
    }

    /// New versions are `PENDING_GENERATION` until they were looked at `looks` times.
    pub fn generate_after(&self, looks: u32) {
        self.service().keys.lock().looks_until_made = looks;
    }

    /// Whether encryption goes on with the old primary version after a new one was set. Turning it off catches up.
    pub fn lag_primary(&self, lag: bool) {
        let mut keys = self.service().keys.lock();
        keys.lag_primary = lag;
        if !lag {
            keys.catch_up();
        }
    }

    /// From now on each request has to bring `Authorization: Bearer <token>`, which `POST /token` gives.
    pub fn require_token(&self, token: &str) {
        *self.service().token.lock() = Some(token.to_owned());
    }

    fn service(&self) -> &Service {
        &self.shared.service
    }

    fn accept(&self, listener: TcpListener) {
        let service = Arc::clone(&self.shared.service);
        let task = tokio::spawn(async move {
            // Dropping the set with this task closes the connections too.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(connection(stream, Arc::clone(&service)));
                while connections.try_join_next().is_some() {}
            }
        });
        *self.shared.listening.lock() = Some(task);
    }
}

impl fmt::Debug for KmsDouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KmsDouble")
            .field("address", &self.shared.address)
            .finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(listening) = self.listening.lock().take() {
            listening.abort();
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // The address is used again right after connections on it were closed from this side.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

async fn connection(stream: TcpStream, service: Arc<Service>) -> Result<(), Infallible> {
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let service = Arc::clone(&service);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?;
            service.answer(&head, body.to_bytes()).await
        }
    });
    // A client that goes away is no error here, and a hang-up on demand is the test's own.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    Ok(())
}

#[cfg(test)]
mod tests;
