//! Words of commands that are shown to people: what is pasted means what was meant.

use std::borrow::Cow;

/// A word as a shell of Unix reads it.
#[must_use]
pub fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./,:=@%+".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

/// The name of a file as a shell reads it, not taken for a flag either.
#[must_use]
pub fn quoted_path(path: &std::path::Path) -> String {
    let text = path.to_string_lossy();
    if text.starts_with('-') { quoted(&format!("./{text}")).into_owned() } else { quoted(&text).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_the_word_that_was_meant() {
        for (word, shown) in [
            ("/ip4/10.0.0.1/tcp/4001", "/ip4/10.0.0.1/tcp/4001"),
            ("my key", "'my key'"),
            ("it's $HOME", r"'it'\''s $HOME'"),
            ("~", "'~'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), shown);
        }
        assert_eq!(quoted_path("-rf".as_ref()), "./-rf");
        assert_eq!(quoted_path("a b".as_ref()), "'a b'");
    }
}
