//! Records come from outside: whatever is in them, they are read or refused, and written back unharmed.

use proptest::prelude::*;

use super::records::{self, Record};
use super::translate;

/// A record as Vitess writes it, in hexadecimal.
const TABLET: &str = "0a090a057a6f6e653110641202683122090a046772706310e47d22070a02767410fc752a08636f6d6d65726365\
    320130400162026831 68cc8501720808a09c90cd0610058001ff01";

fn tablet() -> Vec<u8> {
    let digits: String = TABLET.chars().filter(char::is_ascii_hexdigit).collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// Reads bytes as every kind of record; what can be read is written, read again and is the same.
fn read(bytes: &[u8]) {
    if let Ok(record) = Record::<records::Tablet>::decode(bytes) {
        let again = Record::<records::Tablet>::decode(&record.encode()).unwrap();
        assert_eq!(again.message, record.message);
        let _ = translate::tablet(&"zone1-100".parse().unwrap(), &record.message);
    }
    if let Ok(record) = Record::<records::Shard>::decode(bytes) {
        let again = Record::<records::Shard>::decode(&record.encode()).unwrap();
        assert_eq!(again.message, record.message);
        let _ = translate::shard(&record.message);
    }
    let _ = Record::<records::Keyspace>::decode(bytes);
    let _ = Record::<records::ShardReplication>::decode(bytes);
    let _ = Record::<records::CellInfo>::decode(bytes);
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read(&bytes);
    }

    #[test]
    fn damaged_records(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = tablet();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read(&bytes);
        read(&bytes[..cut.index(bytes.len())]);
    }
}
