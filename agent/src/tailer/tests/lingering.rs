//! What waits for company, and what leaves at once.

use std::time::Duration;

use super::rig::{Rig, SECOND, lines};
use crate::{discovery::Hint, parcel::Answer};

const STEP: Duration = Duration::from_millis(5);

fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.kill();
    rig.limits.batch_bytes_max = 256 * 1024;
    rig.limits.batch_records_max = 10_000;
    rig.start();
    rig.answer(Answer::Credit(64 << 20));
    rig
}

/// One turn after a change; answers the sizes of the batches that left, in bytes of their source. All are acknowledged.
fn change(rig: &mut Rig, path: &str, text: &str) -> Vec<u64> {
    rig.files.append(path, text.as_bytes());
    let mut sizes = Vec::new();
    let mut hints = vec![Hint::Changed(path.into())];
    loop {
        rig.turn(std::mem::take(&mut hints));
        if rig.waiting.is_empty() {
            return sizes;
        }
        for parcel in std::mem::take(&mut rig.waiting) {
            sizes.push(parcel.batch.end_offset - parcel.batch.first_offset);
            rig.acknowledge(&parcel);
        }
    }
}

#[test]
fn a_quick_stream_waits_for_company_and_a_slow_one_beside_it_does_not() {
    let mut rig = rig();
    let (tick, line) = (lines("quick", 0..800), lines("slow", 0..1));
    for (path, text) in [("/logs/quick.log", &tick), ("/logs/slow.log", &line)] {
        rig.files.append(path, text.as_bytes());
    }
    rig.run(SECOND);
    let (mut batches, mut written) = (Vec::new(), 0);
    for step in 0..400 {
        let sent = change(&mut rig, "/logs/quick.log", &tick);
        // At first it is not known for quick.
        if step >= 100 {
            written += tick.len() as u64;
            batches.extend(sent);
        }
        if step % 10 == 0 {
            assert_eq!(change(&mut rig, "/logs/slow.log", &line), [line.len() as u64], "at {step}");
        }
        rig.pass(STEP);
    }
    let sent: u64 = batches.iter().sum();
    assert!(sent.abs_diff(written) < 3_000_000, "{sent} of {written} bytes");
    let full = batches.iter().filter(|bytes| **bytes > 250 * 1024).count();
    assert!(full * 10 > batches.len() * 9, "{batches:?}");
}

#[test]
fn a_burst_leaves_with_its_end_at_once() {
    let mut rig = rig();
    assert_eq!(change(&mut rig, "/logs/a.log", &lines("a", 0..1)).len(), 1);
    rig.pass(SECOND * 10);
    let burst = lines("a", 0..20_000);
    let sizes = change(&mut rig, "/logs/a.log", &burst);
    assert_eq!(sizes.iter().sum::<u64>(), burst.len() as u64, "{sizes:?}");
}
