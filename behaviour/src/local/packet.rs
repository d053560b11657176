//! What is said by multicast DNS, as libp2p specifies it: questions for `_p2p._udp.local`, and answers of which each has
//! a pointer to a name of its node, and under that name the addresses as texts `dnsaddr=...`.

use std::time::Duration;

use hickory_proto::{
    op::Message,
    rr::{Name, RData, Record},
};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use rand::{Rng, distr::Alphanumeric};

/// RFC 6762 allows no larger ones.
pub(super) const MAX_PACKET: usize = 9_000;

/// What is sent fits one frame of Ethernet, whatever the headers.
const MAX_SENT: usize = 1_400;

/// More addresses of one packet are not looked at. An answer names one node, and a node has a few addresses.
const MAX_RECORDS: usize = 64;

/// The longest text of a record.
const MAX_TEXT: usize = 255;

/// The name under which libp2p programs are found.
const SERVICE: [&str; 3] = ["_p2p", "_udp", "local"];
/// The name under which all services are found.
const SERVICES: [&str; 4] = ["_services", "_dns-sd", "_udp", "local"];

const POINTER: u16 = 12;
const TEXT: u16 = 16;
const INTERNET: u16 = 1;
/// The record is the only one of its name, so that it takes the place of what was known.
const UNIQUE: u16 = 0x8000;
const ANSWER: u16 = 0x8400;

/// What somebody has said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Who is there? With the number of the question.
    Question(u16),
    /// What services are there? With the number of the question.
    Services(u16),
    /// Who is where, and for how long that holds.
    Answer(Vec<(PeerId, Multiaddr, Duration)>),
}

/// Reads a packet; none that does not concern libp2p.
pub(super) fn read(bytes: &[u8]) -> Option<Heard> {
    let message = Message::from_vec(bytes).ok()?;
    if message.queries.is_empty() {
        let answer = addresses(&message);
        return (!answer.is_empty()).then_some(Heard::Answer(answer));
    }
    let asks = |labels: &[&str]| message.queries.iter().any(|query| is(query.name(), labels));
    if asks(&SERVICE) {
        Some(Heard::Question(message.metadata.id))
    } else {
        asks(&SERVICES).then(|| Heard::Services(message.metadata.id))
    }
}

fn addresses(message: &Message) -> Vec<(PeerId, Multiaddr, Duration)> {
    let pointer = |record: &Record| match &record.data {
        RData::PTR(pointer) if is(&record.name, &SERVICE) => Some((pointer.0.clone(), record.ttl)),
        _ => None,
    };
    // Each packet names one node.
    let Some((name, ttl)) = message.answers.iter().take(MAX_RECORDS).find_map(pointer) else { return Vec::new() };
    let texts = message.additionals.iter().chain(&message.answers).filter(|record| record.name == name);
    let texts = texts.filter_map(|record| match &record.data {
        RData::TXT(text) => Some(text.txt_data.iter()),
        _ => None,
    });
    let mut found: Vec<(PeerId, Multiaddr, Duration)> = Vec::new();
    for text in texts.flatten().take(MAX_RECORDS) {
        let Some((peer_id, address)) = address(text) else { continue };
        // Nobody speaks for others.
        if found.first().is_none_or(|(first, ..)| *first == peer_id) {
            found.push((peer_id, address, Duration::from_secs(ttl.into())));
        }
    }
    found
}

fn address(text: &[u8]) -> Option<(PeerId, Multiaddr)> {
    let mut address: Multiaddr = std::str::from_utf8(text.strip_prefix(b"dnsaddr=")?).ok()?.parse().ok()?;
    match address.pop() {
        Some(Protocol::P2p(peer_id)) => Some((peer_id, address)),
        _ => None,
    }
}

