//! `vtorc-sim`: runs fault schedules, one after the other or until stopped, and replays one by its seed.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use vtorc_core::sabotage::Bug;
use vtorc_sim::hazards::{self, Hazard};
use vtorc_sim::oracle::Deed;
use vtorc_sim::run::{Trace, Verdict, run, run_with};
use vtorc_sim::schedule::Schedule;

/// Runs the real actors on virtual time against simulated servers, and looks for what must never happen.
#[derive(Parser)]
struct Options {
    /// Run this schedule only.
    #[arg(long)]
    seed: Option<u64>,
    /// Schedules of the second generation only. Without a word of the generation every other one is, and some are
    /// MariaDBs'.
    #[arg(long)]
    hostile: bool,
    /// Schedules of MariaDBs only.
    #[arg(long, conflicts_with = "hostile")]
    mariadb: bool,
    /// Schedules of the first generation only.
    #[arg(long, conflicts_with_all = ["hostile", "mariadb"])]
    gentle: bool,
    /// The schedules of the hazard whose name has this in it; a seed is the step at which it strikes.
    #[arg(long, value_parser = hazard, conflicts_with = "hostile")]
    hazard: Option<&'static Hazard>,
    /// Statements that let a server take writes name no deadline, as before vtorc's client did that.
    #[arg(long, requires = "hostile")]
    without_deadlines: bool,
    /// Plant this deliberate bug: what is found then shows that the simulator sees it.
    #[arg(long, value_parser = bug)]
    bug: Option<Bug>,
    /// Print everything that happens.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// The first seed; without it, one that depends on the time.
    #[arg(long)]
    from: Option<u64>,
    /// How many schedules; without it, until stopped.
    #[arg(long)]
    schedules: Option<u64>,
    /// Go on after a violation, and list all of them.
    #[arg(long)]
    keep_going: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: u64,
}

/// What schedules are made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Generation {
    First,
    Hostile,
    MariaDb,
}

impl Generation {
    fn of_seeds(self) -> &'static str {
        match self {
            Self::First => "seed",
            Self::Hostile => "hostile seed",
            Self::MariaDb => "MariaDB seed",
        }
    }
}

impl Options {
    fn schedule(&self, seed: u64) -> Schedule {
        if let Some(hazard) = self.hazard {
            return hazard.schedule(seed);
        }
        let schedule = match self.generation(seed) {
            Generation::First => Schedule::of(seed),
            Generation::Hostile => Schedule::hostile(seed),
            Generation::MariaDb => Schedule::mariadb(seed),
        };
        Schedule { deadlines_carried: !self.without_deadlines, ..schedule }
    }

    /// A single seed without a word of the generation is one of the first.
    fn generation(&self, seed: u64) -> Generation {
        let all = !self.gentle && self.seed.is_none() && self.hazard.is_none();
        match (self.hostile, self.mariadb, all) {
            (true, _, _) => Generation::Hostile,
            (false, true, _) => Generation::MariaDb,
            // By sixteens: what schedules are made of depends on the last bits of their seeds.
            (false, false, true) if seed / 16 % 2 == 1 => Generation::Hostile,
            (false, false, true) if seed / 16 % 8 == 6 => Generation::MariaDb,
            (false, false, _) => Generation::First,
        }
    }

    fn run(&self, seed: u64, trace: Trace) -> Verdict {
        match self.bug {
            Some(bug) => run_with(bug, &self.schedule(seed), trace),
            None => run(&self.schedule(seed), trace),
        }
    }

    /// The command that shows a run again.
    fn replay(&self, seed: u64) -> String {
        let mut command = "cargo run --release -p vtorc-sim --".to_owned();
        for (given, flag) in [
            (self.generation(seed) == Generation::Hostile, " --hostile"),
            (self.generation(seed) == Generation::MariaDb, " --mariadb"),
            (self.without_deadlines, " --without-deadlines"),
        ] {
            command.push_str(if given { flag } else { "" });
        }
        if let Some(hazard) = self.hazard {
            command.push_str(&format!(" --hazard '{}'", hazard.name));
        }
        if let Some(bug) = self.bug {
            command.push_str(&format!(" --bug {bug:?}"));
        }
        format!("{command} --seed {seed} --trace")
    }
}

fn bug(name: &str) -> Result<Bug, String> {
    let known = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
    let names: Vec<String> = Bug::ALL.iter().map(|bug| format!("{bug:?}")).collect();
    known.ok_or_else(|| format!("no such bug; there are {}", names.join(", ")))
}

fn hazard(part: &str) -> Result<&'static Hazard, String> {
    hazards::named(part).ok_or_else(|| format!("no hazard has {part:?} in its name"))
}

fn main() -> ExitCode {
    let options = Options::parse();
    match options.seed {
        Some(seed) => one(seed, &options),
        None => many(&options),
    }
}

