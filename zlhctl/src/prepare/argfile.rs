//! Java's argument files: words between white space, in quotes if they have some, comments
//! from `#` to the end of the line.

/// The words of an argument file, as the `java` command reads them.
pub(super) fn words(text: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match (quote, char) {
            (Some(open), _) if char == open => quote = None,
            (Some(_), '\\') => match chars.next() {
                // The line goes on, without what the next one begins with.
                Some('\n') => while chars.next_if(|char| matches!(char, ' ' | '\t')).is_some() {},
                Some('n') => word.get_or_insert_default().push('\n'),
                Some('t') => word.get_or_insert_default().push('\t'),
                Some(other) => word.get_or_insert_default().push(other),
                None => {}
            },
            (Some(_), _) => word.get_or_insert_default().push(char),
            (None, '"' | '\'') => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => while chars.next_if(|char| *char != '\n').is_some() {},
            (None, _) if char.is_ascii_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_java_reads_them() {
        assert_eq!(words("# -Xmx4G\n  # more\n"), Vec::<String>::new());
        assert_eq!(
            words("-p a/b.jar:c.jar\r\n--add-opens x/y=z # no\n\"-Da=b c\" '' -De='f g'h#i"),
            ["-p", "a/b.jar:c.jar", "--add-opens", "x/y=z", "-Da=b c", "", "-De=f gh#i"]
        );
        assert_eq!(words("\"a\\\"b\\\\c\" \"d\\\n   e\" a\\b"), ["a\"b\\c", "de", "a\\b"]);
    }
}
