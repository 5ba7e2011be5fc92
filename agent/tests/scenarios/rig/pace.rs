//! Writers at work on a thread of their own, at a pace, with rotations.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::Writer;

/// How fast, and when a rotation is due.
#[derive(Clone, Copy)]
pub(crate) struct Rhythm {
    /// Between two writes to each file.
    pub(crate) every: Duration,
    /// Lines in one write.
    pub(crate) lines: usize,
    /// Between two rotations of each file.
    pub(crate) rotation: Duration,
    /// Rotated files that are kept.
    pub(crate) kept: u32,
}

/// See the module.
pub(crate) struct Paced {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Writer>>,
}

impl Paced {
    pub(crate) fn start(mut writers: Vec<Writer>, rhythm: Rhythm) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let step = rhythm.rotation / u32::try_from(writers.len()).unwrap();
            // Rotations are spread evenly, so that some file is always in the middle of one.
            let begun = Instant::now();
            let mut due: Vec<Instant> = (1..).map(|at| begun + step * at).take(writers.len()).collect();
            while !over.load(Ordering::Relaxed) {
                for (writer, due) in writers.iter_mut().zip(&mut due) {
                    writer.write(rhythm.lines);
                    if Instant::now() >= *due {
                        // What is late is not made up for: a generation lives at least as long as it should.
                        *due = Instant::now() + rhythm.rotation;
                        writer.rotate(rhythm.kept);
                    }
                }
                std::thread::sleep(rhythm.every);
            }
            writers
        });
        Self { done, thread }
    }

    /// Stops writing.
    pub(crate) fn finish(self) -> Vec<Writer> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
