//! Disks that are full or must not be written.
#![cfg(target_os = "linux")]

use std::{
    env,
    process::{Command, Output},
};

use super::{
    processes::{PATH, child},
    *,
};

/// What `sh` ends with where the system does not allow a mount.
const NO_MOUNT: i32 = 69;

#[test]
fn a_file_that_must_not_grow_is_an_error_and_what_was_recorded_stays_readable() {
    within_limit(|| {
        let (_folder, path) = place();
        drop(Journal::open(&path, &ADD).unwrap());
        // In units of 512 bytes. A process that ignores the signal gets the error.
        let output = run("child_that_records_until_the_disk_is_full", "trap '' XFSZ && ulimit -f 4096", &path);
        let output = output.expect("no mount is needed");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("File too large"), "{said}");
        let durable = durable(&said);
        assert!(durable > 0, "{said}");
        assert_holds(&reopen(&path), durable);
    });
}

#[test]
fn a_full_disk_is_an_error_and_what_was_recorded_stays_readable() {
    within_limit(|| {
        let (folder, path) = place();
        let mount = format!("mount -t tmpfs -o size=2m none '{}' || exit {NO_MOUNT}", folder.path().display());
        let Some(output) = run("child_that_records_until_the_disk_is_full", &mount, &path) else { return };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("No space left on device"), "{said}");
        assert!(durable(&said) > 0, "{said}");
    });
}

#[test]
fn a_journal_on_a_full_disk_cannot_be_made_and_leaves_nothing_behind() {
    within_limit(|| {
        let (folder, path) = place();
        let mount = format!("mount -t tmpfs -o size=8k none '{}' || exit {NO_MOUNT}", folder.path().display());
        let Some(output) = run("child_that_cannot_open", &mount, &path) else { return };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("No space left on device"), "{said}");
        assert!(said.contains("left behind: 0"), "{said}");
    });
}

#[test]
fn a_journal_that_must_not_be_written_is_refused() {
    within_limit(|| {
        let (folder, path) = place();
        record(&Journal::open(&path, &ADD).unwrap(), &[(0, entry(b"a"))]);
        let place = folder.path().display();
        let mount =
            format!("(mount --bind '{place}' '{place}' && mount -o remount,bind,ro '{place}') || exit {NO_MOUNT}");
        let Some(output) = run("child_that_cannot_open", &mount, &path) else { return };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("Read-only file system"), "{said}");
        assert_eq!(reopen(&path).find(0).unwrap(), Some(entry(b"a")));
    });
}

#[test]
#[ignore = "it is the child of other tests"]
fn child_that_records_until_the_disk_is_full() {
    let Some(path) = env::var_os(PATH) else { return };
    let path = Path::new(&path);
    let ballast = path.with_extension("ballast");
    fs::write(&ballast, vec![0; 256 * 1024]).unwrap();
    let journal = Journal::open(path, &ADD).unwrap();
    let mut durable = 0;
    let error = loop {
        let batch: Vec<_> = (durable..durable + 16).map(|index| (index, large(index))).collect();
        let (positions, end) = try_record(&journal, &batch);
        durable += positions.len() as u64;
        if let Err(error) = end {
            break error;
        }
    };
    assert!(matches!(error, JournalError::Io { .. }), "{error}");
    println!("durable {durable}: {error}");
    assert_holds(&journal, durable);
    let (none, end) = try_record(&journal, &[(0, entry(b"other"))]);
    assert!(none.is_empty() && end.is_err(), "nothing is recorded after an error");
    drop(journal);
    match Journal::open(path, &ADD) {
        Ok(journal) => assert_holds(&journal, durable),
        Err(error) => assert!(matches!(error, JournalError::Io { .. }), "{error}"),
    }
    // Somebody makes room.
    fs::remove_file(ballast).unwrap();
    assert_holds(&reopen(path), durable);
}

#[test]
#[ignore = "it is the child of other tests"]
fn child_that_cannot_open() {
    let Some(path) = env::var_os(PATH) else { return };
    let error = Journal::open(Path::new(&path), &ADD).unwrap_err();
    assert!(matches!(error, JournalError::Io { .. }), "{error}");
    let names = fs::read_dir(Path::new(&path).parent().unwrap()).unwrap().count();
    println!("{error}; left behind: {names}");
}

fn large(index: u64) -> Entry {
    entry(&index.to_le_bytes().repeat(256))
}

fn assert_holds(journal: &Journal, durable: u64) {
    assert!(journal.recorded() >= durable, "{} of {durable} are left", journal.recorded());
    for index in 0..durable {
        assert_eq!(journal.find(index).unwrap(), Some(large(index)));
    }
}

fn durable(said: &str) -> u64 {
    let count = said.split_once("durable ").and_then(|(_, rest)| rest.split_once(':')).expect(said).0;
    count.parse().unwrap()
}

/// Runs a child in a shell that prepares something first, in a namespace of its own if that is a mount.
fn run(test: &str, prepare: &str, path: &Path) -> Option<Output> {
    let script = format!("{prepare}\nexec \"$0\" \"$@\"");
    let mut command = if prepare.contains("mount") {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh"]);
        command
    } else {
        Command::new("sh")
    };
    command.arg("-c").arg(script).arg(env::current_exe().unwrap());
    let output = child(&format!("disk::{test}"), command).env(PATH, path).output();
    let possible = output.as_ref().is_ok_and(|output| {
        output.status.code() != Some(NO_MOUNT) && !String::from_utf8_lossy(&output.stderr).starts_with("unshare:")
    });
    if !possible {
        println!("skipped: nothing can be mounted here");
        return None;
    }
    output.ok()
}
