//! The server that test processes share: the first starts it, and it ends after the last.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nix::unistd::geteuid;

use crate::command::{free_port, program};
use crate::server::{Server, make, spawn};

/// Ends the server once no process in `users` has run for three looks in a row.
///
/// `$1`: the directory that is shared; `$2`: the server's own; `$3`: its process.
const GUARDIAN: &str = r#"
in_use() { for user in "$1"/users/*; do kill -0 "${user##*/}" 2>/dev/null && return 0; done; return 1; }
idle=0
while kill -0 "$3" 2>/dev/null; do
    sleep 2
    if in_use "$1"; then idle=0; continue; fi
    idle=$((idle + 1))
    [ "$idle" -ge 3 ] || continue
    exec 9>"$1/lock"
    flock 9
    if in_use "$1"; then exec 9>&-; idle=0; continue; fi
    rm -f "$1/state" "$1"/users/*
    exec 9>&-
    kill -QUIT "$3"
    break
done
sleep 1
rm -rf "$2"
"#;

/// Registers this process as a user of the shared server.
pub(crate) fn join() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("claviger-test-postgres-{}", geteuid()));
        fs::create_dir_all(directory.join("users")).expect("a directory can be made");
        let lock = File::create(directory.join("lock")).expect("a file can be made");
        lock.lock().expect("the lock can be waited for");
        let user = directory.join("users").join(std::process::id().to_string());
        File::create(user).expect("a file can be made");
        let server = running(&directory).unwrap_or_else(|| start(&directory));
        drop(lock);
        server
    })
}

/// The server that `state` tells of, if it still answers.
fn running(directory: &Path) -> Option<Server> {
    let state = fs::read_to_string(directory.join("state")).ok()?;
    let (port, cluster) = state.trim_end().split_once(' ')?;
    let port = port.parse().ok()?;
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    Some(Server::at(PathBuf::from(cluster), port))
}

#[expect(clippy::zombie_processes, reason = "it outlives this process")]
fn start(directory: &Path) -> Server {
    let cluster = tempfile::Builder::new()
        .prefix("pg")
        .tempdir()
        .expect("a directory can be made")
        .keep();
    make(
        &cluster,
        &[
            ("fsync", "off"),
            ("full_page_writes", "off"),
            ("max_wal_size", "256MB"),
            ("autovacuum", "off"),
        ],
    );
    let port = free_port();
    let process = spawn(&cluster, port);
    guard(directory, &cluster, process.id());
    let server = Server::at(cluster, port);
    server.wait();
    server.add_role();
    let state = format!("{port} {}\n", server.directory.display());
    fs::write(directory.join("state"), state).expect("a file can be made");
    server
}

#[expect(clippy::zombie_processes, reason = "it outlives this process")]
fn guard(directory: &Path, cluster: &Path, process: u32) {
    assert!(program("postgres").exists(), "install postgresql");
    Command::new("sh")
        .args(["-c", GUARDIAN, "sh"])
        .arg(directory)
        .arg(cluster)
        .arg(process.to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("a shell can be started");
}
