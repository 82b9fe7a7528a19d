//! What this process asks of the kernel so that secrets stay in its memory.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};

/// Files of this process are its user's alone, and its memory is in no core dump.
///
/// Each measure stands alone: a kernel that refuses one still gets the others, and the refusal is returned as text.
pub(crate) fn harden() -> Vec<String> {
    umask(Mode::from_bits_truncate(0o077));
    let mut refused = Vec::new();
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        refused.push(format!("core dumps stay on ({error})"));
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // Also keeps processes of the same user from reading this one's memory by ptrace or /proc/PID/mem.
        if let Err(error) = nix::sys::prctl::set_dumpable(false) {
            refused.push(format!(
                "the process stays readable to its user's others ({error})"
            ));
        }
        if let Err(error) = nix::sys::prctl::set_no_new_privs() {
            refused.push(format!("privileges may still be gained by exec ({error})"));
        }
    }
    refused
}

/// How many files this process may have open, after asking for as many as it may ask for; `None` where nobody tells.
pub(crate) fn open_files() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    Some(if raised { hard } else { soft })
}

/// Keeps other processes of the same user from reading this one's memory, and it from core dumps.
///
/// Unlike [`harden`], nothing of this passes on to a program that this process starts.
pub(crate) fn keep_memory_private() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // A kernel without it leaves what every process of the user can do anyway.
        let _ = nix::sys::prctl::set_dumpable(false);
    }
}
