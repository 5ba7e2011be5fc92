//! The agent as a whole: the tailer's thread, the shipper's task, and leaving in order.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use logmesh_certs::{Identity, Role, TlsSource};
use logmesh_proto::{SealError, v1};
use logmesh_runtime::{Context, shutdown::Exit, telemetry::observe_certificate};
use serde_json::json;
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, SystemClock},
    config::{Config, FILES_OPEN, FilesConfig, host_name},
    discovery::{Group, PatternError, Patterns},
    filesystem::OsFilesystem,
    inputs::{self, InputConfig, intake::intake},
    lines::{CutLimits, Framing, FramingError},
    mailbox::Mailbox,
    metrics,
    parcel::{Answer, Errand, Parcel},
    ship::{self, Link, Shipper},
    sift::{Sift, SiftError},
    spool::{FeedInfo, SpoolError, Spools, SpoolsConfig},
    state::{Store, StoreError, Trust},
    tailer::{
        self, GroupRules, PARCELS_MAX, Tailer, Tally,
        drive::{Conditions, Driver, Shown},
        watching::Watching,
    },
};

/// A batch is cut at so many bytes of bodies.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// A batch is cut at so many records.
const BATCH_RECORDS_MAX: usize = 10_000;
/// Parts of the memory: batches of files under way, those of each spool, and records of inputs that are not spooled yet.
const WINDOW_SHARE: u64 = 2;
const SPOOL_SHARE: u64 = 16;
const INTAKE_SHARE: u64 = 16;

/// An agent, ready to run.
#[derive(Debug)]
pub struct Agent<C: Clock = SystemClock> {
    tailer: Tailer<OsFilesystem>,
    spools: Spools,
    /// Where each input goes on.
    cursors: BTreeMap<String, Bytes>,
    mailbox: Arc<Mailbox>,
    config: Config,
    tls: Arc<TlsSource>,
    context: Context,
    clock: C,
}

/// Why an agent cannot be made.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StoreError),
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A pattern cannot be read.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// What is kept cannot be told.
    #[error(transparent)]
    Sift(#[from] SiftError),
    /// Records cannot be cut as the configuration says.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// The compressor found no memory.
    #[error("cannot make a compressor")]
    Compressor(#[from] SealError),
    /// The certificate is not an agent's: no gateway would let it in.
    #[error("{} names {identity}, which is no agent; issue one with `logmesh certs issue agent`", path.display())]
    NotAnAgent {
        /// The certificate's file.
        path: std::path::PathBuf,
        /// Who it names.
        identity: Identity,
    },
}

impl Agent {
    /// Puts an agent together: locks its state directory and recovers what it holds.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub fn new(config: Config, tls: Arc<TlsSource>, context: Context) -> Result<Self, AgentError> {
        let identity = tls.identity();
        if identity.role() != Role::Agent {
            return Err(AgentError::NotAnAgent { path: tls.files().cert.clone(), identity });
        }
        let settings = tailer_settings(&config)?;
        let (store, recovered) = Store::open(&config.data_dir)?;
        for note in &recovered.notes {
            tracing::error!(note, "damaged state; going on with what is sound");
        }
        match recovered.trust {
            Trust::Whole => {}
            Trust::PowerCut => {
                tracing::warn!("the machine stopped without warning: files known so far are marked resend");
            }
            Trust::Lost if config.fresh => {}
            Trust::Lost => {
                tracing::info!("no earlier state: files that are there now are read whole and marked resend");
            }
        }
        let tailer = Tailer::new(OsFilesystem, settings, store, recovered)?;
        let mailbox = Arc::new(Mailbox::default());
        let bell = Arc::clone(&mailbox);
        let (spools, cursors) = Spools::open(spools_config(&config), Arc::new(move || bell.ring()))?;
        Ok(Self { tailer, spools, cursors, mailbox, config, tls, context, clock: SystemClock::default() })
    }
}

