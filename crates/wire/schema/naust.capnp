# The language of Naust. Everything that crosses a socket or rests in a log is one of these
# messages, single-segment, without a segment table (the header in front of it gives the length).
#
# Growing it: add fields and union members at the end; never renumber, never reuse. A reader refuses
# an op, a condition or a request that it does not know; it never skips one.
@0xb3f1c6d2a7e84f19;

# ---------------------------------------------------------------- bodies of log frames

struct Commit {
  # Frame kind `commit`. Encoded once, by the client; these bytes are what disks and followers get.
  session @0 :UInt64;        # 0: no session, the commit is not deduplicated
  sequence @1 :UInt64;       # counts a session's commits from 1
  ackedBelow @2 :UInt64;     # the client has the replies of all sequences below this one
  names @3 :List(Text);      # keyspaces, streams and cursors; ops and conditions name them by index
  conditions @4 :List(Condition);
  ops @5 :List(Op);
  # Encoders: one segment without far pointers, lists of structs inline, every name once, no two
  # fields on the same bytes. The values of appends lie in the order of their ops, each at a place
  # of its own: one without bytes is a list of no bytes that leads to a word which nothing else
  # uses. (A record's id is where its bytes lie in the log.)
}

struct Condition {
  space @0 :UInt16;          # index into names: a keyspace
  union {
    version :group { key @1 :Data; offset @2 :UInt64; }    # the version is exactly this offset
    absent :group { key @3 :Data; }
    unchanged :group { from @4 :Data; to @5 :Data; since @6 :UInt64; unbounded @7 :Bool; }
    # no key in [from, to) was written after `since`; `unbounded`: to the end of the keyspace
  }
}

struct Op {
  space @0 :UInt16;          # index into names: a keyspace or a stream
  union {
    put :group { key @1 :Data; value @2 :Data; }
    delete :group { key @3 :Data; }
    deleteRange :group { from @4 :Data; to @5 :Data; unbounded @6 :Bool; }
    append :group { value @7 :Data; }
    advance :group { cursor @8 :UInt16; offset @9 :UInt64; }
    # cursor: index into names; space: the stream
  }
}

struct Control {
  # Frame kind `control`: everything logged that is not a commit.
  union {
    openSession :group { ttlMs @0 :UInt64; nonce @1 :UInt64; }
    # The session's id is made of the offset of this frame and the nonce, which the client draws at
    # random, so that it is no other shard's session.
    closeSession @2 :UInt64;
    setKeyspace :group { name @3 :Text; options @4 :KeyspaceOptions; }
    setStream :group { name @5 :Text; options @6 :StreamOptions; }
    floors @7 :List(Floor);                  # proposed by the leader only
    createNamespace :group { namespace @8 :Text; namespaceOptions @9 :NamespaceOptions; }
    # shard 0 only
    deleteNamespace @10 :Text;               # at once, closed or not; shard 0 only
    setNode :group { node @11 :UInt64; nodeName @12 :Text; nodeAddress @13 :Text; }
    # a node joins, or has another address; shard 0 only
    removeNode @14 :UInt64;                  # shard 0 only
    numbered @15 :Numbered;                  # an entry of a session, done exactly once
    noteDigests @16 :Void;
    # each replica notes the digests of its views as of this entry; nothing else changes
    closeNamespace @17 :Text;
    # a namespace is to be removed, once its shard is closed; shard 0 only
    close @18 :Void;
    # a shard's last entry that has a meaning; proposed by its leader only
    forgetNamespace @19 :UInt32;
    # the shard of a namespace is closed: it goes; proposed by the leader of shard 0 only
  }
}

struct Numbered {
  session @0 :UInt64;
  sequence @1 :UInt64;       # counts a session's commits and entries from 1
  ackedBelow @2 :UInt64;     # as in a commit
  control @3 :Control;       # what makes, sets or removes something
}

struct Floor {
  # What lies below `offset` counts as absent from this frame on: the leader's verdict on age, size
  # or count.
  union {
    stream @0 :Text;
    keyspace @1 :Text;                       # a FIFO keyspace
  }
  offset @2 :UInt64;
}

struct KeyspaceOptions {
  compaction @0 :Compaction;
  compression @1 :Compression;
  maxBytes @2 :UInt64;       # FIFO only; 0: no limit
  maxAgeMs @3 :UInt64;       # FIFO only; 0: no limit
}

enum Compaction { levelled @0; writeOptimised @1; fifo @2; }
enum Compression { none @0; lz4 @1; }

