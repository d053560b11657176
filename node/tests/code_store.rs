//! Where code is kept: by its hash, whole or not at all.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{path::Path, time::Duration};

use multinodes::{
    Cid, Code,
    code::{Store, StoreError},
};

fn guest(name: &str) -> Code {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests").join(name).with_extension("wat");
    Code::from_file(path).unwrap()
}

fn stores() -> (tempfile::TempDir, [Store; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Store::open(Some(folder.path().join("code")), None).unwrap();
    (folder, [disk, Store::open(None, None).unwrap()])
}

#[test]
fn a_store_keeps_code_by_its_hash_and_lists_and_forgets_it() {
    let (_folder, stores) = stores();
    for store in stores {
        let (echo, counter) = (guest("echo"), guest("counter"));
        assert_eq!((store.find(&echo.cid()), store.get(&echo.cid()).unwrap()), (None, None));
        store.put(&echo).unwrap();
        store.put(&counter).unwrap();
        store.put(&echo).unwrap();
        assert_eq!(store.find(&echo.cid()), Some(echo.size()));
        assert_eq!(store.get(&echo.cid()).unwrap().as_ref(), Some(echo.bytes()));
        let mut listed: Vec<_> = store.ls().unwrap().into_iter().map(|stored| (stored.cid, stored.size)).collect();
        listed.sort();
        let mut expected = [(echo.cid(), echo.size()), (counter.cid(), counter.size())];
        expected.sort();
        assert_eq!(listed, expected);
        assert!(store.rm(&echo.cid()).unwrap());
        assert!(!store.rm(&echo.cid()).unwrap());
        assert_eq!(store.get(&echo.cid()).unwrap(), None);
    }
}

#[test]
fn code_that_was_changed_on_disk_is_not_given_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(Some(folder.path().to_owned()), None).unwrap();
    let echo = guest("echo");
    store.put(&echo).unwrap();
    let file = folder.path().join(format!("{}.wasm", echo.cid()));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[50] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(store.get(&echo.cid()).unwrap(), None);
    assert!(!file.exists());
}

#[test]
fn a_transfer_that_was_cut_goes_on_where_it_was() {
    let (folder, stores) = stores();
    for store in stores {
        let echo = guest("echo");
        let (cid, bytes) = (echo.cid(), echo.bytes());
        let mut partial = store.begin(cid, echo.size()).unwrap();
        assert_eq!(partial.received(), 0);
        partial.write(0, &bytes[..100]).unwrap();
        assert!(matches!(store.begin(cid, echo.size()), Err(StoreError::InProgress { .. })));
        assert!(matches!(partial.write(50, &bytes[50..60]), Err(StoreError::WrongPlace { .. })));
        assert!(matches!(partial.write(100, &[0; 4096]), Err(StoreError::WrongPlace { .. })));
        drop(partial);
        assert_eq!(store.find(&cid), None);
        // After a start, too.
        let store = match store.ls().map(|_| folder.path().join("code")) {
            Ok(path) if path.join(format!("{cid}.partial")).exists() => Store::open(Some(path), None).unwrap(),
            _ => store,
        };
        let mut partial = store.begin(cid, echo.size()).unwrap();
        assert_eq!(partial.received(), 100);
        partial.write(100, &bytes[100..]).unwrap();
        partial.finish().unwrap();
        assert_eq!(store.get(&cid).unwrap().as_ref(), Some(bytes));
        assert!(!folder.path().join("code").join(format!("{cid}.partial")).exists());
    }
}

#[test]
fn bytes_of_another_hash_are_not_kept() {
    let (folder, stores) = stores();
    for store in stores {
        let (wanted, size) = (Cid::of(b"wanted"), 5);
        let mut partial = store.begin(wanted, size).unwrap();
        partial.write(0, b"other").unwrap();
        let error = partial.finish().unwrap_err();
        assert!(matches!(error, StoreError::WrongHash { expected, .. } if expected == wanted), "{error:?}");
        assert_eq!(store.find(&wanted), None);
        // Nor does the next one go on with them; and half of it is not it.
        let mut partial = store.begin(wanted, 6).unwrap();
        assert_eq!(partial.received(), 0);
        partial.write(0, b"wan").unwrap();
        assert!(partial.finish().is_err());
        assert_eq!(store.find(&wanted), None);
        assert_eq!(std::fs::read_dir(folder.path().join("code")).unwrap().count(), 0);
    }
}

