use super::*;

const MADE: u64 = 1_700_000_000;

fn ticket() -> Ticket {
    let address = format!("/ip4/192.168.1.10/tcp/4001/p2p/{}", PeerId::random());
    Ticket {
        swarm: "garden".parse().unwrap(),
        secret: Some(Secret::generate()),
        addresses: vec![address.parse().unwrap(), "/ip6/fd00::1/tcp/4001".parse().unwrap()],
        expires: Some(MADE + 3600),
        grant: None,
    }
}

fn parse(text: &str, at: u64) -> Result<Ticket, TicketError> {
    Ticket::parse_at(text, UNIX_EPOCH + Duration::from_secs(at))
}

#[test]
fn a_ticket_is_the_same_after_it_was_written_and_read() {
    let labels = [("role".to_owned(), "worker".to_owned())].into();
    let labelled = ticket().labelled(&Keypair::generate_ed25519(), labels).unwrap();
    assert_eq!(labelled.labels()["role"], "worker");
    for ticket in [ticket(), Ticket { secret: None, expires: None, ..ticket() }, labelled] {
        let text = ticket.reveal();
        assert_eq!(parse(&text, MADE).unwrap(), ticket);
        let wrapped: String = text.as_bytes().chunks(40).map(|line| format!("{}\r\n", line.escape_ascii())).collect();
        assert_eq!(parse(&wrapped, MADE).unwrap(), ticket, "mail breaks lines");
    }
}

#[test]
fn every_cut_is_called_a_cut() {
    let text = ticket().reveal();
    for length in 1..text.len() {
        let error = parse(&text[..length], MADE).unwrap_err();
        assert!(matches!(error, TicketError::Cut), "{length} of {}: {error}", text.len());
    }
}

#[test]
fn no_altered_character_is_taken() {
    let text = ticket().reveal();
    for index in 0..text.len() {
        for other in ["A", "z", "_", "!", "\u{e4}"] {
            if text[index..].starts_with(other) {
                continue;
            }
            let altered = format!("{}{other}{}", &text[..index], &text[index + 1..]);
            let error = parse(&altered, MADE).unwrap_err().to_string();
            assert!(!error.contains(&text[30..60]), "it is not repeated: {error}");
        }
    }
    let error = parse(&format!("{}A", *text), MADE).unwrap_err();
    assert!(matches!(error, TicketError::Altered), "{error}");
    let middle = text.len() / 2;
    let other = if &text[middle..=middle] == "A" { "B" } else { "A" };
    let error = parse(&format!("{}{other}{}", &text[..middle], &text[middle + 1..]), MADE).unwrap_err();
    assert!(matches!(error, TicketError::Altered), "{error}");
}

#[test]
fn an_expired_ticket_says_since_when() {
    let text = ticket().reveal();
    assert!(parse(&text, MADE + 3599).is_ok());
    for (late, said) in [(0, "0 s"), (90, "90 s"), (600, "10 min"), (7_200, "2 h"), (864_000, "10 days")] {
        let error = parse(&text, MADE + 3600 + late).unwrap_err().to_string();
        assert_eq!(error, format!("the ticket expired {said} ago: ask for a new one"));
    }
}

#[test]
fn what_is_no_ticket_is_said_to_be_none() {
    let secret = Secret::generate().reveal();
    for text in ["", "hello", &secret, &"x".repeat(100_000)] {
        assert!(matches!(parse(text, MADE).unwrap_err(), TicketError::Foreign));
    }
    let later = ticket().reveal().replace("ticket-1:", "ticket-2:");
    assert!(matches!(parse(&later, MADE).unwrap_err(), TicketError::Version));
}

#[test]
fn content_with_a_right_sum_is_still_read_with_care() {
    let whole = |content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        format!("{PREFIX}{VERSION}{}", BASE64URL_NOPAD.encode(&[&length[..], content, &sum(content)].concat()))
    };
    let encode = |value: serde_json::Value| whole(&codec::encode(&value).unwrap());
    assert!(parse(&encode(serde_json::json!({"swarm": "a", "addresses": [], "later": [1]})), MADE).is_ok());
    let many = serde_json::json!({"swarm": "a", "addresses": vec!["/ip4/1.2.3.4/tcp/5"; 500]});
    assert_eq!(parse(&encode(many), MADE).unwrap().addresses.len(), MAX_ADDRESSES);
    for wrong in [
        whole(b""),
        whole(&[0x80; 1000]),
        encode(serde_json::json!({"addresses": []})),
        encode(serde_json::json!({"swarm": "a b", "addresses": []})),
        encode(serde_json::json!({"swarm": "a", "addresses": [], "secret": [1, 2, 3]})),
    ] {
        assert!(matches!(parse(&wrong, MADE).unwrap_err(), TicketError::Altered));
    }
}

#[test]
fn a_ticket_is_not_printed() {
    let ticket = ticket();
    assert_eq!(format!("{ticket:?}"), "Ticket { swarm: \"garden\", .. }");
}