struct StreamOptions {
  maxAgeMs @0 :UInt64;       # 0: no limit, for each of the three
  maxBytes @1 :UInt64;
  maxRecords @2 :UInt64;
}

struct NamespaceOptions {
  historyMs @0 :UInt64;      # 0: the default window
  historyBytes @1 :UInt64;
  durability :union {
    quorum @2 :Void;
    intervalMs @3 :UInt32;   # single-voter shards only
  }
}

# ---------------------------------------------------------------- requests that are not logged

struct Read {
  level :union {
    linearizable @0 :Void;
    atLeast @1 :UInt64;
    exactly @2 :UInt64;
    local @3 :Void;
  }
  union {
    get :group { getKeyspace @4 :Text; key @5 :Data; }
    scan :group {
      scanKeyspace @6 :Text; from @7 :Data; to @8 :Data; unbounded @9 :Bool;
      reverse @10 :Bool; limit @11 :UInt32; maxBytes @12 :UInt32;
    }
    records :group {
      stream @13 :Text; after @14 :UInt64;
      recordLimit @15 :UInt32; recordBytes @16 :UInt32; waitMs @17 :UInt32;
    }
    # records of a stream with id >= after
    cursor :group { cursorStream @18 :Text; cursorName @19 :Text; }
    log :group { logFrom @20 :UInt64; logBytes @21 :UInt32; logWaitMs @22 :UInt32; }
    # whole committed frames, raw
    describe :group {
      unused @23 :Void; describeFrom @24 :Text; describeStreams @25 :Bool; describeLimit @26 :UInt32;
    }
    # the namespace: its keyspaces, then its streams, by name: from this keyspace on, or with
    # describeStreams from this stream on
    digests @27 :UInt64;     # what this replica noted at the entry noteDigests at this offset
  }
}

struct Ask {
  # Asked of a node rather than of a shard.
  union {
    hello :group { token @0 :Text; client @1 :Text; }
    resolve @2 :Text;        # a namespace's name -> its shard
    namespaces :group {
      unused @3 :Void; namespacesFrom @7 :Text; namespacesLimit @8 :UInt32;
    }
    cluster :group { unused @4 :Void; clusterFrom @9 :Text; clusterLimit @10 :UInt32; }
    # both list the namespaces by name, from this one on
    transfer :group { namespace @5 :Text; to @6 :UInt64; }
    # hand the leadership of a namespace over to this node
  }
}

# ---------------------------------------------------------------- between nodes

struct Peer {
  # The head of a packet of kind `peer`, in front of the log frames that it may carry.
  from @0 :UInt64;
  to @1 :UInt64;
  union {
    hello :group { cluster @2 :UInt64; name @3 :Text; address @4 :Text; }
    # the first packet of a link: who speaks, of which cluster, and where it listens
    alive @5 :Void;          # a node is there; said all the time
    raft :group {
      kind @6 :UInt8;
      term @7 :UInt64;
      logTerm @8 :UInt64;
      index @9 :UInt64;
      commit @10 :UInt64;
      commitTerm @11 :UInt64;
      reject @12 :Bool;
      rejectHint @13 :UInt64;
      requestSnapshot @14 :UInt64;
      priority @15 :Int64;
      context @16 :Data;
    }
    # what replicas of the packet's shard tell each other; the entries are the frames behind
    invite :group { configuration @17 :Data; options @18 :NamespaceOptions; }
    # become a replica of the packet's shard, whose log began with this configuration
    sleep :group { sleepTerm @19 :UInt64; sleepIndex @20 :UInt64; }
    # nothing is under way in the packet's shard, whose log ends here: no heartbeats until there is
    contents :group {
      transfer @21 :UInt64; files @22 :List(File); startOffset @23 :UInt64; startIndex @24 :UInt64;
      startTerm @25 :UInt64; startCrc @26 :UInt32; startTime @27 :UInt64; lastIndex @28 :UInt64;
      lastTerm @29 :UInt64; initial @30 :Data; segmentBytes @31 :UInt64; answers @40 :UInt64;
    }
    # what a replica is made of, for one that is too far behind to be fed from the log, or that
    # asked for it with renew
    want :group { wanted @32 :UInt64; wantedFile @33 :UInt32; wantedAt @34 :UInt64; }
    part :group { partOf @35 :UInt64; partFile @36 :UInt32; partAt @37 :UInt64; }
    # its bytes are where other packets have frames
    installed :group { ended @38 :UInt64; ok @39 :Bool; }
    seek :group { seekFrom @41 :UInt64; seekTo @42 :UInt64; }
    # the frames between these offsets are damaged here
    found :group { foundFrom @43 :UInt64; foundCommitted @44 :Bool; }
    # as many of them as one packet takes lie behind; whether all of these are committed
    renew @45 :UInt64;
    # the speaker's replica is damaged beyond use and closed: the leader is to send all of its own,
    # as it is when everything is committed that the speaker can ever have acknowledged
    closed @46 :UInt32;
    # said to the leader of shard 0: this shard, whose namespace is to be removed, is closed
    end @47 :Void;
    # said to the leader of the packet's shard: its namespace is to be removed, propose its end
    keep @48 :UInt64;
    # this transfer goes on, though nothing of it is wanted for now: the speaker is at its files
  }

