//! Runs the stories in `tests/scripts`: commands, `---`, what was seen. Set `UPDATE_EXPECT=1` to
//! write what is seen into them; the diff is the review.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "helpers of tests are tests")]

mod world;

use std::fmt::Write;
use std::path::Path;

#[test]
fn stories() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut names: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(!names.is_empty());
    for path in names {
        let story = std::fs::read_to_string(&path).unwrap();
        expect_test::expect_file![path].assert_eq(&play(&story));
    }
}

/// A story with what was seen now in place of what it says.
fn play(story: &str) -> String {
    let mut world = world::World::default();
    let mut out = String::new();
    for block in story.trim_end().split("\n\n") {
        let commands = block.split("\n---").next().unwrap();
        let separator = if out.is_empty() { "" } else { "\n" };
        writeln!(out, "{separator}{commands}").unwrap();
        let commands = commands.lines().filter(|line| !line.starts_with('#'));
        let mut seen = String::new();
        let mut any = false;
        for command in commands {
            any = true;
            seen.push_str(&world.command(command));
        }
        if any {
            out.push_str("---\n");
            out.push_str(if seen.is_empty() { "ok\n" } else { &seen });
        }
    }
    out
}
