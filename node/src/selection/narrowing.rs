//! Hosts that are only said to be there do not get in the way of those that are: anybody can make up thousands.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rand::Rng;

use crate::{
    core::{Command, Core},
    description::Host,
};

/// Up to so many hosts that this node was never connected to are chosen like all others: when they do not answer, that is found
/// out soon enough. Of more than that none is chosen before it is verified, which does not hold up any message.
const MAX_UNVERIFIED: usize = 16;

/// A host is verified not more often than this: all of some hundreds in a few seconds.
const PAUSE: Duration = Duration::from_millis(20);

/// Draws until one is found that is not verified.
const TRIES: usize = 8;

/// When a host was last looked at, in milliseconds since the node was started.
#[derive(Debug, Default)]
pub(crate) struct Verifying(AtomicU64);

/// The hosts that are verified, if there are others that are too many to be taken as they are. Where nobody is verified
/// there is nobody to prefer.
pub(crate) fn narrow(hosts: &[Arc<Host>]) -> Option<Vec<Arc<Host>>> {
    narrow_if(hosts, |host| host.info.verified && !host.local)
}

/// The same where this node itself, which is verified, will do.
pub(crate) fn narrow_or_here(hosts: &[Arc<Host>]) -> Option<Vec<Arc<Host>>> {
    narrow_if(hosts, |host| host.info.verified)
}

fn narrow_if(hosts: &[Arc<Host>], will_do: impl Fn(&Host) -> bool) -> Option<Vec<Arc<Host>>> {
    let unverified = hosts.iter().filter(|host| !host.info.verified).count();
    let narrowed = unverified > MAX_UNVERIFIED && hosts.iter().any(|host| will_do(host));
    narrowed.then(|| hosts.iter().filter(|host| host.info.verified).cloned().collect())
}

/// Has one of these hosts dialled that is not verified, so that it can be chosen from then on.
pub(crate) fn verify_one(core: &Core, hosts: &[Arc<Host>]) {
    let now = u64::try_from(core.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (last, pause) = (core.selection.verifying.0.load(Relaxed), PAUSE.as_millis() as u64);
    let due = last == 0 || now >= last.saturating_add(pause);
    if hosts.is_empty()
        || !due
        || core.selection.verifying.0.compare_exchange(last, now.max(1), Relaxed, Relaxed).is_err()
    {
        return;
    }
    let mut random = rand::rng();
    let mut drawn = (0..TRIES).map(|_| &hosts[random.random_range(0..hosts.len())]);
    if let Some(host) = drawn.find(|host| !host.info.verified) {
        // A driver with so much to do does it another time.
        let _ = core.commands.try_send(Command::Verify { peer_id: host.peer_id });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::description::tests::host;

    fn hosts(verified: usize, others: usize) -> Vec<Arc<Host>> {
        let of = |verified: bool| {
            let mut host = host("n", Value::Null);
            Arc::make_mut(&mut host.info).verified = verified;
            Arc::new(host)
        };
        (0..verified).map(|_| of(true)).chain((0..others).map(|_| of(false))).collect()
    }

    #[test]
    fn verified_hosts_are_preferred_to_very_many_others_and_a_few_others_are_hosts_like_all() {
        assert!(narrow(&hosts(2, MAX_UNVERIFIED)).is_none());
        assert!(narrow(&hosts(0, 9_000)).is_none(), "there is nobody to prefer");
        let narrowed = narrow(&hosts(2, 9_000)).unwrap();
        assert!(narrowed.len() == 2 && narrowed.iter().all(|host| host.info.verified));
    }

    #[test]
    fn this_node_alone_will_do_where_it_takes_part_like_others() {
        let mut hosts = hosts(1, 9_000);
        Arc::make_mut(&mut hosts[0]).local = true;
        assert!(narrow(&hosts).is_none());
        assert_eq!(narrow_or_here(&hosts).unwrap().len(), 1);
    }
}
