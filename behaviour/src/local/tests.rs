use futures::task::noop_waker_ref;

use super::*;

fn is_asking(local: &mut Behaviour) -> bool {
    let poll = local.poll(&mut Context::from_waker(noop_waker_ref()));
    assert!(poll.is_pending());
    local.asking.is_some()
}

fn listen(local: &mut Behaviour, address: &str) {
    let addr = address.parse().unwrap();
    let event = NewListenAddr { listener_id: ListenerId::next(), addr: &addr };
    local.on_swarm_event(FromSwarm::NewListenAddr(event));
}

/// Asks nowhere: there is no such interface.
fn behaviour() -> Behaviour {
    Behaviour::new(PeerId::random(), vec!["nowhere".to_owned()])
}

#[tokio::test]
async fn nothing_is_asked_while_only_loopback_is_known() {
    let mut local = behaviour();
    listen(&mut local, "/ip4/127.0.0.1/tcp/1");
    assert!(!is_asking(&mut local));
    listen(&mut local, "/ip4/10.0.0.1/tcp/1");
    assert!(is_asking(&mut local));
}

#[tokio::test]
async fn what_is_put_off_is_asked_later_or_as_soon_as_it_is_wanted() {
    assert!(!is_asking(&mut behaviour()), "whoever is on this host may be asked first");
    let mut local = behaviour();
    local.postpone(Duration::from_secs(3600));
    assert!(!is_asking(&mut local));
    assert!(local.ask());
    assert!(is_asking(&mut local));
    assert!(!local.ask(), "it has begun already");
    let mut local = behaviour();
    local.postpone(Duration::from_millis(10));
    assert!(!is_asking(&mut local));
    let asks = std::future::poll_fn(|context| {
        let _ = local.poll(context);
        if local.asking.is_some() { Poll::Ready(()) } else { Poll::Pending }
    });
    tokio::time::timeout(Duration::from_secs(10), asks).await.expect("its time comes");
}
