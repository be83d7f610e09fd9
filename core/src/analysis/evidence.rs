//! What a finding rests on: observations, with their age.

use std::fmt;
use std::time::Duration;

use crate::durability::DurabilityPolicy;
use crate::gtid::GtidSet;
use crate::ids::TabletAlias;
use crate::knowledge::health::ProbeFailure;
use crate::status::{BinlogFormat, ReceiverError, ReceiverState};
use crate::tablet::{MysqlAddress, TabletType};
use crate::time::TermStart;
use crate::topology::Place;

/// One observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What was seen.
    pub sight: Sight,
    /// Of which tablet, where it is not the finding's own or has to be said.
    pub tablet: Option<TabletAlias>,
    /// Since when it is so, or how long ago it was asked.
    pub age: Option<Age>,
}

/// How an observation stands in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// The server answered so long ago.
    Answered(Duration),
    /// The server was asked so long ago.
    Asked(Duration),
    /// It is so for that long.
    Lasts(Duration),
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Of so many tablets none is PRIMARY.
    NoneIsPrimary(usize),
    /// The shard's record names this primary, since then.
    RecordNames(TabletAlias, TermStart),
    /// The shard's record has a term, and no primary.
    RecordNamesNobody(TermStart),
    /// The shard's record has no term.
    NeverHadPrimary,
    /// The shard's record could not be read since vtorc was started.
    RecordNeverRead,
    /// Part of the topology could not be read, and why.
    Unread(Place, String),
    /// A record cannot be understood, and why.
    Damaged(String, String),
    /// The tablet was never reached.
    NeverReached,
    /// The tablet answered.
    Answers,
    /// The tablet does not answer.
    Fails(ProbeFailure),
    /// The tablet cannot be used, as its last probe said.
    Unusable(ProbeFailure),
    /// Of its last probes so many timed out although a ping was answered, and so many succeeded.
    TimesOut {
        /// Timed out, and answered a ping.
        pinged: u32,
        /// Succeeded.
        succeeded: u32,
    },
    /// Commits wait for acknowledgements.
    CommitsWait,
    /// Its vttablet takes itself for this.
    VttabletIs(TabletType),
    /// Its vttablet does not do what it should, and why.
    VttabletFails(String),
    /// The replica receives from the primary.
    Receives,
    /// The replica follows somebody else.
    FollowsAnother(MysqlAddress),
    /// The replica's receiver runs and hears nothing.
    HearsNothing,
    /// The replica's receiver does not receive.
    DoesNotReceive(ReceiverState),
    /// The tablet follows nobody.
    FollowsNobody,
    /// It has what the primary lacks.
    Errant(GtidSet),
    /// It lost what it wrote, and who has it where that is not the primary.
    Lost(GtidSet, Option<TabletAlias>),
    /// It lacks what the primary purged.
    LacksPurged(GtidSet),
    /// How a server is set.
    Setting(Setting),
    /// How many there are of something.
    Count(Count),
}

/// How a server is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// How the primary is set.
    Primary {
        /// It refuses writes.
        read_only: bool,
        /// It waits for acknowledgements, ...
        waits: bool,
        /// ... for so many.
        wait_count: u32,
        /// So many would be given, ...
        ready: u32,
        /// ... of so many that the policy demands.
        required: u32,
    },
    /// Whether administrators may not write either.
    SuperReadOnly(bool),
    /// How a replica is set.
    Replica {
        /// It refuses writes.
        read_only: bool,
        /// It refuses those of administrators too.
        super_read_only: bool,
        /// It acknowledges.
        acknowledges: bool,
    },
    /// It has no source.
    NoSource,
    /// Its source, and how its threads stand.
    Source {
        /// From whom.
        address: MysqlAddress,
        /// The receiver.
        receiver: ReceiverState,
        /// The applier runs.
        applies: bool,
    },
    /// The receiver's error.
    ReceiverFails(ReceiverError),
    /// The applier's error.
    ApplierFails(String),
}

