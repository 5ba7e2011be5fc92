//! Inputs as the agent runs them, with the tailer's end of the intake in the test's hands.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use logmesh_runtime::{Context, health::State};
use tokio::{io::AsyncWriteExt as _, sync::Notify};
use tokio_util::sync::CancellationToken;

use super::{
    intake::{Arrival, Arrivals, Intake, Record, intake},
    *,
};
use crate::lines::{FramingConfig, Multiline};

/// Five times what anything here may take, and more.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// Inputs that run, and what they handed over.
pub(super) struct Rig {
    pub(super) context: Context,
    pub(super) stop: CancellationToken,
    pub(super) intake: Intake,
    arrivals: Arrivals,
    running: Option<Running>,
    bell: Arc<Notify>,
    pub(super) bodies: Vec<String>,
    pub(super) cursor: Option<Bytes>,
}

pub(super) fn input(kind: Kind) -> InputConfig {
    let name = kind.name().to_owned();
    let (service, labels, topic, format) = (String::new(), BTreeMap::new(), String::new(), String::new());
    InputConfig { name, kind, service, labels, topic, format }
}

impl Rig {
    pub(super) fn start(kind: Kind) -> Self {
        Self::with(kind, 1 << 20, &None)
    }

    pub(super) fn with(kind: Kind, intake_bytes: usize, cursor: &Option<Bytes>) -> Self {
        let bell = Arc::new(Notify::new());
        let rope = Arc::clone(&bell);
        let (intake, arrivals) = intake(intake_bytes, move || rope.notify_one());
        let (context, stop) = (Context::for_tests(), CancellationToken::new());
        let settings = Settings { record_bytes_max: 64 * 1024, partial_flush: Duration::from_millis(100) };
        let running = start(&[input(kind)], settings, &intake, &|_| cursor.clone(), &context, &stop).unwrap();
        let running = Some(running);
        Self { context, stop, intake, arrivals, running, bell, bodies: Vec::new(), cursor: None }
    }

    fn keep(&mut self, arrivals: Vec<Arrival>) {
        for arrival in arrivals {
            let bodies = arrival.records.iter().map(|record| String::from_utf8_lossy(&record.body).into_owned());
            self.bodies.extend(bodies);
            self.cursor = arrival.cursor.clone().or(self.cursor.take());
        }
    }

    /// Takes until so many records came in all.
    pub(super) async fn take(&mut self, count: usize) {
        let waited = tokio::time::timeout(DEADLINE, async {
            loop {
                let arrivals = self.arrivals.take();
                self.keep(arrivals);
                if self.bodies.len() >= count {
                    return;
                }
                self.bell.notified().await;
            }
        });
        assert!(waited.await.is_ok(), "{} of {count}: {:?}", self.bodies.len(), self.context.health.readiness());
    }

