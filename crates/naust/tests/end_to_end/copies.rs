//! Copies of a data directory that were taken file by file while the node ran, some of them cut
//! short: opened again they show a beginning of what was committed, or are refused.

use crate::ledger::{Found, Ledger, OPTIONS, draft};
use crate::support::{Draw, Node, Started, block_on, try_start, wait_until};
use crate::wire_client::Wire;
use naust_client::Code;
use naust_wire::packet::Kind;
use naust_wire::reply::Reply;
use naust_wire::{Sequence, SessionId};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const COPIES: u64 = 14;

/// Why: this is what a backup by `cp -r`, a restored volume or a careless hand leaves behind. The
/// order of the copied files is arbitrary, so is the moment of each.
#[test]
fn copies_taken_while_the_node_runs() {
    let node = Node::start(&OPTIONS);
    let acknowledged = AtomicU64::new(0);
    let ended = AtomicBool::new(false);
    let scratch = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&node.address(), &acknowledged, &ended));
        let mut draw = Draw::new(3);
        let mut opened = 0;
        for number in 0..COPIES {
            let threshold = acknowledged.load(Ordering::Relaxed) + draw.below(300) + 1;
            wait_until("acknowledged commits", || {
                acknowledged.load(Ordering::Relaxed) >= threshold || load.is_finished()
            });
            assert!(!load.is_finished(), "the load failed");
            // Number N was acknowledged, so 0..N were.
            let before = acknowledged.load(Ordering::Relaxed);
            let copy = scratch.path().join(format!("copy-{number}"));
            copy_files(&node.data, &copy, &mut draw).unwrap();
            let cut = number % 2 == 1;
            if cut {
                truncate(&copy, &mut draw).unwrap();
            }
            opened += u64::from(open(&copy, scratch.path(), if cut { 0 } else { before }));
        }
        ended.store(true, Ordering::Relaxed);
        load.join().unwrap();
        println!("{opened} of {COPIES} copies could be opened");
        assert!(opened > 0, "not one copy could be opened");
    });
}

/// Commits in order on one connection, so that what is there must be a beginning.
fn load(address: &str, acknowledged: &AtomicU64, ended: &AtomicBool) {
    let mut wire = Wire::enter(address, "default");
    let mut ledger = Ledger::default();
    let (mut sent, mut done) = (0u64, 0u64);
    while !ended.load(Ordering::Relaxed) || done < sent {
        while sent - done < 64 && !ended.load(Ordering::Relaxed) {
            let mut body = Vec::new();
            draft(sent).encode(SessionId::NONE, Sequence(0), Sequence(0), &mut body).unwrap();
            wire.send(Kind::Commit, sent, &body).unwrap();
            sent += 1;
        }
        match wire.receive().unwrap().expect("the node serves") {
            (number, Reply::Committed(committed)) => {
                assert_eq!(number, done);
                ledger.acknowledge(number, &committed);
            }
            other => panic!("{other:?}"),
        }
        done += 1;
        acknowledged.store(done, Ordering::Relaxed);
    }
}

/// Opens a copy and looks at everything; whether it could be served. `before`: so many commits must
/// be there if it is.
fn open(copy: &Path, scratch: &Path, before: u64) -> bool {
    let mut node = match try_start(copy, scratch, &[]) {
        Started::Ready(node) => node,
        Started::Ended(status, errors) => {
            println!("{}: refused: {errors}", copy.display());
            assert_eq!(status.code(), Some(1), "{errors}");
            assert!(errors.starts_with("naust: ") && !errors.contains("panicked"), "{errors}");
            return false;
        }
    };
    let result = block_on(async {
        tokio::time::timeout(crate::support::DEADLINE, Found::read(&node.address)).await
    });
    let errors = node.errors();
    assert!(!errors.contains("panicked"), "{errors}");
    match result.unwrap_or_else(|_| panic!("{}: no answer; {errors}", copy.display())) {
        Ok(found) => {
            found.check();
            let numbers: Vec<u64> = found.events.iter().map(|(number, _)| *number).collect();
            assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "a beginning");
            let count = numbers.len() as u64;
            assert!(count >= before, "{count} commits of {before} that were acknowledged");
            true
        }
        Err(error) => {
            println!("{}: {error:?}; {errors}", copy.display());
            let nothing = matches!(error.code, Code::KeyspaceNotFound | Code::StreamNotFound);
            let refused = matches!(error.code, Code::Corrupt | Code::Unavailable);
            let gone = error.code == Code::NamespaceNotFound && before == 0;
            let ended = node.has_ended() && errors.starts_with("naust: ");
            assert!(refused || gone || ended || (nothing && before == 0), "{error:?}");
            false
        }
    }
}

/// Copies file by file, in a random order; files that go away meanwhile are left out.
fn copy_files(from: &Path, to: &Path, draw: &mut Draw) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let mut files = Vec::new();
    list(from, to, &mut files)?;
    for at in (1..files.len()).rev() {
        files.swap(at, draw.below(at as u64 + 1) as usize);
    }
    for (from, to) in files {
        match fs::copy(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Makes the directories and lists the files.
fn list(from: &Path, to: &Path, files: &mut Vec<(PathBuf, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            list(&entry.path(), &target, files)?;
        } else {
            files.push((entry.path(), target));
        }
    }
    Ok(())
}

/// Cuts one or two files at random.
fn truncate(copy: &Path, draw: &mut Draw) -> io::Result<()> {
    let mut files = Vec::new();
    list(copy, copy, &mut files)?;
    files.retain(|(path, _)| fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0));
    for _ in 0..=draw.below(2) {
        let (path, _) = &files[draw.below(files.len() as u64) as usize];
        let file = fs::OpenOptions::new().write(true).open(path)?;
        let length = draw.below(file.metadata()?.len().max(1));
        println!("{} is cut to {length}", path.display());
        file.set_len(length)?;
    }
    Ok(())
}
