use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, future::BoxFuture};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::*;
use crate::wire::{Call, Frame, Options};

const LIMIT: Duration = Duration::from_secs(20);
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// What the test's service has seen.
#[derive(Debug, PartialEq)]
enum Seen {
    Called(String),
    Told(Bytes),
    /// A call's task was stopped before it had answered.
    Dropped,
    /// A lane was closed because of answers without end.
    Flooded,
}

struct Echo {
    seen: mpsc::UnboundedSender<Seen>,
    tells: Arc<Tells>,
}

struct OnDrop(mpsc::UnboundedSender<Seen>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(Seen::Dropped);
    }
}

impl Service for Echo {
    fn peer(&self) -> String {
        "echo".to_owned()
    }

    fn on_flood(&self) {
        let _ = self.seen.send(Seen::Flooded);
    }

    fn on_call(&self, call: Incoming<'_>, responder: Responder) {
        if call.deadline <= call.received {
            return responder.refuse(Refusal::new(ErrorCode::Expired, "too late"));
        }
        let _ = self.seen.send(Seen::Called(call.action.to_owned()));
        let assignment = responder.assignment();
        let task = match call.action {
            "echo" => {
                let rest = responder.respond(Ok(call.payload), &mut Unwritten::default());
                tokio::spawn(async move {
                    if let Some(rest) = rest {
                        rest.await;
                    }
                })
            }
            "report" => {
                let reporter = responder.reporter();
                reporter.report(true, &[]);
                reporter.report(false, &call.payload);
                tokio::spawn(async move {
                    let _kept = responder;
                    std::future::pending::<()>().await;
                })
            }
            "panic" => tokio::spawn(async move {
                let _responder = responder;
                panic!("on purpose");
            }),
            "forever" => {
                let dropped = OnDrop(self.seen.clone());
                tokio::spawn(async move {
                    let _kept = (dropped, responder);
                    std::future::pending::<()>().await;
                })
            }
            "busy" => return responder.refuse(Refusal::new(ErrorCode::Busy, "too much to do")),
            _ => return responder.refuse(Refusal::new(ErrorCode::NoSuchAction, "no such action")),
        };
        assignment.task(task.abort_handle());
    }

    fn tells(&self) -> Option<Arc<Tells>> {
        Some(self.tells.clone())
    }

    fn on_tell(&self, tell: Incoming<'_>) -> Delivery {
        if !tell.options.contains(Options::CAST) {
            self.tells.accept();
        }
        let _ = self.seen.send(Seen::Told(tell.payload));
        Delivery::Accepted
    }
}

/// Opens streams to the other exchange of a pair.
#[derive(Default)]
struct Loopback {
    other: OnceLock<Arc<Exchange>>,
    opened: Mutex<usize>,
}

impl Opener for Loopback {
    fn open(&self) -> BoxFuture<'_, Result<Box<dyn Io>, Unopened>> {
        Box::pin(async {
            let (near, far) = tokio::io::duplex(32 * 1024);
            *self.opened.lock().unwrap() += 1;
            let other = self.other.get().ok_or("nobody there")?;
            if !other.accept(Box::new(far.compat())) {
                return Err("refused".into());
            }
            Ok(Box::new(near.compat()) as Box<dyn Io>)
        })
    }
}

struct Side {
    exchange: Arc<Exchange>,
    opener: Arc<Loopback>,
    seen: mpsc::UnboundedReceiver<Seen>,
    /// Those of the other side.
    tells: Arc<Tells>,
}

fn side(limits: Limits) -> Side {
    let (sender, seen) = mpsc::unbounded_channel();
    let opener = Arc::new(Loopback::default());
    let tells = Arc::new(Tells::new(7));
    let echo = Echo { seen: sender, tells: tells.clone() };
    let exchange = Exchange::new(Arc::new(echo), opener.clone(), limits);
    Side { exchange, opener, seen, tells }
}

fn pair() -> (Side, Side) {
    pair_with(Limits::new(MAX_MESSAGE))
}