/// How many there are of something, or who.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Count {
    /// The primary's replicas, counted.
    Replicas {
        /// All.
        total: usize,
        /// Those that answer.
        answer: usize,
        /// Those that replicate.
        replicate: usize,
        /// Those that cannot be reached.
        gone: usize,
    },
    /// The primary's ackers, counted by itself.
    Ackers {
        /// Connected.
        connected: u32,
        /// Waited for.
        wanted: u32,
        /// Sessions that wait.
        sessions: u32,
    },
    /// An acker is connected and hears nothing.
    SilentAcker,
    /// So many ackers can be reached of those that the policy demands.
    TooFewAckers {
        /// Reached.
        found: usize,
        /// Demanded.
        required: usize,
        /// By which policy.
        policy: DurabilityPolicy,
    },
    /// Who has this version.
    Version((u32, u32), Vec<TabletAlias>),
    /// Who logs in this format.
    LogsIn(BinlogFormat, Vec<TabletAlias>),
}

impl From<Setting> for Sight {
    fn from(setting: Setting) -> Self {
        Self::Setting(setting)
    }
}

impl From<Count> for Sight {
    fn from(count: Count) -> Self {
        Self::Count(count)
    }
}

impl Setting {
    /// That the finding's own tablet is set so.
    pub fn here(self) -> Evidence {
        Sight::from(self).here()
    }
}

impl Count {
    /// That there are so many in the shard.
    pub fn here(self) -> Evidence {
        Sight::from(self).here()
    }
}

impl Sight {
    /// Seen of the finding's own tablet, or of the shard, at no time in particular.
    pub fn here(self) -> Evidence {
        Evidence { sight: self, tablet: None, age: None }
    }

    /// Seen of a tablet that has to be said.
    pub fn of(self, tablet: &TabletAlias) -> Evidence {
        Evidence { tablet: Some(tablet.clone()), ..self.here() }
    }
}

impl Evidence {
    /// The same, with its age.
    pub fn aged(self, age: Age) -> Self {
        Self { age: Some(age), ..self }
    }

