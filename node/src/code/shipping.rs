//! How code gets to where it runs: with the request if it is small, else fetched in pieces from whoever asks, or from any
//! other node that has it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use libp2p::PeerId;
use multinodes_behaviour::{lane::Outgoing, wire::Options};
use rand::seq::IteratorRandom;
use serde_bytes::ByteBuf;
use tokio::task::spawn_blocking;

use super::{
    allowance::Allowance,
    cid::Cid,
    code_error::CodeError,
    code_ref::CodeRef,
    compiler::Compiled,
    limits::Limits,
    portable::Code,
    service,
    store::{Partial, Store, StoreError, part},
    vetting::Budget,
    workshop::Shop,
};
use crate::{
    application::{AppError, Context},
    core::{Core, Counters},
    payload::Payload,
};

/// Code up to this size, in bytes, goes along with the first request: one way instead of two.
pub(super) const INLINE: u64 = 64 * 1024;

/// The largest piece that is fetched at once, in bytes. It travels on a stream of its own, beside everything else.
pub(super) const PIECE: u64 = 1024 * 1024;

/// Whoever takes longer for a piece does not give it: others wait for the same code meanwhile.
const SLOWEST: Duration = Duration::from_secs(30);

/// So many other nodes are asked for code that the asker does not give, or not all of.
const OTHERS: usize = 8;

/// How often it is fetched if what comes is not what was asked for.
const ATTEMPTS: usize = 4;

/// Code that is ready to run, wherever it has to come from.
///
/// # Errors
///
/// It is larger than allowed, cannot be had, is not what its name says, or is refused.
pub(super) async fn ready(
    core: &Arc<Core>,
    context: &Context,
    reference: &CodeRef,
    inline: Option<ByteBuf>,
    allowance: &Allowance,
) -> Result<Compiled, AppError> {
    let limits = allowance.limits();
    let (size, limit) = (reference.size(), limits.code_size);
    if size > limit {
        return Err(bad(format!("its {size} bytes are more than the limit of {limit}")));
    }
    if let Some(bytes) = &inline
        && context.caller() != core.peer_id
    {
        Counters::add_many(&core.counters.code_bytes, bytes.len());
    }
    let shop = core.workshop.shop().map_err(bad)?;
    let (cid, budget) = (reference.cid(), Budget::from(limits));
    if let Some(compiled) = shop.compiler.at_hand(&cid).filter(|compiled| compiled.world() == reference.world()) {
        return within(compiled, &budget);
    }
    let compiler = shop.compiler.clone();
    let found = spawn_blocking(move || compiler.find(&cid)).await.map_err(bad)?;
    if let Some(compiled) = found.filter(|compiled| compiled.world() == reference.world()) {
        return within(compiled, &budget);
    }
    let bytes = match inline {
        Some(bytes) => bytes.into_vec().into(),
        None => bytes(core, context, shop, reference).await?,
    };
    let code = Code::received(bytes, reference.clone()).map_err(bad)?;
    let compiled = shop.compiler.compile_for(&code, &budget, allowance).await.map_err(refused)?;
    // Kept, so that others can have it from here, and this node after its next start.
    let store = shop.store.clone();
    if let Ok(Err(error)) = spawn_blocking(move || store.put(&code)).await {
        tracing::warn!(%cid, %error, "code cannot be kept");
    }
    Ok(compiled)
}

/// Sees to it that the bytes are here for the next start: what was compiled is of no use to another version of the engine.
///
/// # Errors
///
/// They cannot be had, or not be kept.
pub(super) async fn keep(
    core: &Arc<Core>,
    context: &Context,
    reference: &CodeRef,
    inline: Option<ByteBuf>,
) -> Result<(), AppError> {
    let shop = core.workshop.shop().map_err(bad)?;
    let (store, cid) = (shop.store.clone(), reference.cid());
    if !store.is_on_disk() || store.find(&cid).is_some() {
        return Ok(());
    }
    let bytes = match inline {
        Some(bytes) => bytes.into_vec().into(),
        None => bytes(core, context, shop, reference).await?,
    };
    let code = Code::received(bytes, reference.clone()).map_err(bad)?;
    let kept = spawn_blocking(move || store.put(&code)).await.map_err(AppError::of)?;
    kept.map_err(|error| {
        tracing::error!(%cid, %error, "code cannot be kept");
        AppError::new("not_kept", error.told())
    })
}

