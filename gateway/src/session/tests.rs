//! The state machine alone: frames and the bus's answers in, decisions and frames out.

use std::collections::{BTreeMap, BTreeSet};

use logmesh_proto::{BatchMeta, RecordsBuilder, Sealer};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::policy::{Policy, PolicyRule};

fn session(credit_bytes: u64) -> Session {
    let limits = Limits::default();
    let rule = PolicyRule {
        identity: "**".to_owned(),
        tenant: "web".to_owned(),
        topics: vec!["logs".to_owned()],
        rate_limit: None,
    };
    let identity = Identity::parse("spiffe://mesh/agent/edge-1").unwrap();
    let grant = Policy::new(&[rule], limits.uncompressed_bytes_max).grant(identity.as_str()).unwrap();
    let terms = Terms {
        identity,
        grant,
        limits,
        lanes: Arc::default(),
        name: "1".to_owned(),
        idle_timeout: Duration::from_secs(40),
    };
    let mut session = Session::new(terms, credit_bytes);
    let hello = v1::Hello { protocol_version: 7, ..Default::default() };
    assert!(matches!(session.frame(ClientFrame::Hello(hello), now()), Step::Greeted(_)));
    let Some(Frame::Welcome(welcome)) = session.answer().and_then(|answer| answer.frame) else { panic!("no Welcome") };
    assert_eq!((welcome.protocol_version, welcome.credit_bytes), (1, credit_bytes));
    session
}

fn now() -> Now {
    Now { instant: Instant::now(), unix_nano: 1 }
}

/// Batch `number` of a stream: ten bytes of source each.
fn batch(sealer: &mut Sealer, sequence: u64, stream: u8, number: u64) -> ClientFrame {
    let mut records = RecordsBuilder::new();
    records.push(b"ninebytes", 10);
    let meta = BatchMeta {
        stream_id: Bytes::from(vec![stream]),
        first_offset: number * 10,
        end_offset: number * 10 + 10,
        observed_unix_nano: 1,
        flags: Flags::NONE,
    };
    let sealed = sealer.seal(meta, &mut records).unwrap();
    let batch = v1::Batch { sequence, info: Some(v1::StreamInfo::default()), ..sealed };
    let encoded = batch.encode_to_vec().into();
    ClientFrame::Batch(RawBatch { batch, encoded })
}

#[test]
fn without_credit_nothing_is_read_but_one_batch_may_always_be_sent() {
    let (mut session, mut sealer) = (session(1), Sealer::new(v1::Codec::None).unwrap());
    assert!(session.wants_frame());
    assert!(matches!(session.frame(batch(&mut sealer, 1, 0, 0), now()), Step::Publish(_)));
    assert!(!session.wants_frame(), "the credit is used up");
    session.delivered(1, Ok(()), now().instant);
    assert!(session.wants_frame());
    assert_eq!(session.bytes_in_flight(), 0);
}

#[test]
fn acks_coalesce_and_credits_replace_each_other() {
    let (mut session, mut sealer) = (session(1 << 20), Sealer::new(v1::Codec::None).unwrap());
    for number in 0..5 {
        session.frame(batch(&mut sealer, number + 1, 0, number), now());
    }
    for sequence in [5, 3, 1, 2, 4] {
        assert_eq!(session.delivered(sequence, Ok(()), now().instant), None);
    }
    session.set_credit(10);
    session.set_credit(20);
    let Some(Frame::Credit(credit)) = session.answer().and_then(|answer| answer.frame) else { panic!("no Credit") };
    assert_eq!(credit.limit_bytes, 20);
    let Some(Frame::Ack(ack)) = session.answer().and_then(|answer| answer.frame) else { panic!("no Ack") };
    assert_eq!(ack.sequences, [5, 3, 1, 2, 4]);
    assert!(session.answer().is_none());
}

