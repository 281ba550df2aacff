//! Every bound of the product, in one file, with the relations between them asserted at compile
//! time.
//!
//! A bound that users can meet has an error code; the pages in `docs/errors/` quote these names.

/// Longest body of a log frame, in bytes: it fits the 24 bits that the frame header gives it.
pub const FRAME_BODY_BYTES_MAX: usize = 16 * 1024 * 1024 - 1;
/// Size of a frame header in bytes; a multiple of 8, so that bodies are 8-byte aligned.
pub const FRAME_HEADER_BYTES: usize = 56;
/// Frames begin at multiples of this many bytes.
pub const FRAME_ALIGN: usize = 8;
/// Log bytes that one segment covers.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Shortest hole that trimming makes in a segment, in bytes: a shorter one frees no block of a
/// disk, and costs memory and time as any other.
pub const HOLE_BYTES_MIN: u64 = 4096;
/// Stretches of frames between holes that a segment may have; one of which more would be left is
/// not trimmed.
pub const STRETCHES_PER_SEGMENT_MAX: usize = 16_384;
/// Bytes of a half of the journal for small writes of many logs, at most.
pub const JOURNAL_HALF_BYTES: u64 = 16 * 1024 * 1024;
/// Longest write that goes through that journal, in bytes.
pub const JOURNAL_WRITE_BYTES_MAX: u64 = 16 * 1024;
/// Writes that one of its records holds.
pub const JOURNAL_PARTS_MAX: usize = 256;
/// Size of a packet header in bytes.
pub const PACKET_HEADER_BYTES: usize = 24;
/// Longest body of a packet, in bytes. A commit's packet body is its frame's body.
pub const PACKET_BODY_BYTES_MAX: usize = FRAME_BODY_BYTES_MAX;

/// Longest key, in bytes (the table engine panics near 64 KiB).
pub const KEY_BYTES_MAX: usize = 32 * 1024;
/// Longest value or record, in bytes: it must fit a frame with its key and the op around it.
pub const VALUE_BYTES_MAX: usize = 14 * 1024 * 1024;
/// Longest name of a namespace, keyspace, stream or cursor, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 255;
/// Ops in one commit.
pub const OPS_PER_COMMIT_MAX: usize = 16_384;
/// Conditions in one commit.
pub const CONDITIONS_PER_COMMIT_MAX: usize = 4_096;
/// Names that one commit may use.
pub const NAMES_PER_COMMIT_MAX: usize = 1_024;
/// Delete-range ops in one commit.
pub const RANGE_DELETES_PER_COMMIT_MAX: usize = 16;
/// Keys that one delete-range removes before it says where to go on.
pub const RANGE_DELETE_KEYS_MAX: usize = 10_000;
/// Log bytes of recent writes that `unchanged` conditions can look back on.
pub const RECENT_WRITES_LOG_BYTES: u64 = 16 * 1024 * 1024;

/// Rows in one page of a scan, records in one read of a stream, and names in one page of a list of
/// namespaces or of what a namespace has.
pub const PAGE_ROWS_MAX: usize = 10_000;
/// Rows in one page when the caller names no limit.
pub const PAGE_ROWS_DEFAULT: usize = 1_000;
/// Bytes of keys and values in one page; the last row may pass it.
pub const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of raw frames in one read of the log; one whole frame may pass it.
pub const LOG_READ_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest that a read may wait for news, in milliseconds.
pub const WAIT_MS_MAX: u64 = 60_000;

/// Sessions of one shard; the one longest unused goes first when another is opened.
pub const SESSIONS_PER_SHARD_MAX: usize = 100_000;
/// Replies that a session keeps: a client may have this many unacknowledged commits under way.
pub const SESSION_WINDOW_MAX: usize = 1_024;
/// A session's life without a commit, in milliseconds of log time, when its opener names none.
pub const SESSION_TTL_MS_DEFAULT: u64 = 10 * 60 * 1000;
/// Longest such life that an opener may ask for.
pub const SESSION_TTL_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Default window of history, in milliseconds of log time.
pub const HISTORY_MS_DEFAULT: u64 = 60_000;
/// Default window of history, in log bytes; whichever of the two is less.
pub const HISTORY_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// Keyspaces of one namespace.
pub const KEYSPACES_PER_NAMESPACE_MAX: usize = 1_024;
/// Streams of one namespace.
pub const STREAMS_PER_NAMESPACE_MAX: usize = 65_536;
/// Cursors of one stream.
pub const CURSORS_PER_STREAM_MAX: usize = 4_096;
/// Namespaces of one cluster.
pub const NAMESPACES_MAX: usize = 16_384;

