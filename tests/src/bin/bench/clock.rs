//! Processor time: of this process, and of another.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// Processor time of this process so far, all threads.
pub(crate) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Processor time of another process so far, in steps of 10 ms.
pub(crate) fn cpu_of(pid: i32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command in parentheses may hold blanks; utime and stime are fields 14 and 15, the 12th and 13th behind it.
    let (_, behind) = text.rsplit_once(')').context("a stat without a command")?;
    let ticks: u64 = behind.split_whitespace().skip(11).take(2).map(|field| field.parse().unwrap_or(0)).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// Runs something and returns its result, this process's processor time, and the time on the wall.
pub(crate) fn measured<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration, Duration)> {
    let (cpu, wall) = (own_cpu(), Instant::now());
    let result = work()?;
    Ok((result, own_cpu() - cpu, wall.elapsed()))
}
