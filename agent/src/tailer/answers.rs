//! What the gateways answered.

use super::{Oversized, Tailer, pace};
use crate::{
    clock::Now,
    filesystem::Filesystem,
    parcel::{Answer, Parcel, Returned, StreamNumber},
};

impl<F: Filesystem> Tailer<F> {
    /// Takes an answer of the shipper.
    pub fn handle(&mut self, answer: Answer, now: Now) {
        match answer {
            Answer::Acked { stream, first } => self.acked(stream, first, now),
            Answer::Returned(parcel, why) => self.returned(*parcel, why, now),
            Answer::Opened { credit, encoded_bytes_max, records_max } => {
                self.window.credit = Some(credit);
                self.limits.batch_records_max = self.settings.limits.batch_records_max.min(records_max.max(1));
                let bodies_max = encoded_bytes_max.saturating_sub(128 * 1024).max(16 * 1024);
                self.limits.batch_bytes_max = self.settings.limits.batch_bytes_max.min(bodies_max);
                self.attend_unread(now);
            }
            Answer::Credit(limit) => self.window.credit = Some(limit),
            Answer::Closed => self.window.credit = None,
        }
    }

    /// Attends to all that wait for a session.
    fn attend_unread(&mut self, now: Now) {
        let waiting: Vec<StreamNumber> =
            self.sources.iter().filter(|(_, source)| source.unread() > 0).map(|(number, _)| *number).collect();
        waiting.into_iter().for_each(|number| self.attend(number, now));
    }

    fn acked(&mut self, number: StreamNumber, first: u64, now: Now) {
        let Some(source) = self.sources.get_mut(&number) else { return };
        let before = source.progress.out();
        let released = source.progress.acknowledge(first);
        if source.progress.out() == before {
            return;
        }
        self.oversized.remove(&(number, first));
        self.window.bytes = self.window.bytes.saturating_sub(released.encoded);
        self.window.parcels = self.window.parcels.saturating_sub(1);
        self.tally.acked_batches += 1;
        self.tally.acked_bytes += released.prefix;
        self.checkpoint.dirty = true;
        if source.progress.out() == 0 {
            self.attend(number, now);
        }
    }

    fn returned(&mut self, parcel: Parcel, why: Returned, now: Now) {
        let number = parcel.stream;
        let first = parcel.batch.first_offset;
        let Some(source) = self.sources.get_mut(&number) else { return };
        let single = parcel.batch.record_count <= 1;
        // What goes to the spool next waits for no lane.
        let leaving = source.spooled_cuts.is_some();
        match why {
            Returned::Corrupt | Returned::Recalled => {}
            Returned::Held { .. } if leaving => {}
            Returned::Held { delay } => source.paused_until = source.paused_until.max(now.mono + delay),
            Returned::TooLarge { limit } => {
                // A limit that the batch already keeps makes no sense; halving makes progress all the same.
                let sensible = limit.clamp(1, parcel.encoded.saturating_sub(1).max(1));
                source.encoded_bytes_max = source.encoded_bytes_max.min(sensible);
                if single && !leaving {
                    self.oversized.insert((number, first), Oversized { encoded: parcel.encoded, limit });
                    source.paused_until = now.mono + pace::SETTLE * 6;
                }
            }
        }
        if !source.has_file() {
            if why == Returned::Recalled {
                return self.spool_orphan(parcel);
            }
            let divide = !single && matches!(why, Returned::TooLarge { .. });
            return self.keep_orphan(parcel, divide, now);
        }
        let freed = source.progress.returned(first);
        self.window.bytes = self.window.bytes.saturating_sub(freed);
        self.window.parcels = self.window.parcels.saturating_sub(1);
        self.attend(number, now);
    }
}