/// Connections that a node holds; the next one is told `Overloaded` and closed.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Requests under way in a node over all connections; the next one is answered `Overloaded`.
pub const REQUESTS_MAX: usize = 131_072;
/// Bytes of requests under way in a node; past it requests are answered `Overloaded`.
pub const REQUEST_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Requests under way on one connection; past it the node stops reading from that connection.
pub const REQUESTS_PER_CONNECTION_MAX: usize = 16_384;
/// Bytes of replies waiting for one connection's socket; past it the node stops reading from that
/// connection.
pub const REPLY_BYTES_PER_CONNECTION_MAX: usize = 8 * 1024 * 1024;
/// Bytes of replies that one connection's client does not read; past it the connection is closed.
pub const UNREAD_BYTES_PER_CONNECTION_MAX: usize = 128 * 1024 * 1024;
/// Bytes of replies that clients of native connections do not read, in a node; past it the
/// connection with the most of them is closed, if it has more than an equal share.
pub const UNREAD_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Milliseconds in which a client must take a byte of the replies that wait for it; past it its
/// connection is closed.
pub const UNREAD_MS_MAX: u64 = 30_000;
/// Milliseconds of silence on a native connection after which the operating system asks whether
/// the other side is still there.
pub const KEEPALIVE_MS: u64 = 60_000;
/// Milliseconds between two such questions.
pub const KEEPALIVE_PROBE_MS: u64 = 10_000;
/// Such questions without an answer after which a connection is gone.
pub const KEEPALIVE_PROBES_MAX: u32 = 3;
/// Log bytes proposed but not yet applied, a shard; past it commits are answered `Overloaded`.
pub const UNAPPLIED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Commits proposed but not yet applied, a shard.
pub const UNAPPLIED_FRAMES_MAX: usize = 131_072;
/// Milliseconds that a packet may take from its first byte to its last.
pub const PACKET_MS_MAX: u64 = 30_000;

// Messages.