/// A pair of which the second has these limits.
fn pair_with(limits: Limits) -> (Side, Side) {
    let (one, other) = (side(Limits::new(MAX_MESSAGE)), side(limits));
    one.opener.other.set(other.exchange.clone()).unwrap();
    other.opener.other.set(one.exchange.clone()).unwrap();
    (one, other)
}

fn head(action: &str) -> Outgoing<'_> {
    Outgoing {
        application: "test",
        action,
        deadline: Instant::now() + Duration::from_secs(10),
        options: Options::default(),
        trace: None,
        pulse: None,
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.expect("in time")
}

#[tokio::test]
async fn who_watches_a_call_hears_how_far_it_is_before_the_answer() {
    let (one, _other) = pair();
    let pulse = Arc::new(Pulse::new(Instant::now()));
    let head = Outgoing { pulse: Some(&pulse), ..head("report") };
    let payload = Bytes::from_static(b"\x18\x2a");
    let call = one.exchange.call(head, &payload);
    let heard = async {
        let mut news = pulse.next(0).await;
        while news.payload.is_empty() {
            assert!(news.waiting, "the first report is that it waits");
            news = pulse.next(news.count).await;
        }
        news
    };
    let news = tokio::select! {
        outcome = call => panic!("answered: {outcome:?}"),
        news = within(heard) => news,
    };
    assert_eq!((news.count, news.waiting, &news.payload), (2, false, &payload));
}

/// What lies in a lane's stream when the other side goes on after it stood still.
#[tokio::test]
async fn after_a_standstill_nothing_is_begun_that_has_expired_or_was_cancelled_meanwhile() {
    let clock = Arc::new(AtomicU64::new(0));
    let read = clock.clone();
    let standstill = Arc::new(Standstill::new(move || Duration::from_millis(read.load(Relaxed)), Duration::default));
    let (one, mut other) = pair_with(Limits { standstill: standstill.clone(), ..Limits::new(MAX_MESSAGE) });
    standstill.turn();
    let nothing = Bytes::new();
    within(one.exchange.call(head("echo"), &nothing)).await.unwrap();
    assert_eq!(within(other.seen.recv()).await, Some(Seen::Called("echo".into())));
    clock.fetch_add(2_500, Relaxed);
    for _ in 0..10 {
        // Sent, and given up at once.
        assert!(one.exchange.call(head("forever"), &nothing).now_or_never().is_none());
    }
    let short = Outgoing { action: "forever", ..short_of_time() };
    let error = within(one.exchange.call(short, &nothing)).await.unwrap_err();
    let expired = matches!(&error, LaneError::Refused(refusal) if refusal.code == ErrorCode::Expired);
    assert!(expired && !error.may_have_run(), "{error:?}");
    // What has time left and is still wanted is begun, in the order in which it came.
    let told = one.exchange.tell(head(""), &nothing);
    let (told, answered) = within(futures::future::join(told, one.exchange.call(head("echo"), &nothing))).await;
    told.unwrap();
    answered.unwrap();
    assert_eq!(within(other.seen.recv()).await, Some(Seen::Told(Bytes::new())));
    assert_eq!(within(other.seen.recv()).await, Some(Seen::Called("echo".into())));
    assert!(other.seen.try_recv().is_err(), "nothing else was begun");
    // From then on all is as before.
    clock.fetch_add(300, Relaxed);
    standstill.turn();
    within(one.exchange.call(short_of_time(), &nothing)).await.unwrap();
}

fn short_of_time() -> Outgoing<'static> {
    Outgoing { deadline: Instant::now() + Duration::from_secs(2), ..head("echo") }
}

/// More requests than are held are begun without waiting for what lies behind them.
#[tokio::test]
async fn what_is_held_after_a_standstill_is_bounded() {
    let clock = Arc::new(AtomicU64::new(0));
    let read = clock.clone();
    let standstill = Arc::new(Standstill::new(move || Duration::from_millis(read.load(Relaxed)), Duration::default));
    let (one, mut other) = pair_with(Limits { standstill: standstill.clone(), ..Limits::new(MAX_MESSAGE) });
    standstill.turn();
    clock.fetch_add(1_000, Relaxed);
    let payload = Bytes::from(vec![0; 200 * 1024]);
    let calls = (0..12).map(|_| one.exchange.tell(head(""), &payload));
    let begun = Instant::now();
    for told in within(futures::future::join_all(calls)).await {
        told.unwrap();
    }
    assert!(begun.elapsed() < LIMIT / 2, "{:?}", begun.elapsed());
    for _ in 0..12 {
        assert_eq!(within(other.seen.recv()).await, Some(Seen::Told(payload.clone())));
    }
}

