//! Transactions of simulated servers: small numbers, turned into core's GTID sets only where they are asked.

use vtorc_core::gtid::{GtidSet, MySqlGtidSet};

/// A transaction: the server on which it began, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Txn {
    /// The server.
    pub source: u8,
    /// Counts from 1.
    pub number: u32,
}

/// A set of transactions, as sorted intervals for each source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnSet {
    sources: Vec<Vec<(u32, u32)>>,
}

impl TxnSet {
    /// Adds one.
    pub fn insert(&mut self, txn: Txn) {
        let at = usize::from(txn.source);
        if self.sources.len() <= at {
            self.sources.resize(at + 1, Vec::new());
        }
        let Some(intervals) = self.sources.get_mut(at) else { return };
        let number = txn.number;
        let after = intervals.partition_point(|(start, _)| *start <= number);
        if let Some(before) = after.checked_sub(1).and_then(|at| intervals.get_mut(at)) {
            if number <= before.1 {
                return;
            }
            if number == before.1 + 1 {
                before.1 = number;
                let next = intervals.get(after).copied();
                if let Some((_, end)) = next.filter(|(start, _)| *start == number + 1) {
                    intervals.remove(after);
                    if let Some(before) = intervals.get_mut(after - 1) {
                        before.1 = end;
                    }
                }
                return;
            }
        }
        match intervals.get_mut(after) {
            Some(next) if next.0 == number + 1 => next.0 = number,
            Some(_) | None => intervals.insert(after, (number, number)),
        }
    }

    /// Removes some.
    pub fn remove_all(&mut self, gone: &[Txn]) {
        let left = self.iter().filter(|txn| !gone.contains(txn));
        *self = left.collect();
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Txn> + '_ {
        self.sources.iter().enumerate().flat_map(|(source, intervals)| {
            let source = u8::try_from(source).unwrap_or(u8::MAX);
            let numbers = intervals.iter().flat_map(|(from, to)| *from..=*to);
            numbers.map(move |number| Txn { source, number })
        })
    }

    /// Tells whether it is in.
    pub fn contains(&self, txn: Txn) -> bool {
        let Some(intervals) = self.sources.get(usize::from(txn.source)) else { return false };
        let after = intervals.partition_point(|(start, _)| *start <= txn.number);
        let before = after.checked_sub(1).and_then(|at| intervals.get(at));
        before.is_some_and(|(_, end)| txn.number <= *end)
    }

    /// The next number of a server that has this set.
    pub fn next_of(&self, source: u8) -> u32 {
        let intervals = self.sources.get(usize::from(source));
        intervals.and_then(|intervals| intervals.last()).map_or(1, |(_, end)| end + 1)
    }

    /// The highest number of any server.
    pub fn highest(&self) -> u32 {
        self.last_of_each().map(|txn| txn.number).max().unwrap_or(0)
    }

    /// The last transaction of each server.
    pub fn last_of_each(&self) -> impl Iterator<Item = Txn> + '_ {
        self.sources.iter().enumerate().filter_map(|(source, intervals)| {
            let source = u8::try_from(source).unwrap_or(u8::MAX);
            let (_, number) = *intervals.last()?;
            Some(Txn { source, number })
        })
    }

    /// The set as core knows it.
    pub fn to_gtid_set(&self) -> GtidSet {
        let each = self.sources.iter().enumerate().flat_map(|(source, intervals)| {
            let uuid = uuid(u8::try_from(source).unwrap_or(u8::MAX));
            intervals.iter().map(move |(from, to)| (uuid.clone(), u64::from(*from), u64::from(*to)))
        });
        GtidSet::MySql(MySqlGtidSet::from_intervals(each))
    }
}

impl FromIterator<Txn> for TxnSet {
    fn from_iter<I: IntoIterator<Item = Txn>>(all: I) -> Self {
        let mut set = Self::default();
        all.into_iter().for_each(|txn| set.insert(txn));
        set
    }
}

/// A server's `server_uuid`.
pub fn uuid(server: u8) -> String {
    format!("{server:08x}-0000-0000-0000-000000000000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_any_order_become_intervals() {
        let txn = |number| Txn { source: 1, number };
        let set: TxnSet = [3, 1, 5, 2, 7, 6, 3].into_iter().map(txn).collect();
        assert_eq!(set.sources.last().unwrap(), &[(1, 3), (5, 7)]);
        assert!(set.contains(txn(2)) && !set.contains(txn(4)) && !set.contains(txn(8)));
        assert_eq!(set.next_of(1), 8);
        assert_eq!(set.next_of(0), 1);
        let text = format!("{}:1-3:5-7", uuid(1));
        assert_eq!(set.to_gtid_set().to_string(), text);
    }
}