/// Longest body of a commit or control frame, in bytes: a little less than a frame's, so that a
/// reply to a read of the log, which holds whole frames, fits a packet.
pub const COMMIT_BODY_BYTES_MAX: usize = FRAME_BODY_BYTES_MAX - 4095;
/// Longest sentence in an error reply, in bytes; longer ones are cut.
pub const DETAIL_BYTES_MAX: usize = 4096;
/// Longest token, address, version or client's own name, in bytes.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Floors in one control entry.
pub const FLOORS_PER_CONTROL_MAX: usize = 4_096;
/// Nodes of one cluster.
pub const NODES_MAX: usize = 1_024;
/// Replicas of one shard.
pub const REPLICAS_PER_SHARD_MAX: usize = 64;
/// Bytes of an encoded configuration of a shard: who votes and who learns.
pub const PEER_CONFIGURATION_BYTES_MAX: usize = 2_048;
/// Bytes of tokens that replicas tell each other beside a message.
pub const CONTEXT_BYTES_MAX: usize = 64;
/// Views of one shard whose digests are told.
pub const VIEWS_PER_SHARD_MAX: usize = 64;
/// Digests that a replica keeps: of so many of the last times that it was to note them.
pub const NOTED_DIGESTS_MAX: usize = 8;
/// Milliseconds after the digests of a shard were noted in which they are not noted again: whoever
/// asks for it is answered `Overloaded`, as while that is under way.
pub const DIGESTS_PAUSE_MS: u64 = 1_000;
/// Replicas that a shard gets while there are nodes for them.
pub const REPLICAS_DEFAULT: usize = 3;
/// Log bytes in one message to a follower, but for a frame that is longer alone.
pub const APPEND_BYTES_MAX: usize = 1024 * 1024;
/// Frames in one message to a follower.
pub const APPEND_FRAMES_MAX: u64 = 4096;
/// Files of one transfer of a replica: segments and tables.
pub const TRANSFER_FILES_MAX: usize = 65_536;
/// Bytes of one part of a file on its way to another replica: so few that no commit waits for long
/// behind one.
pub const TRANSFER_PART_BYTES: usize = 128 * 1024;
/// Log bytes that a leader keeps, beyond what it needs itself, for a follower that got a copy and
/// lacks what was written meanwhile; past it the follower may need another copy.
pub const CATCH_UP_LOG_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// Longest file of a replica, in bytes, that is not sent again if the other one has it already from
/// an earlier try: to tell that, both read all of it.
pub const TRANSFER_DIGEST_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Longest file of a replica on its way to another, in bytes.
pub const TRANSFER_FILE_BYTES_MAX: u64 = 1 << 40;
/// Most bytes of a replica that are sent to another node a second while clients write to its shard,
/// when nothing else is set.
pub const TRANSFER_BYTES_PER_S_DEFAULT: u64 = 1024 * 1024 * 1024;
/// Bytes of a replica that are sent a second at the least, however long commits take meanwhile: a
/// copy has to come to its end.
pub const TRANSFER_BYTES_PER_S_MIN: u64 = 8 * 1024 * 1024;
/// Bytes of logs that a node reads again a second, to find damage, when nothing else is set.
pub const SCRUB_BYTES_PER_S_DEFAULT: u64 = 16 * 1024 * 1024;
/// Milliseconds from the beginning of one walk over all logs to the next, when nothing else is set.
pub const SCRUB_EVERY_MS_DEFAULT: u64 = 24 * 60 * 60 * 1000;
/// Transfers of replicas that a worker of a node sends at a time, of all its shards and to all
/// nodes.
pub const TRANSFERS_MAX: usize = 4;
/// Bytes of one transfer that were asked for and are not written yet.
pub const TRANSFER_AHEAD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that wait for one other node when a part of a replica is read for it, at most, with that
/// part.
pub const TRANSFERS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes on their way to one other node; past it the link is closed, and what was on its way is
/// asked for again.
pub const LINK_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Requests of clients that a node has passed on to others and that are not answered yet.
pub const FORWARDED_MAX: usize = REQUESTS_MAX;
/// Bytes of such requests to one other node; past it requests are answered `Overloaded`.
pub const FORWARDED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Longest that a namespace may wait for a sync under interval durability, in milliseconds.
pub const INTERVAL_MS_MAX: u32 = 60_000;

// Admission.

/// Bytes of rows in memory and behind in compaction, a shard; past it commits are answered
/// `Overloaded`.
pub const BACKLOG_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Flushes and compactions of one shard that are under way at a time; further ones wait until one
/// has ended.
pub const TABLE_JOBS_PER_SHARD_MAX: usize = 16;
/// Milliseconds that a read waits for an offset that this replica has not folded in.
pub const READ_OFFSET_WAIT_MS: u64 = 10_000;
/// Milliseconds that the removal of a namespace waits for its replicas to agree on its end before
/// who asked for it is told that this goes on without him.
pub const REMOVAL_WAIT_MS: u64 = 4_000;
/// Requests that wait for the removal of one namespace; further ones are told so at once.
pub const REMOVAL_WAITERS_MAX: usize = 64;

