//! pgbouncer in transaction mode.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::command::{as_server, eventually, free_port, give};
use crate::{PASSWORD, Server, USER};

/// A pooler before a server, ended when dropped.
#[derive(Debug)]
pub struct Pooler {
    _directory: TempDir,
    process: Child,
    port: u16,
}

impl Pooler {
    /// Starts pgbouncer with `connections` to the server a database: with few, transactions of one
    /// client go to many servers in turn.
    ///
    /// # Panics
    /// If pgbouncer is not installed or does not start.
    pub fn start(server: &Server, connections: u32) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("pgb")
            .tempdir()
            .expect("a directory can be made");
        let path = directory.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
            .expect("the directory is this process's");
        let port = free_port();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={server_port}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {path}/users\npool_mode = transaction\n\
             default_pool_size = {connections}\nmax_client_conn = 500\nserver_round_robin = 1\n\
             server_login_retry = 1\n\
             server_tls_sslmode = disable\n",
            server_port = server.port(),
            path = path.display(),
        );
        let users = format!("\"{USER}\" \"{PASSWORD}\"\n");
        for (name, text) in [("settings", settings), ("users", users)] {
            fs::write(path.join(name), text).expect("the directory is this process's");
            give(&path.join(name));
        }
        let process = as_server("pgbouncer")
            .arg("-q")
            .arg(path.join("settings"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("pgbouncer does not start: {error}; install it"));
        let pooler = Self {
            _directory: directory,
            process,
            port,
        };
        eventually("a start of pgbouncer", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        pooler
    }

    /// Where a database of that name is, through the pooler.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}",
            self.port
        )
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = kill(
            Pid::from_raw(self.process.id().cast_signed()),
            Signal::SIGKILL,
        );
        let _ = self.process.wait();
    }
}
