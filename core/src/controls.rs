//! What operators switched, excused or asked for, beside the configuration: kept across restarts, with who
//! and why.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::ids::{KeyspaceShard, TabletAlias, check_name};
use crate::tablet::PromotionRule;
use crate::time::Timestamp;

/// Where a switch applies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Every shard.
    Everywhere,
    /// A keyspace and all its shards.
    Keyspace(String),
    /// One shard.
    Shard(KeyspaceShard),
}

impl Scope {
    fn covers(&self, shard: &KeyspaceShard) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Keyspace(keyspace) => *keyspace == shard.keyspace,
            Self::Shard(one) => one == shard,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere => f.write_str("*"),
            Self::Keyspace(keyspace) => f.write_str(keyspace),
            Self::Shard(shard) => shard.fmt(f),
        }
    }
}

/// Something that an operator controls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Control {
    /// No automatic recovery.
    RecoveriesOff(Scope),
    /// No automatic replacement of a primary.
    EmergencyReparentsOff(Scope),
    /// Nothing is repaired on this tablet, and it is not promoted.
    Downtime(TabletAlias),
    /// How willingly this tablet is promoted, before all that records and configuration say.
    Promotion(TabletAlias, PromotionRule),
}

/// Why a text is no control.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no control; known are recoveries-off WHERE and emergency-reparents-off WHERE (*, a keyspace or keyspace/shard), downtime TABLET, promotion TABLET prefer|neutral|prefer_not|must_not"
)]
pub struct ControlError(pub String);

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RecoveriesOff(scope) => write!(f, "recoveries-off {scope}"),
            Self::EmergencyReparentsOff(scope) => write!(f, "emergency-reparents-off {scope}"),
            Self::Downtime(alias) => write!(f, "downtime {alias}"),
            Self::Promotion(alias, rule) => write!(f, "promotion {alias} {}", rule.name()),
        }
    }
}

impl FromStr for Control {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        let bad = || ControlError(text.to_owned());
        let words: Vec<&str> = text.split_whitespace().collect();
        let scope = |text: &str| match text.contains('/') {
            false if text == "*" => Ok(Scope::Everywhere),
            true => text.parse().map(Scope::Shard).map_err(|_| bad()),
            false => check_name(text).map(|()| Scope::Keyspace(text.into())).map_err(|_| bad()),
        };
        let alias = |text: &str| text.parse::<TabletAlias>().map_err(|_| bad());
        match words.as_slice() {
            ["recoveries-off", where_] => Ok(Self::RecoveriesOff(scope(where_)?)),
            ["emergency-reparents-off", where_] => Ok(Self::EmergencyReparentsOff(scope(where_)?)),
            ["downtime", tablet] => Ok(Self::Downtime(alias(tablet)?)),
            ["promotion", tablet, rule] => {
                let rule = PromotionRule::from_name(rule).ok_or_else(bad)?;
                Ok(Self::Promotion(alias(tablet)?, rule))
            }
            _ => Err(bad()),
        }
    }
}

/// Who set a control, why, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who, as far as known.
    pub by: String,
    /// Why.
    pub comment: String,
    /// When it was set.
    pub since: Timestamp,
    /// When it ends by itself; none if it does not.
    pub until: Option<Timestamp>,
}

/// All that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    set: BTreeMap<Control, Entry>,
}

impl Controls {
    /// Sets one. A tablet has one promotion rule: a new one takes the old one's place.
    pub fn set(&mut self, control: Control, entry: Entry) {
        self.lift(&control);
        self.set.insert(control, entry);
    }

    /// Lifts one; of a promotion rule whichever the tablet has. Tells whether anything was set.
    pub fn lift(&mut self, control: &Control) -> bool {
        let before = self.set.len();
        self.set.retain(|known, _| match (known, control) {
            (Control::Promotion(one, _), Control::Promotion(other, _)) => one != other,
            (known, control) => known != control,
        });
        before != self.set.len()
    }

    /// All of them, also those that have ended by themselves.
    pub fn all(&self) -> impl Iterator<Item = (&Control, &Entry)> {
        self.set.iter()
    }

    /// Forgets those that have ended by themselves.
    pub fn prune(&mut self, now: Timestamp) {
        self.set.retain(|_, entry| entry.until.is_none_or(|until| now < until));
    }

