//! Data directories and ports that a node can't use: exit status 1 and one clear sentence.

use crate::support::{
    Killed, Node, Started, assert_refused, naust, serve, skip, try_command, try_start, wait_until,
};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

/// Makes a data directory with something in it, and stops its node.
fn make(data: &Path) {
    let node = Node::open(data, &[]);
    assert!(node.naust(&["kv", "put", "k", "a", "1"]).status.success());
    node.process.stop().unwrap();
}

fn get(data: &Path) -> String {
    let node = Node::open(data, &[]);
    String::from_utf8(node.naust(&["kv", "get", "k", "a"]).stdout).unwrap()
}

/// Why: two processes on one directory would destroy it.
#[test]
fn a_directory_in_use() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let node = Node::open(&data, &[]);
    let process = format!("process {}", node.process.id());
    let refused = try_start(&data, scratch.path(), &[]);
    assert_refused(refused, &["already in use", &process, "data"]);
    assert!(node.naust(&["kv", "put", "k", "a", "1"]).status.success(), "it was harmed");
}

/// Why: an older release must not touch what it does not understand, and must say what would.
#[test]
fn a_directory_of_a_newer_format() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    make(&data);
    let path = data.join("NODE");
    let identity = fs::read_to_string(&path).unwrap();
    fs::write(&path, identity.replacen("format 1", "format 2", 1)).unwrap();
    let refused = try_start(&data, scratch.path(), &[]);
    assert_refused(refused, &["format 2", "newer", "use a newer release"]);
    fs::write(&path, &identity).unwrap();
    assert_eq!(get(&data), "1", "it was harmed");
    fs::write(&path, "something else\n").unwrap();
    assert_refused(try_start(&data, scratch.path(), &[]), &["NODE", "no identity"]);
    fs::write(&path, identity.replacen("node: ", "node: f", 1).replacen("node ", "node f", 1))
        .unwrap();
    assert_refused(try_start(&data, scratch.path(), &[]), &["NODE"]);
}

/// Why: files that were moved between machines must not be taken for one's own: what is
/// acknowledged there was promised by somebody else.
#[test]
fn a_shard_of_another_node() {
    let scratch = tempfile::tempdir().unwrap();
    let (one, two) = (scratch.path().join("one"), scratch.path().join("two"));
    make(&one);
    make(&two);
    let superblock = |shard: u32| format!("shards/{shard:08x}/log/superblock");
    let own = fs::read(two.join(superblock(1))).unwrap();
    // That of a namespace: this namespace is not served, and the others are.
    fs::copy(one.join(superblock(1)), two.join(superblock(1))).unwrap();
    let node = Node::open(&two, &[]);
    let told = node.naust(&["kv", "get", "k", "a"]);
    let text = String::from_utf8(told.stderr).unwrap();
    assert_eq!(told.status.code(), Some(1), "{text}");
    assert!(text.contains("corrupt") && text.contains("belongs to node"), "{text}");
    assert!(!node.naust(&["kv", "put", "k", "a", "2"]).status.success());
    assert!(node.naust(&["namespace", "create", "other"]).status.success());
    assert!(node.naust(&["kv", "put", "k", "a", "3", "--namespace", "other"]).status.success());
    node.process.stop().unwrap();
    fs::write(two.join(superblock(1)), own).unwrap();
    assert_eq!(get(&two), "1", "it was harmed");
    // That of the directory of namespaces: the node does not start.
    let own = fs::read(two.join(superblock(0))).unwrap();
    fs::copy(one.join(superblock(0)), two.join(superblock(0))).unwrap();
    assert_refused(try_start(&two, scratch.path(), &[]), &["belongs to node"]);
    fs::write(two.join(superblock(0)), own).unwrap();
    assert_eq!(get(&two), "1", "it was harmed");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// Why: a new and empty shard in the place of one that was lost would be a silent loss of all
/// that was acknowledged in it.
#[test]
fn parts_of_a_shard_that_vanished() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    make(&data);
    let aside = scratch.path().join("aside");
    for part in ["00000001/log", "00000001/tables", "00000001"] {
        let path = data.join("shards").join(part);
        fs::rename(&path, &aside).unwrap();
        let node = Node::open(&data, &[]);
        let told = node.naust(&["kv", "get", "k", "a"]);
        let text = String::from_utf8(told.stderr).unwrap();
        assert_eq!(told.status.code(), Some(1), "{text}");
        assert!(text.contains("corrupt") && text.contains("missing"), "{part}: {text}");
        assert!(!node.naust(&["kv", "put", "k", "a", "2"]).status.success(), "{part}");
        assert!(!path.exists(), "{part} was made anew");
        node.process.stop().unwrap();
        fs::rename(&aside, &path).unwrap();
        assert_eq!(get(&data), "1", "{part}: it was harmed");
    }
    let manifest = data.join("shards/00000001/tables/manifest");
    let tables = || fs::read_dir(data.join("shards/00000001/tables")).unwrap().count();
    let before = tables();
    fs::rename(&manifest, &aside).unwrap();
    let node = Node::open(&data, &[]);
    assert!(!node.naust(&["kv", "get", "k", "a"]).status.success());
    node.process.stop().unwrap();
    assert_eq!(tables(), before - 1, "tables without a manifest were removed");
    fs::rename(&aside, &manifest).unwrap();
    assert_eq!(get(&data), "1", "it was harmed");
    for part in ["00000000/log", "00000000/tables", "00000000"] {
        let path = data.join("shards").join(part);
        fs::rename(&path, &aside).unwrap();
        assert_refused(try_start(&data, scratch.path(), &[]), &["missing", "restore it"]);
        fs::rename(&aside, &path).unwrap();
    }
    assert_eq!(get(&data), "1", "it was harmed");
}

