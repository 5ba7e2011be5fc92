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
    Ok(Standing::of(pid)?.cpu)
}

/// Time so far that the threads of another process which live now were on a processor, to the nanosecond.
pub(crate) fn running_of(pid: i32) -> Result<Duration> {
    let mut nanos = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanos += text.split_whitespace().next().context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Processor time so far of another process and all that it has started and that still run, in steps of 10 ms each.
pub(crate) fn cpu_of_family(pid: i32) -> Result<Duration> {
    let entries = std::fs::read_dir("/proc")?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // What has ended since the directory was read counts for nothing.
    let all: Vec<(i32, Standing)> = pids.filter_map(|pid| Some((pid, Standing::of(pid).ok()?))).collect();
    let (mut family, mut cpu, mut next) = (vec![pid], Duration::ZERO, 0);
    while let Some(member) = family.get(next).copied() {
        next += 1;
        cpu += all.iter().find(|(pid, _)| *pid == member).context("the process is gone")?.1.cpu;
        family.extend(all.iter().filter(|(_, standing)| standing.parent == member).map(|(pid, _)| *pid));
    }
    Ok(cpu)
}

/// What the system says of a process.
struct Standing {
    parent: i32,
    cpu: Duration,
}

impl Standing {
    fn of(pid: i32) -> Result<Standing> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The command in parentheses may hold blanks; utime and stime are fields 14 and 15, the 12th and 13th behind it.
        let (_, behind) = text.rsplit_once(')').context("a stat without a command")?;
        let fields: Vec<&str> = behind.split_whitespace().collect();
        let parent = fields.get(1).context("a stat without a parent")?.parse()?;
        let ticks: u64 = fields.iter().skip(11).take(2).map(|field| field.parse().unwrap_or(0)).sum();
        let cpu = Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
        Ok(Standing { parent, cpu })
    }
}

/// Runs something and returns its result, this process's processor time, and the time on the wall.
pub(crate) fn measured<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration, Duration)> {
    let (cpu, wall) = (own_cpu(), Instant::now());
    let result = work()?;
    Ok((result, own_cpu() - cpu, wall.elapsed()))
}