#[tokio::test]
async fn a_call_is_answered_by_the_other_side() {
    let (one, _other) = pair();
    let answer = within(one.exchange.call(head("echo"), &Bytes::from_static(b"hello"))).await.unwrap();
    assert_eq!(answer, "hello");
    assert!(!one.exchange.in_use());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_of_many_sizes_in_flight_get_each_its_own_answer() {
    let (one, other) = pair();
    let sizes = [0, 1, 23, 24, 255, 256, 65_535, 65_536, 70_000, LARGE_FROM, LARGE_FROM + 1, MAX_MESSAGE];
    let mut calls = tokio::task::JoinSet::new();
    for round in 0..60_usize {
        for exchange in [one.exchange.clone(), other.exchange.clone()] {
            let size = if round < sizes.len() * 2 { sizes[round % sizes.len()] } else { round };
            calls.spawn(async move {
                let payload = Bytes::from(vec![u8::try_from(round).unwrap(); size]);
                let answer = exchange.call(head("echo"), &payload.clone()).await.unwrap();
                assert!(answer == payload, "answer of {} bytes for {size}", answer.len());
            });
        }
    }
    within(async {
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
    })
    .await;
    assert!(!one.exchange.in_use() && !other.exchange.in_use());
    assert!(*one.opener.opened.lock().unwrap() <= 1 + LARGE_LANES);
}

#[tokio::test]
async fn tells_and_casts_of_one_sender_arrive_in_order() {
    let (one, mut other) = pair();
    for number in 0..50_u8 {
        // One of them is large, and must not be overtaken.
        let size = if number == 20 { LARGE_FROM + 1 } else { 1 };
        let message = Bytes::from(vec![number; size]);
        if number % 3 == 0 {
            within(one.exchange.tell(head(""), &message)).await.unwrap();
        } else {
            within(one.exchange.cast(head(""), &message)).await.unwrap();
        }
    }
    for number in 0..50_u8 {
        match within(other.seen.recv()).await.unwrap() {
            Seen::Told(message) => assert_eq!(message[0], number),
            seen => panic!("{seen:?}"),
        }
    }
}

#[tokio::test]
async fn frames_that_go_anyway_say_how_many_tells_are_begun() {
    let (one, other) = pair();
    let message = Bytes::from_static(&[7]);
    for waiting in 1..=3 {
        within(one.exchange.tell(head(""), &message)).await.unwrap();
        assert_eq!(one.exchange.heard().waiting(), waiting);
    }
    within(one.exchange.cast(head(""), &message)).await.unwrap();
    // The answers of calls say it, those that are copied and those that are not, and errors.
    for (begun, size) in [(1, 1), (2, 100_000)] {
        other.tells.begin();
        let payload = Bytes::from(vec![7; size]);
        assert_eq!(within(one.exchange.call(head("echo"), &payload)).await.unwrap(), payload);
        assert_eq!(one.exchange.heard().waiting(), 3 - begun);
    }
    other.tells.begin();
    assert!(within(one.exchange.call(head("nothing"), &message)).await.is_err());
    assert_eq!((one.exchange.heard().waiting(), one.exchange.heard().is_last_word()), (0, false));
    assert_eq!(other.exchange.heard(), Heard::default(), "the other side has sent none");
}

#[tokio::test]
async fn who_leaves_says_at_last_how_many_tells_were_begun() {
    let (one, other) = pair();
    for _ in 0..3 {
        within(one.exchange.tell(head(""), &Bytes::from_static(&[7]))).await.unwrap();
    }
    other.exchange.say_goodbye();
    other.tells.begin();
    other.exchange.say_last_word();
    other.exchange.close();
    within(other.exchange.ended()).await;
    within(one.exchange.ended()).await;
    let heard = one.exchange.heard();
    assert_eq!((heard.waiting(), heard.is_last_word(), heard.incarnation()), (2, true, 7));
}

#[tokio::test]
async fn dropping_the_future_stops_the_work_on_the_other_side() {
    let (one, mut other) = pair();
    {
        let nothing = Bytes::new();
        let call = one.exchange.call(head("forever"), &nothing);
        tokio::pin!(call);
        tokio::select! {
            _ = &mut call => panic!("it never answers"),
            seen = within(other.seen.recv()) => assert_eq!(seen, Some(Seen::Called("forever".into()))),
        }
    }
    assert_eq!(within(other.seen.recv()).await, Some(Seen::Dropped));
    assert!(!one.exchange.in_use());
}

#[tokio::test]
async fn many_calls_share_one_queue_for_their_answers_and_each_can_be_cancelled() {
    let (one, mut other) = pair();
    let (answers, mut answered) = mpsc::unbounded_channel();
    let nothing = Bytes::new();
    assert!(one.exchange.call_now(head("echo"), &nothing, &answers, (0, 0)).is_none(), "there is no lane yet");
    within(one.exchange.call(head("echo"), &nothing)).await.unwrap();
    within(other.seen.recv()).await;
    let payload = |number: u64| Bytes::copy_from_slice(&number.to_be_bytes());
    let calls: Vec<_> = (0..100)
        .map(|number| one.exchange.call_now(head("echo"), &payload(number), &answers, (number, 7)).unwrap())
        .collect();
    for _ in &calls {
        let ((number, serial), answer) = within(answered.recv()).await.unwrap();
        assert_eq!((answer.unwrap(), serial), (payload(number), 7));
        within(other.seen.recv()).await;
    }
    drop(calls);
    let cancelled = one.exchange.call_now(head("forever"), &nothing, &answers, (1, 1)).unwrap();
    assert_eq!(within(other.seen.recv()).await, Some(Seen::Called("forever".into())));
    drop(cancelled);
    assert_eq!(within(other.seen.recv()).await, Some(Seen::Dropped));
    let lost = one.exchange.call_now(head("forever"), &nothing, &answers, (2, 2)).unwrap();
    assert_eq!(within(other.seen.recv()).await, Some(Seen::Called("forever".into())));
    other.exchange.close();
    let (mark, answer) = within(answered.recv()).await.unwrap();
    assert!(mark == (2, 2) && matches!(answer, Err(LaneError::Lost)), "{mark:?} {answer:?}");
    drop(lost);
    let soon = Outgoing { deadline: Instant::now() + Duration::from_millis(30), ..head("echo") };
    assert!(one.exchange.call_now(soon, &nothing, &answers, (3, 3)).is_none(), "`call` keeps that deadline better");
    assert!(!one.exchange.in_use() && answered.is_empty());
}

#[tokio::test]
async fn a_deadline_ends_the_call_here_and_the_work_there() {
    let (one, mut other) = pair();
    let mut head = head("forever");
    head.deadline = Instant::now() + Duration::from_millis(30);
    let error = within(one.exchange.call(head, &Bytes::new())).await.unwrap_err();
    assert!(matches!(error, LaneError::TimedOut), "{error:?}");
    assert!(error.may_have_run());
    assert_eq!(within(other.seen.recv()).await, Some(Seen::Called("forever".into())));
    assert_eq!(within(other.seen.recv()).await, Some(Seen::Dropped));
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_before_anything_is_sent() {
    let (one, _other) = pair();
    let error = within(one.exchange.call(head("echo"), &vec![0; MAX_MESSAGE + 1].into())).await.unwrap_err();
    assert_eq!(error.to_string(), "the message has 4194305 bytes, the limit is 4194304");
    assert!(!error.may_have_run());
    assert_eq!(*one.opener.opened.lock().unwrap(), 0);
}

#[tokio::test]
async fn a_task_that_panics_is_answered_for() {
    let (one, _other) = pair();
    let error = within(one.exchange.call(head("panic"), &Bytes::new())).await.unwrap_err();
    assert!(matches!(&error, LaneError::Refused(refusal) if refusal.code == ErrorCode::Panicked), "{error:?}");
    assert!(error.may_have_run());
}

#[tokio::test]
async fn a_refusal_says_that_nothing_ran() {
    let (one, _other) = pair();
    let error = within(one.exchange.call(head("unknown"), &Bytes::new())).await.unwrap_err();
    assert_eq!(error.to_string(), "no such action");
    assert!(!error.may_have_run());
}

#[tokio::test]
async fn when_the_peer_goes_whoever_waits_is_told() {
    let (one, mut other) = pair();
    let nothing = Bytes::new();
    let call = one.exchange.call(head("forever"), &nothing);
    tokio::pin!(call);
    tokio::select! {
        _ = &mut call => panic!("it never answers"),
        _ = within(other.seen.recv()) => {}
    }
    other.exchange.close();
    let error = within(call).await.unwrap_err();
    assert!(matches!(error, LaneError::Lost), "{error:?}");
}

#[tokio::test]
async fn after_a_goodbye_nothing_is_asked_any_more_and_the_other_side_knows_it() {
    let (mut one, other) = pair();
    within(one.exchange.call(head("echo"), &Bytes::new())).await.unwrap();
    within(other.exchange.call(head("echo"), &Bytes::new())).await.unwrap();
    assert!(!other.exchange.has_parted());
    other.exchange.say_goodbye();
    // The goodbye travels on the same lane as the answer behind it, so the next call sees it.
    within(one.exchange.call(head("echo"), &Bytes::new())).await.unwrap();
    let refused = within(one.exchange.call(head("echo"), &Bytes::new())).await;
    assert!(matches!(&refused, Err(error @ LaneError::NotOpened(_)) if !error.may_have_run()), "{refused:?}");
    // Who leaves may still ask, for what it has to finish; when that is answered, the goodbye has come as well.
    within(other.exchange.call(head("echo"), &Bytes::new())).await.unwrap();
    assert!(other.exchange.has_parted());
    assert_eq!(*one.opener.opened.lock().unwrap(), 1);
    while let Ok(seen) = one.seen.try_recv() {
        assert_eq!(seen, Seen::Called("echo".into()));
    }
}

#[tokio::test]
async fn however_often_a_peer_says_goodbye_it_is_answered_once() {
    struct Held(Mutex<Option<tokio::io::DuplexStream>>);
    impl Opener for Held {
        fn open(&self) -> BoxFuture<'_, Result<Box<dyn Io>, Unopened>> {
            let near = self.0.lock().unwrap().take().unwrap();
            Box::pin(async { Ok(Box::new(near.compat()) as Box<dyn Io>) })
        }
    }
    let (near, far) = tokio::io::duplex(1 << 20);
    let mut far = far.compat();
    let (seen, _) = mpsc::unbounded_channel();
    let opener = Arc::new(Held(Mutex::new(Some(near))));
    let exchange = Exchange::new(Arc::new(Echo { seen, tells: Arc::default() }), opener, Limits::new(MAX_MESSAGE));
    let nothing = Bytes::new();
    let peer = async {
        let mut length = [0; 4];
        far.read_exact(&mut length).await.unwrap();
        let mut call = vec![0; u32::from_be_bytes(length) as usize];
        far.read_exact(&mut call).await.unwrap();
        let Frame::Call(crate::wire::Call { id, .. }) = Frame::decode(&call).unwrap() else { panic!("{call:?}") };
        let mut bytes = Vec::new();
        for _ in 0..100 {
            Frame::Goodbye.encode(&mut bytes).unwrap();
        }
        Frame::Reply { id, payload: b"" }.encode(&mut bytes).unwrap();
        far.write_all(&bytes).await.unwrap();
    };
    let (answer, ()) = within(async { tokio::join!(exchange.call(head("echo"), &nothing), peer) }).await;
    answer.unwrap();
    exchange.close();
    let mut rest = Vec::new();
    within(far.read_to_end(&mut rest)).await.unwrap();
    let mut goodbye = Vec::new();
    Frame::Goodbye.encode(&mut goodbye).unwrap();
    assert_eq!(rest, goodbye);
}

fn malformed(malformed: u64) -> Oddities {
    Oddities { malformed, ..Oddities::default() }
}

/// Writes `bytes` as a peer would, and gives what the lane does with the stream.
async fn attack(bytes: &[u8]) -> (Side, Vec<u8>) {
    let victim = side(Limits::new(MAX_MESSAGE));
    let (mut near, far) = {
        let (near, far) = tokio::io::duplex(1 << 20);
        (near.compat(), far)
    };
    assert!(victim.exchange.accept(Box::new(far.compat())));
    near.write_all(bytes).await.unwrap();
    near.close().await.unwrap();
    let mut answer = Vec::new();
    within(near.read_to_end(&mut answer)).await.unwrap();
    (victim, answer)
}

#[tokio::test]
async fn a_frame_of_huge_length_closes_the_lane_and_is_counted() {
    let (victim, answer) = attack(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3]).await;
    assert_eq!((answer, victim.exchange.oddities()), (vec![], malformed(1)));
}

