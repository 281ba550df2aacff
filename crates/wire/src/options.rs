//! Options of namespaces, keyspaces and streams.

use crate::code::Code;
use crate::limits::{HISTORY_BYTES_MIN, HISTORY_MS_MIN, INTERVAL_MS_MAX};
use crate::message::Refusal;
use crate::naust_capnp as schema;

/// How a keyspace's tree is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compaction {
    /// Few runs, fast reads, more bytes rewritten. The default.
    #[default]
    Levelled,
    /// More runs, slower reads, fewer bytes rewritten.
    WriteOptimised,
    /// Never rewritten: the oldest rows fall below a logged floor, by age or by size.
    Fifo,
}

/// How a keyspace's blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4. The default.
    #[default]
    Lz4,
}

/// Options of a keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct KeyspaceOptions {
    /// How its tree is compacted.
    pub compaction: Compaction,
    /// How its blocks are compressed.
    pub compression: Compression,
    /// FIFO only: bytes of keys and values to keep; 0: no limit.
    pub max_bytes: u64,
    /// FIFO only: milliseconds of log time to keep a row; 0: no limit.
    pub max_age_ms: u64,
}

/// Retention of a stream; zero means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StreamOptions {
    /// Milliseconds of log time to keep a record.
    pub max_age_ms: u64,
    /// Bytes of records to keep.
    pub max_bytes: u64,
    /// Records to keep.
    pub max_records: u64,
}

/// When a commit is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// When a quorum of disks has it. The default.
    #[default]
    Quorum,
    /// At once; synced at least every so many milliseconds. A power cut may lose the last of it.
    /// Single-voter shards only.
    IntervalMs(u32),
}

/// Options of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NamespaceOptions {
    /// Window of history in milliseconds of log time; 0: the default.
    pub history_ms: u64,
    /// Window of history in log bytes; 0: the default. Whichever of the two is less.
    pub history_bytes: u64,
    /// When a commit is acknowledged.
    pub durability: Durability,
}

impl KeyspaceOptions {
    /// Refuses limits of age or size for a keyspace that is not FIFO: nothing would heed them.
    ///
    /// # Errors
    /// [`Code::BadArgument`].
    pub fn check(&self) -> Result<(), Refusal> {
        let limited = self.max_bytes != 0 || self.max_age_ms != 0;
        if limited && self.compaction != Compaction::Fifo {
            let detail = "limits of age and size are for FIFO keyspaces only";
            return Err(Refusal::new(Code::BadArgument, detail));
        }
        Ok(())
    }

    pub(crate) fn write(self, mut to: schema::keyspace_options::Builder<'_>) {
        to.set_compaction(match self.compaction {
            Compaction::Levelled => schema::Compaction::Levelled,
            Compaction::WriteOptimised => schema::Compaction::WriteOptimised,
            Compaction::Fifo => schema::Compaction::Fifo,
        });
        to.set_compression(match self.compression {
            Compression::None => schema::Compression::None,
            Compression::Lz4 => schema::Compression::Lz4,
        });
        to.set_max_bytes(self.max_bytes);
        to.set_max_age_ms(self.max_age_ms);
    }

    pub(crate) fn read(
        from: schema::keyspace_options::Reader<'_>,
    ) -> Result<KeyspaceOptions, Refusal> {
        Ok(KeyspaceOptions {
            compaction: match from.get_compaction()? {
                schema::Compaction::Levelled => Compaction::Levelled,
                schema::Compaction::WriteOptimised => Compaction::WriteOptimised,
                schema::Compaction::Fifo => Compaction::Fifo,
            },
            compression: match from.get_compression()? {
                schema::Compression::None => Compression::None,
                schema::Compression::Lz4 => Compression::Lz4,
            },
            max_bytes: from.get_max_bytes(),
            max_age_ms: from.get_max_age_ms(),
        })
    }
}

impl StreamOptions {
    pub(crate) fn write(self, mut to: schema::stream_options::Builder<'_>) {
        to.set_max_age_ms(self.max_age_ms);
        to.set_max_bytes(self.max_bytes);
        to.set_max_records(self.max_records);
    }

    pub(crate) fn read(from: schema::stream_options::Reader<'_>) -> StreamOptions {
        StreamOptions {
            max_age_ms: from.get_max_age_ms(),
            max_bytes: from.get_max_bytes(),
            max_records: from.get_max_records(),
        }
    }
}

impl NamespaceOptions {
    /// Refuses an interval of no milliseconds or of more than [`INTERVAL_MS_MAX`].
    ///
    /// # Errors
    /// [`Code::BadArgument`].
    pub fn check(&self) -> Result<(), Refusal> {
        match self.durability {
            Durability::IntervalMs(ms) if ms == 0 || ms > INTERVAL_MS_MAX => {
                let detail =
                    format!("an interval of {ms} ms; from 1 to {INTERVAL_MS_MAX} it can be");
                Err(Refusal::new(Code::BadArgument, detail))
            }
            Durability::IntervalMs(_) | Durability::Quorum => Ok(()),
        }
    }

    /// Refuses a window of history in which no page could be read; 0 is the default. Only for what
    /// is asked for now: logs may have smaller ones, which count as the smallest.
    ///
    /// # Errors
    /// [`Code::BadArgument`].
    pub fn check_history(&self) -> Result<(), Refusal> {
        let bounds = [
            ("ms", self.history_ms, HISTORY_MS_MIN),
            ("bytes", self.history_bytes, HISTORY_BYTES_MIN),
        ];
        let small = bounds.iter().find(|(_, asked, least)| (1..*least).contains(asked));
        small.map_or(Ok(()), |(unit, asked, least)| {
            let detail = format!("history of {asked} {unit}; it is at least {least} {unit}");
            Err(Refusal::new(Code::BadArgument, detail))
        })
    }

    pub(crate) fn write(self, mut to: schema::namespace_options::Builder<'_>) {
        to.set_history_ms(self.history_ms);
        to.set_history_bytes(self.history_bytes);
        let mut durability = to.init_durability();
        match self.durability {
            Durability::Quorum => durability.set_quorum(()),
            Durability::IntervalMs(ms) => durability.set_interval_ms(ms),
        }
    }

    pub(crate) fn read(
        from: schema::namespace_options::Reader<'_>,
    ) -> Result<NamespaceOptions, Refusal> {
        use schema::namespace_options::durability::Which;
        Ok(NamespaceOptions {
            history_ms: from.get_history_ms(),
            history_bytes: from.get_history_bytes(),
            durability: match from.get_durability().which()? {
                Which::Quorum(()) => Durability::Quorum,
                Which::IntervalMs(ms) => Durability::IntervalMs(ms),
            },
        })
    }
}
