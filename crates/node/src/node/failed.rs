//! A shard whose views failed: it alone is closed, and whoever asks it hears why.

use super::Node;
use crate::Effect;
use naust_wire::ShardId;
use naust_wire::reply::Failure;

impl Node {
    /// The views of a shard are closed for good. All who wait for it are answered, it becomes
    /// absent, and once no thread works on its log any more it is shut; its directory stays, for
    /// people to look at.
    pub(super) fn failed(&mut self, id: ShardId, failure: Failure, effects: &mut Vec<Effect>) {
        if id == ShardId::DIRECTORY {
            // Nothing can be found without it.
            let detail = failure.detail;
            return effects.push(Effect::Stop(format!("the directory of namespaces: {detail}")));
        }
        if let Some(mut shard) = self.shards.remove(&id) {
            shard.timer_ms.map(|at| self.timers.remove(&(at, id)));
            shard.forget_bytes(&mut self.unapplied_bytes);
            shard.tell_gone(&mut self.peers);
            shard.stays = true;
            self.directory.fails(id, failure.clone());
            self.leaving.insert(id, shard);
        }
        let Some(shard) = self.leaving.get_mut(&id) else { return };
        shard.fail(&failure, effects);
        for id in shard.answered.drain(..) {
            self.connections.end(id, 1, effects);
        }
        for id in std::mem::take(&mut shard.held) {
            self.connections.let_go(id, effects);
        }
        self.remove_when_unused(id, effects);
        // It will not say that it has flushed.
        self.flushed(id, effects);
    }
}