#[test]
fn what_was_not_used_for_longest_makes_room() {
    let codes: Vec<_> = (0..4)
        .map(|number| {
            let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests/echo.wat")).unwrap();
            Code::from_bytes(text.replace("4096", &format!("409{number}"))).unwrap()
        })
        .collect();
    let size = codes[0].size();
    let folder = tempfile::tempdir().unwrap();
    for place in [Some(folder.path().to_owned()), None] {
        let store = Store::open(place.clone(), Some(3 * size)).unwrap();
        for (code, age) in codes[..3].iter().zip([30, 40, 20]) {
            store.put(code).unwrap();
            if let Some(folder) = &place {
                let file = std::fs::File::options().append(true).open(folder.join(format!("{}.wasm", code.cid())));
                file.unwrap().set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
            }
        }
        // Used just now, it stays, and the second oldest goes.
        store.get(&codes[1].cid()).unwrap().unwrap();
        store.put(&codes[3]).unwrap();
        let kept: Vec<_> = codes.iter().map(|code| store.find(&code.cid()).is_some()).collect();
        assert_eq!(kept, [false, true, true, true]);
        let error = store.begin(Cid::of(b"large"), 4 * size).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_planted_in_the_folder_is_neither_followed_nor_read_for_ever() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let (code, victim) = (folder.path().join("code"), folder.path().join("victim"));
    let store = Store::open(Some(code.clone()), None).unwrap();
    let echo = guest("echo");
    let at = |extension: &str| code.join(format!("{}.{extension}", echo.cid()));
    std::fs::write(&victim, "precious").unwrap();
    symlink(&victim, at("partial")).unwrap();
    let mut partial = store.begin(echo.cid(), echo.size()).unwrap();
    assert_eq!(partial.received(), 0);
    partial.write(0, echo.bytes()).unwrap();
    partial.finish().unwrap();
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    assert_eq!(store.get(&echo.cid()).unwrap().as_ref(), Some(echo.bytes()));
    std::fs::remove_file(at("wasm")).unwrap();
    symlink("/dev/zero", at("wasm")).unwrap();
    assert_eq!(store.find(&echo.cid()), None);
    assert_eq!(store.get(&echo.cid()).unwrap(), None);
    assert!(at("wasm").symlink_metadata().is_err(), "it is removed");
    store.put(&echo).unwrap();
    // Far more than any code has, without taking any room on disk.
    std::fs::File::options().write(true).open(at("wasm")).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(store.get(&echo.cid()).unwrap(), None);
    assert!(!at("wasm").exists());
}

#[test]
fn transfers_that_were_made_up_keep_no_others_from_going_on() {
    let (folder, stores) = stores();
    for store in stores {
        let echo = guest("echo");
        for number in 0..100_u32 {
            // Half of them send something.
            let mut partial = store.begin(Cid::of(&number.to_be_bytes()), 100).unwrap();
            if number % 2 == 0 {
                partial.write(0, b"x").unwrap();
            }
        }
        let mut partial = store.begin(echo.cid(), echo.size()).unwrap();
        partial.write(0, &echo.bytes()[..100]).unwrap();
        drop(partial);
        for number in 100..200_u32 {
            drop(store.begin(Cid::of(&number.to_be_bytes()), 100).unwrap());
        }
        assert_eq!(store.begin(echo.cid(), echo.size()).unwrap().received(), 100);
    }
    // Those that sent something, and the honest one.
    assert_eq!(std::fs::read_dir(folder.path().join("code")).unwrap().count(), 51);
}
