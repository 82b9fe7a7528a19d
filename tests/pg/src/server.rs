//! One server: its directory, its process, its databases.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::command::{as_server, eventually, free_port, give, output, program};
use crate::{Database, PASSWORD, USER};

/// A Postgres server.
#[derive(Debug)]
pub struct Server {
    pub(crate) directory: PathBuf,
    pub(crate) port: u16,
    /// The process, if it is the caller's own and runs.
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    _directory: TempDir,
    process: Mutex<Option<Child>>,
}

/// A CA and what it signed, as PEM files.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The CA's certificate.
    pub ca: PathBuf,
}

impl Server {
    /// The server that all test processes of this machine's user share while they run.
    ///
    /// # Panics
    /// If Postgres is not installed or does not start.
    pub fn shared() -> &'static Self {
        crate::shared::join()
    }

    /// A server of the caller's own, which syncs.
    ///
    /// # Panics
    /// If Postgres is not installed or does not start.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings beside the usual, as in `postgresql.conf`.
    ///
    /// # Panics
    /// If Postgres is not installed or does not start.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("pg")
            .tempdir()
            .expect("a directory can be made");
        let path = directory.path().to_owned();
        make(&path, settings);
        let server = Self {
            port: free_port(),
            directory: path,
            own: Some(Own {
                _directory: directory,
                process: Mutex::default(),
            }),
        };
        server.resume();
        watch(&server.directory);
        server.add_role();
        server
    }

    /// A server with TLS, whose certificate is for `name` alone.
    ///
    /// # Panics
    /// If Postgres is not installed or does not start.
    pub fn start_with_tls(name: &str) -> (Self, Certificates) {
        let server = Self::start();
        let ca = server.give_certificate(name);
        server.stop();
        server.resume();
        (server, Certificates { ca })
    }

    /// One that some process started in `directory`.
    pub(crate) const fn at(directory: PathBuf, port: u16) -> Self {
        Self {
            directory,
            port,
            own: None,
        }
    }

    /// The port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its unix socket.
    pub fn socket_directory(&self) -> &Path {
        &self.directory
    }

    /// A new, empty database, owned by [`USER`].
    pub fn database(&self) -> Database<'_> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        self.admin("postgres", &format!("DROP DATABASE IF EXISTS {name}"));
        self.admin("postgres", &format!("CREATE DATABASE {name} OWNER {USER}"));
        Database { server: self, name }
    }

    pub(crate) fn drop_database(&self, name: &str) {
        // It may have been stopped by its test.
        let _ = self
            .psql("postgres")
            .args([
                "-c",
                &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            ])
            .output();
    }

    /// Where a database of that name is, with user and password.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// Runs statements as the superuser; gives the rows as text without headings.
    ///
    /// # Panics
    /// If one fails.
    pub fn admin(&self, database: &str, statements: &str) -> String {
        output(self.psql(database).args(["-c", statements]))
    }

    /// What it has logged.
    ///
    /// # Panics
    /// If the log cannot be read.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).expect("the server has a log")
    }

    /// Ends it in order, with a last checkpoint, and waits until it has ended.
    ///
    /// # Panics
    /// If it is the shared one.
    pub fn stop(&self) {
        self.end(Signal::SIGINT);
    }

    /// Ends it at once, as a crash would, and waits until all its processes have ended.
    ///
    /// # Panics
    /// If it is the shared one.
    pub fn kill(&self) {
        self.end(Signal::SIGQUIT);
    }

    /// Ends all of its processes as `kill -9` does: nobody is told, and nothing is tidied up.
    ///
    /// # Panics
    /// If it is the shared one.
    pub fn crash(&self) {
        // Held first, so that no process is made between the look and the end.
        self.freeze();
        self.signal_all(Signal::SIGKILL);
        self.end(Signal::SIGKILL);
    }

    fn end(&self, signal: Signal) {
        let own = self.own.as_ref().expect("the shared server is not ended");
        if let Some(mut process) = own.process.lock().take() {
            let _ = kill(pid(&process), signal);
            process.wait().expect("a child can be waited for");
        }
    }

    /// Holds all of its processes where they are: connections stay open, and nothing answers.
    pub fn freeze(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    fn signal_all(&self, signal: Signal) {
        let own = self.own.as_ref().expect("the shared server is not held");
        let process = own.process.lock();
        let postmaster = pid(process.as_ref().expect("it runs"));
        let children = format!("/proc/{postmaster}/task/{postmaster}/children");
        let mut pids = vec![postmaster];
        let children = fs::read_to_string(children).unwrap_or_default();
        pids.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .map(Pid::from_raw),
        );
        for pid in pids {
            let _ = kill(pid, signal);
        }
    }

    /// Starts it again, and waits until it answers.
    ///
    /// # Panics
    /// If it is the shared one or does not start.
    pub fn resume(&self) {
        let own = self.own.as_ref().expect("the shared server is not ended");
        let mut process = own.process.lock();
        if process.is_none() {
            *process = Some(spawn(&self.directory, self.port));
        }
        drop(process);
        self.wait();
    }

    pub(crate) fn wait(&self) {
        eventually("a start of Postgres", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
                && self
                    .psql("postgres")
                    .args(["-c", "SELECT 1"])
                    .output()
                    .is_ok_and(|done| done.status.success())
        });
    }

    pub(crate) fn add_role(&self) {
        let make = format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'");
        self.admin("postgres", &make);
    }

    fn psql(&self, database: &str) -> Command {
        let mut psql = as_server(program("psql"));
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
        ])
        .args(["-p", &self.port.to_string(), "-d", database])
        .arg("-h")
        .arg(&self.directory);
        psql
    }

    /// Has a new CA sign a certificate for `name`, and Postgres use it from its next start on.
    fn give_certificate(&self, name: &str) -> PathBuf {
        let ca_key = rcgen::KeyPair::generate().expect("a key can be made");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).expect("a CA can be made");
        let issuer = rcgen::Issuer::new(params, ca_key);
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])
            .and_then(|params| params.signed_by(&key, &issuer))
            .expect("a certificate can be made");
        let data = self.directory.join("data");
        let files = [
            ("server.crt", certificate.pem()),
            ("server.key", key.serialize_pem()),
        ];
        for (file, pem) in files {
            let path = data.join(file);
            write(&path, &pem, 0o600);
            give(&path);
        }
        let mut settings =
            fs::read_to_string(data.join("postgresql.conf")).expect("the server has settings");
        settings.push_str("ssl = on\n");
        write(&data.join("postgresql.conf"), &settings, 0o600);
        let path = self.directory.join("ca.pem");
        write(&path, &ca.pem(), 0o644);
        path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.own.is_some() {
            self.thaw_if_running();
            self.kill();
        }
    }
}

