//! Stories of a log, told in scripts: commands, `---`, what was observed. `UPDATE_EXPECT=1` writes
//! down what is observed now; the diff is the review.
//!
//! Offsets are told from the beginning of the log, positions as `end of frame <index> at <offset>`.

#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::disallowed_methods)] // scripts are files

use naust_log::sim::SimDisk;
use naust_log::{
    Depth, Disk, Extend, HardState, Identity, Layout, Log, Open, Position, ReadError, Reader,
    Survey, TrimInput, Write,
};
use naust_wire::frame::Kind;
use naust_wire::{Index, LogTime, NodeId, Offset, ShardId, Term};
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

const SHARD: ShardId = ShardId(1);

#[derive(Default)]
struct Story {
    disk: SimDisk,
    log: Option<Log>,
    write: Option<Write>,
    extend: Option<Extend>,
    /// Another replica, as this one was.
    twin: Option<Reader>,
    out: String,
}

fn told(offset: Offset) -> String {
    format!("+{}", offset.0 - Offset::FIRST.0)
}

fn place(position: Position) -> String {
    format!("end of frame {} at {}", position.index, told(position.offset))
}

impl Story {
    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("the script opens a log first")
    }

    fn say(&mut self, what: impl std::fmt::Display) {
        writeln!(self.out, "{what}").unwrap();
    }

    fn run(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "create" => {
                let identity = Identity { node: NodeId(1), shard: SHARD, cluster: 1 };
                let layout = Layout::new(number(1) * 1024).unwrap();
                Log::create_with(&self.disk, identity, b"", layout).unwrap();
            }
            "open" => self.open(),
            "stage" => self.stage(number(1), number(2), number(3)),
            "save" => self.log().save(HardState { term: Term(number(1)), vote: NodeId(number(2)) }),
            "take" => self.take(),
            "write" => {
                self.take();
                self.finish();
            }
            "unsynced" => {
                assert!(self.write.is_none(), "finish the write before");
                self.write = self.log().next_write_unsynced();
                match &self.write {
                    Some(_) => self.finish(),
                    None => self.say("nothing to write"),
                }
            }
            "finish" => self.finish(),
            "cut" => self.log().cut_after(Index(number(1))).unwrap(),
            "release" => {
                let upto = self.log().end().offset;
                self.log().release(upto);
                let left = self.log().unreleased_bytes();
                self.say(format!("{left} B in memory"));
            }
            "extend" => {
                self.extend = self.log().extend();
                let said =
                    self.extend.as_ref().map(|extend| format!("zeros: {} B", extend.bytes()));
                self.say(said.unwrap_or("enough ahead".to_owned()));
            }
            "extended" => {
                let Some(extend) = self.extend.take() else { return self.say("none under way") };
                let done = extend.run();
                self.say(if done.disk_full() { "disk full" } else { "done" });
                self.log().extended(done).unwrap();
            }
            "trim" => self.trim(number(1), &words[2..]),
            "space" => {
                let used = self.disk.used_space();
                self.disk.set_space(words.get(1).map(|_| used + number(1)));
            }
            "retry" => self.log().retry(),
            "power" => {
                self.disk = self.disk.crash(number(1));
                (self.log, self.write, self.extend) = (None, None, None);
            }
            "kill" => {
                self.disk = self.disk.restart();
                (self.log, self.write, self.extend) = (None, None, None);
            }
            "rot" => {
                let name = Layout::name(Offset::FIRST.plus(number(1) * 16 * 1024));
                assert!(self.disk.rot(&name, number(2), 0));
            }
            "zero" => {
                let name = Layout::name(Offset::FIRST.plus(number(1) * 16 * 1024));
                let file = self.disk.open(&name, Open::Existing).unwrap();
                file.write_at(number(2), &[&vec![0; number(3) as usize]]).unwrap();
                file.sync().unwrap();
            }
            "show" => self.show(),
            "files" => self.files(),
            "read" => self.read(),
            "find" => {
                let found = self.log().reader().find(Index(number(1)));
                self.say(found.map_or_else(|error| relative(&error.to_string()), told));
            }
            "survey" => self.survey(),
            "twin" => {
                let disk = Arc::new(self.disk.copy());
                self.twin = Some(Log::open(disk, SHARD).unwrap().0.reader());
            }
            "scrub" => self.scrub(number(1)),
            "mend" => {
                let must_join = words.get(3) == Some(&"joined");
                self.mend(Offset::FIRST.plus(number(1)), number(2) as usize, must_join);
            }
            other => panic!("no such command: {other}"),
        }
    }

    fn open(&mut self) {
        match Log::open(Arc::new(self.disk.clone()), SHARD) {
            Ok((log, opened)) => {
                self.say(place(opened.end));
                if let Some(torn) = opened.torn {
                    let (from, to) = (told(torn.from), told(torn.to));
                    self.say(format!("torn from {from} to {to}: {}", torn.flaw));
                }
                self.log = Some(log);
            }
            Err(error) => self.say(relative(&error.to_string())),
        }
    }

    fn stage(&mut self, count: u64, body_bytes: u64, term: u64) {
        for _ in 0..count {
            let index = self.log().end().index.next();
            let body = vec![index.0 as u8; body_bytes as usize];
            let staged = self.log().stage(Kind::Commit, Term(term), index, LogTime(index.0), &body);
            let (from, to) = (told(staged.offset), told(staged.end));
            self.say(format!("frame {index}: {from} to {to}"));
        }
    }

    fn take(&mut self) {
        assert!(self.write.is_none(), "finish the write before");
        self.write = self.log().next_write();
        if self.write.is_none() {
            self.say("nothing to write");
        }
    }

    fn finish(&mut self) {
        let Some(write) = self.write.take() else { return };
        let log_bytes = write.log_bytes();
        let done = write.run();
        let full = if done.disk_full() { "disk full; " } else { "" };
        let (bytes, syncs) = (done.bytes(), done.syncs());
        self.log().written(done).unwrap();
        let (durable, written) = (self.log().durable(), self.log().written_to());
        let written =
            if written == durable { String::new() } else { format!("; {}", place(written)) };
        let durable = place(durable);
        self.say(format!(
            "{full}{log_bytes} of {bytes} B, {syncs} syncs; durable: {durable}{written}"
        ));
    }

    fn trim(&mut self, persisted: u64, live: &[&str]) {
        let reader = self.log().reader();
        let place = |index: &&str| reader.find(Index(index.parse().unwrap())).unwrap();
        let live: Vec<Offset> = live.iter().map(place).collect();
        let persisted = reader.position(Index(persisted)).unwrap().offset;
        let live = |range: Range<Offset>| {
            let within = live.iter().filter(|at| range.contains(at));
            Some(within.map(|at| at.plus(60)..at.plus(61)).collect())
        };
        let input = TrimInput { persisted, keep_from: Offset::MAX, live: &live };
        match self.log().trim(&input) {
            None => self.say("nothing to trim"),
            Some(trim) => {
                let done = trim.run();
                self.say(format!("{} B gone", done.bytes()));
                self.log().trimmed(done).unwrap();
            }
        }
    }

    fn show(&mut self) {
        let log = self.log();
        let (start, end, durable) = (place(log.start()), place(log.end()), place(log.durable()));
        let terms: Vec<String> =
            log.terms().iter().map(|(first, term)| format!("{term} from {first}")).collect();
        let hard = log.hard_state();
        self.say(format!("start: {start}\nend: {end}\ndurable: {durable}"));
        self.say(format!("terms: {}; saved: {}, {}", terms.join(", "), hard.term, hard.vote));
    }

    fn files(&mut self) {
        for (name, length) in self.disk.files() {
            self.say(format!("{name} {length} B"));
        }
    }

    /// Every frame that is left, as (index, synced mark).
    fn read(&mut self) {
        let reader = self.log().reader();
        let mut at = Offset::FIRST;
        let mut said = Vec::new();
        while at < reader.end() {
            match reader.frames(at, Offset::MAX, 4096) {
                Ok(chunk) => {
                    for frame in chunk.frames() {
                        let header = frame.header;
                        let synced = told(header.synced.max(Offset::FIRST));
                        said.push(format!("{}({synced})", header.index));
                    }
                    at = chunk.next();
                }
                Err(ReadError::Trimmed { next: Some(next) }) => at = next,
                Err(ReadError::Damaged(damage)) => {
                    said.push(relative(&damage.to_string()));
                    at = damage.to;
                }
                Err(other) => panic!("{other}"),
            }
        }
        self.say(said.join(" "));
    }

    /// All of the log, in steps of so many bytes.
    fn scrub(&mut self, bytes: u64) {
        let mut scrub = self.log().reader().scrub(Offset::ZERO);
        loop {
            let seen = scrub.step(bytes).unwrap();
            for damage in &seen.damage {
                self.say(relative(&damage.to_string()));
            }
            if seen.done {
                return self.say(format!("{} B, and that is all", seen.bytes));
            }
            self.say(format!("{} B, up to {}", seen.bytes, told(scrub.position())));
        }
    }

    /// Frames of the other replica from an offset on, at most so many bytes or one.
    fn mend(&mut self, at: Offset, bytes: usize, must_join: bool) {
        let reader = match &self.log {
            Some(log) => log.reader(),
            None => Survey::new(Arc::new(self.disk.clone()), Depth::Tail).unwrap().reader(),
        };
        let twin = self.twin.as_ref().expect("the script makes a twin first");
        let segment_end = Offset((at.0 | (16 * 1024 - 1)) + 1);
        let frames = twin.frames_to_mend(at, segment_end, bytes).unwrap();
        let mend = reader.mend(at, frames);
        let mend = if must_join { mend.only_if_joined() } else { mend };
        match mend.run() {
            Ok(mended) => {
                let more = if mended.joined { "nothing is missing" } else { "more is missing" };
                self.say(format!("good up to {}; {more}", told(mended.to)));
            }
            Err(error) => self.say(relative(&error.to_string())),
        }
    }

    fn survey(&mut self) {
        let survey = Survey::new(Arc::new(self.disk.clone()), Depth::Whole).unwrap();
        self.say(place(survey.end));
        for damage in &survey.damage {
            self.say(relative(&damage.to_string()));
        }
        if let Some(torn) = survey.torn {
            self.say(format!("torn from {} to {}", told(torn.from), told(torn.to)));
        }
    }
}

/// Tells offsets in a sentence from the beginning of the log.
fn relative(sentence: &str) -> String {
    let words = sentence.split(' ').map(|word| {
        let digits = word.trim_matches(|c: char| !c.is_ascii_digit());
        match digits.parse::<u64>() {
            Ok(offset) if offset >= Offset::FIRST.0 => word.replace(digits, &told(Offset(offset))),
            _ => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Tells a script again with what is observed now.
fn retell(script: &str) -> String {
    let mut story = Story::default();
    let mut told = String::new();
    for block in script.trim_end().split("\n\n") {
        let commands = block.split("\n---").next().unwrap();
        story.out.clear();
        for line in commands.lines().filter(|line| !line.starts_with('#')) {
            story.run(line);
        }
        let out = story.out.trim_end();
        write!(told, "{commands}").unwrap();
        if !out.is_empty() {
            write!(told, "\n---\n{out}").unwrap();
        }
        told.push_str("\n\n");
    }
    format!("{}\n", told.trim_end())
}

#[test]
fn scripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 8, "the scripts are there");
    for path in paths {
        let script = std::fs::read_to_string(&path).unwrap();
        expect_test::expect_file![&path].assert_eq(&retell(&script));
    }
}
