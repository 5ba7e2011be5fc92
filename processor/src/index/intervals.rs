//! Which bytes of which stream are indexed: sorted, disjoint intervals for each stream key.
//!
//! A record of a stream is known if its first byte lies in one of the stream's intervals. Records of a stream lie end
//! to end, so a stream read in order is one interval whatever its length; only what is missing in between costs
//! another. In memory a stream takes about 100 bytes and 16 more for each interval; on disk 18 to 36 bytes and 2 to 20
//! for each interval. An index of 100,000 streams without gaps thus keeps some 10 MB in memory, and 3 MB in its commits.
//!
//! Format, for commits and for the file of dropped days: the number of streams; for each its key (16 bytes), the number
//! of its intervals, and for each interval its distance from the end of the one before and its length. All numbers are
//! LEB128. Framing and checksum are the caller's.

use std::collections::HashMap;

use logmesh_proto::StreamKey;
use thiserror::Error;

/// Intervals that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the list of indexed intervals is damaged")]
pub(crate) struct IntervalsDamaged;

/// Sorted, disjoint, non-adjacent, non-empty half-open intervals of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IntervalSet(Vec<(u64, u64)>);

impl IntervalSet {
    /// Adds `[start, end)`, merging what overlaps or touches. An empty interval adds nothing.
    pub(crate) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        // The usual case: the next record of a stream that is read in order.
        if let Some(last) = self.0.last_mut()
            && last.1 == start
        {
            last.1 = end;
            return;
        }
        let first = self.0.partition_point(|interval| interval.1 < start);
        let after = self.0.partition_point(|interval| interval.0 <= end);
        let mut merged = (start, end);
        if let (Some(lowest), Some(highest)) =
            (self.0.get(first), after.checked_sub(1).and_then(|last| self.0.get(last)))
            && first < after
        {
            merged = (start.min(lowest.0), end.max(highest.1));
        }
        self.0.splice(first..after, [merged]);
    }

    /// Whether `offset` lies in an interval.
    pub(crate) fn covers(&self, offset: u64) -> bool {
        let after = self.0.partition_point(|interval| interval.0 <= offset);
        after.checked_sub(1).and_then(|last| self.0.get(last)).is_some_and(|interval| offset < interval.1)
    }

    fn extend(&mut self, other: &Self) {
        for (start, end) in &other.0 {
            self.insert(*start, *end);
        }
    }
}

/// Intervals of many streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Intervals(HashMap<StreamKey, IntervalSet>);

impl Intervals {
    pub(crate) fn insert(&mut self, key: StreamKey, start: u64, end: u64) {
        self.0.entry(key).or_default().insert(start, end);
    }

    pub(crate) fn covers(&self, key: StreamKey, offset: u64) -> bool {
        self.0.get(&key).is_some_and(|set| set.covers(offset))
    }

    /// Adds all intervals of `other`.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (key, set) in &other.0 {
            self.0.entry(*key).or_default().extend(set);
        }
    }

    /// Forgets everything, keeping no memory.
    pub(crate) fn clear(&mut self) {
        self.0 = HashMap::new();
    }

    /// Number of streams and of their intervals.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.0.len(), self.0.values().map(|set| set.0.len()).sum())
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut keys: Vec<_> = self.0.iter().collect();
        keys.sort_unstable_by_key(|(key, _)| **key);
        write_number(out, keys.len() as u64);
        for (key, set) in keys {
            out.extend_from_slice(key.as_bytes());
            write_number(out, set.0.len() as u64);
            let mut end_before = 0;
            for (start, end) in &set.0 {
                write_number(out, start - end_before);
                write_number(out, end - start);
                end_before = *end;
            }
        }
    }

    /// Reads what [`encode`](Self::encode) wrote from the start of `bytes`, and moves `bytes` behind it.
    ///
    /// # Errors
    /// The bytes are not a list of intervals. No number in them is trusted before memory is taken.
    pub(crate) fn decode(bytes: &mut &[u8]) -> Result<Self, IntervalsDamaged> {
        let mut all = Self::default();
        for _ in 0..read_number(bytes)? {
            let (key, rest) = bytes.split_first_chunk::<16>().ok_or(IntervalsDamaged)?;
            *bytes = rest;
            let mut set = IntervalSet::default();
            let mut end_before = 0_u64;
            for _ in 0..read_number(bytes)? {
                let start = end_before.checked_add(read_number(bytes)?).ok_or(IntervalsDamaged)?;
                let end = start.checked_add(read_number(bytes)?).ok_or(IntervalsDamaged)?;
                if start == end {
                    return Err(IntervalsDamaged);
                }
                set.insert(start, end);
                end_before = end;
            }
            all.0.insert(StreamKey::from_bytes(*key), set);
        }
        Ok(all)
    }
}

/// Appends a number as LEB128.
pub(crate) fn write_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a LEB128 number from the start of `bytes`.
pub(crate) fn read_number(bytes: &mut &[u8]) -> Result<u64, IntervalsDamaged> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(IntervalsDamaged)?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return Err(IntervalsDamaged);
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(IntervalsDamaged)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> StreamKey {
        StreamKey::from_bytes([n; 16])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_set_covers_exactly_the_bytes_put_into_it_and_stays_minimal(
            inserts in prop::collection::vec((0_u64..80, 0_u64..12), 0..40),
        ) {
            let mut set = IntervalSet::default();
            let mut model = HashSet::new();
            for (start, length) in inserts {
                set.insert(start, start + length);
                model.extend(start..start + length);
                for offset in 0..100 {
                    prop_assert_eq!(set.covers(offset), model.contains(&offset), "offset {}", offset);
                }
                prop_assert!(set.0.iter().all(|interval| interval.0 < interval.1));
                prop_assert!(set.0.windows(2).all(|pair| pair[0].1 < pair[1].0), "sorted, disjoint, not touching");
            }
        }

        #[test]
        fn intervals_read_back_as_written_and_a_cut_is_noticed(
            inserts in prop::collection::vec((0_u8..5, any::<u64>(), 1_u64..1000), 0..30),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut all = Intervals::default();
            for (stream, start, length) in inserts {
                all.insert(key(stream), start, start.saturating_add(length));
            }
            let mut bytes = Vec::new();
            all.encode(&mut bytes);
            prop_assert_eq!(&Intervals::decode(&mut bytes.as_slice()), &Ok(all));
            let cut = cut.index(bytes.len());
            prop_assert!(Intervals::decode(&mut &bytes[..cut]).is_err());
        }

        #[test]
        fn reading_any_bytes_ends_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Intervals::decode(&mut bytes.as_slice());
        }
    }

    #[test]
    fn the_union_of_two_holds_both() {
        let (mut one, mut other) = (Intervals::default(), Intervals::default());
        one.insert(key(1), 0, 10);
        other.insert(key(1), 10, 20);
        other.insert(key(2), 5, 6);
        one.extend(&other);
        assert!(one.covers(key(1), 19) && one.covers(key(2), 5));
        assert!(!one.covers(key(1), 20) && !one.covers(key(2), 6) && !one.covers(key(3), 0));
        assert_eq!(one.size(), (2, 2));
    }
}
