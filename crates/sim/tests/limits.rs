//! What a replica holds on its disk: the checker is shown a disk that is right, and then the same
//! one with one segment too much, and must tell them apart.

#![allow(clippy::unwrap_used)]

use naust_sim::checkers::limits::{Held, check};
use naust_wire::Offset;

const SEGMENT_BYTES: u64 = 1 << 16;

fn base(number: u64) -> Offset {
    Offset::FIRST.plus(number * SEGMENT_BYTES)
}

/// Three old segments, the first of which is gone, the second sparse, the third mostly alive; then
/// two that are needed, and one that is made ready.
fn right() -> Held {
    let sparse = base(1).plus(4096)..base(1).plus(5120);
    Held {
        segment_bytes: SEGMENT_BYTES,
        end: base(4).plus(100),
        old_below: base(3),
        files: vec![
            (base(1), 8192),
            (base(2), SEGMENT_BYTES + 4096),
            (base(3), SEGMENT_BYTES + 4096),
            (base(4), SEGMENT_BYTES),
            (base(5), 16384),
        ],
        live: vec![base(1).plus(4200)..base(1).plus(4400), base(2).plus(56)..base(2).plus(50_000)],
        frames: vec![
            (sparse, Some(200)),
            (base(1).plus(9000)..base(1).plus(9200), Some(100)),
            (base(2)..base(2).plus(50_000), Some(49_944)),
        ],
    }
}

fn objects(spoil: impl FnOnce(&mut Held)) -> String {
    let mut held = right();
    spoil(&mut held);
    check(&held).unwrap_err()
}

#[test]
fn what_is_needed_may_be_held() {
    assert_eq!(check(&right()), Ok(()));
    assert_eq!(check(&Held::default()), Ok(()));
}

#[test]
fn what_nobody_needs_may_not() {
    let told = objects(|held| held.files.push((base(0), 4096)));
    assert!(told.contains("nothing lives in the old segment at 4294967296"), "{told}");
    let told = objects(|held| held.live.truncate(1));
    assert!(told.contains("nothing lives"), "{told}");
    // A frame of which no record can have lived, and one whose record can't have died of late.
    let dead = base(1).plus(20_000)..base(1).plus(50_000);
    for smallest in [None, Some(29_000)] {
        let told = objects(|held| held.frames.insert(2, (dead.clone(), smallest)));
        assert!(told.contains("keeps frames of 31224 bytes"), "{told}");
    }
    // One that may have kept the frame a moment ago.
    let mut held = right();
    held.frames.insert(2, (dead, Some(60)));
    assert_eq!(check(&held), Ok(()));
    // Between two that live, near each other and far.
    let mut between = |gap: u64| {
        held = right();
        let from = base(1).plus(5120);
        let behind = from.plus(gap)..from.plus(gap + 64);
        held.live.insert(1, behind.clone());
        held.frames[1] = (from..from.plus(gap), None);
        held.frames.insert(2, (behind, Some(64)));
        check(&held).is_ok()
    };
    assert!(between(4088) && !between(4096));
    let told = objects(|held| held.files[0].1 = SEGMENT_BYTES);
    assert!(told.contains("the sparse segment"), "{told}");
    let told = objects(|held| held.files[2].1 = 3 * SEGMENT_BYTES);
    assert!(told.contains("more than"), "{told}");
    let told = objects(|held| held.files.push((base(6), 4096)));
    assert!(told.contains("ahead of the end"), "{told}");
}
