//! Whether a connection on loopback comes from the program that this process started, or from a process below it.
//!
//! A port of loopback is open to every process of the machine, and the helper's opens without a lease. So each connection
//! is asked for its owner: the kernel's table of sockets names the inode of its other end, and that has to be open in a
//! process below this one. Processes whose parent has ended stay below it, since it adopts them.

#[cfg(target_os = "linux")]
pub(super) use linux::Kin;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Kin;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::{HashMap, HashSet};
    use std::net::SocketAddr;

    use anyhow::Context as _;
    use nix::sys::wait::{WaitPidFlag, waitpid};
    use nix::unistd::Pid;
    use procfs::process::{FDTarget, Process, all_processes};

    /// The processes below this one.
    #[derive(Clone, Copy, Debug)]
    pub(in crate::commands::run) struct Kin {
        root: i32,
    }

    impl Kin {
        /// Adopts from now on what the program leaves behind.
        ///
        /// # Errors
        /// A kernel that does not let it, or without `/proc`.
        pub(in crate::commands::run) fn of_this_process() -> anyhow::Result<Self> {
            nix::sys::prctl::set_child_subreaper(true)
                .context("processes that the program leaves behind cannot be adopted")?;
            procfs::net::tcp().context("/proc does not tell whose a connection is")?;
            Ok(Self {
                root: Pid::this().as_raw(),
            })
        }

        /// Whether the end `theirs` of the connection to `ours` is open in a process below this one. Reads `/proc`, which
        /// takes milliseconds.
        pub(in crate::commands::run) fn owns(self, theirs: SocketAddr, ours: SocketAddr) -> bool {
            let Some(inode) = inode(theirs, ours) else {
                return false;
            };
            self.below()
                .into_iter()
                .any(|id| Process::new(id).is_ok_and(|process| has_open(&process, inode)))
        }

        /// Takes leave of adopted processes that have ended, so that none stays as a zombie. `program` is waited for
        /// elsewhere.
        pub(in crate::commands::run) fn reap(self, program: Option<u32>) {
            let adopted = all_processes().into_iter().flatten().flatten();
            for process in adopted {
                let Ok(stat) = process.stat() else { continue };
                let is_program = u32::try_from(stat.pid).ok() == program;
                if stat.ppid == self.root && stat.state == 'Z' && !is_program {
                    // Nobody else waits for it; if it is gone already, all the better.
                    let _ = waitpid(Pid::from_raw(stat.pid), Some(WaitPidFlag::WNOHANG));
                }
            }
        }

        fn below(self) -> Vec<i32> {
            let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
            for stat in all_processes()
                .into_iter()
                .flatten()
                .filter_map(|process| process.ok()?.stat().ok())
            {
                children.entry(stat.ppid).or_default().push(stat.pid);
            }
            let mut found = Vec::new();
            let mut seen = HashSet::from([self.root]);
            let mut open = vec![self.root];
            while let Some(id) = open.pop() {
                for child in children.remove(&id).into_iter().flatten() {
                    // Read one by one, the table may hold a loop of reused ids.
                    if seen.insert(child) {
                        found.push(child);
                        open.push(child);
                    }
                }
            }
            found
        }
    }

    /// The socket at the other end, as the kernel numbers it. A client with a socket for both families is listed as IPv6.
    fn inode(theirs: SocketAddr, ours: SocketAddr) -> Option<u64> {
        let is_it = |local: SocketAddr, remote: SocketAddr| {
            canonical(local) == theirs && canonical(remote) == ours
        };
        let v4 = procfs::net::tcp().unwrap_or_default();
        let v6 = procfs::net::tcp6().unwrap_or_default();
        v4.into_iter()
            .chain(v6)
            .find(|entry| is_it(entry.local_address, entry.remote_address))
            .map(|entry| entry.inode)
            .filter(|inode| *inode != 0)
    }

    fn canonical(address: SocketAddr) -> SocketAddr {
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    fn has_open(process: &Process, inode: u64) -> bool {
        process.fd().is_ok_and(|open| {
            open.flatten()
                .any(|file| matches!(file.target, FDTarget::Socket(of) if of == inode))
        })
    }

    #[cfg(test)]
    mod tests {
        use std::net::{TcpListener, TcpStream};
        use std::process::{Command, Stdio};

        use super::*;

        #[test]
        fn a_connection_of_this_process_itself_is_not_of_one_below_it() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let ours = listener.local_addr().unwrap();
            let theirs = TcpStream::connect(ours).unwrap();
            let kin = Kin {
                root: Pid::this().as_raw(),
            };
            assert!(!kin.owns(theirs.local_addr().unwrap(), ours));
        }

        #[test]
        fn a_connection_of_a_grandchild_is_known() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let ours = listener.local_addr().unwrap();
            let script = format!("exec 3<>/dev/tcp/127.0.0.1/{}; cat <&3", ours.port());
            let mut child = Command::new("bash")
                .args(["-c", &format!("bash -c '{script}'; true")])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let (accepted, theirs) = listener.accept().unwrap();
            let kin = Kin {
                root: Pid::this().as_raw(),
            };
            assert!(kin.owns(theirs, ours));
            let stranger = Kin {
                root: i32::try_from(child.id()).unwrap() + 1_000_000,
            };
            assert!(!stranger.owns(theirs, ours));
            drop(accepted);
            child.wait().unwrap();
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::net::SocketAddr;

    /// Nobody tells here whose a connection is.
    #[derive(Clone, Copy, Debug)]
    pub(in crate::commands::run) enum Kin {}

    impl Kin {
        pub(in crate::commands::run) fn of_this_process() -> anyhow::Result<Self> {
            anyhow::bail!("this system does not tell whose a connection is")
        }

        pub(in crate::commands::run) fn owns(self, _: SocketAddr, _: SocketAddr) -> bool {
            match self {}
        }

        pub(in crate::commands::run) fn reap(self, _: Option<u32>) {
            match self {}
        }
    }
}
