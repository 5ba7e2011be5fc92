//! All hits as one stream of lines: bounded memory, one consistent view, however long it takes.
//!
//! A thread reads the hits and hands chunks over a short queue; a client that takes nothing for a minute is given up, so
//! that it does not hold the view's files for ever. A stream that ends early ends with an error, never as if it were
//! whole.

use std::{io, ops::ControlFlow, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::stream::Stream;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, mpsc},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{Prepared, SearchError};

/// Bytes that are sent at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Chunks that wait for the client.
const CHUNKS_QUEUED_MAX: usize = 4;

/// How long a client may take nothing.
const STALLED_MAX: Duration = Duration::from_secs(60);

type Chunk = Result<Bytes, io::Error>;

/// Starts an export; `permit` is given back when it has ended.
pub(super) fn stream(prepared: Prepared, permit: OwnedSemaphorePermit) -> impl Stream<Item = Chunk> {
    let (chunks, stream) = mpsc::channel(CHUNKS_QUEUED_MAX);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let export = Export { chunks, runtime, buffer: BytesMut::with_capacity(CHUNK_BYTES) };
        export.run(&prepared);
    });
    ReceiverStream::new(stream)
}

struct Export {
    chunks: mpsc::Sender<Chunk>,
    runtime: Handle,
    buffer: BytesMut,
}

impl Export {
    fn run(mut self, prepared: &Prepared) {
        // An export has no deadline of its own: it ends with its hits, or with its client.
        let search = prepared.search(std::time::Instant::now());
        let result = search.all(|document| {
            self.buffer.extend_from_slice(&document);
            self.buffer.extend_from_slice(b"\n");
            if self.buffer.len() < CHUNK_BYTES { ControlFlow::Continue(()) } else { self.flush() }
        });
        match result {
            Ok(()) => {
                let _ = self.flush();
            }
            Err(error) => self.fail(error),
        }
    }

    fn flush(&mut self) -> ControlFlow<()> {
        let chunk = self.buffer.split().freeze();
        if chunk.is_empty() { ControlFlow::Continue(()) } else { self.send(Ok(chunk)) }
    }

    fn fail(&mut self, error: SearchError) {
        tracing::warn!(%error, "an export ended early");
        let _ = self.send(Err(io::Error::other(error)));
    }

    fn send(&self, chunk: Chunk) -> ControlFlow<()> {
        match self.runtime.block_on(tokio::time::timeout(STALLED_MAX, self.chunks.send(chunk))) {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) | Err(_) => ControlFlow::Break(()),
        }
    }
}