impl Server {
    fn thaw_if_running(&self) {
        let runs = self
            .own
            .as_ref()
            .is_some_and(|own| own.process.lock().is_some());
        if runs {
            self.thaw();
        }
    }
}

/// Makes a cluster under `directory`.
pub(crate) fn make(directory: &Path, settings: &[(&str, &str)]) {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
        .expect("the directory is this process's");
    give(directory);
    let data = directory.join("data");
    output(
        as_server(program("initdb"))
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"])
            .args(["--no-instructions", "--locale=C.UTF-8"])
            .arg("-D")
            .arg(&data),
    );
    let mut text = String::new();
    let usual = [
        ("listen_addresses", "127.0.0.1"),
        ("max_connections", "300"),
        ("unix_socket_permissions", "0777"),
        ("shared_buffers", "64MB"),
        ("password_encryption", "scram-sha-256"),
        ("log_min_messages", "warning"),
    ];
    for (name, value) in usual.iter().chain(settings) {
        let _ = writeln!(text, "{name} = '{value}'");
    }
    let _ = writeln!(text, "unix_socket_directories = '{}'", directory.display());
    write(&data.join("postgresql.conf"), &text, 0o600);
    give(&data.join("postgresql.conf"));
    // The superuser comes through the socket, everyone else by password.
    let rules = "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\nlocal all all scram-sha-256\n";
    write(&data.join("pg_hba.conf"), rules, 0o600);
    give(&data.join("pg_hba.conf"));
}

/// Starts the server of `directory`, without waiting for it.
pub(crate) fn spawn(directory: &Path, port: u16) -> Child {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .expect("a log can be made");
    as_server(program("postgres"))
        .arg("-D")
        .arg(directory.join("data"))
        .args(["-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
        .expect("postgres can be started")
}

/// Ends the server of `directory` when this process has ended, however it ended.
#[expect(clippy::zombie_processes, reason = "it outlives this process")]
fn watch(directory: &Path) {
    let script = "while kill -0 \"$1\" 2>/dev/null; do sleep 1; done; \
        pid=$(head -n 1 \"$2/data/postmaster.pid\" 2>/dev/null) && kill -CONT \"$pid\" && kill -QUIT \"$pid\"; \
        sleep 1; rm -rf \"$2\"";
    Command::new("sh")
        .args(["-c", script, "sh", &std::process::id().to_string()])
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("a shell can be started");
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("the directory is this process's");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the file is too");
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}
