//! Whose turn it is to be read, when more is written than leaves.
//!
//! Two lines. In front are files that were read to their end and have something new: each gets a little at once, less the
//! more of them wait, so that the first unread byte of any file is read soon, whatever lies in the others. Behind are
//! files with more than one turn can take: those go round by bytes, in proportion to their weights, and what a file took
//! beyond its share (a long record) it waits for later. The front cannot starve the back: between two turns of the back
//! it gets so many bytes and no more. Pure.

use std::collections::VecDeque;

use crate::parcel::StreamNumber;

/// What one turn of the back may take, for each unit of weight.
pub(super) const QUANTUM_BYTES: usize = 256 * 1024;
/// What all that wait in front get together in their first turns.
const FRONT_ROUND_BYTES: usize = 2 * 1024 * 1024;
/// The least that a turn may take.
pub(super) const TURN_BYTES_MIN: usize = 4 * 1024;
/// What is left of a round is added to the next one where it is less than this: small turns make small batches.
const TURN_WORTH_BYTES: i64 = QUANTUM_BYTES as i64 / 2;
/// What the front gets between two turns of the back, a turn counted as [`TURN_BYTES_MIN`] at least.
const FRONT_BYTES_MAX: usize = 1024 * 1024;

/// How a file stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Whether its last turn left something unread.
    pub(super) is_behind: bool,
    /// Bytes that are left of its round; negative for what it took beyond it.
    left: i64,
}

/// A turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) number: StreamNumber,
    is_front: bool,
}

/// The two lines.
#[derive(Debug, Default)]
pub(super) struct Turns {
    front: VecDeque<StreamNumber>,
    back: VecDeque<StreamNumber>,
    /// What the front got since the last turn of the back.
    front_bytes: usize,
    /// How many of those that waited in front when the round began have not had their turn.
    round_left: usize,
    /// What each of them may take.
    round_bytes: usize,
}

