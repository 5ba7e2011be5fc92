//! Tails files once to nowhere and says what it cost: `tail_once zstd|snappy|none PATTERN…`.

use std::time::Instant;

use logmesh_agent::{Config, FilesConfig, tail_once};
use logmesh_proto::v1;

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let codec = match words.next().as_deref() {
        Some("zstd") => v1::Codec::Zstd,
        Some("snappy") => v1::Codec::Snappy,
        Some("none") => v1::Codec::None,
        Some(_) | None => anyhow::bail!("usage: tail_once zstd|snappy|none PATTERN..."),
    };
    let state = tempfile::tempdir()?;
    let files = FilesConfig { include: words.collect(), ..FilesConfig::default() };
    let config = Config { data_dir: state.path().into(), codec, files: vec![files], fresh: true, ..Config::default() };
    let (wall, cpu) = (Instant::now(), cpu_seconds());
    let mut encoded = 0;
    let tally = tail_once(&config, |parcel| encoded += parcel.encoded)?;
    let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let (bytes, records) = (tally.read_bytes as f64, tally.read_records);
    println!(
        "{records} records, {:.0} MB in {} batches, ratio {:.1}: {cpu:.2} s of CPU ({:.0} MB/s per core), {wall:.2} s",
        bytes / 1e6,
        tally.read_batches,
        bytes / encoded as f64,
        bytes / 1e6 / cpu
    );
    Ok(())
}

/// CPU time of this process so far.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
