//! The memtable beside an ordered map, and beside readers.

use super::*;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Versions by key, newest first; `None`: a deletion.
type Model = BTreeMap<(Vec<u8>, Reverse<u64>), Option<Vec<u8>>>;

fn told(row: &Row) -> (Vec<u8>, u64, Option<Vec<u8>>) {
    let value = (!row.key.deleted).then(|| row.value.to_vec());
    (row.key.key.to_vec(), row.key.offset, value)
}

/// Keys that begin alike, end in zeros, are empty, ascend or are scattered.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (0u32..2000).prop_map(|n| format!("user/{n:08}/and a long end").into_bytes()),
        4 => (0u32..2000).prop_map(|n| n.wrapping_mul(0x9e37_79b9).to_be_bytes().to_vec()),
        2 => (0usize..20).prop_map(|n| vec![0; n]),
        1 => (0usize..20).prop_map(|n| [&b"user/"[..], &vec![0; n]].concat()),
        1 => Just(b"hot".to_vec()),
    ]
}

fn check(memtable: &Memtable, model: &Model, from: &[u8], to: Option<&[u8]>) {
    let within = |key: &[u8]| from <= key && to.is_none_or(|to| key < to);
    let wanted: Vec<_> = model
        .iter()
        .filter(|((key, _), _)| within(key))
        .map(|((key, offset), value)| (key.clone(), offset.0, value.clone()))
        .collect();
    let up: Vec<_> = memtable.up(from, to).map(|row| told(&row)).collect();
    assert_eq!(up, wanted);
    let mut down: Vec<_> = memtable.down(from, to).map(|row| told(&row)).collect();
    down.reverse();
    assert_eq!(down, wanted);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn it_holds_what_an_ordered_map_holds(
        rows in proptest::collection::vec((key(), 0u64..40, proptest::option::of(0u8..9)), 0..1500),
        ranges in proptest::collection::vec((key(), proptest::option::of(key())), 20),
    ) {
        let (memtable, mut model) = (Memtable::default(), Model::new());
        for (key, offset, value) in rows {
            let value = value.map(|byte| vec![byte; usize::from(byte)]);
            memtable.insert(&key, offset, value.as_deref());
            model.insert((key, Reverse(offset)), value);
        }
        prop_assert_eq!(memtable.is_empty(), model.is_empty());
        check(&memtable, &model, b"", None);
        for (from, to) in &ranges {
            check(&memtable, &model, from, to.as_deref());
            for offset in [0, 7, 39, 1 << 40] {
                let newest = model.range((from.clone(), Reverse(offset))..).next();
                let newest = newest.filter(|((key, _), _)| key == from);
                let wanted = newest.map(|((key, offset), value)| {
                    (key.clone(), offset.0, value.clone())
                });
                let found = memtable.get(from, offset).map(|row| told(&row));
                prop_assert_eq!(found, wanted);
            }
        }
    }
}

#[test]
fn keys_that_ascend_or_descend_fill_leaves() {
    for descending in [false, true] {
        let (memtable, mut model) = (Memtable::default(), Model::new());
        for i in 0..20_000u32 {
            let number = if descending { u32::MAX - i } else { i };
            memtable.insert(&number.to_be_bytes(), u64::from(i), Some(b"v"));
            model.insert((number.to_be_bytes().to_vec(), Reverse(u64::from(i))), Some(vec![b'v']));
        }
        check(&memtable, &model, b"", None);
        let leaves = memtable.leaves_made.load(Ordering::Relaxed) as usize;
        let fewest = 20_000 / LEAF_ROWS;
        assert!(leaves <= if descending { 5 * fewest } else { fewest + 1 }, "{leaves} leaves");
    }
}

/// What was inserted before a reader began is met by it, once and in order, while more comes.
#[test]
fn readers_meet_everything_while_more_is_inserted() {
    const ROWS: u64 = 60_000;
    let key = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let (memtable, told) = (Memtable::default(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..ROWS {
                memtable.insert(&key(number), number, Some(&number.to_le_bytes()));
                told.store(number + 1, Ordering::Release);
            }
        });
        for reader in 0..2u64 {
            let (memtable, told) = (&memtable, &told);
            scope.spawn(move || {
                let mut seed = reader;
                loop {
                    let known = told.load(Ordering::Acquire);
                    let met = |rows: &mut dyn Iterator<Item = Row>| {
                        let mut keys: Vec<_> = Vec::new();
                        let mut count = 0;
                        for row in rows {
                            count += u64::from(row.key.offset < known);
                            keys.push(row.key.key);
                        }
                        assert_eq!(count, known, "all that was known is met once");
                        keys
                    };
                    let up = met(&mut memtable.up(b"", None));
                    assert!(up.is_sorted_by(|one, other| one < other));
                    let down = met(&mut memtable.down(b"", None));
                    assert!(down.is_sorted_by(|one, other| one > other));
                    for _ in 0..1000.min(known) {
                        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                        let number = (seed >> 20) % known;
                        let found = memtable.get(&key(number), u64::MAX).expect("it is there");
                        assert_eq!(*found.value, number.to_le_bytes());
                    }
                    if known == ROWS {
                        return;
                    }
                }
            });
        }
    });
}
