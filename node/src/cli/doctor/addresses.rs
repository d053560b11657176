//! Who is there, what they say of where they listen, and whether a new node could listen where it is to.

use std::{
    io,
    net::{IpAddr, TcpListener},
    sync::Arc,
};

use libp2p::multiaddr::Protocol;
use multinodes::{Multiaddr, NodeInfo, diagnosis, diagnosis::FoundNote};

use super::report::{Check, Finding};
use crate::cli::session::Session;

/// The most names that are listed in one line.
const SHOWN: usize = 16;

/// Whether anybody was found.
pub(super) fn nodes(session: &Session, nodes: &[Arc<NodeInfo>]) -> Finding {
    if nodes.is_empty() {
        let remedy = "let UDP port 5353 through the firewalls on both sides for multicast, or use `--join ADDR`; compare \
                      `--swarm`, `--secret` and `--ticket` on both sides";
        return Finding::warning(Check::Nodes, "swarm", session.nobody(), remedy);
    }
    let mut names: Vec<_> = nodes.iter().take(SHOWN).map(|node| node.name.as_str()).collect();
    let more = format!("and {} more", nodes.len().saturating_sub(SHOWN));
    if nodes.len() > SHOWN {
        names.push(&more);
    }
    Finding::ok(Check::Nodes, "swarm", format!("found {}: {}", nodes.len(), names.join(", ")))
}

/// What each node tells others of where it listens.
pub(super) fn advertised(nodes: &[Arc<NodeInfo>]) -> Vec<Finding> {
    nodes.iter().map(|node| judge(&node.name, &node.addresses)).collect()
}

fn judge(name: &str, addresses: &[Multiaddr]) -> Finding {
    if addresses.is_empty() {
        let remedy = format!(
            "let `{name}` listen on an address that other hosts reach, such as --listen /ip4/0.0.0.0/tcp/4001; it can \
             only be called while it keeps a connection itself"
        );
        return Finding::warning(Check::Listening, name, "advertises no address that can be dialled from here", remedy);
    }
    let shown: Vec<_> = addresses.iter().map(Multiaddr::to_string).collect();
    let within = addresses.iter().all(|address| !diagnosis::is_dialable(address, false));
    let beyond = |address: &Multiaddr| !diagnosis::is_of_link(address) && diagnosis::is_dialable(address, false);
    let remark = if addresses.iter().any(diagnosis::is_of_link) && !addresses.iter().any(beyond) {
        ", which only hosts on the same link reach"
    } else if within {
        ", which only nodes of its own host reach"
    } else {
        ""
    };
    Finding::ok(Check::Listening, name, format!("advertises {}{remark}", shown.join(", ")))
}

/// Whether the addresses that a node is to listen on are free.
pub(super) fn wanted(addresses: &[String], nodes: &[Arc<NodeInfo>], notes: &[FoundNote]) -> Vec<Finding> {
    let holder = |port| holder(port, nodes, notes);
    addresses.iter().map(|address| try_to_listen(address, holder)).collect()
}

fn try_to_listen(text: &str, holder: impl Fn(u16) -> Option<String>) -> Finding {
    let remedy = "name another one with `--listen`, such as /ip4/0.0.0.0/tcp/4001";
    let address: Multiaddr = match text.parse() {
        Ok(address) => address,
        Err(error) => return Finding::failure(Check::Listening, text, format!("no multiaddress: {error}"), remedy),
    };
    let Some((ip, port)) = tcp(&address) else {
        return Finding::ok(Check::Listening, text, "not tried: only TCP is");
    };
    match TcpListener::bind((ip, port)) {
        Ok(_) => Finding::ok(Check::Listening, text, "free"),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder(port) {
            Some(name) => Finding::ok(Check::Listening, text, format!("in use by `{name}`, a node of this swarm")),
            None => {
                let remedy = format!("stop the program that listens there (ss -ltnp 'sport = {port}'), or {remedy}");
                Finding::failure(Check::Listening, text, "in use by another program", remedy)
            }
        },
        Err(error) => Finding::failure(Check::Listening, text, format!("cannot be listened on: {error}"), remedy),
    }
}

fn tcp(address: &Multiaddr) -> Option<(IpAddr, u16)> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((ip, port)),
        _ => None,
    }
}

/// The node of this host that listens on a port.
fn holder(port: u16, nodes: &[Arc<NodeInfo>], notes: &[FoundNote]) -> Option<String> {
    let has_port =
        |addresses: &[Multiaddr]| addresses.iter().any(|address| tcp(address).is_some_and(|at| at.1 == port));
    let note = notes.iter().find(|note| note.is_of_this_host && has_port(&note.addresses))?;
    let node = nodes.iter().find(|node| node.peer_id == note.peer_id);
    Some(node.map_or_else(|| note.peer_id.to_string(), |node| node.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::{super::report::Verdict, *};

    #[test]
    fn a_port_is_free_or_it_is_known_who_has_it() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let text = format!("/ip4/127.0.0.1/tcp/{port}");
        let finding = try_to_listen(&text, |_| None);
        assert_eq!(finding.verdict, Verdict::Failure);
        assert!(finding.remedy.unwrap().contains(&port.to_string()));
        let finding = try_to_listen(&text, |_| Some("alpha".to_owned()));
        assert_eq!((finding.verdict, finding.text.contains("`alpha`")), (Verdict::Ok, true));
        drop(taken);
        assert_eq!(try_to_listen(&text, |_| None).verdict, Verdict::Ok);
        assert_eq!(try_to_listen("nowhere", |_| None).verdict, Verdict::Failure);
        assert_eq!(try_to_listen("/ip4/192.0.2.1/tcp/0", |_| None).verdict, Verdict::Failure, "not of this host");
    }

    #[test]
    fn who_advertises_nothing_is_a_warning() {
        assert_eq!(judge("alpha", &[]).verdict, Verdict::Warning);
        let loopback = judge("alpha", &["/ip4/127.0.0.1/tcp/1".parse().unwrap()]);
        assert_eq!((loopback.verdict, loopback.text.ends_with("own host reach")), (Verdict::Ok, true));
        let link = judge("alpha", &["/ip4/169.254.1.1/tcp/1".parse().unwrap()]);
        assert_eq!((link.verdict, link.text.ends_with("same link reach")), (Verdict::Ok, true));
        let zoned = judge("alpha", &["/ip6zone/eth0/ip6/fe80::1/tcp/1".parse().unwrap()]);
        assert_eq!((zoned.verdict, zoned.text.ends_with("same link reach")), (Verdict::Ok, true));
    }
}
