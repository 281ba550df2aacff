//! One round: three new nodes, a load, faults, and the verdict.

use crate::client::{Seat, Shared};
use crate::faults::{self, Event, Events, Kind, Mended};
use crate::nodes::Nodes;
use crate::record::Record;
use crate::verdict;
use anyhow::{Context as _, ensure};
use naust_sim::checkers::Excuses;
use naust_sim::generator::Generator;
use naust_sim::plan::{Mode, Plan, RequestKind};
use naust_wire::ShardId;
use naust_wire::options::{Durability, NamespaceOptions};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Clients of a round.
const CLIENTS: u64 = 8;
/// A round that takes so much longer than its faults is stuck.
const SLACK: Duration = Duration::from_secs(420);
/// The shard of the namespace that always exists.
const SHARD_OF_DEFAULT: ShardId = ShardId(1);

/// What all rounds were like.
#[derive(Default)]
pub struct Tally {
    /// Rounds that failed.
    pub failed: u64,
    rounds: u64,
    faults: BTreeMap<Kind, u64>,
    played: u64,
    requests: u64,
    commits: u64,
    frames: u64,
    elections: u64,
    corrupt: u64,
    replaced: u64,
    longest: (Duration, String),
}

/// See the module.
pub struct Round<'a> {
    nodes: Nodes,
    shared: Arc<Shared>,
    excuses: Excuses,
    tally: &'a mut Tally,
}

impl Round<'_> {
    /// Plays it; what was wrong.
    pub fn run(
        seed: u64,
        program: &Path,
        root: &Path,
        lasts: Duration,
        tally: &mut Tally,
    ) -> anyhow::Result<Vec<String>> {
        let mut chance = Generator::new(seed);
        let plan = plan(&mut chance);
        let events = Events::draw(chance.fork());
        let over = watch(seed, lasts + SLACK);
        let nodes = Nodes::start(program, root)?;
        let shared = Arc::new(Shared {
            record: Record::new(),
            addresses: Mutex::default(),
            plan,
            drawn: AtomicU64::new(0),
            finish: AtomicBool::new(false),
        });
        let excuses = Excuses { restarts: true, elections: true, ..Excuses::default() };
        let mut round = Round { nodes, shared, excuses, tally };
        round.note_addresses(true)?;
        let clients = round.clients(&mut chance);
        let tormented = round.torment(events, lasts);
        // Whatever happened, no thread is left behind.
        let healed = tormented.and_then(|()| round.heal());
        round.shared.finish.store(true, Ordering::Relaxed);
        let mut shards = BTreeMap::from([(SHARD_OF_DEFAULT, NamespaceOptions::default())]);
        let mut in_doubt = 0;
        for client in clients {
            match client.join().ok().context("a client's thread failed")? {
                Some(SHARD_OF_DEFAULT) => {}
                Some(shard) => drop(shards.insert(shard, round.shared.plan.options)),
                None => in_doubt += 1,
            }
        }
        healed?;
        ensure!(in_doubt == 0, "{in_doubt} clients could not finish though all was healed");
        let wrong = round.judge(&shards)?;
        round.end()?;
        over.store(true, Ordering::Relaxed);
        Ok(wrong)
    }

    fn clients(&self, chance: &mut Generator) -> Vec<JoinHandle<Option<ShardId>>> {
        (0..CLIENTS)
            .map(|number| {
                let namespace = number % self.shared.plan.work.namespaces;
                let shared = Arc::clone(&self.shared);
                let seat = Seat::new(shared, number as usize, chance.fork(), namespace);
                std::thread::spawn(move || seat.run())
            })
            .collect()
    }

    fn torment(&mut self, mut events: Events, lasts: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + lasts;
        while Instant::now() < until {
            let event = events.next();
            let told: Vec<String> = event
                .faults
                .iter()
                .map(|fault| {
                    format!("{} of {}", fault.kind.name(), self.nodes.all[fault.which].name)
                })
                .collect();
            let told = told.join(" and ");
            self.shared.record.told().now.clone_from(&told);
            self.play(&event).with_context(|| format!("after {told}"))?;
            std::thread::sleep(event.rests);
        }
        Ok(())
    }

    fn play(&mut self, event: &Event) -> anyhow::Result<()> {
        for fault in &event.faults {
            *self.tally.faults.entry(fault.kind).or_default() += 1;
            match fault.kind {
                Kind::Full => self.excuses.disk_full = true,
                Kind::Flip | Kind::Cut | Kind::FailingSyncs | Kind::FailingWrites => {
                    self.excuses.damage = true;
                }
                _ => {}
            }
        }
        if let [fault] = event.faults[..]
            && matches!(fault.kind, Kind::Wipe | Kind::Flip | Kind::Cut)
        {
            self.heal()?;
            self.note_addresses(false)?;
            let mended = faults::lose(&mut self.nodes, &fault)?;
            self.tally.replaced += u64::from(mended == Mended::Replaced);
            return self.note_addresses(true);
        }
        for fault in &event.faults {
            faults::begin(&mut self.nodes, fault)?;
        }
        std::thread::sleep(event.lasts);
        self.nodes.heal()?;
        faults::start_again_what_failed(&mut self.nodes)
    }

    fn heal(&mut self) -> anyhow::Result<()> {
        self.nodes.heal()?;
        faults::start_again_what_failed(&mut self.nodes)?;
        self.nodes.wait_to_be_whole().context("all was healed")
    }

    /// Tells clients where the nodes are; `whole`: each has a replica of everything.
    fn note_addresses(&self, whole: bool) -> anyhow::Result<()> {
        let all = self.nodes.addresses()?.into_iter().map(|address| (address, whole)).collect();
        *self.shared.addresses.lock().unwrap_or_else(PoisonError::into_inner) = all;
        Ok(())
    }

    fn judge(
        &mut self,
        shards: &BTreeMap<ShardId, NamespaceOptions>,
    ) -> anyhow::Result<Vec<String>> {
        let Round { nodes, shared, excuses, tally } = self;
        shared.record.told().rests();
        let found = verdict::judge(nodes, &shared.record, &shared.plan, shards, *excuses)?;
        let told = shared.record.told();
        tally.rounds += 1;
        tally.requests += told.history.requests.len() as u64;
        tally.commits += told.commits;
        tally.frames += found.frames;
        tally.elections += found.elections;
        tally.corrupt += found.corrupt;
        if told.longest.0 > tally.longest.0 {
            tally.longest = told.longest.clone();
        }
        let (commits, (longest, fault)) = (told.commits, &told.longest);
        println!("  {commits} commits; longest without one {longest:.1?} ({fault})");
        let sentence = |one: &naust_sim::history::Violation| {
            let what: String = one.what.chars().take(2_000).collect();
            format!("{}: {what}", one.checker)
        };
        Ok(found.violations.iter().map(sentence).collect())
    }

    /// All nodes end cleanly, and their logs hold on disk.
    fn end(mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes.all {
            self.tally.played += u64::from(node.shim.played()?);
            node.terminate()?;
            node.check_errors()?;
        }
        let damaged = self.excuses.damage;
        for node in &self.nodes.all {
            let mut verify = Command::new(self.nodes.program());
            let output = verify.args(["log", "verify", "--data"]).arg(&node.data).output()?;
            let told = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success() || damaged, "the log of {}: {told}", node.name);
        }
        Ok(())
    }
}