/// Tails the configured files once to their present ends, on this thread and without a network: every batch goes to
/// `sink` and counts as acknowledged. State is kept in `data_dir` as always. For benchmarks and trials.
///
/// # Errors
/// See [`AgentError`].
pub fn tail_once(config: &Config, mut sink: impl FnMut(Parcel)) -> Result<Tally, AgentError> {
    let (store, recovered) = Store::open(&config.data_dir)?;
    let mut tailer = Tailer::new(OsFilesystem, tailer_settings(config)?, store, recovered)?;
    let clock = SystemClock::default();
    let all = Answer::Opened { credit: u64::MAX, encoded_bytes_max: usize::MAX, records_max: usize::MAX };
    tailer.handle(all, clock.now());
    let mut errands = Vec::new();
    loop {
        let now = clock.now();
        let wake = tailer.turn(now, Vec::new(), &mut errands);
        if errands.is_empty() && wake > now.mono && tailer.has_walked() {
            // The last lines of a quick file wait for company a moment longer.
            if wake > now.mono + tailer::LINGER_MAX {
                tailer.stop();
                return Ok(tailer.snapshot(now, 0).tally);
            }
            std::thread::sleep(wake - now.mono);
        }
        for errand in errands.drain(..) {
            // Nothing is ever called back: all is acknowledged at once.
            let Errand::Ship(parcel) = errand else { continue };
            tailer.handle(Answer::Acked { stream: parcel.stream, first: parcel.batch.first_offset }, now);
            sink(parcel);
        }
    }
}

impl<C: Clock> Agent<C> {
    /// The same agent by another clock.
    pub fn with_clock<D: Clock>(self, clock: D) -> Agent<D> {
        let Self { tailer, spools, cursors, mailbox, config, tls, context, clock: _ } = self;
        Agent { tailer, spools, cursors, mailbox, config, tls, context, clock }
    }

    /// Tails and ships until the context's shutdown is requested; then stops reading, waits for acknowledgements within
    /// the grace, and writes a last checkpoint.
    pub async fn run(self) -> Exit {
        let Self { tailer, spools, cursors, mailbox, config, tls, context, clock } = self;
        let shown = Shown::default();
        let link = Arc::new(Mutex::new(Link::default()));
        metrics::observe(&context.meter, &shown);
        register_status(&context, &shown, &link, &config);
        let certificate = Arc::clone(&tls);
        observe_certificate(&context.meter, "agent", move || certificate.expires_at());
        let bell = Arc::clone(&mailbox);
        let (intake, arrivals) = intake(share(&config, INTAKE_SHARE), move || bell.ring());
        let stop_inputs = CancellationToken::new();
        let settings =
            inputs::Settings { record_bytes_max: config.record_bytes_max, partial_flush: config.partial_flush };
        let place = |name: &str| cursors.get(name).cloned();
        let inputs = match inputs::start(&config.inputs, settings, &intake, &place, &context, &stop_inputs) {
            Ok(inputs) => inputs,
            Err(error) => {
                tracing::error!(%error, "an input's records cannot be cut as it says");
                return Exit::Failed;
            }
        };
        let delivered = CancellationToken::new();
        let (sender, receiver) = mpsc::channel(PARCELS_MAX);
        let shipper = Shipper::new(
            ship::Settings {
                gateways: config.gateways.clone(),
                codec: config.codec,
                instance: rand::random(),
                host: host_name(),
            },
            tls,
            receiver,
            Arc::clone(&mailbox),
            [context.health.condition("agent.gateway"), context.health.condition("agent.policy")],
            link,
        );
        let finish = CancellationToken::new();
        let mut shipping = tokio::spawn(shipper.run(finish.clone()));
        let driver = Driver {
            tailer,
            clock,
            mailbox: Arc::clone(&mailbox),
            spools,
            arrivals,
            errands: sender,
            watching: Watching::new(Arc::clone(&mailbox), context.health.condition("agent.watching")),
            shown,
            conditions: conditions(&context),
            backlog: std::collections::VecDeque::new(),
            delivered: delivered.clone(),
        };
        let grace = config.shutdown_grace.mul_f64(0.8);
        let ends = config.files.is_empty() && config.inputs.iter().all(InputConfig::ends);
        let sources = Sources { inputs, stop: stop_inputs, ends, delivered, grace: grace / 2 };
        let settled = tail(driver, &context, &mailbox, grace / 2, sources, &mut shipping).await;
        finish.cancel();
        match settled {
            Tailed::ShipperEnded => return Exit::Failed,
            Tailed::Settled | Tailed::Unsettled | Tailed::Broken => {}
        }
        // It says goodbye within two seconds.
        if let Err(error) = shipping.await {
            tracing::error!(%error, "the shipper's task failed while it said goodbye");
        }
        match settled {
            Tailed::Settled => Exit::Clean,
            Tailed::Unsettled => Exit::Unacknowledged,
            Tailed::Broken | Tailed::ShipperEnded => Exit::Failed,
        }
    }
}

