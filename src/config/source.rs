//! A configuration as Go reads it, in whose programs such files were written: keys in any case, the last of several
//! counts, and `null` changes nothing.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::keys;

/// Where a configuration comes from, and its text.
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: Cow<'a, str>,
    /// The text stands in the file like this: its lines can be told.
    as_it_stands: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        match in_order(text) {
            Some(text) => Self { file, text: text.into(), as_it_stands: false },
            None => Self { file, text: text.into(), as_it_stands: true },
        }
    }

    /// The place of an error.
    pub(super) fn place(&self, error: &serde_json::Error) -> String {
        match self.as_it_stands {
            true => format!("{}, line {}", self.file, error.line()),
            false => self.file.to_owned(),
        }
    }
}

/// The keys and values of an object as they stand, those that come again as well.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// The same with each key once and as it is spelt here; none where that is so already, or where it is no object.
fn in_order(text: &str) -> Option<String> {
    let Pairs(pairs) = serde_json::from_str(text).ok()?;
    let mut object = Map::new();
    let mut same = true;
    for (key, value) in pairs {
        let name = keys::spelt(&key).unwrap_or(&key);
        same &= name == key && !value.is_null();
        if !value.is_null() {
            same &= object.insert(name.to_owned(), value).is_none();
        }
    }
    (!same).then(|| Value::Object(object).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_go_reads_them() {
        for (text, read) in [
            (r#"{"Debug": true}"#, None),
            (r#"{"debug": true}"#, Some(r#"{"Debug":true}"#)),
            (r#"{"Debug": true, "DEBUG": false}"#, Some(r#"{"Debug":false}"#)),
            (r#"{"Debug": true, "Debug": null}"#, Some(r#"{"Debug":true}"#)),
            (r#"{"PreFailoverProcesses": null}"#, Some("{}")),
            (r#"{"nobodyKnows": 1}"#, None),
            (r#"{"PromotionRules": {"a": null}}"#, None),
            ("[1]", None),
            ("{", None),
        ] {
            assert_eq!(in_order(text).as_deref(), read, "{text}");
        }
    }
}
