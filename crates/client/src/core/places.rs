//! Namespaces as this client knows them: the shard, the session there, and who waits for either.

use super::request::{NamespaceKey, Ticket};
use super::window::Window;
use naust_wire::{SessionId, ShardId};
use slab::Slab;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Where a namespace lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Not asked yet, or forgotten.
    Unknown,
    /// The answer is under way.
    Asked,
    /// To be asked again at this time.
    Pause(u64),
    /// In this shard.
    Known(ShardId),
}

/// The client's session in a namespace.
#[derive(Clone, Debug)]
pub(super) enum Session {
    /// Not opened yet, or forgotten.
    None,
    /// The answer is under way.
    Asked,
    /// To be asked for again at this time.
    Pause(u64),
    /// Open.
    Open(Box<Window>),
}

/// A namespace. Tickets in its queues may have ended meanwhile; whoever takes them out looks.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: Arc<str>,
    generation: u64,
    /// Handles of the program. Without any, a place is kept only while its route is known.
    pub(super) handles: usize,
    pub(super) route: Route,
    pub(super) session: Session,
    /// The shard that the session is of.
    pub(super) shard_before: Option<ShardId>,
    /// Refusals in a row to tell the route or to open a session.
    pub(super) attempts: u32,
    /// Requests that wait for the route.
    pub(super) unrouted: VecDeque<Ticket>,
    /// Commits that wait for the session or for a place in its window, in their order.
    pub(super) unnumbered: VecDeque<Ticket>,
}

impl Place {
    fn new(name: Arc<str>, generation: u64) -> Place {
        Place {
            name,
            generation,
            handles: 0,
            route: Route::Unknown,
            session: Session::None,
            shard_before: None,
            attempts: 0,
            unrouted: VecDeque::new(),
            unnumbered: VecDeque::new(),
        }
    }

    /// The open window, if it is this session's.
    pub(super) fn window_of(&mut self, session: SessionId) -> Option<&mut Window> {
        match &mut self.session {
            Session::Open(window) if window.session() == session => Some(window),
            _ => None,
        }
    }

    /// What paused until now may be asked again.
    pub(super) fn end_pauses(&mut self, now_ms: u64) {
        if matches!(self.route, Route::Pause(until) if until <= now_ms) {
            self.route = Route::Unknown;
        }
        if matches!(self.session, Session::Pause(until) if until <= now_ms) {
            self.session = Session::None;
        }
    }

    /// What was under way on a connection that is gone has to be asked again.
    pub(super) fn disconnect(&mut self) {
        if matches!(self.route, Route::Asked | Route::Pause(_)) {
            self.route = Route::Unknown;
        }
        if matches!(self.session, Session::Asked | Session::Pause(_)) {
            self.session = Session::None;
        }
    }
}

/// All of them. Those that exist at the server are as many as it has; the others live as long as
/// their handles.
#[derive(Debug, Default)]
pub(super) struct Places {
    all: Slab<Place>,
    by_name: BTreeMap<Arc<str>, NamespaceKey>,
    /// The directory's, which has no name and is always where it is.
    directory: Option<NamespaceKey>,
    generation: u64,
}

impl Places {
    /// The place of the directory.
    pub(super) fn directory(&mut self) -> NamespaceKey {
        if let Some(key) = self.directory {
            return key;
        }
        self.generation += 1;
        let mut place = Place::new("".into(), self.generation);
        place.handles = 1;
        place.route = Route::Known(ShardId::DIRECTORY);
        let key = NamespaceKey { index: self.all.insert(place), generation: self.generation };
        self.directory = Some(key);
        key
    }

    pub(super) fn is_directory(&self, key: NamespaceKey) -> bool {
        self.directory == Some(key)
    }

    /// The namespace whose name comes first, if there is any.
    pub(super) fn first_name(&self) -> Option<&str> {
        self.by_name.keys().next().map(|name| &**name)
    }

    /// The key of a name, with one more handle.
    pub(super) fn hold(&mut self, name: &str) -> NamespaceKey {
        let key = match self.by_name.get(name) {
            Some(key) => *key,
            None => self.insert(name.into()),
        };
        self.get(key).handles += 1;
        key
    }

    fn insert(&mut self, name: Arc<str>) -> NamespaceKey {
        self.generation += 1;
        let place = Place::new(Arc::clone(&name), self.generation);
        let key = NamespaceKey { index: self.all.insert(place), generation: self.generation };
        self.by_name.insert(name, key);
        key
    }

    /// One handle less.
    pub(super) fn release(&mut self, key: NamespaceKey) {
        self.get(key).handles -= 1;
        self.forget_if_idle(key);
    }

    /// Forgets a place that nobody holds and that is not known to exist.
    pub(super) fn forget_if_idle(&mut self, key: NamespaceKey) {
        let Some(place) = self.find(key) else { return };
        if place.handles == 0 && matches!(place.route, Route::Unknown | Route::Pause(_)) {
            let place = self.all.remove(key.index);
            self.by_name.remove(&place.name);
        }
    }

    /// A place that is held.
    pub(super) fn get(&mut self, key: NamespaceKey) -> &mut Place {
        self.find(key).expect("whoever uses a key holds its place")
    }

    /// A place, unless it was forgotten.
    pub(super) fn find(&mut self, key: NamespaceKey) -> Option<&mut Place> {
        self.all.get_mut(key.index).filter(|place| place.generation == key.generation)
    }

    /// The keys of all.
    pub(super) fn keys(&self) -> Vec<NamespaceKey> {
        self.by_name.values().chain(&self.directory).copied().collect()
    }

    /// All places.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Place> {
        self.all.iter_mut().map(|(_, place)| place)
    }
}
