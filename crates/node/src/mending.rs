//! The damaged places of one replica's log, and how they are mended, one after the other: another
//! replica is asked for the frames that belong there, they are checked and written back.
//!
//! Each other replica is asked in turn. When none could help, that is said, and they are asked
//! again after a while: one that was away may be there by then. What a place holds is what it held
//! before, or nothing is written: see `naust_log::mend`.

use crate::peers::Peers;
use crate::repair::Report;
use crate::{Effect, Now};
use naust_log::{Damage, MendError, Mended, Reader};
use naust_wire::peer::Said;
use naust_wire::{NodeId, Offset, ShardId};
use std::collections::BTreeMap;
use std::ops::Range;

/// Places that are kept. What is beyond is found again by the next scrub, or when it is read.
const PLACES_MAX: usize = 64;
/// Milliseconds after which the next replica is asked.
const ANSWER_MS: u64 = 1000;
/// Milliseconds after which all are asked again.
const AGAIN_MS: u64 = 10_000;

/// See the module's doc.
#[derive(Default)]
pub(crate) struct Mending {
    places: BTreeMap<Offset, Place>,
    asked: Option<Asked>,
    /// Frames are being written there.
    writing: Option<Offset>,
}

struct Place {
    to: Offset,
    /// Replicas that could not help, in a row.
    tried: usize,
    again_ms: u64,
    /// That nobody could help was said.
    is_told: bool,
}

struct Asked {
    at: Offset,
    of: NodeId,
    until_ms: u64,
}

/// What is mended with whose help.
pub(crate) struct Help<'a> {
    pub(crate) shard: ShardId,
    pub(crate) reader: &'a Reader,
    /// Only places before this may be mended: beside its owner, a log is cut behind what is
    /// committed.
    pub(crate) limit: Offset,
    pub(crate) others: &'a [NodeId],
}

