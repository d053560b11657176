//! Numbers hop between nodes until they are 1: half of an even one, three times an odd one and 1 more.
//!
//! `steps` goes all the way at once and says how long it was and how high it went. A number that the application is told
//! takes one step and goes on to `collatz`, wherever that is hosted; one that has come to 1 is told to `results`.

mod number;

use std::convert::Infallible;

use minicbor::{Decoder, Encoder, encode::Error};
use multinodes::guest::host;
use number::Number;

wit_bindgen::generate!({ path: "../../../node/wit", world: "application" });

/// What errors become on their way out.
type Outcome<T> = Result<T, String>;

struct Collatz;

export!(Collatz);

impl Guest for Collatz {
    fn start(_: Vec<u8>) -> Outcome<()> {
        Ok(())
    }

    fn handle(action: String, args: Vec<u8>) -> Outcome<Vec<u8>> {
        match action.as_str() {
            "steps" => steps(&args),
            _ => Err(format!("no such action as `{action}`: there is `steps`")),
        }
    }

    fn process(message: Vec<u8>) -> Outcome<()> {
        let mut number = Number::decode(&message).map_err(|_| "a number on its way is expected")?;
        number.visit(node_name());
        let next = if number.value == 1 {
            "results"
        } else {
            number.value = step(number.value).ok_or_else(|| too_high(number.start))?;
            number.steps += 1;
            "collatz"
        };
        host::tell(next, &number.encode())
    }
}

/// Takes `[n]` and gives `{"steps": .., "highest": ..}`.
fn steps(args: &[u8]) -> Outcome<Vec<u8>> {
    let start = argument(args).map_err(|_| "one whole number is expected")?;
    if start == 0 {
        return Err("0 never comes to 1".to_owned());
    }
    let (mut value, mut steps, mut highest) = (start, 0_u64, start);
    while value != 1 {
        value = step(value).ok_or_else(|| too_high(start))?;
        (steps, highest) = (steps + 1, highest.max(value));
    }
    Ok(written(|result| result.map(2)?.str("steps")?.u64(steps)?.str("highest")?.u64(highest)?.ok()))
}

fn argument(args: &[u8]) -> Result<u64, minicbor::decode::Error> {
    let mut args = Decoder::new(args);
    match args.array()? {
        Some(1) => args.u64(),
        _ => Err(minicbor::decode::Error::message("these are not as many")),
    }
}

/// The next value; `None` if it has more than 64 bits.
fn step(value: u64) -> Option<u64> {
    if value.is_multiple_of(2) { Some(value / 2) } else { value.checked_mul(3)?.checked_add(1) }
}

fn too_high(start: u64) -> String {
    format!("{start} climbs higher than 64 bits can count")
}

/// The name of the node that runs this, as far as it says so.
fn node_name() -> String {
    number::text_field(&host::describe_node(), "name").unwrap_or_default()
}

/// Writes CBOR into memory, which never fails.
fn written(write: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Result<(), Error<Infallible>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Ok(()) = write(&mut Encoder::new(&mut bytes)) else { unreachable!() };
    bytes
}