    /// Those in force, with their entry.
    pub fn in_force(&self, now: Timestamp) -> impl Iterator<Item = (&Control, &Entry)> {
        self.set.iter().filter(move |(_, entry)| entry.until.is_none_or(|until| now < until))
    }

    /// Who switched the recoveries of this shard off.
    pub fn recoveries_off(&self, shard: &KeyspaceShard, now: Timestamp) -> Option<&Entry> {
        self.find(now, |control| match control {
            Control::RecoveriesOff(scope) => scope.covers(shard),
            Control::EmergencyReparentsOff(_) | Control::Downtime(_) | Control::Promotion(..) => {
                false
            }
        })
    }

    /// Who switched the emergency reparents of this shard off.
    pub fn emergency_off(&self, shard: &KeyspaceShard, now: Timestamp) -> Option<&Entry> {
        self.find(now, |control| match control {
            Control::EmergencyReparentsOff(scope) => scope.covers(shard),
            Control::RecoveriesOff(_) | Control::Downtime(_) | Control::Promotion(..) => false,
        })
    }

    /// Who excused this tablet.
    pub fn downtime(&self, alias: &TabletAlias, now: Timestamp) -> Option<&Entry> {
        self.find(now, |control| *control == Control::Downtime(alias.clone()))
    }

    fn find(&self, now: Timestamp, fits: impl Fn(&Control) -> bool) -> Option<&Entry> {
        self.in_force(now).find(|(control, _)| fits(control)).map(|(_, entry)| entry)
    }

    /// The promotion rules that operators gave, as the settings have them; one in downtime is not promoted.
    pub fn promotion_rules(&self, now: Timestamp) -> Vec<(String, PromotionRule)> {
        let rule = |control: &Control| match control {
            Control::Downtime(alias) => Some((alias.to_string(), PromotionRule::MustNot)),
            Control::Promotion(alias, rule) => Some((alias.to_string(), *rule)),
            Control::RecoveriesOff(_) | Control::EmergencyReparentsOff(_) => None,
        };
        self.in_force(now).filter_map(|(control, _)| rule(control)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(until: Option<u64>) -> Entry {
        Entry {
            by: "ann".into(),
            comment: "disk".into(),
            since: Timestamp::from_millis(0),
            until: until.map(Timestamp::from_millis),
        }
    }

    #[test]
    fn controls_are_text_there_and_back() {
        for text in [
            "recoveries-off ks",
            "emergency-reparents-off *",
            "recoveries-off ks/-80",
            "emergency-reparents-off ks/0",
            "downtime zone1-0000000101",
            "promotion zone1-0000000101 must_not",
        ] {
            assert_eq!(text.parse::<Control>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "downtime",
            "downtime x",
            "promotion zone1-1 never",
            "off ks",
            "recoveries-off k s",
        ] {
            assert!(bad.parse::<Control>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_downtime_ends_by_itself_and_a_keyspace_covers_its_shards() {
        let mut controls = Controls::default();
        let (ks, at) = ("ks/0".parse().unwrap(), Timestamp::from_millis);
        let alias: TabletAlias = "zone1-101".parse().unwrap();
        controls.set(Control::Downtime(alias.clone()), entry(Some(100)));
        controls.set(Control::RecoveriesOff(Scope::Keyspace("ks".into())), entry(None));
        assert!(controls.downtime(&alias, at(99)).is_some());
        assert_eq!(controls.promotion_rules(at(99)), [(alias.to_string(), PromotionRule::MustNot)]);
        assert!(controls.downtime(&alias, at(100)).is_none());
        assert!(controls.recoveries_off(&ks, at(500)).is_some());
        assert!(controls.recoveries_off(&"other/0".parse().unwrap(), at(500)).is_none());
        assert!(controls.emergency_off(&ks, at(500)).is_none());
        assert!(controls.lift(&"recoveries-off ks".parse().unwrap()));
        assert!(controls.recoveries_off(&ks, at(500)).is_none());
    }

    #[test]
    fn a_tablet_has_one_promotion_rule() {
        let mut controls = Controls::default();
        for rule in ["prefer", "must_not"] {
            controls.set(format!("promotion zone1-1 {rule}").parse().unwrap(), entry(None));
        }
        let rules = controls.promotion_rules(Timestamp::from_millis(1));
        assert_eq!(rules, [("zone1-0000000001".to_owned(), PromotionRule::MustNot)]);
    }
}
