//! What `map` reads and writes, each of which has to be a file of its own.

use std::path::Path;

use crate::cli::{
    failure::Failure,
    same_file::{Used, check_apart},
    streams,
};

/// What `map` reads and writes, as named on the command line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files<'a> {
    pub(super) input: Option<&'a Path>,
    pub(super) output: Option<&'a Path>,
    pub(super) journal: Option<&'a Path>,
}

impl Files<'_> {
    /// Makes sure that no two of them are one, standard streams included.
    pub(super) fn check(self) -> Result<(), Failure> {
        let input = self.input.filter(|path| !streams::is_stdin(path));
        let output = self.output.filter(|path| !streams::is_stdout(path));
        let mut used = vec![
            input.map_or_else(Used::stdin, |path| Used::named("--in", path)),
            output.map_or_else(Used::stdout, |path| Used::named("--out", path)),
        ];
        used.extend(self.journal.map(|path| Used::named("--journal", path)));
        used.push(Used::stderr());
        check_apart(&used)
    }
}