/// Code that is here already, ready to run.
///
/// # Errors
///
/// It is gone, or not taken within these limits.
pub(super) async fn kept(core: &Core, reference: &CodeRef, limits: &Limits) -> Result<Compiled, AppError> {
    let shop = core.workshop.shop().map_err(bad)?;
    let (compiler, store, cid) = (shop.compiler.clone(), shop.store.clone(), reference.cid());
    let budget = Budget::from(limits);
    let found = spawn_blocking(move || compiler.find(&cid)).await.map_err(AppError::of)?;
    if let Some(compiled) = found {
        return within(compiled, &budget);
    }
    let bytes = stored(store, cid).await?.ok_or_else(|| no_code(cid, "it is gone"))?;
    let code = Code::received(bytes, reference.clone()).map_err(bad)?;
    shop.compiler.compile(&code, &budget).await.map_err(refused)
}

/// Another rule may have let it in, and what is said of its size be wrong.
fn within(compiled: Compiled, budget: &Budget) -> Result<Compiled, AppError> {
    compiled.vetted().check(budget).map_err(bad)?;
    Ok(compiled)
}

async fn bytes(core: &Arc<Core>, context: &Context, shop: &Shop, reference: &CodeRef) -> Result<Bytes, AppError> {
    let (store, cid, size) = (shop.store.clone(), reference.cid(), reference.size());
    let mut sources: Vec<PeerId> = std::iter::once(context.caller()).chain(others(core, context.caller())).collect();
    let mut wrong = None;
    for _ in 0..ATTEMPTS {
        let partial = match begin(&store, cid, size, context.deadline()).await? {
            Begun::Whole(bytes) => return Ok(bytes),
            Begun::Part(partial) => partial,
        };
        Counters::add(&core.counters.code_fetches);
        let is_begun = partial.received() > 0;
        let (whole, givers) = match gather(core, &sources, cid, partial, context.deadline()).await {
            Ok(gathered) => gathered,
            Err(reason) => return Err(wrong.unwrap_or_else(|| no_code(cid, &reason))),
        };
        match spawn_blocking(move || whole.finish()).await.map_err(bad)? {
            Ok(()) => {
                let bytes = stored(store, cid).await?;
                return bytes.ok_or_else(|| bad("it was removed right after it had come"));
            }
            Err(error @ StoreError::WrongHash { .. }) => {
                // Where several have given parts of it nobody knows who was wrong: all of it has to come anew.
                if let ([liar], false) = (&givers[..], is_begun) {
                    tracing::debug!(peer_id = %liar, %cid, "other bytes came than were asked for");
                    sources.retain(|source| source != liar);
                }
                wrong = Some(bad(error));
            }
            Err(error) => return Err(bad(error.told())),
        }
    }
    Err(wrong.unwrap_or_else(|| no_code(cid, "nobody has it")))
}

/// Fetches what is missing from one node after the other, and says who has given something.
async fn gather(
    core: &Arc<Core>,
    sources: &[PeerId],
    cid: Cid,
    mut partial: Partial,
    deadline: Instant,
) -> Result<(Partial, Vec<PeerId>), String> {
    let (mut givers, mut failure) = (Vec::new(), None);
    for &peer_id in sources {
        let before = partial.received();
        match fetch(core, peer_id, cid, partial, deadline).await {
            Ok(whole) => {
                givers.push(peer_id);
                return Ok((whole, givers));
            }
            Err((rest, reason)) => {
                tracing::debug!(%peer_id, %cid, %reason, "code was not fetched, or not all of it");
                failure = failure.or(Some(reason));
                let Some(rest) = rest else { break };
                if rest.received() > before {
                    givers.push(peer_id);
                }
                partial = rest;
            }
        }
    }
    Err(failure.unwrap_or_else(|| "nobody has it".to_owned()))
}

fn no_code(cid: Cid, reason: &str) -> AppError {
    AppError::new("no_code", format!("the code `{cid}` cannot be had: {reason}"))
}

