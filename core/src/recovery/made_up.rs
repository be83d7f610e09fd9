//! Errant transactions that are made up for: the primary commits empty ones under the same GTIDs.

use crate::gtid::GtidSet;

/// More are not made: the histories have little in common.
pub const MOST: u64 = 1000;

/// Why they are not made up for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: only MySQL's GTIDs, and at most {MOST} of them, are made up for", .0.shown())]
pub struct NotMadeUp(Box<GtidSet>);

/// Under which GTIDs the primary commits empty transactions.
pub fn empty_transactions(errant: &GtidSet) -> Result<Vec<String>, NotMadeUp> {
    let gtids = errant.each(MOST + 1);
    match gtids.len() as u64 {
        1..=MOST => Ok(gtids),
        _ => Err(NotMadeUp(Box::new(errant.clone()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handful_of_mysqls_transactions_is_made_up_for() {
        let uuid = "00000001-0000-0000-0000-000000000000";
        let set = |through: u64| GtidSet::parse_mysql(&format!("{uuid}:1-{through}")).unwrap();
        let made = empty_transactions(&set(2)).unwrap();
        assert_eq!(made, [format!("{uuid}:1"), format!("{uuid}:2")]);
        assert_eq!(empty_transactions(&set(MOST)).unwrap().len(), 1000);
        assert!(empty_transactions(&set(MOST + 1)).is_err());
        assert!(empty_transactions(&GtidSet::empty_mysql()).is_err());
        assert!(empty_transactions(&GtidSet::parse_mariadb("0-1-5").unwrap()).is_err());
    }
}
