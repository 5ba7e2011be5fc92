//! Standard input.
//!
//! It is read on a thread of its own that waits in poll(2) for input or for the wish to stop: reading it in any other way
//! would either hold up the end of the process until a line comes, or put the terminal that the process shares with its
//! shell into a mode that the shell does not expect.
//!
//! What was taken out of a pipe is nowhere else: at a stop all of it is handed over, and the rest stays in the pipe for
//! whoever reads on.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::{io::AsyncRead, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{io::StreamReader, sync::CancellationToken};

use super::{
    lines::{Cutter, PumpError, pump},
    outlet::Outlet,
    standing::Part,
};
use crate::lines::Framing;

const CHUNK_BYTES: usize = 64 * 1024;

/// Reads the process's standard input to its end, or until `stop`.
pub(super) async fn run(framing: Framing, patience: Duration, outlet: Outlet, part: Part, stop: CancellationToken) {
    match io::stdin().as_fd().try_clone_to_owned() {
        Ok(stdin) => follow(stdin, framing, patience, outlet, part, stop).await,
        Err(error) => part.fail(format!("standard input cannot be read: {error}")),
    }
}

/// As [`run`], from any descriptor that can be waited for.
pub(super) async fn follow(
    stdin: OwnedFd,
    framing: Framing,
    patience: Duration,
    outlet: Outlet,
    part: Part,
    stop: CancellationToken,
) {
    let (bell, rope) = match io::pipe() {
        Ok(pipe) => pipe,
        Err(error) => return part.fail(format!("standard input cannot be waited for: {error}")),
    };
    let (sender, receiver) = mpsc::channel(1);
    let reading = tokio::task::spawn_blocking(move || read(File::from(stdin), &bell, &sender));
    let source = StreamReader::new(ReceiverStream::new(receiver));
    let ring = async move {
        stop.cancelled().await;
        // The thread leaves, and with it the channel ends: behind what was read by then.
        drop(rope);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = ring => {}
        () = read_all(source, &framing, patience, &outlet, &part) => {}
    }
    // Bell and channel are gone in any case, so that the thread leaves whatever it waits for.
    if let Err(error) = reading.await {
        part.fail(format!("the thread that reads standard input failed: {error}; restart the agent"));
    }
}

/// Reads anything to its end.
pub(super) async fn read_all(
    source: impl AsyncRead + Unpin,
    framing: &Framing,
    patience: Duration,
    outlet: &Outlet,
    part: &Part,
) {
    part.well();
    let cutter = Cutter::new(framing, outlet.record_bytes_max);
    match pump(source, cutter, outlet, patience).await {
        Ok(()) => tracing::info!("standard input is read to its end"),
        Err(PumpError::Closed(_)) => {}
        Err(PumpError::Read(error)) => part.fail(format!("standard input cannot be read: {error}")),
    }
}

/// Sends what comes until the end, an error, or the other end of the bell is dropped. What was read is sent by then.
fn read(mut stdin: File, bell: &io::PipeReader, sender: &mpsc::Sender<io::Result<Bytes>>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let mut waits = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(bell, PollFlags::IN)];
        match poll(&mut waits, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return drop(sender.blocking_send(Err(error.into()))),
            Ok(_) if !waits[1].revents().is_empty() => return,
            Ok(_) => {}
        }
        let chunk = match stdin.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => Ok(Bytes::copy_from_slice(&buffer[..length])),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => continue,
            Err(error) => Err(error),
        };
        let failed = chunk.is_err();
        if sender.blocking_send(chunk).is_err() || failed {
            return;
        }
    }
}