const _: () = {
    assert!(FRAME_HEADER_BYTES.is_multiple_of(FRAME_ALIGN));
    assert!(SEGMENT_BYTES.is_multiple_of(FRAME_ALIGN as u64));
    assert!((FRAME_BODY_BYTES_MAX + FRAME_HEADER_BYTES) as u64 <= SEGMENT_BYTES / 2);
    // A hole and a frame each: no segment without damage has more.
    assert!(
        SEGMENT_BYTES / (HOLE_BYTES_MIN + FRAME_HEADER_BYTES as u64)
            < STRETCHES_PER_SEGMENT_MAX as u64
    );
    assert!(JOURNAL_PARTS_MAX as u64 * JOURNAL_WRITE_BYTES_MAX <= JOURNAL_HALF_BYTES / 2);
    assert!(PACKET_BODY_BYTES_MAX <= FRAME_BODY_BYTES_MAX);
    assert!(VALUE_BYTES_MAX + KEY_BYTES_MAX + 4096 <= FRAME_BODY_BYTES_MAX);
    assert!(NAMES_PER_COMMIT_MAX <= u16::MAX as usize);
    assert!(CONDITIONS_PER_COMMIT_MAX <= u16::MAX as usize);
    assert!(PAGE_BYTES_MAX + VALUE_BYTES_MAX <= PACKET_BODY_BYTES_MAX);
    assert!(LOG_READ_BYTES_MAX + 64 < PACKET_BODY_BYTES_MAX);
    assert!(RECENT_WRITES_LOG_BYTES <= HISTORY_BYTES_DEFAULT);
    assert!(REQUESTS_PER_CONNECTION_MAX <= REQUESTS_MAX);
    // Raft's messages find room on the link beside them.
    assert!(FORWARDED_BYTES_MAX + TRANSFERS_BYTES_MAX + PACKET_BODY_BYTES_MAX <= LINK_BYTES_MAX);
    // However many transfers go to one node, each finds room for what it asks for.
    assert!(TRANSFERS_MAX * TRANSFER_AHEAD_BYTES_MAX <= TRANSFERS_BYTES_MAX);
    assert!(COMMIT_BODY_BYTES_MAX.is_multiple_of(8));
    assert!(VALUE_BYTES_MAX + KEY_BYTES_MAX + 4096 <= COMMIT_BODY_BYTES_MAX);
    assert!(COMMIT_BODY_BYTES_MAX + FRAME_HEADER_BYTES + 1024 <= PACKET_BODY_BYTES_MAX);
    // A page: its rows, the row that passes its bytes, 40 bytes of layout a row, and the key to go
    // on from.
    assert!(
        PAGE_BYTES_MAX + VALUE_BYTES_MAX + 2 * KEY_BYTES_MAX + 40 * PAGE_ROWS_MAX + 1024
            <= PACKET_BODY_BYTES_MAX
    );
    // A page of a description: its names, the stream that passes its bytes with all its cursors,
    // each with 24 bytes of layout, and 64 bytes of layout more a name than are counted.
    assert!(
        PAGE_BYTES_MAX + 64 * PAGE_ROWS_MAX + CURSORS_PER_STREAM_MAX * (NAME_BYTES_MAX + 24) + 1024
            <= PACKET_BODY_BYTES_MAX
    );
    // A page of namespaces: the last one may have as many replicas as a shard may, and all nodes
    // may stand beside it.
    assert!(
        PAGE_BYTES_MAX
            + 64 * PAGE_ROWS_MAX
            + REPLICAS_PER_SHARD_MAX * 24
            + NODES_MAX * (NAME_BYTES_MAX + TEXT_BYTES_MAX + 64)
            <= PACKET_BODY_BYTES_MAX
    );
    assert!(SESSION_WINDOW_MAX <= REQUESTS_PER_CONNECTION_MAX);
    // A connection is not read any more long before it is closed, and one alone can't use up what
    // all may have.
    assert!(REPLY_BYTES_PER_CONNECTION_MAX * 4 <= UNREAD_BYTES_PER_CONNECTION_MAX);
    assert!(UNREAD_BYTES_PER_CONNECTION_MAX * 2 <= UNREAD_BYTES_MAX);
    assert!(UNREAD_BYTES_MAX / CONNECTIONS_MAX > 0);
    assert!(KEEPALIVE_MS.is_multiple_of(1000) && KEEPALIVE_PROBE_MS.is_multiple_of(1000));
};

// The client.

/// Requests under way in one client, those that wait for their turn among them; the next is refused
/// with `Overloaded`.
pub const CLIENT_REQUESTS_MAX: usize = 65_536;
/// Bytes of packets that wait for a client's connection; past it requests wait. The last packet may
/// pass it.
pub const CLIENT_OUTGOING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of replies that a client holds for futures that do not take them; past it those of reads
/// that came first are dropped, and asked for again when their futures are polled.
pub const CLIENT_REPLY_BYTES_MAX: usize = 128 * 1024 * 1024;

const _: () = assert!(CLIENT_REPLY_BYTES_MAX >= 4 * PACKET_BODY_BYTES_MAX);

// The machine.

