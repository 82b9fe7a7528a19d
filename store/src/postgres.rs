//! Connections to Postgres: TLS, deadlines, and a pool that leaves no transaction behind.
//!
//! Nothing here relies on a session, so that pgbouncer may hand every transaction, and every
//! statement outside one, to another server: settings are `SET LOCAL`, locks end with their
//! transaction, and a statement is parsed, bound and executed in one message without a name.

use std::time::Duration;

use tokio_postgres::Client;

use crate::db::DatabaseError;
use crate::location::{PostgresUrl, Tls};

mod pool;
mod schema;
mod tls;

pub(crate) use pool::{Pool, Pooled};
pub(crate) use schema::migrate;

/// How long the whole way to a working connection may take: a server that was stopped, or a
/// firewall, accepts and then says nothing.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// Opens a connection, driven by a task of the current runtime.
pub(crate) async fn connect(url: &PostgresUrl) -> Result<Client, DatabaseError> {
    let deadline = url
        .config()
        .get_connect_timeout()
        .map_or(HANDSHAKE, |asked| *asked);
    tokio::time::timeout(deadline, open(url))
        .await
        .map_err(|_| DatabaseError::Late(deadline))?
}

async fn open(url: &PostgresUrl) -> Result<Client, DatabaseError> {
    let roots = match url.tls() {
        Tls::Off => {
            let (client, connection) = url.config().connect(tokio_postgres::NoTls).await?;
            drive(connection);
            return Ok(client);
        }
        Tls::SystemRoots => None,
        Tls::RootsIn(path) => Some(path.clone()),
    };
    let tls = tls::Connector::new(roots)
        .await
        .map_err(DatabaseError::Tls)?;
    let (client, connection) = url.config().connect(tls).await?;
    drive(connection);
    Ok(client)
}

fn drive<S, T>(connection: tokio_postgres::Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            // Whoever waits for an answer gets the error too.
            tracing::debug!(%error, "a connection to Postgres ended");
        }
    });
}

#[cfg(test)]
mod tests;
