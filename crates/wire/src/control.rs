//! Everything logged that is not a commit. `encode`/`decode` turn it into and out of a frame's
//! body.

use crate::code::Code;
use crate::ids::{NodeId, Numbers, Offset, Sequence, SessionId, ShardId};
use crate::limits::{
    COMMIT_BODY_BYTES_MAX, FLOORS_PER_CONTROL_MAX, NAME_BYTES_MAX, SESSION_TTL_MS_MAX,
    TEXT_BYTES_MAX,
};
use crate::message::{Message, Refusal, bounded, build, text};
use crate::name;
use crate::naust_capnp as schema;
use crate::options::{KeyspaceOptions, NamespaceOptions, StreamOptions};

/// A control entry.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Opens a session; its id is made of this frame's offset and `nonce`, which the client draws
    /// at random: see [`SessionId::opened`]. `ttl_ms` 0: default.
    OpenSession { ttl_ms: u64, nonce: u64 },
    /// Ends a session.
    CloseSession(SessionId),
    /// Makes a keyspace, or changes its options.
    SetKeyspace { name: String, options: KeyspaceOptions },
    /// Makes a stream, or changes its options.
    SetStream { name: String, options: StreamOptions },
    /// What lies below counts as absent. Proposed by leaders only, refused from clients.
    Floors(Vec<Floor>),
    /// Makes a namespace. Shard 0 only.
    CreateNamespace { name: String, options: NamespaceOptions },
    /// Removes a namespace at once. Its replicas may acknowledge writes until they hear of it, and
    /// those are lost: for namespaces that can't be closed any more. Shard 0 only.
    DeleteNamespace(String),
    /// A namespace is to be removed: as soon as its shard is closed, it goes. Shard 0 only.
    CloseNamespace(String),
    /// The namespace ends here: whatever lies behind is refused. Proposed by leaders only, refused
    /// from clients; not in shard 0.
    Close,
    /// The shard of a namespace that is to be removed is closed: it goes. Proposed by the leader of
    /// shard 0 only, refused from clients.
    ForgetNamespace(ShardId),
    /// A node joins the cluster, or has another name or address. Shard 0 only.
    SetNode { node: NodeId, name: String, address: String },
    /// A node leaves the cluster for good. Shard 0 only.
    RemoveNode(NodeId),
    /// Each replica notes the digests of its views as of this entry, so that they can be compared;
    /// nothing else changes.
    NoteDigests,
}

/// The leader's verdict on age, size or count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Whose rows or records.
    pub of: Floored,
    /// Below this they are absent.
    pub offset: Offset,
}

/// What a floor applies to, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Floored {
    /// A stream's records.
    Stream(String),
    /// A FIFO keyspace's rows.
    Keyspace(String),
}

impl Control {
    /// Refuses what no node takes, whatever its state: bad names and options, and lists over their
    /// limits. The decoder does it too; a client does it before it sends.
    ///
    /// # Errors
    /// `BadName`, `BadArgument` or `TooLarge`.
    pub fn check(&self) -> Result<(), Refusal> {
        match self {
            Control::OpenSession { ttl_ms, .. } if *ttl_ms > SESSION_TTL_MS_MAX => {
                let detail =
                    format!("a session of {ttl_ms} ms; at most {SESSION_TTL_MS_MAX} it can be");
                Err(Refusal::new(Code::BadArgument, detail))
            }
            Control::OpenSession { .. } => Ok(()),
            Control::CloseSession(session) if *session == SessionId::NONE => {
                Err(Refusal::new(Code::BadArgument, "there is no session zero"))
            }
            Control::CloseSession(_) => Ok(()),
            Control::SetKeyspace { name, options } => {
                name::check(name)?;
                options.check()
            }
            Control::SetStream { name, .. } => name::check(name),
            Control::Floors(floors) => {
                bounded("floors in an entry", floors.len(), FLOORS_PER_CONTROL_MAX)?;
                floors.iter().try_for_each(|floor| match &floor.of {
                    Floored::Stream(name) | Floored::Keyspace(name) => name::check(name),
                })
            }
            Control::CreateNamespace { name, options } => {
                name::check_namespace(name)?;
                options.check()
            }
            Control::DeleteNamespace(name) | Control::CloseNamespace(name) => {
                name::check_namespace(name)
            }
            Control::ForgetNamespace(ShardId::DIRECTORY) => {
                Err(Refusal::new(Code::BadArgument, "shard 0 holds no namespace"))
            }
            Control::SetNode { node: NodeId(0), .. } | Control::RemoveNode(NodeId(0)) => {
                Err(Refusal::new(Code::BadArgument, "there is no node zero"))
            }
            Control::SetNode { name, address, .. } => {
                name::check(name)?;
                bounded("bytes in an address", address.len(), TEXT_BYTES_MAX)
            }
            Control::RemoveNode(_)
            | Control::NoteDigests
            | Control::Close
            | Control::ForgetNamespace(_) => Ok(()),
        }
    }

