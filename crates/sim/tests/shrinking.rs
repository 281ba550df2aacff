//! What is left of a failing life is small, and the command that is printed for it lives that life:
//! it fails as it is said to.

#![allow(clippy::unwrap_used)]

use std::process::Command;

fn simulator(arguments: &[&str]) -> (Option<i32>, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_naust-sim")).args(arguments).output().unwrap();
    (run.status.code(), String::from_utf8(run.stdout).unwrap())
}

/// The number before a word.
fn number(told: &str, word: &str) -> f64 {
    let words: Vec<&str> = told.split_whitespace().collect();
    let at = words.iter().position(|other| *other == word);
    let at = at.unwrap_or_else(|| panic!("no {word} in {told}"));
    words[at - 1].parse().unwrap()
}

#[test]
fn the_printed_command_lives_what_is_left() {
    // The seeds draw some thousand requests and faults of many kinds; a lost sync needs few.
    let lie = ["--nodes", "1", "--promised", "--lie", "ForgetSync"];
    let with =
        |seed: &str, more: &[&str]| simulator(&[&["--seed", seed][..], &lie[..], more].concat());
    let seeds = (2_000_000..2_000_100).map(|seed: u64| seed.to_string());
    let seed = seeds.into_iter().find(|seed| with(seed, &[]).0 == Some(1)).unwrap();
    let (status, told) = with(&seed, &["--shrink"]);
    assert_eq!(status, Some(1), "{told}");
    let mut lines = told.lines();
    let what = lines.next().unwrap();
    let command = lines.next_back().unwrap();
    let words: Vec<&str> = command.split_whitespace().collect();
    let begin = words.iter().position(|word| *word == "--").unwrap() + 1;
    let words: Vec<&str> = words[begin..].iter().copied().filter(|w| *w != "--trace").collect();
    let (status, again) = simulator(&words);
    assert_eq!(status, Some(1), "{again}");
    let first = again.lines().next().unwrap();
    let first = first.split(" (and ").next().unwrap();
    assert!(what.starts_with(first), "printed {what}, lived {first}");
    // Each dimension is cut to a little.
    let (seconds, faults) = (number(&told, "s,"), number(&told, "faults,"));
    let (clients, requests) = (number(&told, "clients,"), number(&told, "requests;"));
    assert!(seconds < 5.0 && faults <= 3.0 && clients <= 4.0 && requests <= 100.0, "{told}");
}