impl Mending {
    /// Whether something is known to be damaged.
    pub(crate) fn is_idle(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether the shell writes frames.
    pub(crate) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether every place was asked for everywhere, in vain.
    pub(crate) fn is_in_vain(&self) -> bool {
        !self.places.is_empty() && self.places.values().all(|place| place.is_told)
    }

    /// Whether there is a place that nobody could mend.
    pub(crate) fn is_hurt(&self) -> bool {
        self.places.values().any(|place| place.is_told)
    }

    /// Damage was found.
    pub(crate) fn note(&mut self, shard: ShardId, damage: Damage, effects: &mut Vec<Effect>) {
        let Damage { from, to, .. } = damage;
        if let Some(place) = self.places.get_mut(&from) {
            // The nearer end is the one that was looked for.
            place.to = place.to.min(to);
            return;
        }
        let within = self.places.range(..from).next_back();
        if within.is_some_and(|(_, place)| place.to > from) && self.writing.is_none() {
            // A piece of what is known already.
            return;
        }
        if self.places.len() < PLACES_MAX {
            let place = Place { to, tried: 0, again_ms: 0, is_told: false };
            self.places.insert(from, place);
            effects.push(Effect::Report { shard, report: Report::Damaged(damage) });
        }
    }

    /// All that is left of this part of the log is good.
    pub(crate) fn let_go(&mut self, part: &Range<Offset>) {
        let asked = self.asked.as_ref().map(|asked| asked.at);
        self.places.retain(|at, _| {
            let is_under_way = self.writing == Some(*at) || asked == Some(*at);
            !part.contains(at) || is_under_way
        });
    }

    /// Asks for the next frames that are missing.
    pub(crate) fn drive(
        &mut self,
        help: &Help<'_>,
        now: Now,
        peers: &mut Peers,
        effects: &mut Vec<Effect>,
    ) {
        let now_ms = now.monotonic_ms;
        if let Some(asked) = self.asked.take_if(|asked| asked.until_ms <= now_ms) {
            self.tried(asked.at);
        }
        if self.asked.is_some() || self.writing.is_some() {
            return;
        }
        // At its start a node has no links yet.
        if !help.others.is_empty() && !help.others.iter().any(|node| peers.is_linked(*node)) {
            return;
        }
        let is_due =
            |(at, place): &(&Offset, &mut Place)| **at < help.limit && place.again_ms <= now_ms;
        while let Some((at, place)) = self.places.iter_mut().find(is_due) {
            if place.tried >= help.others.len() {
                (place.tried, place.again_ms) = (0, now_ms + AGAIN_MS);
                if !std::mem::replace(&mut place.is_told, true) {
                    let why = match help.others.is_empty() {
                        true => "there is no other replica",
                        false => "no other replica that can be reached has what belongs there",
                    };
                    let report = Report::Unmendable { at: *at, why };
                    effects.push(Effect::Report { shard: help.shard, report });
                }
                continue;
            }
            let of = help.others[place.tried];
            if !peers.is_linked(of) {
                place.tried += 1;
                continue;
            }
            let (at, to) = (*at, place.to.min(help.limit));
            self.asked = Some(Asked { at, of, until_ms: now_ms + ANSWER_MS });
            return peers.say(help.shard, of, Said::Seek { from: at, to });
        }
    }

    fn tried(&mut self, at: Offset) {
        if let Some(place) = self.places.get_mut(&at) {
            place.tried += 1;
        }
    }

    /// Another replica sent frames, or none.
    pub(crate) fn found(
        &mut self,
        help: &Help<'_>,
        from: NodeId,
        (at, are_committed): (Offset, bool),
        frames: &[u8],
        effects: &mut Vec<Effect>,
    ) {
        if self.asked.take_if(|asked| asked.of == from && asked.at == at).is_none() {
            return;
        }
        let Ok((first, _)) = naust_wire::frame::peek(frames) else {
            return self.tried(at);
        };
        let at = self.split(at, first.offset);
        let mend = help.reader.mend(at, frames.to_vec());
        let mend = match (are_committed, help.limit < Offset::MAX) {
            (true, true) => mend.committed(),
            // Here a frame may have lain that was never committed.
            (true, false) => mend,
            (false, _) => mend.only_if_joined(),
        };
        self.writing = Some(at);
        effects.push(Effect::Mend { shard: help.shard, mend });
    }

    /// Another replica has nothing at a place before `first`: there it trimmed what nobody needs.
    /// Says where to mend now.
    fn split(&mut self, at: Offset, first: Offset) -> Offset {
        let has_room = self.places.len() < PLACES_MAX;
        let place = self.places.get_mut(&at).filter(|place| at < first && first < place.to);
        let Some(place) = place else { return at };
        place.tried += 1;
        let behind = Place { to: place.to, tried: 0, again_ms: 0, is_told: place.is_told };
        place.to = first;
        if !has_room {
            // The next scrub finds it again.
            self.places.remove(&at);
        }
        self.places.entry(first).or_insert(behind);
        first
    }

    /// Frames were written, or not.
    pub(crate) fn mended(
        &mut self,
        shard: ShardId,
        at: Offset,
        outcome: Result<Mended, MendError>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.writing = None;
        match outcome {
            Ok(Mended { to, joined }) if joined || to > at => {
                let place = self.places.remove(&at);
                effects.push(Effect::Report { shard, report: Report::Mended { from: at, to } });
                if let Some(place) = place.filter(|_| !joined) {
                    self.places.insert(to, Place { tried: 0, again_ms: 0, ..place });
                }
            }
            Ok(_) | Err(MendError::Refused(_)) => self.tried(at),
            Err(MendError::Gone) => drop(self.places.remove(&at)),
            Err(MendError::Unsynced(fault)) => {
                effects.push(Effect::Stop(format!("the log of shard {shard}: {fault}")));
            }
            Err(_) => {
                if let Some(place) = self.places.get_mut(&at) {
                    (place.again_ms, place.is_told) = (now.monotonic_ms + AGAIN_MS, true);
                }
                let why = "the disk refuses what belongs there";
                effects.push(Effect::Report { shard, report: Report::Unmendable { at, why } });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_let_go_of_is_not_damaged() {
        let mut mending = Mending::default();
        for at in [0, 16, 32] {
            let to = Offset(at + 8);
            mending.places.insert(Offset(at), Place { to, tried: 0, again_ms: 0, is_told: true });
        }
        mending.writing = Some(Offset(16));
        mending.let_go(&(Offset(0)..Offset(32)));
        assert_eq!(mending.places.keys().collect::<Vec<_>>(), [&Offset(16), &Offset(32)]);
        mending.writing = None;
        mending.let_go(&(Offset(16)..Offset(48)));
        assert!(mending.is_idle());
    }

    #[test]
    fn places_are_bounded_however_often_they_are_split() {
        let mut mending = Mending::default();
        let place = Place { to: Offset(1 << 20), tried: 0, again_ms: 0, is_told: false };
        mending.places.insert(Offset(0), place);
        let mut at = Offset(0);
        for _ in 0..3 * PLACES_MAX as u64 {
            let first = at.plus(56);
            assert_eq!(mending.split(at, first), first);
            assert!(mending.places.len() <= PLACES_MAX, "{}", mending.places.len());
            at = first;
        }
        assert_eq!(mending.places[&at].to, Offset(1 << 20), "what is behind is not forgotten");
        assert_eq!(mending.split(at, at), at, "another replica has what belongs there");
        assert_eq!(mending.split(at, Offset(1 << 21)), at, "nor is it of this place");
    }
}