    /// Waits until the input's condition is like that.
    pub(super) async fn until(&self, wanted: impl Fn(State, &str) -> bool) {
        let waited = tokio::time::timeout(DEADLINE, async {
            loop {
                let readiness = self.context.health.readiness();
                let (state, reason) =
                    readiness.reasons.first().map_or((State::Ok, ""), |reason| (reason.state, reason.reason.as_str()));
                if wanted(state, reason) {
                    return;
                }
                // Conditions can only be polled.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "{:?}", self.context.health.readiness());
    }

    /// Where the only input listens.
    pub(super) async fn addresses(&self, count: usize) -> Vec<String> {
        self.until(|state, _| state == State::Ok).await;
        let status = self.context.status.snapshot();
        let listening = status["agent_inputs"]["syslog"]["listening"].as_array().unwrap();
        assert_eq!(listening.len(), count);
        listening.iter().map(|address| address.as_str().unwrap().to_owned()).collect()
    }

    pub(super) fn count(&self, what: &str) -> u64 {
        let status = self.context.status.snapshot();
        status["agent_inputs"].as_object().unwrap().values().map(|input| input[what].as_u64().unwrap()).sum()
    }

    /// Stops everything and takes the rest.
    pub(super) async fn stop(self) -> (Vec<String>, Option<Bytes>) {
        self.stop.cancel();
        self.end().await
    }

    /// Waits for the end of the inputs and takes the rest.
    pub(super) async fn end(mut self) -> (Vec<String>, Option<Bytes>) {
        let mut running = std::mem::take(&mut self.running).expect("it is stopped once");
        let waited = tokio::time::timeout(DEADLINE, async {
            let mut ended = Box::pin(running.ended());
            loop {
                tokio::select! {
                    () = &mut ended => break,
                    () = self.bell.notified() => {
                        let arrivals = self.arrivals.take();
                        self.keep(arrivals);
                    }
                }
            }
        });
        assert!(waited.await.is_ok(), "inputs do not end");
        let arrivals = self.arrivals.take();
        self.keep(arrivals);
        (self.bodies, self.cursor)
    }
}

fn command(script: &str, runs: Runs) -> Kind {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Kind::Command(CommandConfig { command, runs, stderr: false, framing: FramingConfig::default() })
}

/// What standard input becomes that brings these pieces, one after the other.
async fn stdin_of(pieces: &[&[u8]], framing: &FramingConfig, record_bytes_max: usize) -> Vec<Bytes> {
    records_of(pieces, framing, record_bytes_max).await.into_iter().map(|record| record.body).collect()
}

async fn records_of(pieces: &[&[u8]], framing: &FramingConfig, record_bytes_max: usize) -> Vec<Record> {
    let (intake, mut arrivals) = intake(1 << 20, || {});
    let outlet = Outlet::new(intake.for_input(0), record_bytes_max);
    let part = standing::parts(&Context::for_tests().health, "stdin", 1).remove(0);
    let (mut writer, reader) = tokio::io::duplex(16);
    let write = async move {
        for piece in pieces {
            writer.write_all(piece).await.unwrap();
        }
    };
    let framing = Framing::new(framing).unwrap();
    let read = stdin::read_all(reader, &framing, Duration::from_secs(60), &outlet, &part);
    tokio::join!(write, read);
    arrivals.take().into_iter().flat_map(|arrival| arrival.records).collect()
}

#[tokio::test]
async fn lines_of_standard_input_are_records_and_so_is_the_last_without_an_end() {
    let bodies = stdin_of(&[b"a\nb\r", b"\n\n\0\0c\n", b"no end"], &FramingConfig::default(), 1024).await;
    assert_eq!(bodies, ["a", "b", "", "\0\0c", "no end"]);
}

#[tokio::test]
async fn a_line_of_standard_input_that_is_too_long_is_split_and_nothing_of_it_is_lost() {
    let long = "x".repeat(2500);
    let records = records_of(&[b"a\n", long.as_bytes(), b"\nb\n"], &FramingConfig::default(), 1024).await;
    let records: Vec<_> = records.iter().map(|record| (record.body.len(), record.continued, record.split)).collect();
    let pieces = [(1024, false, true), (1024, true, true), (452, true, false)];
    assert_eq!(records, [(1, false, false), pieces[0], pieces[1], pieces[2], (1, false, false)]);
}

#[tokio::test]
async fn lines_of_standard_input_are_joined_as_those_of_files_are() {
    let framing = FramingConfig { multiline: Some(Multiline::Indent), ..FramingConfig::default() };
    let bodies = stdin_of(&[b"a\n at b\n", b" at c\nd\n"], &framing, 1024).await;
    assert_eq!(bodies, ["a\n at b\n at c", "d"]);
}

#[tokio::test]
async fn standard_input_is_let_go_at_its_end_and_at_a_stop() {
    for ends in [true, false] {
        let (intake, mut arrivals) = intake(1 << 20, || {});
        let outlet = Outlet::new(intake.for_input(0), 1024);
        let part = standing::parts(&Context::for_tests().health, "stdin", 1).remove(0);
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut writer, b"a\nb").unwrap();
        let stop = CancellationToken::new();
        let (framing, patience) = (Framing::default(), Duration::from_secs(60));
        let reading = tokio::spawn(stdin::follow(reader.into(), framing, patience, outlet, part, stop.clone()));
        let read = async {
            let mut bodies = Vec::new();
            while bodies.is_empty() {
                tokio::task::yield_now().await;
                bodies.extend(arrivals.take().into_iter().flat_map(|arrival| arrival.records));
            }
            bodies
        };
        let mut records = tokio::time::timeout(DEADLINE, read).await.unwrap();
        // Without an end the writer lives on, and the thread waits for it.
        let _alive = if ends {
            drop(writer);
            None
        } else {
            stop.cancel();
            Some(writer)
        };
        tokio::time::timeout(DEADLINE, reading).await.unwrap().unwrap();
        records.extend(arrivals.take().into_iter().flat_map(|arrival| arrival.records));
        let bodies: Vec<_> = records.iter().map(|record| &record.body[..]).collect();
        assert_eq!(bodies, [b"a", b"b"], "half a line is a record, too");
    }
}

#[tokio::test]
async fn what_was_read_of_standard_input_before_a_stop_is_handed_over_and_the_rest_stays_in_the_pipe() {
    // Room for one arrival, so that reading waits with its hands full.
    let (intake, mut arrivals) = intake(1, || {});
    let outlet = Outlet::new(intake.for_input(0), 1024);
    let part = standing::parts(&Context::for_tests().health, "stdin", 1).remove(0);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut behind = reader.try_clone().unwrap();
    let written: String = (0..128 * 1024).map(|number| format!("{number:07}\n")).collect();
    let text = written.clone();
    let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, text.as_bytes()).unwrap());
    let stop = CancellationToken::new();
    let (framing, patience) = (Framing::default(), Duration::from_secs(60));
    let reading = tokio::spawn(stdin::follow(reader.into(), framing, patience, outlet, part, stop.clone()));
    let mut bodies = Vec::new();
    let all = async {
        while intake.free_bytes() > 0 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        while !reading.is_finished() {
            tokio::task::yield_now().await;
            bodies.extend(arrivals.take().into_iter().flat_map(|arrival| arrival.records).map(|record| record.body));
        }
    };
    tokio::time::timeout(DEADLINE, all).await.unwrap();
    reading.await.unwrap();
    bodies.extend(arrivals.take().into_iter().flat_map(|arrival| arrival.records).map(|record| record.body));
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut behind, &mut rest).unwrap();
    writing.join().unwrap();
    assert!(!rest.is_empty(), "it is not read to its end");
    let read = bodies.join(&b'\n');
    let gap = written.as_bytes().strip_prefix(&read[..]).and_then(|behind| behind.strip_suffix(rest.as_bytes()));
    assert!(matches!(gap, Some(b"" | b"\n")), "{} bytes were read, {} are left", read.len(), rest.len());
}

