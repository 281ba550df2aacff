//! `naust commit`: several things at once, or none of them.

use super::output::{Output, put_bytes, readable};
use super::{At, Mistyped};
use clap::{ArgMatches, Args, FromArgMatches};
use naust_client::Commit as Draft;
use naust_wire::Offset;
use naust_wire::reply::{Committed, RangeDeleted};
use serde_json::{Map, Value, json};

/// Steps happen in the order in which they are given.
#[derive(Args)]
pub struct Commit {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    steps: Steps,
}

/// The steps, in the order of the command line, which clap gives only by the indices of its
/// matches.
struct Steps(Vec<(Step, String)>);

#[derive(Clone, Copy)]
enum Step {
    Put,
    Delete,
    DeleteRange,
    Append,
    Advance,
    IfVersion,
    IfAbsent,
}

const STEPS: [(Step, &str, &str, &str); 7] = [
    (Step::Put, "put", "KEYSPACE/KEY=VALUE", "Put a row"),
    (Step::Delete, "delete", "KEYSPACE/KEY", "Remove a row"),
    (Step::DeleteRange, "delete-range", "KEYSPACE/FROM..TO", "Remove the rows of a range"),
    (Step::Append, "append", "STREAM=RECORD", "Append a record"),
    (Step::Advance, "advance", "STREAM/CURSOR=OFFSET", "Move a cursor"),
    (Step::IfVersion, "if-version", "KEYSPACE/KEY@OFFSET", "Only if the row has this version"),
    (Step::IfAbsent, "if-absent", "KEYSPACE/KEY", "Only if there is no such row"),
];

impl Args for Steps {
    fn augment_args(mut command: clap::Command) -> clap::Command {
        for (_, name, value, help) in STEPS {
            let argument = clap::Arg::new(name).long(name).value_name(value).help(help);
            command = command.arg(argument.action(clap::ArgAction::Append));
        }
        command
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Steps::augment_args(command)
    }
}

