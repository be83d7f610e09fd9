//! Text in statements that take no parameters, such as `CHANGE REPLICATION SOURCE`.

/// Said first in every session, so that a statement means the same on every server: a backslash escapes, what does not
/// fit is refused, the clock is shown without a time zone whose hours are changed, all rows are answered, and no
/// statement is cut short but by its own deadline. (MySQL leaves out what begins with `/*M!`, MariaDB what is for MySQL
/// 5.7.)
pub(crate) const PLAIN_SESSION: &str = "SET SESSION sql_mode = 'STRICT_TRANS_TABLES', SESSION time_zone = '+00:00', \
     SESSION autocommit = ON, SESSION sql_select_limit = 18446744073709551615, SESSION sql_big_selects = ON, \
     SESSION sql_safe_updates = OFF, SESSION lock_wait_timeout = 31536000 /*!50708 , SESSION max_execution_time = 0 */ \
     /*M! , SESSION max_statement_time = 0 */";

/// Said beside it: a server may begin every session with `transaction_read_only`.
pub(crate) const WRITING_SESSION: &str = "SET SESSION TRANSACTION READ WRITE";

/// A string literal. Whatever the text, it never ends early, under any sql_mode; and it is the text, in a session that
/// began with [`PLAIN_SESSION`] or where no backslash is in it. (These statements take no hexadecimal literals.)
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a literal as a server does.
    fn read(literal: &str, backslash_escapes: bool) -> Option<String> {
        let inner = literal.strip_prefix('\'')?;
        let (mut letters, mut text) = (inner.chars(), String::new());
        while let Some(letter) = letters.next() {
            match letter {
                '\\' if backslash_escapes => text.push(letters.next()?),
                '\'' => match letters.next() {
                    Some('\'') => text.push('\''),
                    Some(_) => return None,
                    None => return Some(text),
                },
                other => text.push(other),
            }
        }
        None
    }

    #[test]
    fn a_literal_is_its_text_and_never_ends_early() {
        for text in
            ["", "plain", "it's", "''", "\\", "\\'", "a\\' OR 1=1 -- ", "ends\\", "\"", "ünï\n"]
        {
            let literal = quoted(text);
            assert_eq!(read(&literal, true).as_deref(), Some(text), "{literal}");
            let under_no_backslash_escapes = read(&literal, false).unwrap();
            assert!(text.contains('\\') || under_no_backslash_escapes == text, "{literal}");
        }
    }
}
