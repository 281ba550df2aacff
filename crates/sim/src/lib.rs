//! A cluster from one seed: nodes with their real cores, disks that lie, clients that insist, and
//! checkers that believe nothing.
//!
//! Everything runs in one thread and in virtual time; the only source of chance is one seeded
//! generator. So a seed is a whole life that can be told again, word by word. This crate forbids
//! sockets, threads in the world, the real clock and the order of hash maps. Reading order:
//!
//! * [`generator`], [`schedule`], [`trace`]: chance, time and the story;
//! * [`plan`]: what a seed draws before its life begins: the swarm;
//! * [`history`], [`chronicle`], [`model`]: what was asked and answered, what was committed, and
//!   what that means;
//! * [`workload`]: clients that ask;
//! * [`tables`], [`weather`], [`fuse`]: disks and tables that lie;
//! * [`world`]: everything there is, and how it is driven;
//! * [`checkers`]: what must hold;
//! * [`life`], [`run`], [`tally`]: one life, many lives, and what they were like;
//! * [`shrink`]: what is left of a life that failed;
//! * [`sabotage`]: lies on purpose, to see that they are found out.

pub mod checkers;
pub mod chronicle;
pub mod fuse;
pub mod generator;
pub mod history;
pub mod life;
pub mod model;
pub mod plan;
#[cfg(naust_planted)]
pub mod planted;
pub mod run;
pub mod sabotage;
pub mod schedule;
pub mod shrink;
pub mod tables;
pub mod tally;
pub mod trace;
pub mod weather;
pub mod workload;
pub mod world;