/// Why: with all shards together goes the mark that each was made, and the node began anew: it was
/// ready, and what it had acknowledged was not found.
#[test]
fn all_shards_that_vanished() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, aside) = (scratch.path().join("data"), scratch.path().join("aside"));
    make(&data);
    let shards = data.join("shards");
    fs::rename(&shards, &aside).unwrap();
    let refused = try_start(&data, scratch.path(), &[]);
    assert_refused(refused, &["has lost what was acknowledged", "shards is missing", "restore it"]);
    let refused = try_start(&data, scratch.path(), &["--bootstrap"]);
    assert_refused(refused, &["shards is missing"]);
    assert!(!shards.exists(), "they were made anew");
    // What is left where another file system was mounted.
    fs::create_dir(&shards).unwrap();
    let refused = try_start(&data, scratch.path(), &[]);
    assert_refused(refused, &["00000000.made is missing", "restore it"]);
    fs::remove_dir(&shards).unwrap();
    fs::rename(&aside, &shards).unwrap();
    assert_eq!(get(&data), "1", "it was harmed");
    // A directory of an earlier release gets its mark with its first start.
    fs::remove_dir_all(data.join("made")).unwrap();
    assert_eq!(get(&data), "1");
    fs::rename(&shards, &aside).unwrap();
    assert_refused(try_start(&data, scratch.path(), &[]), &["shards is missing"]);
}

/// Why: with everything that belongs to a shard goes its mark, and the namespace began anew.
#[test]
fn one_shard_that_vanished_with_its_mark() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, aside) = (scratch.path().join("data"), scratch.path().join("aside"));
    make(&data);
    let (shard, made) = (data.join("shards/00000001"), data.join("shards/00000001.made"));
    fs::rename(&shard, &aside).unwrap();
    fs::remove_file(&made).unwrap();
    let node = Node::open(&data, &[]);
    let told = node.naust(&["kv", "get", "k", "a"]);
    let text = String::from_utf8(told.stderr).unwrap();
    assert!(text.contains("corrupt") && text.contains("missing"), "{text}");
    assert!(!node.naust(&["kv", "put", "k", "a", "2"]).status.success());
    assert!(!shard.exists(), "it was made anew");
    node.process.stop().unwrap();
    fs::rename(&aside, &shard).unwrap();
    assert_eq!(get(&data), "1", "it was harmed");
}

