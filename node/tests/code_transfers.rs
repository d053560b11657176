//! How code comes to where it runs: from whom, how much of it, and what is left when it does not come.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod code;
#[path = "common/code_nodes.rs"]
mod code_nodes;
#[path = "common/in_process.rs"]
mod in_process;

use std::{fs, path::Path};

use code::{guest, within};
use code_nodes::{SERVICE, compiling, failed, file, joined, knowing_alpha, large, lie, raw, rule, serves, two};
use in_process::hosts;
use multinodes::Cid;
use serde_bytes::ByteBuf;

#[tokio::test]
async fn a_transfer_that_is_cut_goes_on_from_another_holder() {
    let large = large();
    let data = tempfile::tempdir().unwrap();
    let (alphas, betas, gammas) = (data.path().join("a"), data.path().join("b"), data.path().join("c"));
    // Beta has the first megabyte and a half only.
    fs::write(file(&betas, large.cid(), "wasm"), &large.bytes()[..3 << 19]).unwrap();
    fs::write(file(&gammas, large.cid(), "wasm"), large.bytes()).unwrap();
    let (builder, address) = compiling("alpha");
    let alpha = builder.allow_code(rule("any:size=8MiB")).data_folder(&alphas).start().await.unwrap();
    let holder = |name: &str, folder: &Path| {
        knowing_alpha(compiling(name).0.allow_code(rule("any")).data_folder(folder).join(&address))
    };
    let beta = holder("beta", &betas).await;
    let (code, text) = failed(raw::<ByteBuf>(&beta, large.reference(), None).await);
    assert!(code == "no_code", "{code}: {text}");
    let partial = file(&alphas, large.cid(), "partial");
    assert_eq!(fs::metadata(&partial).unwrap().len(), 1 << 20, "what has come is kept");
    let gamma = holder("gamma", &gammas).await;
    hosts(&alpha, "node", 3).await;
    let back: ByteBuf = raw(&beta, large.reference(), None).await.unwrap();
    assert_eq!(back.as_ref(), [0x80]);
    assert!(!partial.exists());
    assert!(fs::read(file(&alphas, large.cid(), "wasm")).unwrap() == *large.bytes());
    // Beta's half of a piece came twice, for nothing.
    assert_eq!(alpha.counters().code_bytes, large.size() + 2 * (1 << 19));
    serves(&gamma).await;
}

#[tokio::test]
async fn wrong_bytes_from_before_do_not_spoil_an_honest_transfer_nor_does_a_full_disk() {
    let large = large();
    let data = tempfile::tempdir().unwrap();
    let (builder, address) = compiling("alpha");
    let _alpha = builder.allow_code(rule("any:size=8MiB")).data_folder(data.path()).start().await.unwrap();
    let beta = joined("beta", &address).await;
    let partial = file(data.path(), large.cid(), "partial");
    #[cfg(target_os = "linux")]
    {
        // A device on which there is never any room.
        std::os::unix::fs::symlink("/dev/full", &partial).unwrap();
        let (code, text) = failed(within(beta.run(&large).on("alpha").call::<()>(())).await);
        assert!(code == "no_code" && text.contains("there is no room"), "{code}: {text}");
        assert!(fs::symlink_metadata(&partial).is_err(), "nothing is left half");
        serves(&beta).await;
    }
    fs::write(&partial, vec![0xee; 1 << 20]).unwrap();
    let back: Vec<i64> = within(beta.run(&large).on("alpha").timeout(code::LIMIT).call((5,))).await.unwrap();
    assert_eq!(back, [5]);
    assert!(!partial.exists());
}

#[tokio::test]
async fn names_of_code_that_were_made_up_leave_nothing_behind() {
    let data = tempfile::tempdir().unwrap();
    let (builder, address) = compiling("alpha");
    let _alpha = builder.allow_code(rule("any")).data_folder(data.path()).start().await.unwrap();
    let senders = [joined("beta", &address).await, joined("gamma", &address).await, joined("delta", &address).await];
    let floods = senders.iter().enumerate().map(|(sender, node)| async move {
        for number in 0..40 {
            let junk = format!("{sender} {number}").into_bytes();
            let reference = lie(&guest("echo"), "cid", Cid::of(&junk));
            assert_eq!(failed(raw::<ByteBuf>(node, &reference, None).await).0, "no_code");
            assert_eq!(failed(raw::<ByteBuf>(node, &reference, Some(&junk)).await).0, "bad_code");
        }
    });
    futures::future::join_all(floods).await;
    let left = fs::read_dir(data.path().join("code")).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file());
    assert_eq!(left.count(), 0);
    serves(&senders[0]).await;
}

#[tokio::test]
async fn pieces_of_code_are_bounded_and_its_hash_is_enough_once_it_is_there() {
    let (_alpha, beta) = two(&["any:size=8MiB"]).await;
    let large = large();
    let back: Vec<i64> = within(beta.run(&large).on("alpha").timeout(code::LIMIT).call((5,))).await.unwrap();
    assert_eq!(back, [5]);
    let fetch = |offset: u64, length: u64| {
        let beta = beta.clone();
        let cid = large.cid();
        async move { within(beta.app(SERVICE).on("alpha").call::<ByteBuf>("fetch", (cid, offset, length))).await.unwrap() }
    };
    assert_eq!(fetch(0, u64::MAX).await.len(), 1 << 20);
    assert_eq!(fetch(u64::MAX, u64::MAX).await.len(), 0);
    assert_eq!(fetch(5, 3).await.as_ref(), &large.bytes()[5..8]);
    assert_eq!(fetch(large.size() - 2, 3).await.len(), 2);
    // The hash is enough from then on, whoever names it: nothing is sent again.
    let again = raw::<ByteBuf>(&beta, large.reference(), None).await.unwrap();
    assert_eq!(again.as_ref(), [0x80]);
    serves(&beta).await;
}
