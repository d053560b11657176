//! Adds up whole numbers: the smallest guest in Rust that takes arguments and gives a result.

use minicbor::Decoder;

wit_bindgen::generate!({ path: "../../../node/wit", world: "task" });

struct Sum;

export!(Sum);

impl Guest for Sum {
    fn run(args: Vec<u8>) -> Result<Vec<u8>, String> {
        let numbers = numbers(&args).map_err(|error| format!("whole numbers are expected: {error}"))?;
        let sum =
            numbers.iter().try_fold(0_i64, |sum, number| sum.checked_add(*number)).ok_or("the sum is too large")?;
        minicbor::to_vec(sum).map_err(|error| error.to_string())
    }
}

/// The arguments of an action are one array.
fn numbers(args: &[u8]) -> Result<Vec<i64>, minicbor::decode::Error> {
    Decoder::new(args).array_iter()?.collect()
}
