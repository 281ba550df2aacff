//! Transcripts: commands as they are typed, each with what it prints, run against a real node.
//!
//! ```text
//! $ naust kv put users ada '90'
//! 4294967456
//! $ naust kv get users eve
//! naust: there is no row eve
//! (exit status 1)
//! ```
//! Standard error is part of what is printed. Offsets, names and ids of nodes differ from run to
//! run: a number of ten or more digits, `node-` with eight hex digits and sixteen hex digits stand
//! for whatever is printed there, the same for the same, in commands too. `…` stands for anything
//! in a line. Ports 7420 and 7421 are those of the node. A line that ends with a backslash,
//! or in the middle of a quotation, goes on; one that begins with `# ` is a remark. In a command a
//! number that is one more than a known one stands for one more.
//! With `UPDATE=1` in the environment the files are written anew from what is printed.

use crate::support::{Node, PROGRAM, naust};
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where commands run: a directory with the node's data, and `naust` on the path.
pub struct Stage {
    directory: tempfile::TempDir,
    node: Node,
    /// What is written for what is printed, and the other way round.
    actual_of: BTreeMap<String, String>,
    written_of: BTreeMap<String, String>,
}

/// Whether files are to be written anew.
pub fn is_update() -> bool {
    std::env::var_os("UPDATE").is_some()
}

/// Whether this machine can run what transcripts type.
pub fn has_curl() -> bool {
    let told = Command::new("curl").arg("--version").stdout(Stdio::null()).status();
    told.is_ok_and(|status| status.success())
}

/// Runs every `console` block of a Markdown file, or a whole text file, on a node of its own.
/// Returns what is wrong.
pub fn run_file(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let is_markdown = path.extension().is_some_and(|extension| extension == "md");
    if is_markdown && !text.contains("```console") {
        return Vec::new();
    }
    let mut stage = Stage::new();
    let mut wrong = Vec::new();
    let mut anew = String::new();
    if is_markdown {
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("```console\n") {
            let (block, after) = after.split_once("```").expect("a fence that ends");
            anew += &format!("{before}```console\n{}```", stage.run(block, &mut wrong));
            rest = after;
        }
        anew += rest;
    } else {
        anew = stage.run(&text, &mut wrong);
    }
    if is_update() && !wrong.is_empty() {
        std::fs::write(path, anew).unwrap();
        return Vec::new();
    }
    wrong.iter().map(|what| format!("{}: {what}", path.display())).collect()
}

