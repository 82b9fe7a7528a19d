//! The yardstick: CONNECT, TLS on both sides and Pingora's stock proxy between them. No lease, no policy, no record,
//! no injection, no scrubbing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::ServerApp as _;
use pingora::listeners::tls::Acceptor;
use pingora::prelude::{HttpPeer, ProxyHttp, Session};
use pingora::protocols::l4::stream::Stream;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::{HOST, certificates};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the certificates are
    #[arg(long)]
    certificates: PathBuf,
    /// Where every request goes
    #[arg(long)]
    upstream: SocketAddr,
}

struct Front {
    acceptor: Acceptor,
    proxy: Arc<HttpProxy<Forward>>,
    shutdown: watch::Receiver<bool>,
}

/// Serves until its future is dropped.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let roots = args
        .certificates
        .join("upstream-ca.pem")
        .display()
        .to_string();
    let conf = ServerConf {
        ca_file: Some(roots),
        upstream_keepalive_pool_size: 1024,
        ..ServerConf::default()
    };
    let (_running, shutdown) = watch::channel(false);
    let front = Arc::new(Front {
        acceptor: Acceptor::from_server_config(certificates::server(
            &args.certificates,
            "interception",
            &[b"h2", b"http/1.1"],
        )?),
        proxy: Arc::new(http_proxy(
            &Arc::new(conf),
            Forward {
                upstream: args.upstream,
            },
        )),
        shutdown,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (tcp, _) = listener.accept().await?;
        let front = Arc::clone(&front);
        // A connection that breaks is the client's to report.
        tokio::spawn(async move { front.serve(tcp).await });
    }
}

impl Front {
    async fn serve(&self, mut tcp: TcpStream) -> anyhow::Result<()> {
        tcp.set_nodelay(true)?;
        accept_connect(&mut tcp).await?;
        let tls = self.acceptor.tls_handshake(Stream::from(tcp)).await?;
        let mut next: Option<pingora::protocols::Stream> = Some(Box::new(tls));
        while let Some(stream) = next {
            next = self.proxy.process_new(stream, &self.shutdown).await;
        }
        Ok(())
    }
}

/// Reads the head of a CONNECT and agrees to it. A client says nothing more before it has the answer.
async fn accept_connect(tcp: &mut TcpStream) -> anyhow::Result<()> {
    let mut head = Vec::with_capacity(2048);
    while !head.ends_with(b"\r\n\r\n") {
        anyhow::ensure!(
            head.len() < 16 * 1024 && tcp.read_buf(&mut head).await? > 0,
            "no whole head"
        );
    }
    anyhow::ensure!(head.starts_with(b"CONNECT "), "no CONNECT");
    tcp.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n")
        .await?;
    Ok(())
}

struct Forward {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(
            self.upstream,
            true,
            HOST.to_owned(),
        )))
    }
}
