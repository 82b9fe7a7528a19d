//! CPU time and memory of another process, from `/proc`.

use std::time::Duration;

/// Length of a tick in `/proc/PID/stat`: `USER_HZ` is 100 on every Linux architecture in use.
const TICK: Duration = Duration::from_millis(10);

/// User and system time that all threads of the process have taken.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The command's name stands in parentheses and may hold anything; utime and stime are the 12th and 13th after it.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u32>().ok())
        .sum();
    TICK * ticks
}

/// Resident memory in KiB.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    field
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
