//! Commands that are shown to people. Whoever pastes one into the same shell runs this very program in the same swarm: it
//! may not be in the `PATH`, and what was typed once has to be typed again.

use std::path::Path;

use multinodes::quoted;

/// What the program is called on hosts where it is installed.
pub(crate) const INSTALLED: &str = "multinodes";

/// A command for this program, as it was started, with these words.
pub(crate) fn command<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    line(&program(), words)
}

/// A command for another host.
pub(crate) fn elsewhere<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    line(INSTALLED, words)
}

/// The words of a flag with its value: one that looks like a flag itself is not taken for one.
pub(crate) fn flag(name: &str, value: &str) -> Vec<String> {
    if value.starts_with('-') && value != "-" {
        return vec![format!("--{name}={value}")];
    }
    vec![format!("--{name}"), value.to_owned()]
}

fn line<'a>(program: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().fold(quoted(program).into_owned(), |line, word| format!("{line} {}", quoted(word)))
}

/// What a shell has to be told to start this program again.
fn program() -> String {
    let started_as = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&started_as);
    let is_path = name.components().count() > 1 || name.is_absolute();
    let is_found = || {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        !name.as_os_str().is_empty() && std::env::split_paths(&folders).any(|folder| folder.join(name).is_file())
    };
    if is_path || is_found() {
        return name.to_string_lossy().into_owned();
    }
    std::env::current_exe().map_or_else(|_| INSTALLED.to_owned(), |path| path.to_string_lossy().into_owned())
}
