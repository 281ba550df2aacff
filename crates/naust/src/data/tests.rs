//! Identities, marks and names of data directories: what is made, kept, refused and swept.

use super::*;

#[test]
fn a_directory_keeps_its_identity_and_serves_one_process() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a/b");
    let first = DataDirectory::open(&path).unwrap();
    let identity = first.identity();
    let refused = DataDirectory::open(&path).unwrap_err().to_string();
    let process = std::process::id();
    assert!(refused.contains(&format!("already in use by process {process}")), "{refused}");
    drop(first);
    assert_eq!(DataDirectory::open(&path).unwrap().identity(), identity);
    let other = DataDirectory::open(&root.path().join("c")).unwrap();
    assert_ne!(other.identity().node, identity.node);
    let joined = root.path().join("d");
    drop(DataDirectory::open_for(&joined, Some(identity.cluster)).unwrap());
    let joined = DataDirectory::open(&joined).unwrap().identity();
    assert_eq!((joined.cluster, joined.founder), (identity.cluster, false));
    assert!(identity.founder);
}

#[test]
fn a_newer_format_and_damage_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    drop(DataDirectory::open(root.path()).unwrap());
    let node = root.path().join("NODE");
    let text = fs::read_to_string(&node).unwrap();
    fs::write(&node, "naust format 2\nwho knows\n").unwrap();
    let newer = DataDirectory::open(root.path()).unwrap_err();
    assert!(matches!(newer, DataError::NewerFormat { found: 2, .. }), "{newer}");
    for position in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[position] ^= 1;
        fs::write(&node, bytes).unwrap();
        assert!(DataDirectory::open(root.path()).is_err(), "bit flipped in byte {position}");
    }
    fs::write(&node, text).unwrap();
    DataDirectory::open(root.path()).unwrap();
}

#[test]
fn removed_shards_are_gone_even_when_the_removal_was_cut_short() {
    let root = tempfile::tempdir().unwrap();
    let data = DataDirectory::open(root.path()).unwrap();
    for shard in [0, 7, 0xffff_ffff] {
        data.make(ShardId(shard)).unwrap();
    }
    data.remove(ShardId(7)).unwrap();
    data.remove(ShardId(8)).unwrap();
    assert_eq!(data.shards().unwrap(), [ShardId(0), ShardId(0xffff_ffff)]);
    fs::create_dir_all(root.path().join("shards/00000009.gone/log")).unwrap();
    drop(data);
    let data = DataDirectory::open(root.path()).unwrap();
    assert_eq!(data.shards().unwrap(), [ShardId(0), ShardId(0xffff_ffff)]);
    assert!(!root.path().join("shards/00000009.gone").exists());
}

#[test]
fn what_deletions_left_is_swept_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let data = DataDirectory::open(root.path()).unwrap();
    for shard in [0, 1, 2, 3, 5, 9] {
        data.make(ShardId(shard)).unwrap();
        data.set_made(ShardId(shard)).unwrap();
    }
    assert_eq!(fs::read_dir(root.path().join("made")).unwrap().count(), 6);
    // Its directory went, its marks did not.
    data.make(ShardId(4)).unwrap();
    data.set_made(ShardId(4)).unwrap();
    fs::remove_dir(root.path().join("shards/00000004")).unwrap();
    data.sweep_shards(ShardId(9), &BTreeSet::from([ShardId(1), ShardId(3)])).unwrap();
    assert_eq!(data.shards().unwrap(), [0, 1, 3, 9].map(ShardId));
    for shard in 0..10 {
        let is_made = data.is_made(ShardId(shard)).unwrap();
        assert_eq!(is_made, [0, 1, 3, 9].contains(&shard), "{shard}");
    }
}

#[test]
fn a_copy_takes_the_place_of_a_shard_whenever_it_was_interrupted() {
    let root = tempfile::tempdir().unwrap();
    let shards = root.path().join("shards");
    let data = DataDirectory::open(root.path()).unwrap();
    let put = |name: &str, what: &str| {
        fs::create_dir_all(shards.join(name)).unwrap();
        fs::write(shards.join(name).join("what"), what).unwrap();
    };
    let what = || fs::read_to_string(shards.join("00000007/what")).unwrap();
    put("00000007", "old");
    put("00000007.next", "new");
    data.take_next(ShardId(7)).unwrap();
    assert_eq!(what(), "new");
    drop(data);
    // Before the old one made way, a copy may not be whole; after that it is.
    put("00000007.next", "half");
    drop(DataDirectory::open(root.path()).unwrap());
    assert_eq!(what(), "new");
    assert!(shards.join("00000007.next/what").exists(), "it is gone on with");
    put("00000007.next", "newer");
    fs::rename(shards.join("00000007"), shards.join("00000007.gone")).unwrap();
    drop(DataDirectory::open(root.path()).unwrap());
    assert_eq!(what(), "newer");
    assert_eq!(fs::read_dir(&shards).unwrap().count(), 1);
}