    /// What was seen, without its age: it stays the same as long as the sight does.
    pub fn steady(&self) -> String {
        let steady = Self { age: None, ..self.clone() };
        steady.to_string()
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tablet) = &self.tablet {
            write!(f, "{tablet} ")?;
        }
        // What fails says why at the end.
        if let (Sight::Fails(why), Some(Age::Lasts(since))) = (&self.sight, self.age) {
            return write!(f, "fails for {} ms: {why}", since.as_millis());
        }
        // What an answer says follows it.
        if let (Sight::Setting(Setting::Replica { .. }), Some(Age::Answered(ago))) =
            (&self.sight, self.age)
        {
            return write!(f, "answered {} ms ago: {}", ago.as_millis(), self.sight);
        }
        write!(f, "{}", self.sight)?;
        match self.age {
            Some(Age::Answered(ago)) => write!(f, " {} ms ago", ago.as_millis()),
            Some(Age::Asked(ago)) => write!(f, ", asked {} ms ago", ago.as_millis()),
            Some(Age::Lasts(since)) => write!(f, " for {} ms", since.as_millis()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoneIsPrimary(tablets) => write!(f, "none of {tablets} tablets is PRIMARY"),
            Self::RecordNames(alias, term) => {
                write!(f, "the shard's record names {alias}, since {term}")
            }
            Self::RecordNamesNobody(term) => {
                write!(f, "the shard's record has a term from {term}, and no primary")
            }
            Self::NeverHadPrimary => {
                f.write_str("the shard's record has no term: there was no primary yet")
            }
            Self::RecordNeverRead => f.write_str(
                "the shard's record was never read: whether there was a primary is not known",
            ),
            Self::Unread(place, why) => write!(f, "{place}: {why}"),
            Self::Damaged(path, why) => write!(f, "{path}: {why}"),
            Self::NeverReached => f.write_str("was never reached yet"),
            Self::Answers => f.write_str("answered"),
            Self::Fails(why) => write!(f, "fails: {why}"),
            Self::Unusable(why) => write!(f, "{why}"),
            Self::TimesOut { pinged, succeeded } => write!(
                f,
                "of its last probes {pinged} timed out although a ping was answered, and {succeeded} succeeded"
            ),
            Self::CommitsWait => f.write_str("commits wait unacknowledged"),
            Self::VttabletIs(kind) => write!(f, "its vttablet says that it is {kind}"),
            Self::VttabletFails(why) => f.write_str(why),
            Self::Receives => f.write_str("still receives"),
            Self::FollowsAnother(source) => write!(f, "follows {source} and not the primary"),
            Self::HearsNothing => f.write_str("hears nothing from its source"),
            Self::DoesNotReceive(receiver) => write!(f, "does not receive: receiver {receiver}"),
            Self::FollowsNobody => f.write_str("follows nobody"),
            Self::Errant(gtids) => write!(f, "errant GTIDs: {}", gtids.shown()),
            Self::Lost(gtids, None) => write!(f, "it lost {}", gtids.shown()),
            Self::Lost(gtids, Some(holder)) => {
                write!(f, "lost {}, which {holder} has", gtids.shown())
            }
            Self::LacksPurged(gtids) => {
                write!(f, "it lacks {}, which the primary purged", gtids.shown())
            }
            Self::Setting(setting) => setting.fmt(f),
            Self::Count(count) => count.fmt(f),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary { read_only, waits, wait_count, ready, required } => write!(
                f,
                "read_only {}, semi-sync source {} (waits for {wait_count}), ackers ready {ready} of {required} \
                 required",
                on_off(*read_only),
                on_off(*waits),
            ),
            Self::SuperReadOnly(value) => write!(f, "super_read_only {}", on_off(*value)),
            Self::Replica { read_only, super_read_only, acknowledges } => write!(
                f,
                "read_only {}, super_read_only {}, semi-sync replica {}",
                on_off(*read_only),
                on_off(*super_read_only),
                on_off(*acknowledges),
            ),
            Self::NoSource => f.write_str("no source configured"),
            Self::Source { address, receiver, applies } => {
                let applier = if *applies { "running" } else { "stopped" };
                write!(f, "source {address}, receiver {receiver}, applier {applier}")
            }
            Self::ReceiverFails(error) => write!(f, "receiver: {error}"),
            Self::ApplierFails(error) => write!(f, "applier: {error}"),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replicas { total, answer, replicate, gone } => write!(
                f,
                "{total} replicas: {answer} answer, {replicate} replicate, {gone} cannot be reached"
            ),
            Self::Ackers { connected, wanted, sessions } => write!(
                f,
                "{connected} ackers connected of {wanted} that are waited for, {sessions} sessions wait"
            ),
            Self::SilentAcker => f.write_str("is connected and hears nothing"),
            Self::TooFewAckers { found, required, policy } => {
                write!(f, "{found} ackers can be reached, {policy} demands {required}")
            }
            Self::Version((major, minor), who) => write!(f, "{major}.{minor}: {}", list(who)),
            Self::LogsIn(format, who) => write!(f, "{}: {}", format.name(), list(who)),
        }
    }
}

fn list(aliases: &[TabletAlias]) -> String {
    aliases.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn on_off(value: bool) -> &'static str {
    if value { "ON" } else { "OFF" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sight_stays_the_same_while_it_ages() {
        let alias: TabletAlias = "zone1-7".parse().unwrap();
        let ms = Duration::from_millis;
        let settings =
            Setting::Replica { read_only: true, super_read_only: false, acknowledges: true };
        let fails = Sight::Fails(ProbeFailure::TimedOut);
        for (evidence, age, text, steady) in [
            (
                Sight::Receives.of(&alias),
                Age::Asked(ms(2)),
                "zone1-0000000007 still receives, asked 2 ms ago",
                "zone1-0000000007 still receives",
            ),
            (
                fails.of(&alias),
                Age::Lasts(ms(1_508)),
                "zone1-0000000007 fails for 1508 ms: no answer in time",
                "zone1-0000000007 fails: no answer in time",
            ),
            (
                settings.here(),
                Age::Answered(ms(4)),
                "answered 4 ms ago: read_only ON, super_read_only OFF, semi-sync replica ON",
                "read_only ON, super_read_only OFF, semi-sync replica ON",
            ),
        ] {
            let aged = evidence.aged(age);
            assert_eq!((aged.to_string(), aged.steady()), (text.to_owned(), steady.to_owned()));
        }
    }
}
