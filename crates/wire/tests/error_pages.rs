//! Every error code has its page in `docs/errors/`, with its number and its outcome, and no page is
//! without a code.

#![allow(clippy::disallowed_methods, reason = "the test reads the pages")]

use naust_wire::{Code, Outcome};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_code_has_its_page() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    for code in Code::ALL {
        let path = pages.join(format!("{code}.md"));
        let page = fs::read_to_string(&path).expect("every code has its page in docs/errors");
        let title = format!("# `{code}` ({})\n", *code as u16);
        assert!(page.starts_with(&title), "{code}: the page begins with its name and number");
        let outcome = match code.outcome() {
            Outcome::NotDone => "\n## Outcome\n\n**Not done.**",
            Outcome::Unknown => "\n## Outcome\n\n**Unknown.**",
        };
        assert!(page.contains(outcome), "{code}: the page says what became of the request");
        assert!(page.contains("\n## What to do\n"), "{code}: the page says what to do");
    }
    let names: BTreeSet<String> = Code::ALL.iter().map(|code| format!("{code}.md")).collect();
    for entry in fs::read_dir(pages).expect("the pages lie in docs/errors") {
        let name = entry.expect("an entry").file_name().into_string().expect("a page's name");
        assert!(names.contains(&name), "{name} is the page of no code");
    }
}
