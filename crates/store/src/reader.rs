//! Reads from any thread, beside the owner.

use crate::export::LsmExport;
use crate::row::Row;
use crate::shard::Shard;
use lsm_tree::Slice;
use naust_machine::{Checked, Fault, KeyRange, TablesReader, TreeId, Version};
use naust_wire::Offset;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A reader of one shard's tables. See [`TablesReader`].
#[derive(Clone)]
pub struct LsmReader {
    shard: Arc<Shard>,
}

/// The bytes of a value, shared with the memory or the cached block that they were found in.
pub struct Value(Slice);

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl LsmReader {
    pub(crate) fn new(shard: Arc<Shard>) -> LsmReader {
        LsmReader { shard }
    }
}

impl TablesReader for LsmReader {
    type Value = Value;
    type Export = LsmExport;

    fn check(&self, from: u64, bytes: u64) -> Result<Checked, Fault> {
        let mut tables = self.shard.tables_from(from).into_iter();
        let mut checked = Checked::default();
        for table in tables.by_ref() {
            let record = table.record();
            record.verify(&self.shard.directory.path)?;
            checked.bytes += record.bytes;
            if checked.bytes >= bytes {
                break;
            }
        }
        checked.next = tables.next().map(|table| table.record().id);
        Ok(checked)
    }

    fn export(&self) -> Result<LsmExport, Fault> {
        LsmExport::of(&self.shard)
    }

    fn get(&self, tree: TreeId, key: &[u8], at: Offset) -> Result<Option<Version<Value>>, Fault> {
        let Some((view, floor)) = self.shard.view(tree) else {
            return Ok(None);
        };
        let found = view.get(key, at.0)?.filter(|row| row.key.offset >= floor);
        Ok(found.map(|Row { key, value }| Version {
            offset: Offset(key.offset),
            value: (!key.deleted).then_some(Value(value)),
        }))
    }

    fn scan(
        &self,
        tree: TreeId,
        range: KeyRange<'_>,
        reverse: bool,
        at: Offset,
        visit: &mut dyn FnMut(&[u8], Offset, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Fault> {
        let Some((view, floor)) = self.shard.view(tree) else {
            return Ok(());
        };
        view.scan(range, reverse, at.0, &mut |row| {
            if row.key.deleted || row.key.offset < floor {
                return ControlFlow::Continue(());
            }
            visit(&row.key.key, Offset(row.key.offset), &row.value)
        })
    }
}