/// Inputs that are no files, until they end.
struct Sources {
    inputs: inputs::Running,
    stop: CancellationToken,
    /// Whether nothing is left to do once standard input has ended.
    ends: bool,
    /// Cancelled once all that they gave is delivered, after the mailbox was told that no more comes.
    delivered: CancellationToken,
    /// How long they may take to end.
    grace: Duration,
}

impl Sources {
    /// Runs until shutdown is requested, which it does itself once the only input has ended and is delivered; then has
    /// the inputs end, so that what they have read is taken.
    async fn run(mut self, context: &Context, mailbox: &Mailbox) {
        let stdin_ended = self.inputs.stdin_ended();
        let ended = async {
            stdin_ended.cancelled().await;
            mailbox.end_of_inputs();
            self.delivered.cancelled().await;
        };
        tokio::select! {
            () = context.shutdown.requested() => {}
            () = ended, if self.ends => {
                tracing::info!("standard input has ended and is delivered; the agent stops");
                context.shutdown.begin();
            }
        }
        self.stop.cancel();
        if tokio::time::timeout(self.grace, self.inputs.ended()).await.is_err() {
            tracing::warn!(
                "an input does not end in time; what it has not handed over comes again only where its source keeps it, as the \
                 journal does"
            );
        }
    }
}

/// How tailing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tailed {
    /// Everything read was acknowledged.
    Settled,
    /// Something was not.
    Unsettled,
    /// The thread never began, or panicked.
    Broken,
    /// There was nobody left to ship to.
    ShipperEnded,
}

/// Runs the tailer on a thread of its own until shutdown is requested, or the shipper's task is at its end: without it
/// files would be read and nothing would leave.
async fn tail<C: Clock>(
    driver: Driver<OsFilesystem, C>,
    context: &Context,
    mailbox: &Mailbox,
    grace: Duration,
    sources: Sources,
    shipping: &mut JoinHandle<()>,
) -> Tailed {
    let (sender, settled) = oneshot::channel();
    let shutdown = context.shutdown.clone();
    let in_vain = CancellationToken::new();
    let hurry = in_vain.clone();
    let thread = std::thread::Builder::new().name("tailer".into()).spawn(move || {
        let result = driver.run().settle(grace, &|| shutdown.is_aborted() || hurry.is_cancelled());
        // Nobody waits for it any more when the process leaves at once.
        let _ = sender.send(result);
    });
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => {
            tracing::error!(%error, "cannot start the tailer's thread");
            return Tailed::Broken;
        }
    };
    let stopped = async {
        sources.run(context, mailbox).await;
        mailbox.stop();
        std::future::pending::<Infallible>().await
    };
    let mut settled = settled;
    let (result, shipper_ended) = tokio::select! {
        biased;
        result = &mut settled => (result, false),
        ended = shipping => {
            let how = ended.err().map_or_else(|| "it returned".to_owned(), |error| error.to_string());
            tracing::error!(how, "the shipper's task ended; the agent stops, and the next run sends what is not acknowledged");
            in_vain.cancel();
            mailbox.stop();
            (settled.await, true)
        }
        never = stopped => match never {},
    };
    // It has sent its result, or panicked: either way it is at its end.
    let joined = thread.join();
    if joined.is_err() {
        tracing::error!("the tailer's thread panicked");
    }
    match result {
        _ if shipper_ended => Tailed::ShipperEnded,
        Ok(true) => Tailed::Settled,
        Ok(false) => Tailed::Unsettled,
        Err(_) => Tailed::Broken,
    }
}

fn conditions(context: &Context) -> Conditions {
    Conditions {
        state: context.health.condition("agent.state"),
        files: context.health.condition("agent.files"),
        records: context.health.condition("agent.records"),
        spool: context.health.condition("agent.spool"),
        descriptors: context.health.condition("agent.descriptors"),
    }
}

