//! The operator's programs and webhooks: Orchestrator's process lists, with a time limit, their output kept,
//! and no shell ever reading what a tablet or a server says; beside them, signed and repeated HTTP POSTs.

mod program;
mod webhook;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use vtorc_core::audit::StepOutcome;
use vtorc_core::hooks::{FailureNames, Hook, Occasion, command_line};
use vtorc_core::ports::{HookPort, HookRun};

use crate::mysql::Secret;
use program::Program;
use webhook::Webhooks;

/// What is to be run and told.
#[derive(Clone, Debug, PartialEq)]
pub struct HookSettings {
    /// The shell that reads the command lines (`ProcessesShellCommand`).
    pub shell: String,
    /// The command lines of each hook. One that ends with `&` is not waited for.
    pub programs: BTreeMap<Hook, Vec<String>>,
    /// A program that takes longer is ended, with all that it started.
    pub timeout: Duration,
    /// Whose names of findings they are told.
    pub failure_names: FailureNames,
    /// Where webhooks are posted.
    pub webhooks: Vec<String>,
    /// Signs them; empty: they are not signed.
    pub secret: Secret,
    /// This machine's name.
    pub host: String,
}

/// Told what went wrong with a webhook that was given up.
pub type Complain = Arc<dyn Fn(&str) + Send + Sync>;

/// Runs programs and posts webhooks.
pub struct Hooks {
    inner: RwLock<Inner>,
    complain: Complain,
    running: AtomicUsize,
}

/// Counts one more as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn one_more(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Inner {
    settings: Arc<HookSettings>,
    webhooks: Webhooks,
}

impl Hooks {
    /// With these settings.
    pub fn new(settings: HookSettings, complain: Complain) -> Self {
        let inner = RwLock::new(Inner::new(settings, &complain));
        Self { inner, complain, running: AtomicUsize::new(0) }
    }

    /// Takes other settings, from the next hook on.
    pub fn reconfigure(&self, settings: HookSettings) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if *inner.settings != settings {
            *inner = Inner::new(settings, &self.complain);
        }
    }

    fn settings(&self) -> Arc<HookSettings> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).settings.clone()
    }

    fn post(&self, hook: Hook, variables: &Variables) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.webhooks.post(hook, variables);
    }
}

impl Inner {
    fn new(settings: HookSettings, complain: &Complain) -> Self {
        let webhooks = Webhooks::start(&settings.webhooks, &settings.secret, complain);
        Self { settings: Arc::new(settings), webhooks }
    }
}

/// Placeholder, environment variable, value.
type Variables = Vec<(&'static str, &'static str, String)>;

#[async_trait]
impl HookPort for Hooks {
    fn wants(&self, hook: Hook) -> bool {
        let settings = self.settings();
        let has_programs = settings.programs.get(&hook).is_some_and(|lines| !lines.is_empty());
        has_programs || !settings.webhooks.is_empty()
    }

    async fn run(&self, hook: Hook, occasion: &Occasion) -> Vec<HookRun> {
        let _counted = Counted::one_more(&self.running);
        let settings = self.settings();
        let variables = occasion.variables(&settings.host, settings.failure_names);
        self.post(hook, &variables);
        let names: Vec<(&str, &str)> =
            variables.iter().map(|(placeholder, variable, _)| (*placeholder, *variable)).collect();
        let mut runs = Vec::new();
        for command in settings.programs.get(&hook).into_iter().flatten() {
            let (template, waits) = match command.trim_end().strip_suffix('&') {
                Some(template) => (template, false),
                None => (command.as_str(), true),
            };
            let program = Program {
                shell: settings.shell.clone(),
                line: command_line(template, &names),
                environment: variables
                    .iter()
                    .map(|(_, variable, value)| ((*variable).to_owned(), value.replace('\0', " ")))
                    .collect(),
                timeout: settings.timeout,
            };
            let outcome = if waits {
                program.run().await
            } else {
                tokio::spawn(program.run());
                StepOutcome::Done("started; it is not waited for".into())
            };
            let stops = hook.may_veto() && !outcome.is_done();
            runs.push(HookRun { command: command.clone(), outcome });
            if stops {
                break;
            }
        }
        runs
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }
}