fn one(seed: u64, options: &Options) -> ExitCode {
    let (schedule, trace) = (options.schedule(seed), options.trace);
    if trace {
        say(&format!("{schedule:#?}"));
    }
    let verdict = options.run(seed, if trace { Trace::Keep } else { Trace::Drop });
    verdict.trace.iter().for_each(|line| say(line));
    say(&format!(
        "seed {seed}: {} writes acknowledged, in order after {:?} ms, digest {:016x}",
        verdict.acknowledged, verdict.settled_after_ms, verdict.digest
    ));
    say_chances(&verdict.chances);
    verdict.violations.iter().for_each(|violation| say(&format!("VIOLATION {violation}")));
    if verdict.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The sum of many verdicts.
#[derive(Default)]
struct Sum {
    schedules: u64,
    acknowledged: u64,
    left_to_a_person: u64,
    slowest_ms: u64,
    faults: BTreeMap<String, u64>,
    findings: BTreeMap<String, u64>,
    steps: BTreeMap<String, u64>,
    outcomes: BTreeMap<String, u64>,
    chances: BTreeMap<Deed, (u64, u64)>,
    bad: Vec<(u64, String)>,
}

impl Sum {
    fn add(&mut self, seed: u64, verdict: &Verdict) {
        self.schedules += 1;
        self.acknowledged += verdict.acknowledged;
        self.left_to_a_person += u64::from(verdict.left_to_a_person);
        self.slowest_ms = self.slowest_ms.max(verdict.settled_after_ms.unwrap_or(0));
        add(&mut self.faults, verdict.faults.iter().map(|(kind, n)| (format!("{kind:?}"), *n)));
        add(&mut self.findings, verdict.findings.clone());
        add(&mut self.steps, verdict.steps.clone());
        add(&mut self.outcomes, verdict.outcomes.clone());
        for (deed, (count, longest)) in &verdict.chances {
            let sum = self.chances.entry(*deed).or_default();
            *sum = (sum.0 + count, sum.1.max(*longest));
        }
        self.bad.extend(verdict.violations.first().map(|first| (seed, first.clone())));
    }
}

fn add(sum: &mut BTreeMap<String, u64>, more: impl IntoIterator<Item = (String, u64)>) {
    for (name, count) in more {
        *sum.entry(name).or_default() += count;
    }
}

/// Far from all others, and where schedules have everything that was ever added.
fn new_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() * 1_000_000
}

fn many(options: &Options) -> ExitCode {
    let started = Instant::now();
    let from = options.from.unwrap_or_else(new_seed);
    say(&format!("from seed {from}"));
    let next = AtomicU64::new(from);
    let last = options.schedules.map_or(u64::MAX, |count| from.saturating_add(count));
    let (sender, verdicts) = mpsc::channel::<(u64, Verdict)>();
    let mut sum = Sum::default();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let wanted = seed < last;
                    if !wanted || sender.send((seed, options.run(seed, Trace::Drop))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut shown_at = Instant::now();
        for (seed, verdict) in verdicts {
            sum.add(seed, &verdict);
            if shown_at.elapsed() > Duration::from_secs(5) {
                shown_at = Instant::now();
                progress(&sum, started);
            }
            if !verdict.violations.is_empty() {
                let generation = options.generation(seed).of_seeds();
                say(&format!("{generation} {seed}: VIOLATION {}", verdict.violations.join("; ")));
                if !options.keep_going {
                    break;
                }
            }
        }
        // Those that still run find nobody to tell and end.
    });
    report(&sum, started, options)
}

fn say_chances(chances: &BTreeMap<Deed, (u64, u64)>) {
    for (deed, (count, longest)) in chances {
        let deed = deed.in_words();
        say(&format!("a human could have {deed} {count} times, for {longest} ms at most"));
    }
}

fn progress(sum: &Sum, started: Instant) {
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    say(&format!(
        "{} schedules, {:.0} a minute, {} violations",
        sum.schedules,
        sum.schedules as f64 / minutes,
        sum.bad.len()
    ));
}

fn report(sum: &Sum, started: Instant, options: &Options) -> ExitCode {
    for (title, counts) in [
        ("faults", &sum.faults),
        ("findings", &sum.findings),
        ("recoveries", &sum.outcomes),
        ("steps", &sum.steps),
    ] {
        say(&format!("{title}:"));
        counts.iter().for_each(|(name, count)| say(&format!("  {count:>8}  {name}")));
    }
    say_chances(&sum.chances);
    progress(sum, started);
    say(&format!(
        "{} writes acknowledged; slowest return to order {} ms after the last fault; {} times two histories \
         that somebody's mistake made were named and left to a person",
        sum.acknowledged, sum.slowest_ms, sum.left_to_a_person
    ));
    for (seed, what) in &sum.bad {
        say(&format!("seed {seed}: {what}\n  {}", options.replay(*seed)));
    }
    if sum.bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "a command line program talks")]
fn say(line: &str) {
    println!("{line}");
}
