//! What a record must not keep: addresses behind players, tokens, e-mail. Names of players stay.

/// A line without secrets, at most `max` bytes.
pub(crate) fn redact(line: &str, max: usize) -> String {
    let cut = &line[..line.floor_char_boundary(max.min(line.len()))];
    let mut out = String::with_capacity(cut.len());
    let mut secret_next = false;
    for (index, word) in cut.split(' ').enumerate() {
        if index > 0 {
            out.push(' ');
        }
        if std::mem::take(&mut secret_next) {
            out.push_str("********");
            continue;
        }
        let lower = word.to_ascii_lowercase();
        secret_next = SECRET_FLAGS.iter().any(|flag| lower == *flag || lower.ends_with(&format!("{flag}:")));
        out.push_str(&word_without(word, &lower));
    }
    out
}

const SECRET_FLAGS: [&str; 6] =
    ["--accesstoken", "--session", "bearer", "--token", "--password", "authorization"];
const SECRET_KEYS: [&str; 8] =
    ["token=", "password=", "passwd=", "secret=", "apikey=", "api_key=", "accesstoken=", "rcon.password="];

fn word_without(word: &str, lower: &str) -> String {
    if let Some(key) = SECRET_KEYS.iter().find(|key| lower.contains(**key)) {
        let at = lower.find(*key).unwrap_or(0) + key.len();
        return format!("{}********", &word[..at]);
    }
    if lower.contains("/api/webhooks/") {
        return "********".to_owned();
    }
    if let Some((user, host)) = word.split_once('@')
        && host.contains('.')
        && !user.contains(['/', '(', '[', '{', '$'])
        && user.chars().next_back().is_some_and(char::is_alphanumeric)
        && host.chars().all(|c| c.is_ascii_alphanumeric() || ".->),;".contains(c))
        && host
            .rsplit('.')
            .next()
            .is_some_and(|end| end.len() >= 2 && end.chars().next().is_some_and(|c| c.is_ascii_alphabetic()))
    {
        return "********".to_owned();
    }
    addresses(word)
}

/// `/203.0.113.7:51234` becomes `/*.*.*.*:51234`; versions and loopback stay.
fn addresses(word: &str) -> String {
    let bytes = word.as_bytes();
    let mut out = String::with_capacity(word.len());
    let mut at = 0;
    while at < bytes.len() {
        let starts =
            bytes[at].is_ascii_digit() && (at == 0 || matches!(bytes[at - 1], b'/' | b'[' | b'(' | b'='));
        if starts && let Some(length) = quad(&word[at..]) {
            let found = &word[at..at + length];
            if found.starts_with("127.") || found == "0.0.0.0" {
                out.push_str(found);
            } else {
                out.push_str("*.*.*.*");
            }
            at += length;
        } else {
            let next = word[at..].chars().next().map_or(1, char::len_utf8);
            out.push_str(&word[at..at + next]);
            at += next;
        }
    }
    out
}

/// Length of an address at the beginning; a version has no port and no bracket behind it, but
/// four numbers up to 255 are taken for an address all the same.
fn quad(text: &str) -> Option<usize> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let parts: Vec<&str> = text[..end].split('.').collect();
    let address = parts.len() == 4 && parts.iter().all(|part| part.parse::<u8>().is_ok());
    address.then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_names_stay() {
        for (line, kept) in [
            ("Steve[/203.0.113.7:51234] logged in", "Steve[/*.*.*.*:51234] logged in"),
            ("--accessToken eyJhbGciOi --version 1.20.1", "--accessToken ******** --version 1.20.1"),
            ("mail to bob@example.org now", "mail to ******** now"),
            ("rcon.password=hunter2", "rcon.password=********"),
            ("url https://discord.com/api/webhooks/1/abc", "url ********"),
            ("on 127.0.0.1:25565 and /0.0.0.0:1", "on 127.0.0.1:25565 and /0.0.0.0:1"),
            ("forge@[14.23.5.2768,) and a@b", "forge@[14.23.5.2768,) and a@b"),
            ("TRANSFORMER/create@0.5.1/com.x.Y", "TRANSFORMER/create@0.5.1/com.x.Y"),
        ] {
            assert_eq!(redact(line, 1000), kept);
        }
        assert_eq!(redact("\u{20ac}\u{20ac}", 4), "\u{20ac}");
    }
}