impl Stage {
    pub fn new() -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let programs = directory.path().join("programs");
        std::fs::create_dir(&programs).unwrap();
        symlink(PROGRAM, programs.join("naust")).unwrap();
        let node = Node::open(&directory.path().join("naust-data"), &[]);
        let (actual_of, written_of) = (BTreeMap::new(), BTreeMap::new());
        Stage { directory, node, actual_of, written_of }
    }

    /// Runs the commands of a block and compares; gives the block anew.
    fn run(&mut self, block: &str, wrong: &mut Vec<String>) -> String {
        let mut anew = String::new();
        let mut lines = block.lines().peekable();
        while let Some(line) = lines.next() {
            let Some(mut command) = line.strip_prefix("$ ").map(str::to_owned) else {
                anew += &format!("{line}\n");
                continue;
            };
            let is_open = |text: &str| text.matches('\'').count() % 2 == 1;
            while command.ends_with('\\') || is_open(&command) {
                command += &format!("\n{}", lines.next().expect("a line that goes on"));
            }
            let mut expected = String::new();
            let is_output = |line: &&str| !line.starts_with("$ ") && !line.starts_with("# ");
            while let Some(line) = lines.next_if(is_output) {
                expected += &format!("{line}\n");
            }
            let actual_command = self.substitute(&command);
            let actual = self.type_in(&actual_command);
            let is_gap = expected == "\n" || expected.ends_with("\n\n");
            let gap = if is_gap { "\n" } else { "" };
            let is_same = self.compare(expected.trim_end(), actual.trim_end());
            if !is_same {
                wrong.push(format!("$ {actual_command}\n{actual}--- and not\n{expected}"));
            }
            anew += &format!("$ {}\n", self.to_defaults(&actual_command));
            let printed = self.keep_gaps(&expected, actual.trim_end());
            anew += &match printed.is_empty() {
                true => gap.to_owned(),
                false => format!("{printed}\n{gap}"),
            };
        }
        anew
    }

    /// What is printed, but lines with gaps as they are written where they fit.
    fn keep_gaps(&mut self, written: &str, actual: &str) -> String {
        let mut gaps: Vec<&str> = written.lines().filter(|line| line.contains('…')).collect();
        let mut kept = Vec::new();
        for actual in actual.lines() {
            match gaps.iter().position(|written| self.compare_line(written, actual)) {
                None => kept.push(actual.to_owned()),
                Some(found) => {
                    let line = gaps.remove(found);
                    let now = |token| self.actual_of.get(token).map_or(token, String::as_str);
                    kept.push(tokens(line).map(now).collect());
                }
            }
        }
        kept.join("\n")
    }

    fn type_in(&self, command: &str) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.directory.path().join("programs").display());
        // The function keeps the progress meter away, which is not for pipes.
        let command = format!("curl() {{ command curl -sS \"$@\"; }}\n{{ {command}\n}} 2>&1");
        let mut shell = Command::new("sh");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("NAUST_")) {
            shell.env_remove(name);
        }
        shell.arg("-c").arg(command).current_dir(self.directory.path()).stdin(Stdio::null());
        shell.env("PATH", path).env("NAUST_ADDRESS", self.node.address());
        let output = shell.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).replace("\r\n", "\n");
        let mut text = self.to_defaults(&text);
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        if !output.status.success() {
            text += &format!("(exit status {})\n", output.status.code().unwrap());
        }
        text
    }

    /// The command with this run's numbers and ports.
    fn substitute(&self, command: &str) -> String {
        let mut text = String::new();
        for token in tokens(command) {
            let one_less = token.parse::<u64>().unwrap_or_default().saturating_sub(1).to_string();
            match (self.actual_of.get(token), self.actual_of.get(&one_less)) {
                (Some(actual), _) => text += actual,
                (None, Some(actual)) => text += &(actual.parse::<u64>().unwrap() + 1).to_string(),
                (None, None) => text += token,
            }
        }
        for host in ["127.0.0.1", "localhost"] {
            text = text.replace(&format!("{host}:7421"), &self.node.http());
            text = text.replace(&format!("{host}:7420"), &self.node.address());
        }
        text
    }

    fn to_defaults(&self, text: &str) -> String {
        text.replace(&self.node.http(), "127.0.0.1:7421")
            .replace(&self.node.address(), "127.0.0.1:7420")
    }

    /// Whether what is printed is what is written; learns what stands for what.
    fn compare(&mut self, written: &str, actual: &str) -> bool {
        let (written, actual): (Vec<&str>, Vec<&str>) =
            (written.lines().collect(), actual.lines().collect());
        written.len() == actual.len()
            && written
                .iter()
                .zip(actual)
                .all(|(written, actual)| self.compare_line(written, actual))
    }

    /// `…` stands for any words; what stands between the gaps is found from left to right.
    fn compare_line(&mut self, written: &str, actual: &str) -> bool {
        let actual: Vec<&str> = tokens(actual).collect();
        let pieces: Vec<Vec<&str>> =
            written.split('…').map(|piece| tokens(piece).collect()).collect();
        let last = pieces.len() - 1;
        let mut at = 0;
        for (number, piece) in pieces.iter().enumerate() {
            let Some(latest) = actual.len().checked_sub(piece.len()) else { return false };
            let first = if number == last { latest } else { at };
            let end = if number == 0 { at } else { latest };
            if number == last && (first < at || last == 0 && first != at) {
                return false;
            }
            let fits = |from: &usize| self.fits(piece, &actual[*from..*from + piece.len()]);
            let Some(found) = (first..=end).find(fits) else { return false };
            for (written, actual) in piece.iter().zip(&actual[found..]) {
                if !self.stands_for(written, actual) {
                    return false;
                }
            }
            at = found + piece.len();
        }
        true
    }

    /// Whether words may be those that are written, as far as is known.
    fn fits(&self, written: &[&str], actual: &[&str]) -> bool {
        written.iter().zip(actual).all(|(written, actual)| {
            if !is_volatile(written) || !is_volatile(actual) {
                return written == actual;
            }
            self.actual_of.get(*written).is_none_or(|known| known == actual)
                && self.written_of.get(*actual).is_none_or(|known| known == written)
        })
    }

    fn stands_for(&mut self, written: &str, actual: &str) -> bool {
        if !is_volatile(written) || !is_volatile(actual) {
            return written == actual;
        }
        let known = self.actual_of.entry(written.to_owned()).or_insert(actual.to_owned());
        let back = self.written_of.entry(actual.to_owned()).or_insert(written.to_owned());
        known == actual && back == written
    }
}

/// Words, and what stands between them one by one.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let length = match rest.find(|c| !is_word(c)) {
            Some(0) => first.len_utf8(),
            Some(length) => length,
            None => rest.len(),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}

/// Whether a word differs from run to run.
fn is_volatile(word: &str) -> bool {
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let number = word.len() >= 10 && word.bytes().all(|byte| byte.is_ascii_digit());
    number || hex(word, 16) || word.strip_prefix("node-").is_some_and(|rest| hex(rest, 8))
}

/// The files below a directory of this repository, by their ending.
pub fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut left = vec![root.join(directory)];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// What a command says about itself.
pub fn help(words: &[&str]) -> String {
    let output = naust(words).arg("--help").output().unwrap();
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}
