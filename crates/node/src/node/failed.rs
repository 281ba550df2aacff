//! A shard whose views failed, or whose tables are found to be damaged: it alone is closed, and
//! whoever asks it hears why; where there are other replicas, it is repaired.

use super::Node;
use crate::repair::Report;
use crate::shard::Then;
use crate::views::Cause;
use crate::{Effect, Now};
use naust_wire::reply::Failure;
use naust_wire::{Code, ShardId};

impl Node {
    /// The views of a shard are closed. All who wait for it are answered, it becomes absent, and
    /// once no thread works on its log any more it is shut, or opened again to be repaired; its
    /// directory stays, for people to look at.
    pub(super) fn failed(
        &mut self,
        now: Now,
        id: ShardId,
        cause: Cause,
        failure: Failure,
        effects: &mut Vec<Effect>,
    ) {
        let helped = self.is_helped(id);
        if id == ShardId::DIRECTORY && !helped {
            // Nothing can be found without it.
            let detail = failure.detail;
            return effects.push(Effect::Stop(format!("the directory of namespaces: {detail}")));
        }
        if let Some(mut shard) = self.take_out(id) {
            shard.tell_gone(&mut self.peers);
            let options = self.directory.options(id);
            shard.then = match cause {
                _ if !helped => Then::Stay,
                Cause::Log => Then::Reopen(options),
                Cause::Tables => Then::Refold(options),
            };
            if helped {
                let report = Report::Rebuilding("its views failed");
                effects.push(Effect::Report { shard: id, report });
            }
            self.directory.fails(now, id, (failure.clone(), helped), shard.shown());
            self.leaving.insert(id, shard);
        }
        let Some(mut shard) = self.leaving.remove(&id) else { return };
        shard.fail(&failure, effects);
        self.let_go(&mut shard, effects);
        self.leaving.insert(id, shard);
        self.remove_when_unused(id, effects);
        // It will not say that it has flushed.
        self.flushed(id, effects);
    }

    /// A read met damaged tables. Where others have the shard it is closed and repaired; alone it
    /// goes on with what can be read.
    pub(super) fn tables_are_bad(&mut self, now: Now, id: ShardId, effects: &mut Vec<Effect>) {
        if !self.is_helped(id) {
            return;
        }
        let Some(mut shard) = self.take_out(id) else { return };
        shard.tell_gone(&mut self.peers);
        shard.then = Then::Refold(self.directory.options(id));
        let detail = "the tables of the namespace are damaged on this node; ask another one";
        let report = Report::Rebuilding("a read met damaged tables");
        effects.push(Effect::Report { shard: id, report });
        let failure = Failure::new(Code::Corrupt, detail);
        self.directory.fails(now, id, (failure, true), shard.shown());
        shard.make_way(effects);
        self.let_go(&mut shard, effects);
        self.leaving.insert(id, shard);
        self.remove_when_unused(id, effects);
        self.flushed(id, effects);
    }
}
