//! How the command lines of an operator's programs are filled in, without a shell ever reading a tablet's name or an
//! error's text as anything but text.

/// Where in a command line a placeholder stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoted {
    Not,
    Single,
    Double,
}

/// Replaces `{placeholder}`s by references to the environment, quoted as the place demands.
///
/// A shell expands a variable and does not read the result again, so whatever a host's name or an error's
/// text holds stays one word of text. Anything in braces that is no placeholder is left as it is.
pub fn command_line(template: &str, names: &[(&str, &str)]) -> String {
    let mut line = String::with_capacity(template.len());
    let mut quoted = Quoted::Not;
    let mut rest = template;
    while let Some(letter) = rest.chars().next() {
        if let Some((variable, length)) = placeholder(rest, names) {
            line.push_str(&match quoted {
                Quoted::Not => format!("\"${{{variable}}}\""),
                Quoted::Double => format!("${{{variable}}}"),
                Quoted::Single => format!("'\"${{{variable}}}\"'"),
            });
            rest = rest.get(length..).unwrap_or_default();
            continue;
        }
        let mut taken = letter.len_utf8();
        match (quoted, letter) {
            (Quoted::Not, '\'') => quoted = Quoted::Single,
            (Quoted::Not, '"') => quoted = Quoted::Double,
            (Quoted::Single, '\'') | (Quoted::Double, '"') => quoted = Quoted::Not,
            // What follows a backslash is itself.
            (Quoted::Not | Quoted::Double, '\\') => {
                taken += rest.chars().nth(1).map_or(0, char::len_utf8);
            }
            (Quoted::Not | Quoted::Single | Quoted::Double, _) => {}
        }
        line.push_str(rest.get(..taken).unwrap_or_default());
        rest = rest.get(taken..).unwrap_or_default();
    }
    line
}

/// The variable of the placeholder at the beginning of `text`, and the placeholder's length.
fn placeholder<'a>(text: &str, names: &[(&str, &'a str)]) -> Option<(&'a str, usize)> {
    let inside = text.strip_prefix('{')?;
    let (name, _) = inside.split_once('}')?;
    let (_, variable) = names.iter().find(|(known, _)| *known == name)?;
    Some((variable, name.len() + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[(&str, &str)] = &[("failedHost", "ORC_FAILED_HOST")];

    #[test]
    fn placeholders_become_quoted_references_wherever_they_stand() {
        let table = [
            ("notify {failedHost}", r#"notify "${ORC_FAILED_HOST}""#),
            (r#"notify "host {failedHost}""#, r#"notify "host ${ORC_FAILED_HOST}""#),
            ("notify 'host {failedHost}'", r#"notify 'host '"${ORC_FAILED_HOST}"''"#),
            (r"notify \'{failedHost}", r#"notify \'"${ORC_FAILED_HOST}""#),
            (r#"notify "\"{failedHost}\"""#, r#"notify "\"${ORC_FAILED_HOST}\"""#),
            ("awk '{print $1}' {unknown}", "awk '{print $1}' {unknown}"),
            ("{failedHost", "{failedHost"),
            ("é{failedHost}\\", r#"é"${ORC_FAILED_HOST}"\"#),
        ];
        for (template, line) in table {
            assert_eq!(command_line(template, NAMES), line, "{template}");
        }
    }
}
