//! Limits: what this machine allows at best, measured in the same run as what is compared to them.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::Result;

use crate::clock::measured;
use crate::corpus::Corpus;
use crate::table::{Cost, Row, megabytes};

/// Size of a read and of a block to compress: that of a batch.
const BLOCK: usize = 256 << 10;

/// Bytes of one group commit.
const GROUP: usize = 8 << 20;

/// Group commits of one measurement.
const GROUPS: u64 = 32;

/// What this machine allows.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Reading and finding lines, in bytes per core second.
    pub(crate) scan: f64,
    /// zstd level 1, in raw bytes per core second.
    pub(crate) zstd: f64,
    /// Raw snappy, in raw bytes per core second.
    pub(crate) snappy: f64,
    /// Writing and fdatasync of 8 MiB groups, in bytes per second.
    pub(crate) write: f64,
}

impl Limits {
    /// Measures them and prints their rows.
    pub(crate) fn measure(corpus: &Corpus) -> Result<Limits> {
        let scan = scan(corpus)?;
        scan.row("limit: pread 256 KiB, memchr, push u32 length").print();
        let mut zstd_context = zstd::bulk::Compressor::new(1)?;
        let zstd = compress(corpus, |block| Ok(zstd_context.compress(block)?.len()))?;
        zstd.row("limit: zstd 1 of 256 KiB blocks").print();
        let mut snappy_context = snap::raw::Encoder::new();
        let snappy = compress(corpus, |block| Ok(snappy_context.compress_vec(block)?.len()))?;
        snappy.row("limit: snappy of 256 KiB blocks").print();
        let write = write(corpus)?;
        Row {
            name: "limit: write and fdatasync of 8 MiB",
            figure: format!("{} on the wall", megabytes(write)),
            ..Row::default()
        }
        .print();
        Ok(Limits { scan: scan.bytes_per_core(), zstd: zstd.bytes_per_core(), snappy: snappy.bytes_per_core(), write })
    }
}

fn scan(corpus: &Corpus) -> Result<Cost> {
    let file = File::open(corpus.path())?;
    let ((bytes, lines), cpu, wall) = measured(|| {
        let mut block = vec![0; BLOCK];
        let mut lengths: Vec<u32> = Vec::with_capacity(BLOCK / 16);
        let (mut offset, mut lines) = (0, 0);
        loop {
            let read = file.read_at(&mut block, offset)?;
            if read == 0 {
                return Ok((offset, lines));
            }
            offset += read as u64;
            lengths.clear();
            let mut begin = 0;
            for end in memchr::memchr_iter(b'\n', &block[..read]) {
                lengths.push(u32::try_from(end - begin)?);
                begin = end + 1;
            }
            lines += std::hint::black_box(&lengths).len() as u64;
        }
    })?;
    Ok(Cost { bytes, lines, cpu, wall })
}

fn compress(corpus: &Corpus, mut codec: impl FnMut(&[u8]) -> Result<usize>) -> Result<Cost> {
    let rounds = (corpus.bytes / 4 / corpus.sample().len() as u64).max(1);
    let (_, cpu, wall) = measured(|| {
        let mut taken = 0;
        for _ in 0..rounds {
            for block in corpus.sample().chunks(BLOCK) {
                taken += codec(block)?;
            }
        }
        Ok(taken)
    })?;
    Ok(Cost { bytes: rounds * corpus.sample().len() as u64, lines: 0, cpu, wall })
}

fn write(corpus: &Corpus) -> Result<f64> {
    let mut file = File::create(corpus.scratch("limits")?.join("written"))?;
    let group = vec![b'x'; GROUP];
    let (_, _, wall): (_, _, Duration) = measured(|| {
        for _ in 0..GROUPS {
            file.write_all(&group)?;
            file.sync_data()?;
        }
        Ok(())
    })?;
    Ok((GROUP as u64 * GROUPS) as f64 / wall.as_secs_f64())
}
