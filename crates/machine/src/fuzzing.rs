//! Entry points of the fuzz targets: any bytes as rows of the shard tree.
//!
//! They live here so that tests exercise them too, without a fuzzer.

use crate::chunk::Places;
use crate::open::Loaded;
use crate::rows::Key;
use naust_wire::Offset;

/// Any bytes as a row: the first byte is the length of its key. A row is taken or refused, and what
/// a stream's index tells of its records never runs on.
pub fn row(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else { return };
    let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
    let _ = Loaded::default().rows([(key, value)]);
    if let Ok(Key::Chunk(_, first)) = Key::read(key)
        && let Ok(places) = Places::read(first, value)
    {
        let mut last = Offset::ZERO;
        for place in places.flatten() {
            assert!(place.offset >= last, "records lie in their order");
            last = place.offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::KEYS;
    use proptest::prelude::*;

    #[test]
    fn the_last_number_of_all_has_no_run_after_it() {
        for last in [u64::MAX, u64::MAX - 1] {
            let key = Key::Recent(last).bytes();
            assert!(Loaded::default().rows([(&key[..], &b""[..])]).is_err());
            row(&[&[key.len() as u8][..], &key].concat());
        }
        let key = Key::Recent(u64::MAX - 2).bytes();
        assert!(Loaded::default().rows([(&key[..], &b""[..])]).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(
            kind in 0..KEYS.len(),
            value in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..120)
        ) {
            let key = KEYS[kind].bytes();
            row(&[&[key.len() as u8], &key[..], &value].concat());
            row(&value);
        }
    }
}