impl FromArgMatches for Steps {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Steps, clap::Error> {
        let mut steps = Vec::new();
        for (step, name, ..) in STEPS {
            let values = matches.get_many::<String>(name).into_iter().flatten();
            let indices = matches.indices_of(name).into_iter().flatten();
            steps.extend(indices.zip(values).map(|(index, value)| (index, step, value.clone())));
        }
        steps.sort_by_key(|(index, ..)| *index);
        Ok(Steps(steps.into_iter().map(|(_, step, value)| (step, value)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Steps::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Commit {
    pub async fn run(self) -> anyhow::Result<()> {
        if self.steps.0.is_empty() {
            let told = "an empty commit does nothing; see `naust commit --help`";
            return Err(Mistyped(told.to_owned()).into());
        }
        let mut draft = Draft::new();
        for (step, text) in &self.steps.0 {
            draft = add(draft, *step, text)?;
        }
        let namespace = self.at.namespace().await?;
        let committed = namespace.commit(|_| draft).await?;
        print(&mut Output::new(), self.at.json, &committed)?;
        let ranges = self.steps.0.iter().filter(|(step, _)| matches!(step, Step::DeleteRange));
        for ((_, text), range) in ranges.zip(&committed.ranges) {
            if let Some(next) = &range.next {
                eprintln!("naust: {}", unfinished(text, range.deleted, next));
            }
        }
        Ok(())
    }
}

fn print(out: &mut Output, json: bool, committed: &Committed) -> anyhow::Result<()> {
    let ids: Vec<u64> = committed.ids.iter().map(|id| id.0).collect();
    if json {
        let mut object = json!({ "offset": committed.offset.0, "ids": ids });
        if !committed.ranges.is_empty() {
            object["ranges"] = committed.ranges.iter().map(range_json).collect();
        }
        if committed.duplicate {
            object["duplicate"] = true.into();
        }
        return out.json(&object);
    }
    out.line(&committed.offset.to_string())?;
    ids.iter().try_for_each(|id| out.line(&format!("id {id}")))?;
    committed
        .ranges
        .iter()
        .try_for_each(|range| out.line(&format!("deleted {}", range.deleted)))?;
    if committed.duplicate { out.line("duplicate") } else { Ok(()) }
}

fn range_json(range: &RangeDeleted) -> Value {
    let mut object = Map::new();
    object.insert("deleted".to_owned(), range.deleted.into());
    if let Some(next) = &range.next {
        put_bytes(&mut object, "next", next);
    }
    object.into()
}

/// One commit removes a bounded number of rows: how to go on.
fn unfinished(text: &str, deleted: u32, next: &[u8]) -> String {
    let (keyspace, range) = text.split_once('/').unwrap_or_default();
    let to = range.split_once("..").map_or("", |(_, to)| to);
    let next = readable(next);
    format!(
        "--delete-range {text} removed {deleted} rows, as many as one commit may; there are more: \
         go on with --delete-range {keyspace}/{next}..{to}, or remove the rest, in several \
         commits, with `naust kv delete-range`"
    )
}

fn add<'a>(draft: Draft<'a>, step: Step, text: &'a str) -> anyhow::Result<Draft<'a>> {
    let wanted = STEPS[step as usize];
    let wrong = || Mistyped(format!("--{} takes {}, and not `{text}`", wanted.1, wanted.2));
    let split = |text: &'a str, at: char| text.split_once(at).ok_or_else(wrong);
    let offset = |text: &str| text.parse().map(Offset).map_err(|_| wrong());
    Ok(match step {
        Step::Put => {
            let (place, value) = split(text, '=')?;
            let (keyspace, key) = split(place, '/')?;
            draft.put(keyspace, key, value)
        }
        Step::Delete => {
            let (keyspace, key) = split(text, '/')?;
            draft.delete(keyspace, key)
        }
        Step::DeleteRange => {
            let (keyspace, range) = split(text, '/')?;
            let (from, to) = range.split_once("..").ok_or_else(wrong)?;
            let to = (!to.is_empty()).then(|| to.as_bytes().into());
            draft.delete_range(keyspace, from, to)
        }
        Step::Append => {
            let (stream, record) = split(text, '=')?;
            draft.append(stream, record)
        }
        Step::Advance => {
            let (place, to) = split(text, '=')?;
            let (stream, cursor) = split(place, '/')?;
            draft.advance(stream, cursor, offset(to)?)
        }
        Step::IfVersion => {
            let (place, version) = text.rsplit_once('@').ok_or_else(wrong)?;
            let (keyspace, key) = split(place, '/')?;
            draft.if_version(keyspace, key, offset(version)?)
        }
        Step::IfAbsent => {
            let (keyspace, key) = split(text, '/')?;
            draft.if_absent(keyspace, key)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        steps: Steps,
    }

    #[test]
    fn steps_keep_the_order_of_the_command_line() {
        let typed = Typed::parse_from([
            "x",
            "--append",
            "s=1",
            "--put",
            "k/a=b=c",
            "--if-absent",
            "k/a",
            "--append",
            "s=2",
        ]);
        let mut draft = Draft::new();
        for (step, text) in &typed.steps.0 {
            draft = add(draft, *step, text).unwrap();
        }
        let draft = draft.into_draft().unwrap();
        assert_eq!(draft.names, ["s", "k"]);
        assert_eq!((draft.ops.len(), draft.conditions.len()), (3, 1));
        let put = &draft.ops[1];
        let (key, value) = (b"a".as_slice().into(), b"b=c".as_slice().into());
        assert_eq!(*put, naust_wire::commit::DraftOp::Put { space: 1, key, value });
    }

    #[test]
    fn a_step_that_is_typed_wrongly_says_what_it_takes() {
        for (step, name, shape, _) in STEPS {
            let told = add(Draft::new(), step, "nonsense").unwrap_err().to_string();
            assert!(told.contains(name) && told.contains(shape), "{told}");
        }
    }
}
