//! Files that were tampered with at will: no panic, and what opens opens again the same.

use naust_log::fuzzing::{foreign_frames, journal, recovery};
use proptest::prelude::*;

#[test]
fn a_whole_journal_is_replayed() {
    journal(&[0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes(changes in proptest::collection::vec(any::<[u8; 8]>(), 0..12)) {
        let mut bytes = vec![0];
        bytes.extend(changes.concat());
        recovery(&bytes);
    }

    #[test]
    fn a_changed_journal(changes in proptest::collection::vec(any::<[u8; 8]>(), 0..4)) {
        let mut bytes = vec![0];
        bytes.extend(changes.concat());
        journal(&bytes);
    }

    #[test]
    fn another_journal(content in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = vec![1];
        bytes.extend(content);
        journal(&bytes);
    }

    #[test]
    fn frames_of_a_peer(changes in proptest::collection::vec(any::<[u8; 8]>(), 0..6)) {
        foreign_frames(&changes.concat());
    }

    #[test]
    fn frames_of_a_peer_in_order(
        first in 1u8..41,
        changes in proptest::collection::vec(any::<[u8; 8]>(), 0..20),
    ) {
        let changes = changes.iter().zip(first - 1..).map(|(change, frame)| {
            let mut change = *change;
            // Most of them as they are.
            change[1] = if change[6] % 8 == 0 { change[1] } else { 7 };
            change[0] = frame;
            change
        });
        foreign_frames(&changes.collect::<Vec<_>>().concat());
    }

    #[test]
    fn replaced_content(choice: u8, content in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = vec![choice | 1];
        bytes.extend(content);
        recovery(&bytes);
    }
}

/// The segment behind the first one lost what it held, and what the frames behind it say about the
/// disk rotted: the log ends before the padding of the first, whose footer was believed.
#[test]
fn a_tail_that_begins_in_a_segment_that_was_believed() {
    let changes: [[u8; 8]; 3] = [
        [94, 128, 99, 71, 0, 0, 0, 0],
        [254, 29, 219, 184, 0, 0, 0, 0],
        [25, 134, 0, 65, 0, 0, 0, 0],
    ];
    recovery(&[&[0], &changes.concat()[..]].concat());
    // The same, and a frame is bad in the segment that was believed.
    recovery(&[&[0, 72, 0, 0, 0, 0, 0, 0, 0], &changes.concat()[..]].concat());
}