fn is(name: &Name, labels: &[&str]) -> bool {
    name.iter().len() == labels.len()
        && name.iter().zip(labels).all(|(label, wanted)| label.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// A name for a node's records, which says nothing of it.
pub(super) fn random_label() -> String {
    rand::rng().sample_iter(&Alphanumeric).take(40).map(char::from).collect()
}

/// Asks who is there.
pub(super) fn question(id: u16) -> Vec<u8> {
    let mut packet = header(id, 0, [1, 0, 0, 0]);
    name(&mut packet, &SERVICE);
    words(&mut packet, &[POINTER, INTERNET]);
    packet
}

/// Tells that there is the service, and nothing more.
pub(super) fn services(id: u16, ttl: Duration) -> Vec<u8> {
    let mut packet = header(id, ANSWER, [0, 1, 0, 0]);
    let mut target = Vec::new();
    name(&mut target, &SERVICE);
    record(&mut packet, &SERVICES, [POINTER, UNIQUE | INTERNET], ttl, &target);
    packet
}

/// Tells where `peer_id` listens, in as many packets as it takes; in none if there is nothing to tell.
pub(super) fn answers(label: &str, peer_id: &PeerId, addresses: &[Multiaddr], ttl: Duration) -> Vec<Vec<u8>> {
    let own = [&[label], &SERVICE[..]].concat();
    let texts = addresses.iter().map(|address| format!("dnsaddr={address}/p2p/{peer_id}"));
    let texts = texts.filter(|text| text.len() <= MAX_TEXT && text.is_ascii());
    let records: Vec<Vec<u8>> = texts.map(|text| told(&own, &text, ttl)).collect();
    let mut packets = Vec::new();
    let mut rest = &records[..];
    let fixed = pointing(&own, ttl, 0).len();
    while !rest.is_empty() {
        let mut size = fixed;
        let fits = rest.iter().take_while(|record| {
            size += record.len();
            size <= MAX_SENT
        });
        let count = fits.count().max(1);
        let (now, later) = rest.split_at(count);
        let mut packet = pointing(&own, ttl, count);
        now.iter().for_each(|record| packet.extend(record));
        packets.push(packet);
        rest = later;
    }
    packets
}

fn pointing(own: &[&str], ttl: Duration, count: usize) -> Vec<u8> {
    let count = u16::try_from(count).unwrap_or(u16::MAX);
    let mut packet = header(0, ANSWER, [0, 1, 0, count]);
    let mut target = Vec::new();
    name(&mut target, own);
    record(&mut packet, &SERVICE, [POINTER, INTERNET], ttl, &target);
    packet
}

fn told(own: &[&str], text: &str, ttl: Duration) -> Vec<u8> {
    let mut packet = Vec::new();
    // At most 255 bytes, as was seen to.
    let content = [&[u8::try_from(text.len()).unwrap_or(u8::MAX)], text.as_bytes()].concat();
    record(&mut packet, own, [TEXT, UNIQUE | INTERNET], ttl, &content);
    packet
}

fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(MAX_SENT);
    words(&mut packet, &[id, flags]);
    words(&mut packet, &counts);
    packet
}

fn record(packet: &mut Vec<u8>, labels: &[&str], kind: [u16; 2], ttl: Duration, content: &[u8]) {
    name(packet, labels);
    words(packet, &kind);
    packet.extend(u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
    words(packet, &[u16::try_from(content.len()).unwrap_or(u16::MAX)]);
    packet.extend(content);
}

fn name(packet: &mut Vec<u8>, labels: &[&str]) {
    for label in labels {
        packet.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        packet.extend(label.as_bytes());
    }
    packet.push(0);
}

fn words(packet: &mut Vec<u8>, words: &[u16]) {
    words.iter().for_each(|word| packet.extend(word.to_be_bytes()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: Duration = Duration::from_secs(180);

    fn address(number: usize) -> Multiaddr {
        format!("/ip4/10.0.{}.{}/tcp/4001", number / 256, number % 256).parse().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&question(7)), Some(Heard::Question(7)));
        let peer_id = PeerId::random();
        let packets = answers(&random_label(), &peer_id, &[address(1), address(2)], TTL);
        let heard = [1, 2].map(|number| (peer_id, address(number), TTL)).to_vec();
        assert_eq!(packets.iter().map(|packet| read(packet)).collect::<Vec<_>>(), [Some(Heard::Answer(heard))]);
        assert_eq!(read(&services(7, TTL)), None, "it is for browsers of services");
        assert!(answers("x", &peer_id, &[], TTL).is_empty());
    }

    #[test]
    fn a_question_for_services_is_told_from_one_for_nodes() {
        let mut packet = header(9, 0, [1, 0, 0, 0]);
        name(&mut packet, &SERVICES);
        words(&mut packet, &[POINTER, INTERNET]);
        assert_eq!(read(&packet), Some(Heard::Services(9)));
        let mut other = header(9, 0, [1, 0, 0, 0]);
        name(&mut other, &["_http", "_tcp", "local"]);
        words(&mut other, &[POINTER, INTERNET]);
        assert_eq!(read(&other), None);
    }

    #[test]
    fn many_addresses_take_several_packets_none_of_which_is_too_large() {
        let all: Vec<_> = (0..100).map(address).collect();
        let packets = answers(&random_label(), &PeerId::random(), &all, TTL);
        let told: Vec<Multiaddr> = packets
            .iter()
            .flat_map(|packet| match read(packet) {
                Some(Heard::Answer(answer)) => answer,
                heard => panic!("{heard:?}"),
            })
            .map(|(_, address, _)| address)
            .collect();
        assert_eq!(told, all);
        assert!(packets.len() > 5 && packets.iter().all(|packet| packet.len() <= MAX_SENT));
    }

    #[test]
    fn what_speaks_for_others_and_what_is_no_address_are_left_out() {
        let (one, two) = (PeerId::random(), PeerId::random());
        let own = ["x", "_p2p", "_udp", "local"];
        let mut packet = pointing(&own, TTL, 4);
        for text in [
            format!("dnsaddr=/ip4/10.0.0.1/tcp/1/p2p/{one}"),
            format!("dnsaddr=/ip4/10.0.0.2/tcp/1/p2p/{two}"),
            "dnsaddr=/ip4/10.0.0.3/tcp/1".to_owned(),
            "anything".to_owned(),
        ] {
            packet.extend(told(&own, &text, TTL));
        }
        let expected = vec![(one, "/ip4/10.0.0.1/tcp/1".parse().unwrap(), TTL)];
        assert_eq!(read(&packet), Some(Heard::Answer(expected)));
    }

    #[test]
    fn of_a_packet_full_of_records_some_are_read() {
        let (peer_id, own) = (PeerId::random(), ["x", "_p2p", "_udp", "local"]);
        let mut packet = pointing(&own, TTL, 500);
        (0..500).for_each(|port| {
            packet.extend(told(&own, &format!("dnsaddr=/ip4/10.0.0.1/tcp/{port}/p2p/{peer_id}"), TTL));
        });
        let Some(Heard::Answer(read)) = read(&packet) else { panic!("it is an answer") };
        assert_eq!(read.len(), MAX_RECORDS);
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&bytes);
        }

        #[test]
        fn no_damaged_packet_makes_it_panic(at in 0_usize..200, byte: u8) {
            let mut packet = answers("label", &PeerId::random(), &[address(1), address(2)], TTL).remove(0);
            let at = at % packet.len();
            packet[at] = byte;
            let _ = read(&packet);
        }
    }
}