#[test]
fn a_damaged_batch_does_not_make_its_stream_wait_for_an_offset_that_never_was() {
    let (mut session, mut sealer) = (session(1 << 20), Sealer::new(v1::Codec::None).unwrap());
    session.frame(batch(&mut sealer, 1, 0, 5), now());
    let ClientFrame::Batch(mut raw) = batch(&mut sealer, 2, 0, 6) else { panic!("a batch") };
    // A bit of the offset flipped on its way: nobody will ever send a batch that begins there.
    raw.batch.first_offset = 2;
    assert!(matches!(session.frame(ClientFrame::Batch(raw), now()), Step::Refused { reason: NackReason::Corrupt, .. }));
    assert!(matches!(session.frame(batch(&mut sealer, 3, 0, 6), now()), Step::Publish(_)));
}

/// A client of two streams, whose bus refuses and answers in any order.
struct Trial {
    session: Session,
    sealer: Sealer,
    sequence: u64,
    /// Batches to send, by stream: kept until acknowledged.
    unsent: BTreeMap<u8, BTreeSet<u64>>,
    /// What a sequence carried.
    sent: BTreeMap<u64, (u8, u64)>,
    at_bus: Vec<u64>,
    durable: BTreeSet<(u8, u64)>,
}

impl Trial {
    fn new() -> Self {
        let unsent = (0..2).map(|stream| (stream, (0..10).collect())).collect();
        let sealer = Sealer::new(v1::Codec::None).unwrap();
        Self {
            session: session(1 << 30),
            sealer,
            sequence: 0,
            unsent,
            sent: BTreeMap::new(),
            at_bus: Vec::new(),
            durable: BTreeSet::new(),
        }
    }

    fn send(&mut self, stream: u8) {
        let Some(number) = self.unsent.get_mut(&stream).and_then(BTreeSet::pop_first) else { return };
        self.sequence += 1;
        self.sent.insert(self.sequence, (stream, number));
        let frame = batch(&mut self.sealer, self.sequence, stream, number);
        if let Step::Publish(publish) = self.session.frame(frame, now()) {
            self.at_bus.push(publish.sequence);
        }
    }

    fn answer(&mut self, which: usize, fails: bool) {
        if self.at_bus.is_empty() {
            return;
        }
        let sequence = self.at_bus.swap_remove(which % self.at_bus.len());
        let failure = AppendError::Unavailable { reason: "trial".to_owned() };
        if !fails {
            self.durable.insert(self.sent[&sequence]);
        }
        self.session.delivered(sequence, if fails { Err(&failure) } else { Ok(()) }, now().instant);
    }

    /// Reads what the session says. Whatever was acknowledged is durable; each sequence is answered once.
    fn read(&mut self) -> Result<(), TestCaseError> {
        while let Some(frame) = self.session.answer().and_then(|answer| answer.frame) {
            match frame {
                Frame::Ack(ack) => {
                    for sequence in ack.sequences {
                        let carried = self.sent.remove(&sequence);
                        prop_assert!(carried.is_some_and(|carried| self.durable.contains(&carried)), "{sequence}");
                    }
                }
                Frame::Nack(nack) => {
                    let carried = self.sent.remove(&nack.sequence);
                    prop_assert!(carried.is_some(), "{} is answered twice", nack.sequence);
                    if let Some((stream, number)) = carried {
                        self.unsent.entry(stream).or_default().insert(number);
                    }
                }
                Frame::Welcome(_) | Frame::Credit(_) | Frame::Drain(_) => {}
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_sequence_is_answered_once_acks_are_durable_and_everything_gets_through(
        steps in proptest::collection::vec((0_u8..4, any::<usize>(), any::<bool>()), 0..120),
    ) {
        let mut trial = Trial::new();
        for (step, which, fails) in steps {
            match step {
                0 | 1 => trial.send(step),
                2 => trial.answer(which, fails),
                _ => trial.read()?,
            }
        }
        for _ in 0..100 {
            for stream in 0..2 {
                trial.send(stream);
                trial.answer(0, false);
                trial.read()?;
            }
        }
        prop_assert_eq!(trial.durable.len(), 20);
        prop_assert!(trial.sent.is_empty() && trial.session.batches_in_flight() == 0);
        prop_assert_eq!(trial.session.bytes_in_flight(), 0);
    }
}
