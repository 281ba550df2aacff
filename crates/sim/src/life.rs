//! One life, from its seed to its verdict.
//!
//! ```text
//! busy     clients draw requests, everything that the plan allows goes wrong
//! healing  faults end; what was begun must come to its end within a bound of virtual time
//! asking   everything is read back through the wire, at many offsets
//! again    one more power cut, one more recovery, everything is read back once more
//! judging  the checkers look at all that was asked and answered
//! ```

use crate::generator::Generator;
use crate::history::Violation;
use crate::plan::{Besides, Cluster, Mode, Plan};
use crate::sabotage::Sabotage;
use crate::shrink::Cuts;
use crate::tally::Tally;
use crate::trace::Trace;
use crate::world::World;
use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a life came to.
#[derive(Debug)]
pub struct Life {
    /// Its seed.
    pub seed: u64,
    /// What must not be, and was.
    pub violations: Vec<Violation>,
    /// What it was like.
    pub tally: Tally,
    /// The hash of its story.
    pub hash: u64,
    /// Virtual time of its busy part, in microseconds.
    pub busy_micros: u64,
    /// Faults that its seed drew, those that were left out too.
    pub faults: u64,
    /// Clients that asked.
    pub clients: u64,
    /// Requests that they were to draw.
    pub requests: u64,
}

/// Requests of a life that is idle.
const IDLE_REQUESTS: u64 = 20;

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps panics quiet and remembers where they were: a panic inside a life is one of its verdicts.
pub fn listen_to_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        PANIC.with_borrow_mut(|told| *told = place);
    }));
}

/// How a life differs from what its seed alone tells.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// So many nodes, whatever the seed draws.
    pub nodes: Option<usize>,
    /// Within the promises or beyond, whatever the seed draws.
    pub mode: Option<Mode>,
    /// Someone lies in it. For tests of the simulator itself.
    pub sabotage: Option<Sabotage>,
    /// What of it is left out.
    pub cuts: Cuts,
}

impl Wanted {
    /// A cluster of three nodes in which next to nothing happens: how fast its time passes tells
    /// what a quiet minute costs.
    #[must_use]
    pub fn idle() -> Wanted {
        let cuts = Cuts {
            faults: Some(BTreeSet::new()),
            requests: Some(IDLE_REQUESTS),
            clients: Some(1),
            ..Cuts::default()
        };
        Wanted { nodes: Some(3), mode: Some(Mode::Promised), cuts, ..Wanted::default() }
    }
}

/// Lives the life of a seed.
#[must_use]
pub fn live(seed: u64, wanted: &Wanted, trace: Trace) -> Life {
    let mut chance = Generator::new(seed);
    let mut plan = Plan::draw(&mut chance, wanted.mode).with(Cluster::draw(seed, wanted.nodes));
    plan.besides = Besides::draw(seed, plan.cluster.nodes, plan.mode == Mode::Beyond);
    plan.cut(&wanted.cuts);
    let mut world = World::new(plan, chance, trace);
    world.sabotage = wanted.sabotage;
    world.kept_faults.clone_from(&wanted.cuts.faults);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.live())) {
        let place = PANIC.with_borrow_mut(std::mem::take);
        let what = format!("{} at {place}", sentence(&*panic));
        world.violations.push(Violation::new("panic", what));
    }
    Life {
        seed,
        hash: world.trace.hash(),
        busy_micros: world.busy_micros(),
        faults: world.faults_drawn,
        clients: world.plan.work.clients,
        requests: world.plan.requests,
        tally: world.tally(),
        violations: world.violations,
    }
}

fn sentence(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}
