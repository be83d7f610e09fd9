//! MySQL's option files, as far as they hold a user and a password.
//!
//! Rules as in the MySQL manual, "Using Option Files": groups in brackets, `name=value`, the last one counts, values
//! may be quoted, `#` begins a comment outside of quotes, and `\n`, `\t`, `\r`, `\b`, `\s` and `\\` are escapes.

/// The value of an option in the group `[client]`; lines before any group count as well.
pub(super) fn client_option(text: &str, name: &str) -> Option<String> {
    let mut in_client = true;
    let mut found = None;
    for line in text.lines().map(str::trim) {
        if let Some(group) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            in_client = group.trim() == "client";
        } else if in_client
            && !line.starts_with(['#', ';'])
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == name
        {
            found = Some(read_value(value));
        }
    }
    found
}

fn read_value(value: &str) -> String {
    let value = without_comment(value).trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| {
        let inner = value.strip_prefix(quote)?;
        inner.strip_suffix(quote)
    });
    unescaped(quoted.unwrap_or(value))
}

fn without_comment(value: &str) -> &str {
    let (mut quote, mut escaped) = (None, false);
    for (at, letter) in value.char_indices() {
        match letter {
            '#' if quote.is_none() => return &value[..at],
            '"' | '\'' if !escaped => match quote {
                None => quote = Some(letter),
                Some(open) if open == letter => quote = None,
                Some(_) => {}
            },
            _ => {}
        }
        escaped = letter == '\\' && quote.is_some() && !escaped;
    }
    value
}

fn unescaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('r') => text.push('\r'),
            Some('b') => text.push('\u{8}'),
            Some('s') => text.push(' '),
            Some(same @ ('\\' | '"' | '\'')) => text.push(same),
            // What is no escape stays as it is.
            Some(other) => text.extend(['\\', other]),
            None => text.push('\\'),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_mysql_reads_them() {
        let cases = [
            ("password=secret", "secret"),
            ("[client]\npassword = secret # ours", "secret"),
            ("[client]\npassword=\"a#b\"", "a#b"),
            ("[client]\npassword='a#b \"c\"'", "a#b \"c\""),
            ("[client]\npassword=a\\\\b\\sc", "a\\b c"),
            ("[client]\npassword=a\\qb", "a\\qb"),
            ("[client]\npassword=\"a\\\"b\"", "a\"b"),
            ("[client]\npassword=ä=ß", "ä=ß"),
            ("[client]\npassword=old\npassword=new", "new"),
            ("[mysql]\npassword=theirs\n[client]\npassword=ours\n[mysqldump]\npassword=x", "ours"),
            ("[client]\n#password=x\n;password=y\npassword=", ""),
        ];
        for (text, value) in cases {
            assert_eq!(client_option(text, "password").as_deref(), Some(value), "{text}");
        }
        assert_eq!(client_option("[mysql]\nuser=x", "user"), None);
    }
}