fn tailer_settings(config: &Config) -> Result<tailer::Settings, AgentError> {
    let here = std::env::current_dir().unwrap_or_else(|_| "/".into());
    let groups = config.files.iter().map(|files| Group::new(&files.include, &files.exclude, &here));
    let groups = groups.collect::<Result<Vec<_>, _>>()?;
    let host = host_name();
    let infos = config.files.iter().map(|files| v1::StreamInfo {
        path: String::new(),
        host: host.clone(),
        service: files.service.clone(),
        labels: files.labels.clone().into_iter().collect(),
        input_format: files.format.clone(),
        topic: files.topic.clone(),
        agent: config.name.clone(),
    });
    Ok(tailer::Settings {
        patterns: Patterns::new(groups)
            .leaving(config.own.iter().chain([&config.data_dir]).map(|own| here.join(own)).collect()),
        infos: infos.collect(),
        framings: config.files.iter().map(|files| Framing::new(&files.framing)).collect::<Result<_, _>>()?,
        compressed: config.files.iter().map(|files| files.compressed).collect(),
        limits: cut_limits(config),
        groups: config.files.iter().map(group_rules).collect::<Result<_, _>>()?,
        partial_flush: config.partial_flush,
        window_bytes: share(config, WINDOW_SHARE),
        codec: config.codec,
        spools_deleted: config.spool.deleted_bytes_max > 0,
        files_open_max: config.files_open_max.unwrap_or_else(files_open_max),
        fresh: config.fresh,
    })
}

/// A part of the memory, in bytes.
fn share(config: &Config, part: u64) -> usize {
    usize::try_from(config.memory / part).unwrap_or(usize::MAX)
}

fn spools_config(config: &Config) -> SpoolsConfig {
    SpoolsConfig {
        directory: config.data_dir.join("spool"),
        budgets: config.spool,
        inputs: config.inputs.iter().map(|input| feed(config, input)).collect(),
        // On disk it is compressed in any case.
        codec: if config.codec == v1::Codec::None { v1::Codec::Zstd } else { config.codec },
        limits: cut_limits(config),
        window_bytes: share(config, SPOOL_SHARE),
    }
}

fn feed(config: &Config, input: &InputConfig) -> FeedInfo {
    let info = v1::StreamInfo {
        path: String::new(),
        host: host_name(),
        service: input.service.clone(),
        labels: input.labels.clone().into_iter().collect(),
        input_format: input.format.clone(),
        topic: input.topic.clone(),
        agent: config.name.clone(),
    };
    FeedInfo { name: input.name.clone(), info }
}

fn cut_limits(config: &Config) -> CutLimits {
    CutLimits {
        batch_bytes_max: BATCH_BYTES_MAX,
        batch_records_max: BATCH_RECORDS_MAX,
        record_bytes_max: config.record_bytes_max,
    }
}

fn group_rules(files: &FilesConfig) -> Result<GroupRules, AgentError> {
    Ok(GroupRules {
        sift: Sift::new(&files.sift)?,
        rate_limit: files.rate_limit,
        weight: files.weight,
        kubernetes: files.kubernetes,
    })
}

fn register_status(context: &Context, shown: &Shown, link: &Arc<Mutex<Link>>, config: &Config) {
    let (shown, link, name) = (shown.clone(), Arc::clone(link), config.name.clone());
    context.status.register(
        "agent",
        Arc::new(move || {
            let link = link.lock().unwrap_or_else(PoisonError::into_inner).clone();
            json!({ "name": name, "link": link, "tail": shown.load() })
        }),
    );
}

/// Descriptors kept for everything that is no file to tail: sockets, the state, the spool.
const DESCRIPTORS_KEPT: u64 = 128;

/// How many files may be held open. Every file in scope is, so that none is lost to a rename, and the soft limit is no
/// reason to hold fewer; a share is left to what else is in the process.
fn files_open_max() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).min(*FILES_OPEN.end());
    let files = (descriptors / 4 * 3).min(descriptors.saturating_sub(DESCRIPTORS_KEPT)).max(*FILES_OPEN.start());
    usize::try_from(files).unwrap_or(usize::MAX)
}
