//! Draws commits: every op, every condition, in every mixture.

use super::keys;
use super::knowledge::Knowledge;
use crate::generator::Generator;
use crate::plan::Work;
use naust_wire::Offset;
use naust_wire::commit::Draft;
use naust_wire::message::Refusal;

/// Draws a commit. `number` is its own: no other commit of the life has the same bytes.
///
/// # Errors
/// When the draft passed a limit, which a draw may.
pub fn draw(
    generator: &mut Generator,
    work: &Work,
    known: &Knowledge,
    number: u64,
) -> Result<Draft<'static>, Refusal> {
    let mut draft = Draft::default();
    let names = Names { spaces: work.spaces };
    if generator.chance(work.conditions_in_a_million) {
        for _ in 0..generator.skewed(1, 3) {
            condition(generator, work, known, &names, &mut draft)?;
        }
    }
    for _ in 0..generator.between(1, work.ops) {
        op(generator, work, known, &names, &mut draft, number)?;
    }
    draft.name(format!("commit {number}"))?;
    Ok(draft)
}

struct Names {
    spaces: u64,
}

impl Names {
    fn keyspace(&self, generator: &mut Generator) -> String {
        keys::keyspace(generator.below(self.spaces))
    }

    fn stream(&self, generator: &mut Generator) -> String {
        keys::stream(generator.below(self.spaces))
    }
}

fn condition(
    generator: &mut Generator,
    work: &Work,
    known: &Knowledge,
    names: &Names,
    draft: &mut Draft<'static>,
) -> Result<(), Refusal> {
    match generator.weighted(&work.condition_weights) {
        Some(0) => {
            let drawn = || (String::new(), Vec::new(), Offset::ZERO);
            let (mut keyspace, mut key, mut version) =
                known.some_version(generator).unwrap_or_else(drawn);
            if keyspace.is_empty() || generator.below(8) == 0 {
                keyspace = names.keyspace(generator);
                key = keys::some_key(generator, work);
                version = if generator.coin() { Offset::ZERO } else { version };
            }
            draft.version(keyspace, key, version)
        }
        Some(1) => draft.absent(names.keyspace(generator), keys::some_key(generator, work)),
        _ => {
            let (from, to) = keys::some_range(generator, work);
            let since =
                if generator.coin() { known.latest() } else { known.some_offset(generator) };
            draft.unchanged(names.keyspace(generator), from, to.map(Into::into), since)
        }
    }
}

fn op(
    generator: &mut Generator,
    work: &Work,
    known: &Knowledge,
    names: &Names,
    draft: &mut Draft<'static>,
    number: u64,
) -> Result<(), Refusal> {
    match generator.weighted(&work.op_weights) {
        Some(1) => draft.delete(names.keyspace(generator), keys::some_key(generator, work)),
        Some(2) if draft.ops.len() < 8 => {
            let (from, to) = keys::some_range(generator, work);
            draft.delete_range(names.keyspace(generator), from, to.map(Into::into))
        }
        Some(3) => draft.append(names.stream(generator), value(generator, work, number)),
        Some(4) => {
            let cursor = keys::cursor(generator.below(work.spaces));
            let offset = known.some_record(generator);
            draft.advance(names.stream(generator), cursor, offset)
        }
        _ => {
            let key = keys::some_key(generator, work);
            draft.put(names.keyspace(generator), key, value(generator, work, number))
        }
    }
}

/// A value that tells which commit wrote it; now and then an empty one.
fn value(generator: &mut Generator, work: &Work, number: u64) -> Vec<u8> {
    let length = generator.skewed(0, work.value_bytes) as usize;
    let mut value = generator.bytes(length);
    let mark = number.to_le_bytes();
    let marked = mark.len().min(value.len());
    value[..marked].copy_from_slice(&mark[..marked]);
    value
}