impl Turns {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.front.is_empty() && self.back.is_empty()
    }

    /// Puts a file in line; it must not be in one.
    pub(super) fn push(&mut self, number: StreamNumber, standing: &Standing) {
        match standing {
            Standing { is_behind: false, .. } => self.front.push_back(number),
            // Its round is not over.
            Standing { left: TURN_WORTH_BYTES.., .. } => self.back.push_front(number),
            Standing { .. } => self.back.push_back(number),
        }
    }

    /// Puts a file in line behind all others, be its round over or not.
    pub(super) fn push_last(&mut self, number: StreamNumber, standing: &Standing) {
        if standing.is_behind { &mut self.back } else { &mut self.front }.push_back(number);
    }

    /// The next turn.
    pub(super) fn next(&mut self) -> Option<Turn> {
        let is_owed = self.front_bytes >= FRONT_BYTES_MAX && !self.back.is_empty();
        let waiting = self.front.len();
        let front = if is_owed { None } else { self.front.pop_front() };
        if let Some(number) = front {
            if self.round_left == 0 {
                self.round_left = waiting;
                self.round_bytes = (FRONT_ROUND_BYTES / waiting).clamp(TURN_BYTES_MIN, QUANTUM_BYTES);
            }
            self.round_left -= 1;
            return Some(Turn { number, is_front: true });
        }
        self.front_bytes = 0;
        self.back.pop_front().map(|number| Turn { number, is_front: false })
    }

    /// Bytes that a turn may take; `None` where the file took too much before and is to be put in line again.
    pub(super) fn begin(&self, turn: Turn, standing: &mut Standing, weight: u32) -> Option<usize> {
        if turn.is_front {
            standing.left = 0;
            return Some(self.round_bytes);
        }
        if standing.left < TURN_WORTH_BYTES {
            standing.left += i64::try_from(QUANTUM_BYTES).unwrap_or(i64::MAX).saturating_mul(i64::from(weight.max(1)));
        }
        let left = usize::try_from(standing.left).unwrap_or(0);
        (left > 0).then_some(left.clamp(TURN_BYTES_MIN, QUANTUM_BYTES))
    }

    /// Ends a turn that took so many bytes; `standing` says by now whether that left something.
    pub(super) fn end(&mut self, turn: Turn, standing: &mut Standing, bytes: usize) {
        if turn.is_front {
            self.front_bytes = self.front_bytes.saturating_add(bytes.max(TURN_BYTES_MIN));
        } else {
            standing.left = standing.left.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        if !standing.is_behind {
            standing.left = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Files with what is unread of each, its weight, and the size of its records.
    #[derive(Default)]
    struct Files {
        turns: Turns,
        files: BTreeMap<u64, (Standing, u64, u32, usize)>,
        taken: BTreeMap<u64, u64>,
    }

    impl Files {
        fn write(&mut self, file: u64, bytes: u64, weight: u32, record: usize) {
            let known = self.files.entry(file).or_insert((Standing::default(), 0, weight, record));
            known.1 += bytes;
            if known.1 == bytes {
                self.turns.push(StreamNumber(file), &known.0);
            }
        }

        /// One turn; whose it was and what it took.
        fn turn(&mut self) -> Option<(u64, usize)> {
            loop {
                let turn = self.turns.next()?;
                let (standing, unread, weight, record) = self.files.get_mut(&turn.number.0).unwrap();
                if let Some(quantum) = self.turns.begin(turn, standing, *weight) {
                    let whole = quantum.next_multiple_of(*record);
                    let took = whole.min(usize::try_from(*unread).unwrap());
                    *unread -= took as u64;
                    standing.is_behind = *unread > 0;
                    self.turns.end(turn, standing, took);
                    if *unread > 0 {
                        self.turns.push(turn.number, standing);
                    }
                    *self.taken.entry(turn.number.0).or_default() += took as u64;
                    return Some((turn.number.0, took));
                }
                self.turns.push(turn.number, standing);
            }
        }
    }

    const GIB: u64 = 1 << 30;

    #[test]
    fn shares_are_by_bytes_and_weight_however_long_records_are() {
        let mut files = Files::default();
        // The second has records of four quanta, the third weighs thrice as much, the fourth has short turns.
        files.write(1, 5 * GIB, 1, 100);
        files.write(2, 5 * GIB, 1, 4 * QUANTUM_BYTES);
        files.write(3, 5 * GIB, 3, 100);
        files.write(4, 5 * GIB, 1, 1);
        for _ in 0..8000 {
            files.turn().unwrap();
        }
        let of = |file: u64| files.taken[&file] as f64;
        for (file, share) in [(2, 1.0), (3, 3.0), (4, 1.0)] {
            let ratio = of(file) / of(1);
            assert!((ratio - share).abs() < 0.03 * share, "{file}: {ratio}");
        }
    }

    #[test]
    fn first_bytes_of_500_files_come_before_the_rest_of_any_and_cost_little() {
        let mut files = Files::default();
        files.write(0, 5 * GIB, 1, 100);
        for _ in 0..10 {
            files.turn().unwrap();
        }
        (1..=500).for_each(|file| files.write(file, 1 << 20, 1, 100));
        files.taken.clear();
        while files.taken.len() < 501 {
            files.turn().unwrap();
        }
        let taken: u64 = files.taken.values().sum();
        assert!(taken < 4 << 20, "{taken} bytes before all first ones were read");
        assert!(files.taken[&0] >= QUANTUM_BYTES as u64, "the large one goes on");
    }

    #[test]
    fn files_that_keep_catching_up_do_not_starve_those_behind() {
        let mut files = Files::default();
        files.write(0, 5 * GIB, 1, 100);
        files.turn().unwrap();
        files.taken.clear();
        // However fast they grow: each has something new whenever it was read.
        for _ in 0..20_000 {
            (1..=20).for_each(|file| {
                if files.files.get(&file).is_none_or(|known| known.1 == 0) {
                    files.write(file, 100, 1, 100);
                }
            });
            files.turn().unwrap();
        }
        let turns = 20_000 / (FRONT_BYTES_MAX / TURN_BYTES_MIN + 1);
        assert!(files.taken[&0] >= (turns * QUANTUM_BYTES) as u64, "{:?}", files.taken[&0]);
    }

    #[test]
    fn a_lone_file_gets_whole_turns_at_once() {
        let mut files = Files::default();
        files.write(1, GIB, 1, 1);
        assert_eq!((files.turn(), files.turn()), (Some((1, QUANTUM_BYTES)), Some((1, QUANTUM_BYTES))));
    }

    #[test]
    fn what_a_line_leaves_of_a_turn_is_no_turn_of_its_own() {
        let (mut turns, number) = (Turns::default(), StreamNumber(1));
        let mut standing = Standing { is_behind: true, left: 0 };
        turns.push(number, &standing);
        let mut taken = 0;
        for _ in 0..1000 {
            let turn = turns.next().unwrap();
            let wanted = turns.begin(turn, &mut standing, 1).unwrap();
            assert_eq!(wanted, QUANTUM_BYTES);
            // Whole lines are less.
            turns.end(turn, &mut standing, wanted - 48);
            taken += wanted - 48;
            turns.push(number, &standing);
            assert!(taken + usize::try_from(standing.left).unwrap() <= 1001 * QUANTUM_BYTES);
        }
    }
}
