//! What a session numbers in the directory: the checker is shown a history that is right, and then
//! the same one with a lie in it, and must tell them apart.

#![allow(clippy::unwrap_used)]

use naust_sim::checkers::{Case, Excuses, numbered};
use naust_sim::chronicle::Chronicle;
use naust_sim::history::{Answer, Asked, Request};
use naust_sim::model::Model;
use naust_sim::schedule::Moment;
use naust_wire::control::Control;
use naust_wire::frame::{Header, Kind};
use naust_wire::options::NamespaceOptions;
use naust_wire::reply::{Failure, Reply};
use naust_wire::{Code, Index, LogTime, Numbers, Offset, Sequence, SessionId, ShardId, Term};

const NONCE: u64 = 7;

/// The directory's log, and what was asked of it.
#[derive(Default)]
struct Story {
    log: Vec<u8>,
    frames: u64,
    crc: u32,
    requests: Vec<Request>,
}

impl Story {
    /// With a session.
    fn new() -> (Story, SessionId) {
        let mut story = Story::default();
        let open = Control::OpenSession { ttl_ms: 0, nonce: NONCE };
        let at = story.frame(&Numbers::NONE, &open);
        (story, SessionId::opened(at, NONCE))
    }

    fn frame(&mut self, numbers: &Numbers, control: &Control) -> Offset {
        let offset = Offset::FIRST.plus(self.log.len() as u64);
        let mut body = Vec::new();
        control.encode_numbered(numbers, &mut body);
        self.frames += 1;
        let header = Header {
            kind: Kind::Control,
            body_bytes: body.len() as u32,
            crc_before: self.crc,
            term: Term(1),
            index: Index(self.frames),
            offset,
            time: LogTime(self.frames),
            synced: Offset(0),
        };
        self.crc = header.write(&body, &mut self.log);
        offset
    }

    fn ask(&mut self, numbers: Numbers, control: &Control, reply: Reply) {
        self.requests.push(Request {
            client: 0,
            shard: ShardId::DIRECTORY,
            asked: Asked::Numbered(numbers, control.clone()),
            line: 1,
            here: true,
            sent: Moment(1),
            frontier: Offset::ZERO,
            answer: Answer::Reply(reply),
            answered: Moment(2),
            ceiling: Offset::ZERO,
            answers: 1,
        });
    }

    fn objects(&self) -> Option<String> {
        let mut chronicle = Chronicle::new(1 << 16);
        chronicle.learn(Offset::FIRST, &self.log).unwrap();
        let mut model = Model::default();
        chronicle.from(Offset::ZERO).for_each(|entry| model.fold(entry).unwrap());
        let case = Case {
            shard: ShardId::DIRECTORY,
            options: NamespaceOptions::default(),
            chronicle: &chronicle,
            model: &model,
            requests: &self.requests.iter().collect::<Vec<_>>(),
            removed: None,
            patience: Moment(0),
            excuses: Excuses::default(),
        };
        let mut violations = Vec::new();
        numbered::check(&case, &mut violations);
        violations.pop().map(|violation| violation.what)
    }
}

fn numbers(session: SessionId, sequence: u64) -> Numbers {
    let sequence = Sequence(sequence);
    Numbers { session, sequence, acked_below: sequence }
}

fn made() -> Control {
    Control::CreateNamespace { name: "made".to_owned(), options: NamespaceOptions::default() }
}

fn failed(code: Code) -> Reply {
    Reply::Error(Failure::new(code, "because"))
}

#[test]
fn what_is_sent_again_is_told_where_it_was_done() {
    let (mut story, session) = Story::new();
    let first = numbers(session, 1);
    let at = story.frame(&first, &made());
    let again = story.frame(&first, &made());
    story.ask(first, &made(), Reply::Done(at));
    story.ask(first, &made(), Reply::Done(at));
    story.ask(first, &made(), failed(Code::Unavailable));
    assert_eq!(story.objects(), None);
    story.ask(first, &made(), Reply::Done(again));
    assert!(story.objects().unwrap().contains("is told to be done at"));
    story.requests.pop();
    story.ask(first, &made(), failed(Code::NamespaceExists));
    assert!(story.objects().unwrap().contains("was answered; the log says"));
}

#[test]
fn a_refusal_stays_one() {
    let (mut story, session) = Story::new();
    let (first, second) = (numbers(session, 1), numbers(session, 2));
    let gone = Control::CloseNamespace("made".to_owned());
    story.frame(&first, &gone);
    story.frame(&second, &made());
    story.frame(&first, &gone);
    let at = story.frame(&numbers(session, 3), &gone);
    story.ask(first, &gone, failed(Code::NamespaceNotFound));
    story.ask(first, &gone, failed(Code::NamespaceNotFound));
    story.ask(second, &made(), failed(Code::Interrupted));
    story.ask(numbers(session, 3), &gone, Reply::Done(at));
    assert_eq!(story.objects(), None);
    story.ask(first, &gone, Reply::Done(at));
    assert!(story.objects().unwrap().contains("is told to be done at"));
}

#[test]
fn what_nobody_sent_is_seen() {
    let (mut story, session) = Story::new();
    let first = numbers(session, 1);
    story.ask(first, &made(), failed(Code::Interrupted));
    story.frame(&numbers(session, 2), &made());
    assert!(story.objects().unwrap().contains("nobody sent"));
}