/// Why: a node that was killed while it made its first shards has promised nothing, and begins
/// again.
#[test]
fn a_first_start_that_was_killed() {
    let moments = [
        "LOCK",
        "NODE",
        "shards",
        "shards/00000000",
        "shards/00000000.made",
        "made/00000000",
        "shards/00000001",
        "shards/00000001.made",
    ];
    for moment in moments {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        let mut command = serve(&data, &["--bootstrap"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let node = Killed(command.spawn().unwrap());
        wait_until(moment, || data.join(moment).exists());
        drop(node);
        let node = Node::open(&data, &["--bootstrap"]);
        assert!(node.naust(&["kv", "put", "k", "a", "1"]).status.success(), "{moment}");
        node.process.stop().unwrap();
        assert!(data.join("made/00000001").exists());
        assert_eq!(get(&data), "1", "{moment}");
    }
}

/// Why: a node whose disk is not mounted began a second cluster and acknowledged writes there.
#[test]
fn an_empty_directory_begins_nothing_by_itself() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    for _ in 0..2 {
        let refused = try_command(serve(&data, &[]), scratch.path());
        assert_refused(refused, &["is empty", "--bootstrap", "--join HOST:PORT", "mounted"]);
        assert!(!data.join("NODE").exists() && !data.join("LOCK").exists());
        fs::create_dir_all(&data).unwrap();
    }
    for arguments in [&["--bootstrap"][..], &["--bootstrap"], &[]] {
        let started = try_command(serve(&data, arguments), scratch.path());
        assert!(matches!(started, Started::Ready(_)), "{arguments:?}");
    }
}

/// Why: a typing error must not scatter a database among the files of somebody else; and a new
/// identity in the place of a lost one would lock the shards up for ever.
#[test]
fn a_directory_of_something_else() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("passwd"), "root").unwrap();
    for arguments in [&[][..], &["--bootstrap"], &["--join", "127.0.0.1:1"]] {
        let refused = try_command(serve(&data, arguments), scratch.path());
        assert_refused(refused, &["not empty", "passwd", "use a new or an empty one"]);
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "something was written");
    }
    fs::remove_file(data.join("passwd")).unwrap();
    make(&data);
    let (node, aside) = (data.join("NODE"), scratch.path().join("aside"));
    fs::rename(&node, &aside).unwrap();
    for arguments in [&[][..], &["--bootstrap"], &["--join", "127.0.0.1:1"]] {
        let refused = try_command(serve(&data, arguments), scratch.path());
        assert_refused(refused, &["has lost its file NODE", "restore it"]);
        assert!(!node.exists(), "it was made anew");
    }
    fs::rename(&aside, &node).unwrap();
    assert_eq!(get(&data), "1", "it was harmed");
}

/// Why: a restart by hand, without `--name`, renamed the node, and commands that named it failed.
#[test]
fn a_name_that_is_not_said_again() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let lives: [(&[&str], &str); 4] =
        [(&["--name", "ada"], "ada"), (&[], "ada"), (&["--name", "bob"], "bob"), (&[], "bob")];
    for (arguments, name) in lives {
        let node = Node::open(&data, arguments);
        wait_until("the name to be known and kept", || {
            let told = node.naust(&["cluster", "status"]).stdout;
            let kept = fs::read_to_string(data.join("NAME")).unwrap_or_default();
            String::from_utf8(told).unwrap().starts_with(&format!("node {name} "))
                && kept == format!("{name}\n")
        });
        node.process.stop().unwrap();
    }
}

/// Why: a crash while a shard is made must not count as its loss: it was promised to nobody yet.
#[test]
fn a_shard_that_was_not_made_to_its_end() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    make(&data);
    let shard = data.join("shards/00000001");
    let whole = scratch.path().join("whole");
    copy(&shard, &whole);
    let (made, kept) = (data.join("shards/00000001.made"), data.join("made/00000001"));
    let states: [&[&str]; 5] = [
        &["log", "tables"],
        &["log", "tables/manifest"],
        &["log/superblock", "tables"],
        &["log/superblock", "tables/manifest"],
        &["log/superblock"],
    ];
    for missing in states {
        fs::remove_file(&made).unwrap();
        fs::remove_file(&kept).unwrap();
        fs::remove_dir_all(&shard).unwrap();
        // As it is before anything was written.
        fs::create_dir_all(shard.join("log")).unwrap();
        fs::create_dir_all(shard.join("tables")).unwrap();
        fs::copy(whole.join("log/superblock"), shard.join("log/superblock")).unwrap();
        for path in missing {
            let path = shard.join(path);
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else if path.exists() {
                fs::remove_file(path).unwrap();
            }
        }
        let node = Node::open(&data, &[]);
        assert!(node.naust(&["kv", "put", "k", "b", "2"]).status.success(), "{missing:?}");
        assert!(made.exists() && kept.exists());
        node.process.stop().unwrap();
    }
    // All but the mark: it is there and whole, so it is used.
    fs::remove_file(&made).unwrap();
    fs::remove_file(&kept).unwrap();
    fs::remove_dir_all(&shard).unwrap();
    copy(&whole, &shard);
    assert_eq!(get(&data), "1");
    assert!(made.exists() && kept.exists());
}

