//! Opening a journal, and the handle to it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use crate::lock::Lock;
use crate::owner::Owner;
use crate::queue::Queue;
use crate::recover::{Recovery, make_directory, recover};
use crate::settings::Settings;
use crate::storage::{Disk, Storage};
use crate::writer::Writer;
use crate::{AppendError, Log, OpenError, Options};

/// A journal that is recovered and can be read, but has no writer yet: the time for an owner to learn what it holds.
pub struct Opened {
    settings: Settings,
    storage: Arc<dyn Storage>,
    log: Log,
    recovery: Recovery,
    lock: Lock,
}

/// How a journal fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Appends pass.
    Ok,
    /// No room, or less than the reserve: appends fail as [`AppendError::Full`], and pass again by themselves.
    Full {
        /// What is full, where, and by how much.
        reason: String,
    },
    /// Poisoned: nothing passes until it is opened again.
    Failed {
        /// What failed, where, and what to do.
        reason: String,
    },
    /// Closed; everything that was queued before is answered.
    Closed,
}

/// An entry that was not queued.
#[derive(Debug)]
pub struct Refused<E> {
    /// The entry.
    pub entry: E,
    /// Why; `None` where the queue has no room now.
    pub error: Option<AppendError>,
}

/// An open journal: the way to its writer. Dropping it closes it and waits until the queue is written.
pub struct Journal<O: Owner> {
    queue: Arc<Queue<O::Entry>>,
    settings: Arc<Settings>,
    log: Log,
    state: watch::Receiver<State>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Opened {
    /// Locks, recovers and seals what is in the directory (made when missing).
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: Options) -> Result<Self, OpenError> {
        Self::open_on(options, Arc::new(Disk))
    }

    pub(crate) fn open_on(options: Options, storage: Arc<dyn Storage>) -> Result<Self, OpenError> {
        options.check()?;
        make_directory(&options.directory)?;
        let lock = Lock::take(&options.directory)?;
        let (segments, recovery) = recover(&options.directory, storage.as_ref())?;
        for damage in &recovery.damage {
            tracing::error!(directory = %options.directory.display(), %damage, "acknowledged entries cannot be read");
        }
        if recovery.torn_bytes > 0 {
            let bytes = recovery.torn_bytes;
            tracing::info!(directory = %options.directory.display(), bytes, "cut a torn tail that was never acknowledged");
        }
        let log = Log::new(options.directory.clone(), storage.clone(), segments);
        Ok(Self { settings: Settings::new(options), storage, log, recovery, lock })
    }

    /// What is there to read.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What was found.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Starts the writer.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start<O: Owner>(self, owner: O) -> Result<Journal<O>, OpenError> {
        let queue = Arc::new(Queue::new(self.settings.options.queue_bytes));
        let settings = Arc::new(self.settings);
        let (state, states) = watch::channel(State::Ok);
        let writer = Writer {
            owner,
            log: self.log.clone(),
            queue: queue.clone(),
            storage: self.storage,
            settings: settings.clone(),
            state,
            active: None,
            buffer: Vec::new(),
            pending: Vec::new(),
            _lock: self.lock,
        };
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || writer.run());
        let thread = thread.map_err(|source| OpenError::Io {
            what: "starting the writer of",
            path: settings.options.directory.clone(),
            source,
        })?;
        Ok(Journal { queue, settings, log: self.log, state: states, writer: Mutex::new(Some(thread)) })
    }
}

impl<O: Owner> Journal<O> {
    /// Queues `entry`, whose payload will have `size` bytes, waiting for room in the queue; what becomes of it the
    /// owner hears. Dropping the future before it resolves queues nothing.
    ///
    /// # Errors
    /// See [`AppendError`]; the owner then does not hear of the entry.
    pub async fn append(&self, entry: O::Entry, size: usize) -> Result<(), AppendError> {
        let limit = self.settings.options.entry_bytes_max;
        if size == 0 {
            return Err(AppendError::Empty);
        }
        if size > limit {
            return Err(AppendError::TooLarge { size, limit });
        }
        self.check_state()?;
        let Some(permit) = self.queue.reserve(size).await else { return Err(self.closed()) };
        self.check_state()?;
        self.queue.push(entry, size, permit).map_err(|_entry| self.closed())
    }

    /// The same without waiting: for a thread that has other things to do.
    ///
    /// # Errors
    /// The entry comes back, with the reason; the owner does not hear of it.
    pub fn try_append(&self, entry: O::Entry, size: usize) -> Result<(), Refused<O::Entry>> {
        let limit = self.settings.options.entry_bytes_max;
        let error = match size {
            0 => Some(AppendError::Empty),
            _ if size > limit => Some(AppendError::TooLarge { size, limit }),
            _ => self.check_state().err(),
        };
        if let Some(error) = error {
            return Err(Refused { entry, error: Some(error) });
        }
        let Some(permit) = self.queue.try_reserve(size) else {
            let error = self.check_state().err();
            return Err(Refused { entry, error });
        };
        self.queue.push(entry, size, permit).map_err(|entry| Refused { entry, error: Some(self.closed()) })
    }

    /// The reading side.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// How the journal fares, and news of it.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Bytes that wait to be written.
    pub fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Changes the reserve; a full journal looks at once.
    pub fn set_reserve_bytes(&self, bytes: u64) {
        self.settings.set_reserve_bytes(bytes);
        self.queue.poke();
    }

    /// Unlinks segments (see [`Log::remove_below`]); a full journal looks at once.
    ///
    /// # Errors
    /// Of the file system.
    pub fn remove_below(&self, number: u64) -> std::io::Result<usize> {
        let removed = self.log.remove_below(number)?;
        if removed > 0 {
            self.queue.poke();
        }
        Ok(removed)
    }

    /// Takes nothing more, writes what is queued, and seals the segment. `false` when that took longer than `grace`: the
    /// writer is then left to itself, and dropping the journal does not wait for it either.
    pub async fn close(&self, grace: Duration) -> bool {
        self.queue.close();
        let mut state = self.state.clone();
        // The channel ends with the writer's thread, however that ends.
        let ended = async { while state.changed().await.is_ok() {} };
        let in_time = tokio::time::timeout(grace, ended).await.is_ok();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer.filter(|_| in_time) {
            join(writer);
        }
        in_time
    }

    /// Takes room in the queue, as an entry under way does.
    #[cfg(test)]
    pub(crate) async fn reserve_for_tests(&self, size: usize) -> Option<tokio::sync::OwnedSemaphorePermit> {
        self.queue.reserve(size).await
    }

    fn check_state(&self) -> Result<(), AppendError> {
        match &*self.state.borrow() {
            State::Ok if self.state.has_changed().is_ok() => Ok(()),
            State::Ok => Err(AppendError::Failed { reason: "the journal's writer has ended: restart".to_owned() }),
            State::Full { reason } => Err(AppendError::Full { reason: reason.clone() }),
            State::Failed { reason } => Err(AppendError::Failed { reason: reason.clone() }),
            State::Closed => Err(AppendError::Closed),
        }
    }

    fn closed(&self) -> AppendError {
        self.check_state().err().unwrap_or(AppendError::Closed)
    }
}

impl<O: Owner> Drop for Journal<O> {
    fn drop(&mut self) {
        self.queue.close();
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            join(writer);
        }
    }
}

fn join(writer: JoinHandle<()>) {
    if writer.join().is_err() {
        tracing::error!("the journal's writer panicked");
    }
}