  struct File { name @0 :Text; bytes @1 :UInt64; }
}

# ---------------------------------------------------------------- replies

struct Reply {
  union {
    error :group { code @0 :UInt16; detail @1 :Text; unknown @2 :Bool; hint @3 :Text; }
    committed :group {
      offset @4 :UInt64; ids @5 :List(UInt64); ranges @6 :List(RangeDeleted);
      duplicate @7 :Bool; interval @8 :Bool;
    }
    # ids: of the appended records, in the order of the appends. duplicate: answered again, not
    # applied again. interval: acknowledged before it was synced, as the namespace's durability
    # asks.
    refused :group { condition @9 :UInt16; at @10 :UInt64; found @11 :UInt64; }
    # the first condition that failed, and the offset of what stands there instead (0: nothing)
    session @12 :UInt64;
    row :group { rowAt @13 :UInt64; present @14 :Bool; rowOffset @15 :UInt64; value @16 :Data; }
    rows :group { rowsAt @17 :UInt64; entries @18 :List(Entry); more @19 :Bool; next @20 :Data; }
    records :group { items @21 :List(Record); nextRecord @22 :UInt64; end @23 :UInt64; }
    cursor :group { hasCursor @24 :Bool; cursorOffset @25 :UInt64; }
    frames :group { first @26 :UInt64; data @27 :Data; nextFrame @28 :UInt64; logEnd @29 :UInt64; }
    done @30 :UInt64;        # a control frame was applied; its offset
    hello :group { node @31 :UInt64; version @32 :Text; cluster @42 :UInt64; }
    resolved :group { shard @33 :UInt32; leader @34 :UInt64; }
    namespaces :group { page @35 :List(Namespace); moreNamespaces @43 :Bool; }
    cluster :group {
      nodes @36 :List(Node); clusterNamespaces @37 :List(Namespace); moreInCluster @44 :Bool;
    }
    described :group {
      describedAt @38 :UInt64; floor @39 :UInt64;
      keyspaces @40 :List(Keyspace); streams @41 :List(Stream);
      moreDescribed @45 :Bool;
    }
    digests @46 :List(ViewDigest);
    # more…: of the last namespace, stream, or keyspace if there is no stream, only the name is told:
    # the following page begins with it
  }
}

struct ViewDigest { view @0 :Text; count @1 :UInt64; digest @2 :UInt64; }
struct RangeDeleted { deleted @0 :UInt32; more @1 :Bool; next @2 :Data; }
struct Entry { key @0 :Data; value @1 :Data; offset @2 :UInt64; }
struct Record { offset @0 :UInt64; value @1 :Data; }
struct Namespace {
  name @0 :Text;
  shard @1 :UInt32;
  leader @2 :UInt64;
  end @3 :UInt64;            # 0 if it is not known, here and of a replica
  replicas @4 :List(Replica);
  options @5 :NamespaceOptions;
  closing @6 :Bool;          # it is being removed
}
struct Replica { node @0 :UInt64; voter @1 :Bool; end @2 :UInt64; }
struct Node { id @0 :UInt64; name @1 :Text; address @2 :Text; up @3 :Bool; }
struct Keyspace {
  name @0 :Text;
  options @1 :KeyspaceOptions;
  rowsEstimate @2 :UInt64;
  bytes @3 :UInt64;
  floor @4 :UInt64;
}
struct Stream {
  name @0 :Text;
  options @1 :StreamOptions;
  first @2 :UInt64;
  end @3 :UInt64;
  records @4 :UInt64;
  bytes @5 :UInt64;
  cursors @6 :List(Cursor);
}
struct Cursor { name @0 :Text; offset @1 :UInt64; }
