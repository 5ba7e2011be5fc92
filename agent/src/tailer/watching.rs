//! Watches on the directories that walks come through, and what is done without them.
//!
//! Owns the one inotify instance and the condition that tells whether hints come. While the kernel has no watch or no
//! instance left, everything is polled, no watch is held, and the instance is tried again now and then. Directories on
//! network file systems are never watched: the tailer polls them by itself.

use std::{path::PathBuf, sync::Arc, time::Duration};

use logmesh_runtime::health::Condition;

use super::Tailer;
use crate::{
    clock::Now,
    discovery::{WatchError, Watcher},
    filesystem::Filesystem,
    mailbox::Mailbox,
};

/// Before watches are tried again.
const RETRY: Duration = Duration::from_secs(60);
/// While the tailer rests and files change, events are read this often.
const EVENTS_REST: Duration = Duration::from_millis(50);
/// Network file systems told by name.
const TOLD_MAX: usize = 3;

/// See the module.
#[derive(Debug)]
pub struct Watching {
    watcher: Option<Watcher>,
    mailbox: Arc<Mailbox>,
    condition: Condition,
    /// Why there are no hints; `None` while there are.
    failure: Option<String>,
    /// The last walk that began before the instance was there: what it came through is not watched.
    since_walk: u64,
    /// The last walk whose directories are all that is watched.
    forgotten: u64,
    retry: Duration,
    retry_at: Duration,
}

impl Watching {
    /// Begins without an instance; the first [`Self::follow`] makes one.
    #[must_use]
    pub fn new(mailbox: Arc<Mailbox>, condition: Condition) -> Self {
        let (retry, retry_at) = (RETRY, Duration::ZERO);
        Self { watcher: None, mailbox, condition, failure: None, since_walk: 0, forgotten: 0, retry, retry_at }
    }

    /// Tries again sooner than an operator would want it.
    #[cfg(test)]
    pub(crate) fn retry_after(mut self, retry: Duration) -> Self {
        self.retry = retry;
        self
    }

    /// Watches the directories that walks came through since the last call.
    pub fn follow<F: Filesystem>(&mut self, tailer: &mut Tailer<F>, now: Now) {
        let (directories, walk) = tailer.take_directories();
        if self.watcher.is_none() && !self.start(tailer, walk, now) {
            return;
        }
        if let Err(error) = self.add(directories, walk, tailer, now) {
            self.fail(&error, tailer, now);
        } else if tailer.is_between_walks() && walk > self.forgotten {
            self.forgotten = walk;
            self.watcher.iter_mut().for_each(|watcher| watcher.forget_before(walk));
            if walk > self.since_walk && self.failure.take().is_some() {
                tracing::info!("all directories are watched again");
                tailer.set_polling(false);
            }
        }
    }

    fn start<F: Filesystem>(&mut self, tailer: &mut Tailer<F>, walk: u64, now: Now) -> bool {
        if now.mono < self.retry_at {
            return false;
        }
        let mailbox = Arc::clone(&self.mailbox);
        let note = move |hint| {
            // The kernel makes one of equal events that wait; each that is read wakes this thread.
            if mailbox.hint(hint) {
                std::thread::sleep(EVENTS_REST);
            }
        };
        match Watcher::start(note) {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.since_walk = walk;
                if walk > 0 {
                    // Its directories are to be watched, and what happens before that gives no hint.
                    tailer.walk_soon(now);
                }
                true
            }
            Err(error) => {
                self.fail(&error, tailer, now);
                false
            }
        }
    }

    fn fail<F: Filesystem>(&mut self, error: &WatchError, tailer: &mut Tailer<F>, now: Now) {
        if self.failure.is_none() {
            tracing::warn!(%error, "files are polled from now on");
        }
        self.failure = Some(error.to_string());
        // Watches belong to all processes of a user: what is of no use here is not withheld from others.
        self.watcher = None;
        self.retry_at = now.mono + self.retry;
        tailer.set_polling(true);
        tailer.walk_soon(now);
    }

    fn add<F: Filesystem>(
        &mut self,
        directories: impl IntoIterator<Item = PathBuf>,
        walk: u64,
        tailer: &mut Tailer<F>,
        now: Now,
    ) -> Result<(), WatchError> {
        let Some(watcher) = &mut self.watcher else { return Ok(()) };
        for directory in directories {
            if watcher.watch(&directory, walk)? {
                // What happened between the walk and the watch gave no hint.
                tailer.walk_into(&directory, now);
            }
        }
        Ok(())
    }

    /// Says how it is.
    pub fn show<F: Filesystem>(&self, tailer: &Tailer<F>) {
        let networks = tailer.networks();
        match (&self.failure, networks.as_slice()) {
            (Some(failure), _) => {
                self.condition.warn(format!(
                    "files are polled every 2 s: {failure}; tried again every {} s",
                    self.retry.as_secs()
                ));
            }
            (None, []) => self.condition.clear(),
            (None, networks) => self.condition.warn(told(networks)),
        }
    }
}

