//! The rendezvous folder, by which nodes of one host find each other.

use multinodes::{
    diagnosis::{FolderState, Inspection},
    quoted_path,
};

use super::report::{Check, Finding};

/// The most broken notes that are named.
const SHOWN: usize = 8;

/// Whether the folder is where the system has one for running programs.
pub(super) fn elsewhere(fault: Option<String>) -> Option<Finding> {
    let remedy =
        "unset XDG_RUNTIME_DIR for all nodes of this user, or name one folder for them with `--runtime-dir DIR`";
    Some(Finding::warning(Check::Rendezvous, "folder", fault?, remedy))
}

/// The folder itself, and what in it is no note. The notes are judged by who answers at their addresses.
pub(super) fn state(inspection: Option<&Inspection>) -> Vec<Finding> {
    let Some(inspection) = inspection else {
        return vec![Finding::ok(Check::Rendezvous, "folder", "switched off: not looked at")];
    };
    let folder = inspection.folder.display().to_string();
    let elsewhere = "or name another folder with `--runtime-dir DIR`";
    let failure = |text: String, remedy: String| {
        let text = format!("{text}; nodes of this host do not find each other by it");
        Finding::failure(Check::Rendezvous, &folder, text, remedy)
    };
    let finding = match &inspection.state {
        FolderState::Absent => {
            Finding::ok(Check::Rendezvous, &folder, "not there: no node of this swarm has run on this host")
        }
        FolderState::NoFolder => {
            failure("it is a file or a link, not a folder".to_owned(), format!("remove it, {elsewhere}"))
        }
        FolderState::Foreign { folder, owner } => failure(
            format!("`{}` belongs to the user with the id {owner}", folder.display()),
            format!("have its owner remove it, {elsewhere}"),
        ),
        FolderState::Writable { folder, mode } => failure(
            format!("`{}` can be written by others (mode {mode:04o})", folder.display()),
            format!("chmod 700 {}", quoted_path(folder)),
        ),
        FolderState::Failing(error) => {
            failure(format!("it cannot be used: {error}"), format!("mend what the system says, {elsewhere}"))
        }
        FolderState::Readable { mode } => Finding::warning(
            Check::Rendezvous,
            &folder,
            format!("others can see who is there (mode {mode:04o})"),
            format!("chmod 700 {}", quoted_path(&inspection.folder)),
        ),
        FolderState::Sound => {
            let count = inspection.notes.len();
            Finding::ok(Check::Rendezvous, &folder, format!("private and writable, notes of this swarm: {count}"))
        }
    };
    [finding].into_iter().chain(unreadable(inspection)).collect()
}

fn unreadable(inspection: &Inspection) -> impl Iterator<Item = Finding> + '_ {
    let crowded = inspection.is_crowded.then(|| {
        let text = "more files than nodes read";
        Finding::warning(Check::Rendezvous, inspection.folder.display().to_string(), text, "remove what is old there")
    });
    let broken = inspection.unreadable.iter().take(SHOWN).map(|path| {
        let remedy = format!("rm {}", quoted_path(path));
        Finding::warning(
            Check::Rendezvous,
            path.display().to_string(),
            "no note that can be read: it is ignored",
            remedy,
        )
    });
    crowded.into_iter().chain(broken)
}
