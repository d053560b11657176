//! Code that travels: what it costs beside calls of what is there already, and what it costs those calls.

mod figure;
#[cfg(feature = "wasm")]
mod guests;
#[cfg(feature = "wasm")]
mod timings;

pub(crate) use figure::Figure;
#[cfg(feature = "wasm")]
pub(crate) use guests::{measure, serve};

#[cfg(not(feature = "wasm"))]
pub(crate) use without::{measure, serve};

#[cfg(not(feature = "wasm"))]
mod without {
    use std::path::Path;

    use crate::{
        Error,
        code::Figure,
        options::Options,
        results::{Metric, Results},
    };

    const NEEDS: &str = "needs the feature `wasm`";

    pub(crate) fn measure(_: &Options, results: &mut Results) -> Result<(), Error> {
        results.skipped.extend(Figure::PROMISED.map(|figure| (Metric::Code(figure), NEEDS.to_owned())));
        Ok(())
    }

    pub(crate) async fn serve(_: &str, _: &Path) -> Result<(), Error> {
        Err(NEEDS.into())
    }
}