/// Fetches what is missing from one node. What has come is kept when it breaks.
async fn fetch(
    core: &Arc<Core>,
    peer_id: PeerId,
    cid: Cid,
    mut partial: Partial,
    deadline: Instant,
) -> Result<Partial, (Option<Partial>, String)> {
    while partial.received() < partial.size() {
        let offset = partial.received();
        let wanted = PIECE.min(partial.size() - offset);
        // Whoever does not answer leaves time for the next one.
        let now = Instant::now();
        let until = now + (deadline.saturating_duration_since(now) / 2).min(SLOWEST);
        let piece = match ask(core, peer_id, (cid, offset, wanted), until).await {
            Ok(piece) => piece,
            Err(reason) => return Err((Some(partial), reason)),
        };
        Counters::add_many(&core.counters.code_bytes, piece.len());
        // Smaller ones would take for ever.
        if piece.len() as u64 != wanted {
            let reason = format!("{} bytes were sent where {wanted} were wanted", piece.len());
            return Err((Some(partial), reason));
        }
        let written = spawn_blocking(move || {
            let result = partial.write(offset, &piece);
            (partial, result)
        });
        match written.await {
            Ok((back, Ok(()))) => partial = back,
            Ok((_, Err(error))) => return Err((None, error.told())),
            Err(error) => return Err((None, error.to_string())),
        }
    }
    Ok(partial)
}

/// Asks a peer for a piece. It need not be in the directory: one-shot commands are not.
async fn ask(core: &Arc<Core>, peer_id: PeerId, wanted: (Cid, u64, u64), deadline: Instant) -> Result<Vec<u8>, String> {
    let exchange = core.links.with(peer_id).ok_or("the node stops")?;
    let arguments = Payload::arguments(&wanted).map_err(|error| error.to_string())?;
    let head = Outgoing {
        application: service::NAME,
        action: service::FETCH,
        deadline,
        options: Options::IDEMPOTENT,
        trace: None,
        pulse: None,
    };
    let answer = exchange.call(head, arguments.bytes()).await.map_err(|error| error.to_string())?;
    let piece: ByteBuf = Payload::from_bytes(answer).decode().map_err(|error| error.to_string())?;
    Ok(piece.into_vec())
}

/// Other nodes that may have it.
fn others(core: &Arc<Core>, asker: PeerId) -> Vec<PeerId> {
    let snapshot = core.snapshot.load();
    let others = snapshot.nodes.iter().filter(|node| !node.local && node.peer_id != asker);
    others.map(|node| node.peer_id).choose_multiple(&mut rand::rng(), OTHERS)
}

/// What there is of some code.
enum Begun {
    Whole(Bytes),
    Part(Partial),
}

/// Begins to receive some code, unless it is here. Where another request receives it, that one is waited for.
async fn begin(store: &Store, cid: Cid, size: u64, deadline: Instant) -> Result<Begun, AppError> {
    loop {
        let released = store.released();
        if let Some(bytes) = stored(store.clone(), cid).await? {
            return Ok(Begun::Whole(bytes));
        }
        let here = store.clone();
        match spawn_blocking(move || here.begin(cid, size)).await.map_err(bad)? {
            Ok(partial) => return Ok(Begun::Part(partial)),
            Err(error @ StoreError::InProgress { .. }) => {
                let waited = tokio::time::timeout_at(deadline.into(), released).await;
                waited.map_err(|_| AppError::busy(error))?;
            }
            Err(error) => return Err(bad(error.told())),
        }
    }
}

async fn stored(store: Store, cid: Cid) -> Result<Option<Bytes>, AppError> {
    spawn_blocking(move || store.get(&cid)).await.map_err(bad)?.map_err(|error| bad(error.told()))
}

/// A piece of code that this node has.
pub(super) async fn piece(core: &Arc<Core>, cid: Cid, offset: u64, length: u64) -> Result<ByteBuf, AppError> {
    let length = length.min(PIECE);
    let bytes = match (core.workshop.offered(&cid), core.workshop.keeping()) {
        (Some(bytes), _) => Some(part(&bytes, offset, length)),
        (None, Some(shop)) => {
            let store = shop.map_err(bad)?.store.clone();
            spawn_blocking(move || store.piece(&cid, offset, length))
                .await
                .map_err(bad)?
                .map_err(|error| bad(error.told()))?
        }
        (None, None) => None,
    };
    let bytes = bytes.ok_or_else(|| AppError::new("no_code", format!("no code `{cid}` is here")))?;
    Ok(ByteBuf::from(bytes.to_vec()))
}

/// The code is of no use, or cannot be made ready now.
fn refused(error: CodeError) -> AppError {
    match error {
        CodeError::CompileRate { .. } => AppError::new("compile_rate", error.to_string()),
        CodeError::CompilerBusy { .. } => AppError::busy(error),
        error => bad(error),
    }
}

/// The code is of no use.
pub(super) fn bad(reason: impl std::fmt::Display) -> AppError {
    AppError::new("bad_code", reason.to_string())
}