/// Bytes of keys that one delete-range removes before it says where to go on.
pub const RANGE_DELETE_KEY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Comparisons of recent writes with `unchanged` ranges in one commit: it bounds how long a commit
/// can hold up the others.
pub const UNCHANGED_STEPS_MAX: usize = 4 * 1024 * 1024;
/// Log bytes that the `unchanged` conditions of a batch look back over, together, if a worker is to
/// fold it in by itself: there are some four thousand writes in them at most, and a worker that
/// compares for longer sends no heartbeats.
pub const FOLD_LOOK_BACK_BYTES_MAX: u64 = 64 * 1024;
/// Readers that wait for records whom a worker answers after it folded a batch in by itself; the
/// others are the views thread's.
pub const FOLD_WAKES_MAX: usize = 32;
/// Bytes of replies that one session keeps; past it the oldest are forgotten.
pub const SESSION_REPLY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes that a session keeps of the text of a refusal, which is cut there when it is answered
/// again.
pub const SESSION_TEXT_BYTES_MAX: usize = 512;
/// Bytes of replies that the sessions of one shard keep together; past it the session longest
/// unused goes.
pub const SESSIONS_REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Records in one row of a stream's index.
pub const STREAM_CHUNK_RECORDS_MAX: usize = 256;
/// Readers that hold history of one shard.
pub const HOLDS_PER_SHARD_MAX: usize = 1_024;
/// Milliseconds of log time that a reader may hold history before it has to renew.
pub const HOLD_MS_MAX: u64 = 60_000;
/// Shortest window of history, in milliseconds of log time: a read of one page must fit.
pub const HISTORY_MS_MIN: u64 = 1_000;
/// Shortest window of history, in log bytes.
pub const HISTORY_BYTES_MIN: u64 = 1024 * 1024;
/// Points of log time whose offsets are remembered; the older, the fewer.
pub const TIME_POINTS_MAX: usize = 4_096;
/// Units of memtables that are rotated but not yet flushed; the next rotation waits.
pub const ROTATIONS_UNFLUSHED_MAX: usize = 8;
/// Rows of streams' indexes that one look at retention reads, and so that folding in what it
/// proposes walks.
pub const RETENTION_CHUNKS_MAX: usize = 1_024;

const _: () = {
    assert!(SESSION_REPLY_BYTES_MAX <= SESSIONS_REPLY_BYTES_MAX);
    assert!(RANGE_DELETE_KEY_BYTES_MAX >= KEY_BYTES_MAX);
    assert!(HISTORY_BYTES_MIN <= HISTORY_BYTES_DEFAULT && HISTORY_MS_MIN <= HISTORY_MS_DEFAULT);
    assert!(STREAM_CHUNK_RECORDS_MAX <= u16::MAX as usize);
    assert!(HOLD_MS_MAX >= WAIT_MS_MAX);
};

// The gateway.

/// HTTP connections that the gateway serves; on further ones a request is answered `Overloaded`,
/// but for those of `/healthz`, `/readyz` and `/metrics`, and the connection is closed.
pub const HTTP_CONNECTIONS_MAX: usize = 2_560;
/// Such further connections at a time; those beyond wait until one of them is closed.
pub const HTTP_RESERVE_MAX: usize = 256;
/// Milliseconds after which such a connection is closed, whatever happens on it.
pub const HTTP_RESERVE_MS_MAX: u64 = 5_000;
/// HTTP connections that may follow a stream (server-sent events); the next one is answered
/// `Overloaded`.
pub const HTTP_FOLLOWERS_MAX: usize = 2_048;
/// Milliseconds that the gateway waits for a shard's answer, beyond what a request itself waits.
pub const HTTP_ANSWER_MS_MAX: u64 = 5_000;
/// Longest body of a commit in JSON, in bytes: base64 takes four bytes for three.
pub const HTTP_JSON_BYTES_MAX: usize = COMMIT_BODY_BYTES_MAX / 3 * 4 + 1024 * 1024;
/// Bytes of request bodies that the gateway holds at once; past it requests are answered
/// `Overloaded`.
pub const HTTP_BODY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Milliseconds that the body of a request may take to arrive.
pub const HTTP_BODY_MS_MAX: u64 = PACKET_MS_MAX;
/// Milliseconds from the first byte of a request to the first of its reply, or of silence between
/// two requests; past it the connection is closed.
pub const HTTP_SILENCE_MS_MAX: u64 = 120_000;

const _: () = assert!(HTTP_FOLLOWERS_MAX < HTTP_CONNECTIONS_MAX);