#[tokio::test]
async fn the_end_of_standard_input_is_told() {
    // A test's standard input may be a terminal: it is not waited for.
    let rig = Rig::start(Kind::Stdin(FramingConfig::default()));
    let ended = rig.running.as_ref().unwrap().stdin_ended();
    rig.stop().await;
    assert!(ended.is_cancelled());
}

#[tokio::test]
async fn what_a_command_writes_are_records_and_it_is_started_again_when_it_ends() {
    let mut rig = Rig::start(command("echo out; echo no good >&2; exit 3", Runs::Always));
    rig.take(2).await;
    rig.until(|state, reason| state == State::Warning && reason.contains("status: 3") && reason.contains("no good"))
        .await;
    let (bodies, _) = rig.stop().await;
    assert!(bodies.iter().all(|body| body == "out"), "{bodies:?}");
}

#[tokio::test]
async fn a_command_that_runs_once_ends_with_its_last_line() {
    let rig = Rig::start(command("echo one; printf two", Runs::Once));
    let health = rig.context.health.clone();
    assert_eq!(rig.end().await.0, ["one", "two"]);
    assert!(health.readiness().reasons.is_empty());
}

#[tokio::test]
async fn a_command_runs_again_at_its_interval() {
    let mut rig = Rig::start(command("echo tick", Runs::Every(Duration::from_millis(50))));
    rig.take(4).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_stop_ends_a_command_with_all_that_it_started() {
    let mut rig = Rig::start(command("echo $$; trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000", Runs::Always));
    rig.take(2).await;
    let pids: Vec<String> = rig.stop().await.0;
    for pid in pids {
        let gone = async {
            // Whoever adopts a process reaps it in its own time.
            let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            while !(state().is_empty() || state().contains(") Z ")) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, gone).await.unwrap();
    }
}

#[tokio::test]
async fn a_command_that_is_not_there_is_told_with_a_cure() {
    let command = vec!["/nowhere/vmstat".to_owned()];
    let framing = FramingConfig::default();
    let rig = Rig::start(Kind::Command(CommandConfig { command, runs: Runs::Always, stderr: false, framing }));
    rig.until(|state, reason| {
        state == State::Failing && reason.contains("/nowhere/vmstat") && reason.contains("install it")
    })
    .await;
    rig.stop().await;
}

#[tokio::test]
async fn standard_error_is_records_on_request() {
    let Kind::Command(config) = command("echo out; echo err >&2", Runs::Once) else { panic!("a command") };
    let rig = Rig::start(Kind::Command(CommandConfig { stderr: true, ..config }));
    let mut bodies = rig.end().await.0;
    bodies.sort();
    assert_eq!(bodies, ["err", "out"]);
}
