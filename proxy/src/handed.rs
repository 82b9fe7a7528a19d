//! Requests that the other plane of this process hands in, for callers whose address it knows.
//!
//! They come over a stream in memory and pass every step that a request from a socket passes. Only what the socket would tell
//! is told beside it: whose request it is. Nothing that is sent to a listener can say so.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// Hands requests to the injector of this process. Clones lead to the same one.
#[derive(Debug, Clone)]
pub struct Entrance(mpsc::Sender<Handed>);

/// The injector's end of an [`Entrance`].
#[derive(Debug)]
pub struct Arrivals(mpsc::Receiver<Handed>);

/// A connection that was handed in. It carries one request, in absolute form.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) stream: DuplexStream,
    /// Who sends what comes over it.
    pub(crate) client: IpAddr,
    /// The id that the request has already.
    pub(crate) request_id: String,
    /// Counts what is masked in the answer.
    pub(crate) masked: Arc<AtomicUsize>,
}

/// An entrance, and the end of it that [`ProxyDeps`](crate::ProxyDeps) take.
pub fn entrance() -> (Entrance, Arrivals) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Entrance(sender), Arrivals(receiver))
}

impl Entrance {
    /// Opens a connection for one request of `client`, which the injector records as `request_id`. It is HTTP/1.1 with an
    /// absolute target, without a CONNECT. Once the answer has been read, `masked` says how often the credential stood in it.
    /// `None` when the injector takes no more or has ended.
    pub fn connect(
        &self,
        client: IpAddr,
        request_id: &str,
        masked: &Arc<AtomicUsize>,
    ) -> Option<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let handed = Handed {
            stream: theirs,
            client,
            request_id: request_id.to_owned(),
            masked: Arc::clone(masked),
        };
        self.0.try_send(handed).ok().map(|()| ours)
    }
}

impl Arrivals {
    /// The next connection; `None` when nobody can hand in any more.
    pub(crate) async fn next(&mut self) -> Option<Handed> {
        self.0.recv().await
    }
}

/// Connections that wait for the accept loop, which takes them at once.
const WAITING: usize = 64;
/// What may be on its way in each direction.
const BUFFER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

    #[tokio::test]
    async fn a_connection_arrives_with_its_caller_and_its_id() {
        let (entrance, mut arrivals) = entrance();
        let _ours = entrance.connect(CALLER, "one", &Arc::default()).unwrap();
        let handed = arrivals.next().await.unwrap();
        assert_eq!((handed.client, &*handed.request_id), (CALLER, "one"));
    }

    #[tokio::test]
    async fn nothing_is_handed_to_an_injector_that_is_full_or_has_ended() {
        let (entrance, arrivals) = entrance();
        let kept: Vec<_> = (0..WAITING)
            .map(|_| entrance.connect(CALLER, "x", &Arc::default()).unwrap())
            .collect();
        assert!(entrance.connect(CALLER, "x", &Arc::default()).is_none());
        drop((arrivals, kept));
        assert!(entrance.connect(CALLER, "x", &Arc::default()).is_none());
    }
}