    /// Whether a session may number it, to have it done exactly once: what opens and ends sessions,
    /// what leaders propose and what changes nothing is not numbered.
    #[must_use]
    pub fn is_numbered(&self) -> bool {
        // A release that does not know the later ones refuses them: numbered, they would be kept by
        // the session on some replicas and not on others.
        !matches!(
            self,
            Control::OpenSession { .. }
                | Control::CloseSession(_)
                | Control::Floors(_)
                | Control::NoteDigests
                | Control::Close
                | Control::ForgetNamespace(_)
        )
    }

    /// Appends the entry's bytes to `out`, without a session: a packet's body and a frame's.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_numbered(&Numbers::NONE, out);
    }

    /// The same, as number so many of a session.
    pub fn encode_numbered(&self, numbers: &Numbers, out: &mut Vec<u8>) {
        build::<schema::control::Owned>(self.words(), out, |root| {
            if numbers.session == SessionId::NONE {
                return self.write(root);
            }
            let mut numbered = root.init_numbered();
            numbered.set_session(numbers.session.0);
            numbered.set_sequence(numbers.sequence.0);
            numbered.set_acked_below(numbers.acked_below.0);
            self.write(numbered.init_control());
        });
    }

    fn write(&self, mut root: schema::control::Builder<'_>) {
        match self {
            Control::OpenSession { ttl_ms, nonce } => {
                let mut to = root.init_open_session();
                to.set_ttl_ms(*ttl_ms);
                to.set_nonce(*nonce);
            }
            Control::CloseSession(session) => root.set_close_session(session.0),
            Control::SetKeyspace { name, options } => {
                let mut to = root.init_set_keyspace();
                to.set_name(name);
                options.write(to.init_options());
            }
            Control::SetStream { name, options } => {
                let mut to = root.init_set_stream();
                to.set_name(name);
                options.write(to.init_options());
            }
            Control::Floors(floors) => {
                let mut list = root.init_floors(floors.len() as u32);
                for (i, floor) in floors.iter().enumerate() {
                    let mut to = list.reborrow().get(i as u32);
                    to.set_offset(floor.offset.0);
                    match &floor.of {
                        Floored::Stream(name) => to.set_stream(name),
                        Floored::Keyspace(name) => to.set_keyspace(name),
                    }
                }
            }
            Control::CreateNamespace { name, options } => {
                let mut to = root.init_create_namespace();
                to.set_namespace(name);
                options.write(to.init_namespace_options());
            }
            Control::DeleteNamespace(name) => root.set_delete_namespace(name),
            Control::CloseNamespace(name) => root.set_close_namespace(name),
            Control::Close => root.set_close(()),
            Control::ForgetNamespace(shard) => root.set_forget_namespace(shard.0),
            Control::SetNode { node, name, address } => {
                let mut to = root.init_set_node();
                to.set_node(node.0);
                to.set_node_name(name);
                to.set_node_address(address);
            }
            Control::RemoveNode(node) => root.set_remove_node(node.0),
            Control::NoteDigests => root.set_note_digests(()),
        }
    }

    fn words(&self) -> usize {
        match self {
            Control::Floors(floors) => 16 + floors.len() * 8,
            _ => 64,
        }
    }

    /// Reads an entry from its bytes, and checks it. Who it is of is told by
    /// [`Control::decode_numbered`].
    ///
    /// # Errors
    /// As there.
    pub fn decode(body: &[u8]) -> Result<Control, Refusal> {
        Ok(Control::decode_numbered(body)?.1)
    }

    /// Reads an entry from its bytes, with the session that numbered it, and checks both.
    ///
    /// # Errors
    /// `Malformed`, `UnknownKind`, `BadArgument` for a number of what is not numbered, or as
    /// [`Control::check`].
    pub fn decode_numbered(body: &[u8]) -> Result<(Numbers, Control), Refusal> {
        bounded("bytes in an entry", body.len(), COMMIT_BODY_BYTES_MAX)?;
        let message = Message::once(body)?;
        let root: schema::control::Reader<'_> = message.root()?;
        let (numbers, control) = match root.which()? {
            schema::control::Which::Numbered(from) => {
                let from = from?;
                let numbers = Numbers {
                    session: SessionId(from.get_session()),
                    sequence: Sequence(from.get_sequence()),
                    acked_below: Sequence(from.get_acked_below()),
                };
                let control = Control::read(from.get_control()?)?;
                check_numbers(&numbers, &control)?;
                (numbers, control)
            }
            _ => (Numbers::NONE, Control::read(root)?),
        };
        control.check()?;
        Ok((numbers, control))
    }

    fn read(root: schema::control::Reader<'_>) -> Result<Control, Refusal> {
        use schema::control::Which;
        Ok(match root.which()? {
            Which::OpenSession(from) => {
                Control::OpenSession { ttl_ms: from.get_ttl_ms(), nonce: from.get_nonce() }
            }
            Which::CloseSession(session) => Control::CloseSession(SessionId(session)),
            Which::SetKeyspace(from) => Control::SetKeyspace {
                name: text(from.get_name()?, NAME_BYTES_MAX)?,
                options: KeyspaceOptions::read(from.get_options()?)?,
            },
            Which::SetStream(from) => Control::SetStream {
                name: text(from.get_name()?, NAME_BYTES_MAX)?,
                options: StreamOptions::read(from.get_options()?),
            },
            Which::Floors(list) => {
                let list = list?;
                bounded("floors in an entry", list.len() as usize, FLOORS_PER_CONTROL_MAX)?;
                Control::Floors(list.iter().map(read_floor).collect::<Result<_, _>>()?)
            }
            Which::CreateNamespace(from) => Control::CreateNamespace {
                name: text(from.get_namespace()?, NAME_BYTES_MAX)?,
                options: NamespaceOptions::read(from.get_namespace_options()?)?,
            },
            Which::DeleteNamespace(name) => Control::DeleteNamespace(text(name?, NAME_BYTES_MAX)?),
            Which::CloseNamespace(name) => Control::CloseNamespace(text(name?, NAME_BYTES_MAX)?),
            Which::Close(()) => Control::Close,
            Which::ForgetNamespace(shard) => Control::ForgetNamespace(ShardId(shard)),
            Which::SetNode(from) => Control::SetNode {
                node: NodeId(from.get_node()),
                name: text(from.get_node_name()?, NAME_BYTES_MAX)?,
                address: text(from.get_node_address()?, TEXT_BYTES_MAX)?,
            },
            Which::RemoveNode(node) => Control::RemoveNode(NodeId(node)),
            Which::NoteDigests(()) => Control::NoteDigests,
            Which::Numbered(_) => {
                return Err(Refusal::new(Code::Malformed, "a numbered entry within another one"));
            }
        })
    }
}

fn check_numbers(numbers: &Numbers, control: &Control) -> Result<(), Refusal> {
    if numbers.session == SessionId::NONE {
        return Err(Refusal::new(Code::BadArgument, "there is no session zero"));
    }
    if numbers.sequence == Sequence(0) {
        return Err(Refusal::new(Code::BadArgument, "the sequences of a session begin at 1"));
    }
    if !control.is_numbered() {
        let detail = "what opens or ends a session, or changes nothing, is not numbered by one";
        return Err(Refusal::new(Code::BadArgument, detail));
    }
    Ok(())
}

fn read_floor(from: schema::floor::Reader<'_>) -> Result<Floor, Refusal> {
    use schema::floor::Which;
    let of = match from.which()? {
        Which::Stream(name) => Floored::Stream(text(name?, NAME_BYTES_MAX)?),
        Which::Keyspace(name) => Floored::Keyspace(text(name?, NAME_BYTES_MAX)?),
    };
    Ok(Floor { of, offset: Offset(from.get_offset()) })
}