/// Why: a node that takes a lost `shards` for none yet begins anew, and what it acknowledged is
/// gone without a word.
#[test]
fn lost_shards_are_not_taken_for_none_yet() {
    let root = tempfile::tempdir().unwrap();
    let (shards, mark) = (root.path().join("shards"), root.path().join("made/00000000"));
    let data = DataDirectory::open(root.path()).unwrap();
    data.make(ShardId(0)).unwrap();
    drop(data);
    // A crash in the middle of the very first start: nothing was promised.
    assert!(!mark.exists());
    fs::remove_dir_all(&shards).unwrap();
    let data = DataDirectory::open(root.path()).unwrap();
    data.make(ShardId(0)).unwrap();
    data.set_made(ShardId(0)).unwrap();
    assert!(mark.exists() && data.was_made().unwrap());
    drop(data);
    // A directory of an earlier release.
    fs::remove_file(&mark).unwrap();
    drop(DataDirectory::open(root.path()).unwrap());
    assert!(mark.exists());
    let aside = root.path().join("aside");
    for lost in ["shards", "shards/00000000.made"] {
        let path = root.path().join(lost);
        fs::rename(&path, &aside).unwrap();
        let told = DataDirectory::open(root.path()).unwrap_err();
        assert!(matches!(&told, DataError::Lost { what, .. } if *what == path), "{told}");
        assert!(!path.exists(), "it was made anew");
        fs::rename(&aside, &path).unwrap();
    }
    fs::rename(&shards, &aside).unwrap();
    fs::create_dir(&shards).unwrap();
    let told = DataDirectory::open(root.path()).unwrap_err();
    assert!(matches!(told, DataError::Lost { .. }), "{told}");
    fs::remove_dir(&shards).unwrap();
    fs::rename(&aside, &shards).unwrap();
    DataDirectory::open(root.path()).unwrap();
}

/// Why: a typing error must not scatter a database among the files of somebody else, and a new
/// identity must not take the place of one that was lost.
#[test]
fn what_lies_in_a_directory_without_a_node_is_not_touched() {
    let root = tempfile::tempdir().unwrap();
    let entries = || {
        let entries = fs::read_dir(root.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    for harmless in HARMLESS {
        fs::write(root.path().join(harmless), "").unwrap();
    }
    assert!(!DataDirectory::has_node(root.path()).unwrap());
    fs::write(root.path().join("passwd"), "").unwrap();
    let before = entries();
    let told = DataDirectory::open(root.path()).unwrap_err();
    assert!(matches!(&told, DataError::NotEmpty { found, .. } if found == "passwd"), "{told}");
    assert_eq!(entries(), before);
    fs::create_dir(root.path().join("shards")).unwrap();
    let before = entries();
    let told = DataDirectory::open(root.path()).unwrap_err();
    assert!(matches!(told, DataError::NoIdentity { .. }), "{told}");
    assert_eq!(entries(), before);
    fs::remove_dir(root.path().join("shards")).unwrap();
    fs::remove_file(root.path().join("passwd")).unwrap();
    drop(DataDirectory::open(root.path()).unwrap());
    // Once it is one, what else lies there is the operator's.
    fs::write(root.path().join("passwd"), "").unwrap();
    assert!(DataDirectory::has_node(root.path()).unwrap());
    DataDirectory::open(root.path()).unwrap();
}

#[test]
fn a_name_is_kept_and_damage_is_told() {
    let root = tempfile::tempdir().unwrap();
    let data = DataDirectory::open(root.path()).unwrap();
    assert_eq!(data.name().unwrap(), None);
    for name in ["ada", "bob", "bob"] {
        data.set_name(name).unwrap();
        assert_eq!(data.name().unwrap().as_deref(), Some(name));
    }
    for damaged in ["", "a/b\n", "a\nb\n"] {
        fs::write(root.path().join("NAME"), damaged).unwrap();
        assert!(matches!(data.name(), Err(DataError::Identity { .. })), "{damaged:?}");
    }
    data.set_name("cyn").unwrap();
    assert_eq!(data.name().unwrap().as_deref(), Some("cyn"));
}

#[test]
fn a_path_that_can_be_no_directory_is_one_clear_sentence() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = DataDirectory::open(&file.join("data")).unwrap_err().to_string();
    assert!(refused.starts_with("can't use as a directory"), "{refused}");
}
