//! A command as the user writes it, split into words as a shell does, without a shell.

use std::path::{Path, PathBuf};

use tokio::process::Command;

/// A program with its arguments, found on this machine.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CommandLine {
    /// As it was written.
    text: String,
    program: PathBuf,
    arguments: Vec<String>,
    /// Where it is started; where the node was, if it is not said.
    folder: Option<PathBuf>,
}

/// Words that a shell would act on.
const SHELL_WORDS: [&str; 4] = ["|", "||", "&", "&&"];

/// What words begin with that are files for a shell to read or write, and no arguments.
const REDIRECTIONS: [&str; 5] = ["<", ">", "1>", "2>", "&>"];

/// Letters that programs do not have in their names: a shell would act on them.
const SHELL_LETTERS: &str = "|&;<>()$`\"'*?!=~{}";

impl CommandLine {
    /// Splits `text` and looks the program up; relative paths are meant from `folder`. The error says what is wrong with
    /// the command.
    pub(super) fn parse(text: &str, folder: Option<&Path>) -> Result<Self, String> {
        let words = shlex::split(text).ok_or("a quote is not closed, or it ends with a backslash")?;
        let mut words = words.into_iter();
        let program = words.next().filter(|program| !program.is_empty()).ok_or("it is empty")?;
        if let Some(word) = shell_word(text) {
            return Err(format!("`{word}` means something to a shell, and there is none here: write sh -c '...'"));
        }
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        let program = find(&program, folder)?;
        let arguments = words.collect();
        Ok(Self { text: text.to_owned(), program, arguments, folder: folder.map(Path::to_owned) })
    }

    /// As it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn to_command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command
    }
}

/// The first word behind the program that a shell would act on, with `…` for what is quoted in it.
fn shell_word(text: &str) -> Option<String> {
    let bare = unquoted(text);
    let mut words = bare.split_ascii_whitespace().take_while(|word| !word.starts_with('#')).skip(1);
    words.find(|word| is_for_a_shell(word)).map(str::to_owned)
}

fn is_for_a_shell(word: &str) -> bool {
    let redirects = || REDIRECTIONS.iter().any(|beginning| word.starts_with(*beginning));
    SHELL_WORDS.contains(&word) || word.ends_with(';') || redirects()
}

/// `text` with `…` for each part that is quoted: whoever quotes something means it as it is.
fn unquoted(text: &str) -> String {
    let (mut bare, mut quote, mut letters) = (String::new(), None, text.chars());
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, '\'' | '"') => {
                bare.push('…');
                quote = Some(letter);
            }
            (None, '\\') => {
                bare.push('…');
                letters.next();
            }
            (None, _) => bare.push(letter),
            (Some('"'), '\\') => _ = letters.next(),
            (Some(open), _) if open == letter => quote = None,
            (Some(_), _) => {}
        }
    }
    bare
}

/// Looks a program up as a shell does: a name in `PATH`, anything with a separator as a path.
fn find(program: &str, folder: Option<&Path>) -> Result<PathBuf, String> {
    let path = Path::new(program);
    if path.components().count() > 1 || path.is_absolute() {
        let path = folder.map_or_else(|| path.to_owned(), |folder| folder.join(path));
        // From wherever the child is started then.
        let path = std::path::absolute(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
        return match std::fs::metadata(&path) {
            Ok(file) if !is_program(&file) => Err(format!("`{program}` cannot be executed")),
            Ok(_) => Ok(path),
            Err(error) => Err(format!("`{program}`: {error}")),
        };
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let endings = if cfg!(windows) { &["", ".exe", ".cmd", ".bat"][..] } else { &[""] };
    std::env::split_paths(&folders)
        .flat_map(|folder| endings.iter().map(move |ending| folder.join(format!("{program}{ending}"))))
        .find(|path| std::fs::metadata(path).is_ok_and(|file| is_program(&file)))
        .ok_or_else(|| match program.contains(|letter: char| SHELL_LETTERS.contains(letter)) {
            true => format!("no program `{program}` is in PATH, and there is no shell here: write sh -c '...'"),
            false => format!("no program `{program}` is in PATH"),
        })
}

#[cfg(unix)]
fn is_program(file: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.is_file() && file.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_program(file: &std::fs::Metadata) -> bool {
    file.is_file()
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_does() {
        let command = CommandLine::parse("sh -c 'echo \"a b\"' x\\ y \"\"", None).unwrap();
        assert_eq!(command.arguments, ["-c", "echo \"a b\"", "x y", ""]);
        assert!(command.program.is_absolute() && command.program.ends_with("sh"), "{command:?}");
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        let wrong = |text| CommandLine::parse(text, None).unwrap_err();
        assert!(wrong("sh -c 'echo").contains("quote"));
        assert_eq!((wrong(""), wrong("  ")), ("it is empty".into(), "it is empty".into()));
        assert_eq!(wrong("no-such-program-anywhere 1"), "no program `no-such-program-anywhere` is in PATH");
        let shell = |word: &str| format!("`{word}` means something to a shell, and there is none here: write sh -c");
        for (text, word) in [
            ("cat | sort", "|"),
            ("true && false", "&&"),
            ("false || true", "||"),
            ("sh -c x > out", ">"),
            ("sh 2>&1", "2>&1"),
            ("sh >out", ">out"),
            ("sh >>out", ">>out"),
            ("sh <in", "<in"),
            ("sh a 1>out 2>err", "1>out"),
            ("sh 2>/dev/null", "2>/dev/null"),
            ("sh &>out", "&>out"),
            ("sh >'my out'", ">…"),
            ("sh -x; true", "-x;"),
            ("sh a ; true", ";"),
        ] {
            assert!(wrong(text).starts_with(&shell(word)), "{text}: {}", wrong(text));
        }
        for text in ["cat|sort", "A=1 cat", "(cat)", "$HOME"] {
            assert!(wrong(text).contains("there is no shell here: write sh -c"), "{text}");
        }
        assert!(wrong("./no/such/program").starts_with("`./no/such/program`: "));
        assert_eq!(wrong("/etc/passwd"), "`/etc/passwd` cannot be executed");
    }

    #[test]
    fn what_is_quoted_is_an_argument_whatever_it_means_to_a_shell() {
        let text = r#"sh -c 'true > out;' '|' \; "<a>" "a\";" 2\> a\ \> $HOME # > out"#;
        let command = CommandLine::parse(text, None).unwrap();
        assert_eq!(command.arguments, ["-c", "true > out;", "|", ";", "<a>", "a\";", "2>", "a >", "$HOME"]);
    }

    #[test]
    fn a_path_is_meant_from_the_folder() {
        let command = CommandLine::parse("bin/sh", Some(Path::new("/"))).unwrap();
        assert_eq!((command.program, command.folder), ("/bin/sh".into(), Some("/".into())));
    }
}