/// Why: what a crash left of deleted namespaces would fill the disk in the end.
#[test]
fn what_is_left_of_deleted_namespaces() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    make(&data);
    let node = Node::open(&data, &[]);
    for name in ["shop", "inn"] {
        assert!(node.naust(&["namespace", "create", name]).status.success());
    }
    let (shop, aside) = (data.join("shards/00000002"), scratch.path().join("aside"));
    copy(&shop, &aside);
    assert!(node.naust(&["namespace", "delete", "shop"]).status.success());
    wait_until("the shard to be removed", || !shop.exists());
    node.process.stop().unwrap();
    let beyond = data.join("shards/00000063");
    copy(&aside, &shop);
    copy(&aside, &beyond);
    let node = Node::open(&data, &[]);
    wait_until("the shard to be swept", || !shop.exists());
    assert!(node.naust(&["kv", "put", "k", "a", "1", "--namespace", "inn"]).status.success());
    node.process.stop().unwrap();
    assert!(beyond.exists() && data.join("shards/00000003").exists());
    assert_eq!(get(&data), "1", "it was harmed");
}

/// Why: a volume that is mounted read-only, or a directory of another user.
#[test]
fn a_directory_that_can_only_be_read() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    make(&data);
    fs::set_permissions(&data, fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(data.join("LOCK"), fs::Permissions::from_mode(0o444)).unwrap();
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert_refused(try_start(&data, scratch.path(), &[]), &["can't", "LOCK"]);
    } else if crate::full_disk::mount(&data, &["--bind", &data.display().to_string()])
        && crate::full_disk::remount_read_only(&data)
    {
        let refused = try_start(&data, scratch.path(), &[]);
        crate::full_disk::unmount(&data);
        assert_refused(refused, &["can't", "LOCK"]);
    } else {
        crate::full_disk::unmount(&data);
        skip("a_directory_that_can_only_be_read", "root may write anywhere, and may not mount");
    }
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Why: the commonest mistakes of a first hour.
#[test]
fn places_that_can_be_no_data_directory() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "x").unwrap();
    assert_refused(try_start(&file, scratch.path(), &[]), &["can't use as a directory", "file"]);
    let inside = file.join("data");
    assert_refused(try_start(&inside, scratch.path(), &[]), &["Not a directory"]);
}

/// Why: a port in use is told before any data is touched.
#[test]
fn a_port_in_use() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for option in ["--listen", "--http"] {
        let mut command = naust(&["serve", "--bootstrap", option, &address]);
        let other = if option == "--http" { "--listen" } else { "--http" };
        command.args([other, "127.0.0.1:0", "--data"]).arg(&data);
        let refused = try_command(command, scratch.path());
        assert_refused(refused, &[&address, "in use"]);
        assert!(!data.join("NODE").exists(), "data was touched");
    }
}

/// Why: what is set wrongly is named, and nothing is begun.
#[test]
fn options_that_make_no_sense() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let table: &[(&[&str], &str)] = &[
        (&["--set", "wrokers=2"], "unknown field `wrokers`"),
        (&["--set", "workers=1000"], "the option workers is 1000"),
        (&["--set", "workers"], "OPTION=VALUE"),
        (&["--config", "/nowhere.toml"], "/nowhere.toml"),
    ];
    for (arguments, expected) in table {
        assert_refused(try_start(&data, scratch.path(), arguments), &[expected]);
    }
    let command = naust(&["serve", "--listen", "0.0.0.0:0", "--http", "", "--data", "nowhere"]);
    let refused = try_command(command, scratch.path());
    assert_refused(refused, &["--insecure"]);
    assert!(!data.exists());
    assert!(matches!(try_start(&data, scratch.path(), &["--name", "a b"]), Started::Ready(_)));
}
