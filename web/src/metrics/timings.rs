//! How long something took, as Vitess counts it: a histogram to Prometheus, sums and buckets in `/debug/vars`.

use std::collections::BTreeMap;

use prometheus::{HistogramOpts, HistogramVec};
use serde_json::{Map, Value, json};
use vtorc_actors::counters::LockAction;
use vtorc_actors::services::Services;

use super::{prometheus_name, snake_case};

/// The upper ends of the buckets in microseconds: those of Vitess's `stats.Timings`.
const BUCKETS_US: [u64; 10] =
    [500, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000, 10_000_000];

/// How long each kind of action took.
pub(super) struct Timings {
    pub(super) name: &'static str,
    help: &'static str,
    label: &'static str,
    /// By action: so many milliseconds, so often.
    took: BTreeMap<&'static str, BTreeMap<u64, u64>>,
}

impl Timings {
    /// Taking shards' locks, successfully, and giving them back.
    pub(super) fn of_locks(services: &Services) -> Self {
        // As in Vitess, both are there before the first lock.
        let mut took = BTreeMap::from([("Lock", BTreeMap::new()), ("Unlock", BTreeMap::new())]);
        for ((action, ms), times) in services.board.counters.lock_timings() {
            let action = match action {
                LockAction::Lock => "Lock",
                LockAction::Unlock => "Unlock",
            };
            took.entry(action).or_default().insert(ms, times);
        }
        Self {
            name: "ShardLockTimings",
            help: "How long it took to take shards' locks and to give them back.",
            label: "Action",
            took,
        }
    }

    /// In seconds, as Prometheus wants them.
    pub(super) fn histogram(&self) -> prometheus::Result<HistogramVec> {
        #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
        let seconds = |count: u64, in_a_second: u32| count as f64 / f64::from(in_a_second);
        let buckets = BUCKETS_US.iter().map(|end| seconds(*end, 1_000_000)).collect();
        let options = HistogramOpts::new(prometheus_name(self.name), self.help).buckets(buckets);
        let all = HistogramVec::new(options, &[&snake_case(self.label)])?;
        for (action, took) in &self.took {
            let one = all.get_metric_with_label_values(&[action])?;
            for (ms, times) in took {
                (0..*times).for_each(|_| one.observe(seconds(*ms, 1000)));
            }
        }
        Ok(all)
    }

    /// As Vitess writes them: nanoseconds, and how many fell into each bucket.
    pub(super) fn as_vars(&self) -> Value {
        let (mut histograms, mut count, mut time) = (Map::new(), 0, 0);
        for (action, took) in &self.took {
            let (one, times, nanoseconds) = histogram_of(took);
            histograms.insert((*action).to_owned(), one);
            count += times;
            time += nanoseconds;
        }
        json!({"TotalCount": count, "TotalTime": time, "Histograms": histograms})
    }
}

/// One action's buckets, how often it was, and how long in all.
fn histogram_of(took: &BTreeMap<u64, u64>) -> (Value, u64, u64) {
    let (mut buckets, mut from) = (Map::new(), 0);
    for end in BUCKETS_US {
        let inside = took.iter().filter(|(ms, _)| (from..=end).contains(&(*ms * 1000)));
        buckets.insert((end * 1000).to_string(), json!(inside.map(|(_, n)| n).sum::<u64>()));
        from = end + 1;
    }
    let beyond = took.iter().filter(|(ms, _)| *ms * 1000 >= from).map(|(_, n)| n);
    buckets.insert("inf".into(), json!(beyond.sum::<u64>()));
    let count: u64 = took.values().sum();
    let time: u64 = took.iter().map(|(ms, times)| ms * times * 1_000_000).sum();
    buckets.insert("Count".into(), json!(count));
    buckets.insert("Time".into(), json!(time));
    (Value::Object(buckets), count, time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_one_bucket_and_the_sums_are_right() {
        let took = BTreeMap::from([(0, 2), (1, 1), (7, 3), (10, 1), (20_000, 1)]);
        let took = BTreeMap::from([("Lock", took), ("Unlock", BTreeMap::from([(3, 2)]))]);
        let timings = Timings { name: "T", help: "h", label: "Action", took };
        let vars = timings.as_vars();
        assert_eq!(
            (&vars["TotalCount"], &vars["TotalTime"]),
            (&json!(10), &json!(20_038_000_000_u64))
        );
        let lock = &vars["Histograms"]["Lock"];
        for (bucket, inside) in
            [("500000", 2), ("1000000", 1), ("5000000", 0), ("10000000", 4), ("inf", 1)]
        {
            assert_eq!(lock[bucket], inside, "{bucket}: {lock:#}");
        }
        let histogram = timings.histogram().unwrap();
        let one = histogram.with_label_values(&["Lock"]);
        assert_eq!(one.get_sample_count(), 8);
        assert!((one.get_sample_sum() - 20.032).abs() < 1e-9);
    }
}
