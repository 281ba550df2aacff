//! Data directories and ports that a node can't use: exit status 1 and one clear sentence.

use crate::support::{Node, Started, assert_refused, naust, skip, try_start};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

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

/// Why: a crash while a shard is made must not count as its loss: it was promised to nobody yet.
#[test]
fn a_shard_that_was_not_made_to_its_end() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    make(&data);
    let shard = data.join("shards/00000001");
    let whole = scratch.path().join("whole");
    copy(&shard, &whole);
    let made = data.join("shards/00000001.made");
    let states: [&[&str]; 5] = [
        &["log", "tables"],
        &["log", "tables/manifest"],
        &["log/superblock", "tables"],
        &["log/superblock", "tables/manifest"],
        &["log/superblock"],
    ];
    for missing in states {
        fs::remove_file(&made).unwrap();
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
        assert!(made.exists());
        node.process.stop().unwrap();
    }
    // All but the mark: it is there and whole, so it is used.
    fs::remove_file(&made).unwrap();
    fs::remove_dir_all(&shard).unwrap();
    copy(&whole, &shard);
    assert_eq!(get(&data), "1");
    assert!(made.exists());
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
    crate::support::wait_until("the shard to be removed", || !shop.exists());
    node.process.stop().unwrap();
    let beyond = data.join("shards/00000063");
    copy(&aside, &shop);
    copy(&aside, &beyond);
    let node = Node::open(&data, &[]);
    crate::support::wait_until("the shard to be swept", || !shop.exists());
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
        let mut command = naust(&["serve", option, &address]);
        let other = if option == "--http" { "--listen" } else { "--http" };
        command.args([other, "127.0.0.1:0", "--data"]).arg(&data);
        let refused = crate::support::try_command(command, scratch.path());
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
    let refused = crate::support::try_command(command, scratch.path());
    assert_refused(refused, &["--insecure"]);
    assert!(!data.exists());
    assert!(matches!(try_start(&data, scratch.path(), &["--name", "a b"]), Started::Ready(_)));
}
