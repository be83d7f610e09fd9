//! The figures: gathered once, rendered for Prometheus and as Vitess's `/debug/vars`.

mod figures;
mod timings;

use actix_web::HttpResponse;
use prometheus::{Encoder, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use serde_json::{Map, Value, json};

use crate::asker::Reader;
use crate::context::WebContext;
use crate::error::ApiError;
use figures::{Family, Kind, families};
use timings::Timings;

pub(crate) async fn metrics(reader: Reader) -> Result<HttpResponse, ApiError> {
    let text = render(&reader).map_err(|error| ApiError::unavailable(error.to_string()))?;
    Ok(HttpResponse::Ok().insert_header(("Content-Type", "text/plain; version=0.0.4")).body(text))
}

/// The same as JSON, as Vitess's own programs serve it: the values of labels joined with dots.
pub(crate) async fn vars(reader: Reader) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(as_vars(&reader)))
}

/// Builds the page anew from the board at each scrape: nothing is counted twice.
fn render(context: &WebContext) -> prometheus::Result<Vec<u8>> {
    let registry = Registry::new();
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    for family in families(&context.services, context.started.elapsed()) {
        register(&registry, &family)?;
    }
    registry.register(Box::new(Timings::of_locks(&context.services).histogram()?))?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}

fn register(registry: &Registry, family: &Family) -> prometheus::Result<()> {
    let options = Opts::new(prometheus_name(family.name), family.help);
    let names: Vec<String> = family.labels.iter().map(|label| snake_case(label)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let labelled = family.values.iter().map(|(labels, value)| {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        (labels, *value)
    });
    match family.kind {
        Kind::Gauge => {
            let gauges = IntGaugeVec::new(options, &names)?;
            for (labels, value) in labelled {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                gauges.get_metric_with_label_values(&labels)?.set(value);
            }
            registry.register(Box::new(gauges))
        }
        Kind::Counter => {
            let counters = IntCounterVec::new(options, &names)?;
            for (labels, value) in labelled {
                counters.get_metric_with_label_values(&labels)?.inc_by(value);
            }
            registry.register(Box::new(counters))
        }
    }
}

fn as_vars(context: &WebContext) -> Map<String, Value> {
    let mut vars = Map::new();
    for family in families(&context.services, context.started.elapsed()) {
        let value = match family.labels {
            [] => json!(family.values.first().map(|(_, value)| *value).unwrap_or(0)),
            _ => {
                let each = family.values.iter();
                Value::Object(
                    each.map(|(labels, value)| (labels.join("."), json!(value))).collect(),
                )
            }
        };
        vars.insert(family.name.to_owned(), value);
    }
    let locks = Timings::of_locks(&context.services);
    vars.insert(locks.name.to_owned(), locks.as_vars());
    vars.insert("BuildVersion".into(), env!("CARGO_PKG_VERSION").into());
    vars
}

fn prometheus_name(name: &str) -> String {
    format!("vtorc_{}", snake_case(name))
}

/// Names of figures and of labels: `ErrantGtidTabletCount` is `errant_gtid_tablet_count` to Prometheus, as Vitess has
/// it.
fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let is = |at: Option<usize>, kind: fn(&char) -> bool| {
        at.and_then(|at| letters.get(at)).is_some_and(kind)
    };
    let mut snake = String::new();
    for (at, letter) in letters.iter().enumerate() {
        // A word begins at a capital after a small letter, or before one: GTIDCount is two words.
        let (before, after) = (at.checked_sub(1), Some(at + 1));
        let begins = is(before, char::is_ascii_lowercase)
            || is(before, char::is_ascii_uppercase) && is(after, char::is_ascii_lowercase);
        if letter.is_ascii_uppercase() && begins {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_what_vitess_makes_of_them() {
        for (name, expected) in [
            ("DetectedProblems", "detected_problems"),
            ("ErrantGtidTabletCount", "errant_gtid_tablet_count"),
            ("CurrentErrantGTIDCount", "current_errant_gtid_count"),
            ("CCamel", "c_camel"),
            ("JSON", "json"),
        ] {
            assert_eq!(snake_case(name), expected);
        }
    }
}
