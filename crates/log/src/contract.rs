//! What every [`Disk`] must do, as a suite that each implementation runs in its tests.
//!
//! A power cut is not in it: no real disk can be asked for one.

use crate::disk::{Disk, Open};
use std::io::ErrorKind;
use std::sync::Arc;

/// Makes an empty directory's disk.
pub type Factory<'a> = &'a dyn Fn() -> Arc<dyn Disk>;

/// Runs the whole suite.
///
/// # Panics
/// When a promise is broken, with its name.
pub fn all(make: Factory<'_>) {
    names_come_and_go(make);
    bytes_lie_where_they_were_written(make);
    reads_end_with_the_file(make);
    lengths_change(make);
    removed_files_stay_readable(make);
    writes_of_many_parts_are_whole(make);
    handles_are_shared(make);
}

/// A name is there from its creation to its removal; renaming replaces.
///
/// # Panics
/// As [`all`].
pub fn names_come_and_go(make: Factory<'_>) {
    let disk = make();
    assert!(disk.list().expect("list").is_empty(), "a new disk is empty");
    let missing = disk.open("a", Open::Existing).err().map(|error| error.kind());
    assert_eq!(missing, Some(ErrorKind::NotFound), "no file is made unless asked for");
    disk.open("a", Open::Create).expect("create").write_at(0, &[b"a"]).expect("write");
    disk.open("b", Open::Create).expect("create").write_at(0, &[b"b"]).expect("write");
    disk.open("a", Open::Create).expect("create again");
    let mut names = disk.list().expect("list");
    names.sort();
    assert_eq!(names, ["a", "b"], "each name is listed once");
    disk.rename("a", "b").expect("rename");
    assert_eq!(disk.list().expect("list"), ["b"], "a renamed file replaces another");
    let mut byte = [0];
    let file = disk.open("b", Open::Existing).expect("open");
    assert_eq!(file.read_at(0, &mut byte).expect("read"), 1);
    assert_eq!(&byte, b"a", "and keeps its bytes");
    disk.remove("b").expect("remove");
    disk.sync().expect("sync names");
    assert!(disk.list().expect("list").is_empty(), "a removed file is gone");
    let gone = disk.remove("b").err().map(|error| error.kind());
    assert_eq!(gone, Some(ErrorKind::NotFound), "and can't be removed again");
}

/// Writes land at their position, over what was there, and leave the rest alone.
///
/// # Panics
/// As [`all`].
pub fn bytes_lie_where_they_were_written(make: Factory<'_>) {
    let disk = make();
    let file = disk.open("file", Open::Create).expect("create");
    file.write_at(10, &[b"one", b"", b"two"]).expect("write");
    file.write_at(12, &[b"EE"]).expect("write");
    file.sync().expect("sync");
    let mut bytes = [9; 16];
    assert_eq!(file.read_at(0, &mut bytes).expect("read"), 16);
    assert_eq!(&bytes, b"\0\0\0\0\0\0\0\0\0\0onEEwo", "holes read as zeros");
    file.write_at(10_000_000, &[b"far"]).expect("write far away");
    let mut far = [9; 5];
    assert_eq!(file.read_at(9_999_998, &mut far).expect("read"), 5);
    assert_eq!(&far, b"\0\0far", "files may have holes");
}

/// A read gets what is there, and nothing behind the end.
///
/// # Panics
/// As [`all`].
pub fn reads_end_with_the_file(make: Factory<'_>) {
    let disk = make();
    let file = disk.open("file", Open::Create).expect("create");
    let mut bytes = [0; 8];
    assert_eq!(file.read_at(0, &mut bytes).expect("read"), 0, "an empty file has no bytes");
    file.write_at(0, &[b"abc"]).expect("write");
    assert_eq!(file.read_at(1, &mut bytes).expect("read"), 2, "fewer at the end");
    assert_eq!(&bytes[..2], b"bc");
    assert_eq!(file.read_at(3, &mut bytes).expect("read"), 0, "none behind it");
    assert_eq!(file.read_at(1 << 40, &mut bytes).expect("read"), 0, "nor far behind it");
    assert_eq!(file.read_at(0, &mut []).expect("read"), 0, "none asked, none given");
}

/// Files are cut and extended; what is cut does not come back.
///
/// # Panics
/// As [`all`].
pub fn lengths_change(make: Factory<'_>) {
    let disk = make();
    let file = disk.open("file", Open::Create).expect("create");
    assert_eq!(file.len().expect("length"), 0);
    file.write_at(4, &[b"abcd"]).expect("write");
    assert_eq!(file.len().expect("length"), 8, "a write extends");
    file.set_len(6).expect("cut");
    file.set_len(9).expect("extend");
    file.sync().expect("sync");
    let mut bytes = [9; 9];
    assert_eq!(file.read_at(0, &mut bytes).expect("read"), 9);
    assert_eq!(&bytes, b"\0\0\0\0ab\0\0\0", "what was cut is zero when it is extended again");
}

/// Whoever has a file open goes on reading it when its name is gone.
///
/// # Panics
/// As [`all`].
pub fn removed_files_stay_readable(make: Factory<'_>) {
    let disk = make();
    let old = disk.open("file", Open::Create).expect("create");
    old.write_at(0, &[b"old"]).expect("write");
    let new = disk.open("new", Open::Create).expect("create");
    new.write_at(0, &[b"new"]).expect("write");
    disk.rename("new", "file").expect("rename");
    let mut bytes = [0; 3];
    assert_eq!(old.read_at(0, &mut bytes).expect("read"), 3);
    assert_eq!(&bytes, b"old", "replaced, and still open");
    disk.remove("file").expect("remove");
    assert_eq!(new.read_at(0, &mut bytes).expect("read"), 3);
    assert_eq!(&bytes, b"new", "removed, and still open");
}

/// A vectored write may have more parts than an operating system takes at once.
///
/// # Panics
/// As [`all`].
pub fn writes_of_many_parts_are_whole(make: Factory<'_>) {
    let disk = make();
    let file = disk.open("file", Open::Create).expect("create");
    let numbers: Vec<[u8; 2]> = (0..5000u16).map(u16::to_le_bytes).collect();
    let parts: Vec<&[u8]> = numbers.iter().map(|number| &number[..]).collect();
    file.write_at(3, &parts).expect("write");
    let mut bytes = vec![0; 10_000];
    assert_eq!(file.read_at(3, &mut bytes).expect("read"), 10_000);
    assert_eq!(bytes, numbers.concat(), "every part in its order");
}

/// Two handles are one file.
///
/// # Panics
/// As [`all`].
pub fn handles_are_shared(make: Factory<'_>) {
    let disk = make();
    let one = disk.open("file", Open::Create).expect("create");
    let two = disk.open("file", Open::Existing).expect("open");
    one.write_at(0, &[b"seen"]).expect("write");
    let mut bytes = [0; 4];
    assert_eq!(two.read_at(0, &mut bytes).expect("read"), 4);
    assert_eq!(&bytes, b"seen", "what one writes the other reads");
    two.sync().expect("sync");
    assert_eq!(one.len().expect("length"), 4);
}