#[tokio::test]
async fn bytes_that_are_no_frame_close_the_lane_and_are_counted() {
    for garbage in [&b"\0\0\0\x04abcd"[..], b"\0\0\0\0", b"\0\0\0\x01\xff", b"\0\0\0\x02\x81\x18"] {
        let (victim, answer) = attack(garbage).await;
        assert_eq!((answer, victim.exchange.oddities()), (vec![], malformed(1)), "{garbage:?}");
    }
}

#[tokio::test]
async fn answers_that_nobody_asked_for_are_counted_and_harm_nothing() {
    let mut bytes = Vec::new();
    Frame::Reply { id: 7, payload: b"surprise" }.encode(&mut bytes).unwrap();
    Frame::Accepted { id: u64::MAX }.encode(&mut bytes).unwrap();
    Frame::Cancel { id: 9 }.encode(&mut bytes).unwrap();
    let (victim, answer) = attack(&bytes).await;
    assert_eq!((answer, victim.exchange.oddities()), (vec![], Oddities { unasked: 2, ..Oddities::default() }));
}

#[tokio::test]
async fn answers_without_end_that_nobody_asked_for_end_the_lane_and_are_told_of() {
    let mut bytes = Vec::new();
    for id in 0..10 * UNASKED {
        Frame::Reply { id, payload: b"" }.encode(&mut bytes).unwrap();
    }
    let (mut victim, _) = attack(&bytes).await;
    assert!(matches!(within(victim.seen.recv()).await, Some(Seen::Flooded)));
    assert_eq!(victim.exchange.oddities(), Oddities { unasked: UNASKED + 1, ..Oddities::default() });
}

