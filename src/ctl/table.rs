//! Tables as they are shown on a terminal, or piped into another program: columns, and no frames.

use comfy_table::{Row, Table, presets};
use serde_json::Value;

use super::answer::{list, text};
use crate::print::say;

/// Prints rows below their headings.
pub(super) fn print(headings: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headings.to_vec());
    for row in rows {
        table.add_row(Row::from(row));
    }
    // Two spaces between columns, none at the ends.
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if at + 1 == headings.len() { 0 } else { 2 }));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    say(&lines.join("\n"));
}

/// How a list of objects is shown: headings with the fields below them, and what is said of an empty one.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub(super) columns: &'static [(&'static str, &'static str)],
    pub(super) nothing: &'static str,
}

/// Prints a list of objects.
pub(super) fn print_list(answer: &Value, Columns { columns, nothing }: Columns) {
    let row = |one: &Value| columns.iter().map(|(_, field)| shown(one, field)).collect();
    let rows: Vec<Vec<String>> = list(Some(answer)).iter().map(row).collect();
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    match rows.is_empty() {
        true => say(nothing),
        false => print(&headings, rows),
    }
}

/// One line, and nothing that a terminal takes for a command.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn shown(one: &Value, field: &str) -> String {
    match one.get(field) {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(_)) => plain(text(one, field)),
        Some(other) => other.to_string(),
    }
}