impl Tally {
    /// The table at the end.
    pub fn print(&self) {
        println!("\n{:<24}{:>10}", "fault", "times");
        for (kind, times) in &self.faults {
            println!("{:<24}{times:>10}", kind.name());
        }
        println!("\n{:<24}{:>10}", "rounds", self.rounds);
        println!("{:<24}{:>10}", "requests", self.requests);
        println!("{:<24}{:>10}", "commits", self.commits);
        println!("{:<24}{:>10}", "frames judged", self.frames);
        println!("{:<24}{:>10}", "terms begun", self.elections);
        println!("{:<24}{:>10}", "calls that misbehaved", self.played);
        println!("{:<24}{:>10}", "nodes replaced", self.replaced);
        println!("{:<24}{:>10}", "answered corrupt", self.corrupt);
        let (longest, fault) = &self.longest;
        println!("{:<24}{:>10} ({fault})", "longest unavailability", format!("{longest:.1?}"));
        let verdict = if self.failed == 0 { "every promise was kept" } else { "FAILED" };
        println!("\n{verdict}");
    }
}

/// What clients do in a round: a life of the simulator, at a pace at which its log stays within
/// one segment.
fn plan(chance: &mut Generator) -> Plan {
    let mut plan = Plan::draw(chance, Some(Mode::Promised));
    plan.options.durability = Durability::Quorum;
    let work = &mut plan.work;
    work.clients = CLIENTS;
    work.in_flight = work.in_flight.min(16);
    work.think_micros = work.think_micros.clamp(10_000, 40_000);
    work.namespaces = work.namespaces.min(2);
    work.keys = work.keys.min(300);
    work.value_bytes = work.value_bytes.min(512);
    work.ops = work.ops.min(6);
    // A life that is this short would only end them.
    work.session_ttl_ms = work.session_ttl_ms.max(10_000);
    let delete = RequestKind::ALL.iter().position(|kind| *kind == RequestKind::DeleteNamespace);
    if let Some(delete) = delete {
        work.requests[delete] = 0;
    }
    plan
}

/// Ends the process when a round is stuck: what hangs must not hang for ever.
fn watch(seed: u64, limit: Duration) -> Arc<AtomicBool> {
    let over = Arc::new(AtomicBool::new(false));
    let (known, until) = (Arc::clone(&over), Instant::now() + limit);
    std::thread::spawn(move || {
        while !known.load(Ordering::Relaxed) {
            if Instant::now() > until {
                println!("the round with seed {seed} is stuck: FAILED");
                std::process::exit(1);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    over
}