#[tokio::test]
async fn a_peer_that_does_not_heed_refusals_is_read_ever_more_slowly_and_answered_all_the_same() {
    const CALLS: u64 = 5 * 65;
    let calls = (0..CALLS).map(|id| {
        let call = Call {
            id,
            application: "test",
            action: "busy",
            deadline_ms: 10_000,
            options: Options::default(),
            trace: None,
            payload: &[],
        };
        let mut frame = Vec::new();
        Frame::Call(call).encode(&mut frame).unwrap();
        frame
    });
    let begun = Instant::now();
    let (side, _) = within(attack(&calls.flatten().collect::<Vec<_>>())).await;
    assert_eq!(side.exchange.oddities().refused_calls, CALLS);
    assert!(begun.elapsed() >= Duration::from_millis(1 + 4 + 16 + 64 + 256), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_peer_cannot_open_lanes_without_end() {
    let victim = side(Limits::new(MAX_MESSAGE));
    let mut kept = Vec::new();
    for number in 0..2 * MAX_INBOUND_LANES {
        let (near, far) = tokio::io::duplex(64);
        kept.push(near);
        assert_eq!(victim.exchange.accept(Box::new(far.compat())), number < MAX_INBOUND_LANES);
    }
    assert_eq!(victim.exchange.oddities().refused_lanes, MAX_INBOUND_LANES as u64);
}

#[tokio::test]
async fn two_sides_whose_queues_are_full_never_wait_for_each_other() {
    let (one, _other) = pair();
    let mut calls = tokio::task::JoinSet::new();
    for caller in 0..64_u8 {
        let exchange = one.exchange.clone();
        calls.spawn(async move {
            for _ in 0..4 {
                let payload = Bytes::from(vec![caller; 200 * 1024]);
                assert!(exchange.call(head("echo"), &payload.clone()).await.unwrap() == payload);
            }
        });
    }
    within(async {
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_deadline_is_kept_although_the_peer_reads_nothing() {
    struct Deaf(Mutex<Vec<tokio::io::DuplexStream>>);
    impl Opener for Deaf {
        fn open(&self) -> BoxFuture<'_, Result<Box<dyn Io>, Unopened>> {
            let (near, far) = tokio::io::duplex(1024);
            self.0.lock().unwrap().push(far);
            Box::pin(async { Ok(Box::new(near.compat()) as Box<dyn Io>) })
        }
    }
    let (sender, _seen) = mpsc::unbounded_channel();
    let service = Arc::new(Echo { seen: sender, tells: Arc::default() });
    let exchange = Exchange::new(service, Arc::new(Deaf(Mutex::default())), Limits::new(MAX_MESSAGE));
    let mut head = head("echo");
    // Longer than those that the caller watches by itself.
    head.deadline = Instant::now() + Duration::from_millis(2_300);
    let error = within(exchange.call(head, &vec![0; 100_000].into())).await.unwrap_err();
    assert!(matches!(error, LaneError::TimedOut), "{error:?}");
}

#[tokio::test]
async fn a_request_on_a_lane_for_answers_closes_it_and_is_counted() {
    struct Backwards;
    impl Opener for Backwards {
        fn open(&self) -> BoxFuture<'_, Result<Box<dyn Io>, Unopened>> {
            Box::pin(async {
                let (near, far) = tokio::io::duplex(1024);
                let mut far = far.compat();
                let mut bytes = Vec::new();
                let (application, deadline_ms) = ("test", 1000);
                let tell = crate::wire::Tell {
                    id: 1,
                    application,
                    deadline_ms,
                    options: Options::default(),
                    trace: None,
                    payload: &[],
                };
                Frame::Tell(tell).encode(&mut bytes).unwrap();
                far.write_all(&bytes).await.unwrap();
                tokio::spawn(async move { far.read_to_end(&mut Vec::new()).await });
                Ok(Box::new(near.compat()) as Box<dyn Io>)
            })
        }
    }
    let (sender, mut seen) = mpsc::unbounded_channel();
    let exchange = Exchange::new(
        Arc::new(Echo { seen: sender, tells: Arc::default() }),
        Arc::new(Backwards),
        Limits::new(MAX_MESSAGE),
    );
    let error = within(exchange.call(head("echo"), &Bytes::new())).await.unwrap_err();
    assert!(matches!(error, LaneError::Lost), "{error:?}");
    within(exchange.ended()).await;
    assert_eq!(exchange.oddities(), malformed(1));
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn what_is_queued_when_an_exchange_is_closed_is_still_written() {
    let (one, mut other) = pair();
    for number in 0..100_u8 {
        within(one.exchange.cast(head(""), &Bytes::from(vec![number; 1000]))).await.unwrap();
    }
    one.exchange.close();
    within(one.exchange.ended()).await;
    for number in 0..100_u8 {
        assert_eq!(within(other.seen.recv()).await, Some(Seen::Told(Bytes::from(vec![number; 1000]))));
    }
}

#[tokio::test]
async fn frames_of_a_later_version_are_read_over() {
    let mut bytes = vec![0, 0, 0, 4, 0x83, 0x18, 99, 0x80];
    bytes[3] = 5;
    bytes.extend([0x01]);
    Frame::Cancel { id: 1 }.encode(&mut bytes).unwrap();
    let (victim, answer) = attack(&bytes).await;
    assert_eq!((answer, victim.exchange.oddities()), (vec![], Oddities::default()));
}
