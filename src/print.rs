//! What commands print.

use std::io::Write;

/// Prints a line.
pub(crate) fn say(text: &str) {
    // A closed pipe is the reader's choice.
    let _ = writeln!(std::io::stdout(), "{text}");
}
