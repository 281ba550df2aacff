//! Options of namespaces, keyspaces and streams.

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
    /// At once; synced at least every so many milliseconds. A power cut may lose the last of it. Single-voter shards only.
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
