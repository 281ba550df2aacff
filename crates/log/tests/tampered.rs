//! Files that were tampered with at will: no panic, and what opens opens again the same.

use naust_log::fuzzing::recovery;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes(changes in proptest::collection::vec(any::<[u8; 8]>(), 0..12)) {
        let mut bytes = vec![0];
        bytes.extend(changes.concat());
        recovery(&bytes);
    }

    #[test]
    fn replaced_content(choice: u8, content in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = vec![choice | 1];
        bytes.extend(content);
        recovery(&bytes);
    }
}
