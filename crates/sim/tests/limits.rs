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
    let told = objects(|held| held.frames.push((base(1).plus(9200)..base(1).plus(9300), None)));
    assert!(told.contains("for nothing"), "{told}");
    let dead = base(1).plus(9200)..base(1).plus(9300);
    let told = objects(|held| held.frames.push((dead, Some(100))));
    assert!(told.contains("200 dead bytes"), "{told}");
    let told = objects(|held| held.files[0].1 = SEGMENT_BYTES);
    assert!(told.contains("the sparse segment"), "{told}");
    let told = objects(|held| held.files[2].1 = 3 * SEGMENT_BYTES);
    assert!(told.contains("more than"), "{told}");
    let told = objects(|held| held.files.push((base(6), 4096)));
    assert!(told.contains("ahead of the end"), "{told}");
}