/// What there is to say of network file systems.
fn told(networks: &[(PathBuf, &str)]) -> String {
    let named = networks.iter().take(TOLD_MAX).map(|(path, name)| format!("{} ({name})", path.display()));
    let others = match networks.len().saturating_sub(TOLD_MAX) {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    format!(
        "files below {}{others} are polled every 2 s: nobody says when another machine changes a file on a network file \
         system; where that is too slow or too costly, run an agent on the machine that writes them",
        named.collect::<Vec<_>>().join(", "),
    )
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use logmesh_runtime::health::{Health, State};

    use super::*;
    use crate::{
        clock::{Clock, SystemClock},
        discovery::{Group, Patterns},
        filesystem::OsFilesystem,
        lines::CutLimits,
        mailbox::Rest,
        state::Store,
        tailer::Settings,
    };

    const LIMIT: &str = "/proc/sys/user/max_inotify_watches";

    /// A tailer that only finds, over real directories, with real watches.
    struct Finder {
        tailer: Tailer<OsFilesystem>,
        watching: Watching,
        mailbox: Arc<Mailbox>,
        clock: SystemClock,
        health: Health,
        wake: Duration,
    }

    impl Finder {
        fn new(root: &Path, data: &Path) -> Self {
            let include = format!("{}/**/*.log", root.display());
            let settings = Settings {
                patterns: Patterns::new(vec![Group::new(&[include], &[], Path::new("/")).unwrap()]),
                infos: Vec::new(),
                framings: Vec::new(),
                limits: CutLimits { batch_bytes_max: 4096, batch_records_max: 20, record_bytes_max: 2000 },
                partial_flush: Duration::from_secs(5),
                window_bytes: 0,
                codec: logmesh_proto::v1::Codec::None,
                compressed: Vec::new(),
                groups: Vec::new(),
                spools_deleted: false,
                files_open_max: 1000,
                fresh: true,
            };
            let (store, recovered) = Store::open(data).unwrap();
            let tailer = Tailer::new(OsFilesystem, settings, store, recovered).unwrap();
            let (mailbox, health) = (Arc::new(Mailbox::default()), Health::new());
            let watching = Watching::new(Arc::clone(&mailbox), health.condition("agent.watching"));
            let (watching, clock) = (watching.retry_after(Duration::from_secs(1)), SystemClock::default());
            Self { tailer, watching, mailbox, clock, health, wake: Duration::ZERO }
        }

        /// Turns until it is so; five times what is promised are allowed.
        fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
            let deadline = self.clock.now().mono + Duration::from_secs(50);
            while !is_so(self) {
                let mail = self
                    .mailbox
                    .take(self.wake.saturating_sub(self.clock.now().mono).min(Duration::from_secs(1)), Rest::default());
                let now = self.clock.now();
                assert!(now.mono < deadline, "{what}: {:?}", self.health.readiness());
                if mail.overflowed {
                    self.tailer.walk_soon(now);
                }
                self.wake = self.tailer.turn(now, mail.hints, &mut Vec::new());
                self.watching.follow(&mut self.tailer, now);
                self.watching.show(&self.tailer);
            }
        }

        fn knows(&self, files: usize) -> bool {
            self.tailer.sources.len() == files
        }

        fn told(&self) -> String {
            self.health.readiness().reasons.first().map(|told| told.reason.clone()).unwrap_or_default()
        }
    }

    /// Runs one test of this binary in a user namespace, whose limits are its own.
    fn in_a_namespace(test: &str) {
        let run = Command::new("unshare")
            .args(["-Ur", &std::env::current_exe().unwrap().display().to_string(), "--exact", test, "--nocapture"])
            .env("LOGMESH_TEST_NAMESPACE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    fn without_watches_files_are_polled_and_with_watches_again_they_are_not() {
        if std::env::var_os("LOGMESH_TEST_NAMESPACE").is_none() {
            return in_a_namespace(
                "tailer::watching::tests::without_watches_files_are_polled_and_with_watches_again_they_are_not",
            );
        }
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("logs");
        for number in 0..20 {
            fs::create_dir_all(root.join(number.to_string())).unwrap();
        }
        fs::write(LIMIT, "3").unwrap();
        let mut finder = Finder::new(&root, &directory.path().join("data"));
        finder.until("it says that it polls", |finder| finder.told().contains("files are polled"));
        assert!(finder.health.readiness().ready && finder.told().contains("max_user_watches"), "{}", finder.told());
        assert_eq!(finder.health.condition("agent.watching").state(), State::Warning);
        for number in 0..20 {
            fs::write(root.join(format!("{number}/a.log")), "a line\n").unwrap();
        }
        finder.until("polling finds files in all directories", |finder| finder.knows(20));
        fs::write(LIMIT, "1000").unwrap();
        finder.until("hints come again", |finder| finder.told().is_empty());
        fs::write(root.join("7/b.log"), "a line\n").unwrap();
        let before = finder.tailer.walk.number;
        finder.until("a hint finds a file", |finder| finder.knows(21));
        assert_eq!(finder.tailer.walk.number, before, "and no walk did");
    }

    #[test]
    fn network_file_systems_are_told_by_name_with_what_to_do() {
        let networks = ["/a", "/b", "/c", "/d", "/e"].map(|path| (PathBuf::from(path), "NFS"));
        let told = told(&networks);
        for part in ["/a (NFS), /b (NFS), /c (NFS) and 2 more", "polled every 2 s", "run an agent on the machine"] {
            assert!(told.contains(part), "{told}");
        }
    }
}
