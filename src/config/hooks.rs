//! The keys of hooks and webhooks.

use serde::Deserialize;
use vtorc_clients::hooks::HookSettings;
use vtorc_core::hooks::{FailureNames, Hook};

use super::Password;
use crate::Failure;
use crate::cli::seconds;

/// Programs that are run, and addresses that are told.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct HookConfig {
    on_failure_detection_processes: Vec<String>,
    pre_graceful_takeover_processes: Vec<String>,
    pre_failover_processes: Vec<String>,
    post_master_failover_processes: Vec<String>,
    post_failover_processes: Vec<String>,
    post_unsuccessful_failover_processes: Vec<String>,
    post_graceful_takeover_processes: Vec<String>,
    processes_shell_command: String,
    hook_timeout_seconds: f64,
    hooks_use_orchestrator_names: Option<bool>,
    /// The file has keys that only Orchestrator has a use for: its hooks test Orchestrator's names.
    #[serde(skip)]
    pub(super) is_of_orchestrators_file: bool,
    #[serde(rename = "WebhookURLs")]
    webhook_urls: Vec<String>,
    webhook_secret: Password,
}

impl Default for HookConfig {
    fn default() -> Self {
        Self {
            on_failure_detection_processes: Vec::new(),
            pre_graceful_takeover_processes: Vec::new(),
            pre_failover_processes: Vec::new(),
            post_master_failover_processes: Vec::new(),
            post_failover_processes: Vec::new(),
            post_unsuccessful_failover_processes: Vec::new(),
            post_graceful_takeover_processes: Vec::new(),
            processes_shell_command: "bash".into(),
            hook_timeout_seconds: 10.0,
            hooks_use_orchestrator_names: None,
            is_of_orchestrators_file: false,
            webhook_urls: Vec::new(),
            webhook_secret: Password::default(),
        }
    }
}

impl HookConfig {
    fn lines(&self, hook: Hook) -> &[String] {
        match hook {
            Hook::OnFailureDetection => &self.on_failure_detection_processes,
            Hook::PreGracefulTakeover => &self.pre_graceful_takeover_processes,
            Hook::PreFailover => &self.pre_failover_processes,
            Hook::PostMasterFailover => &self.post_master_failover_processes,
            Hook::PostFailover => &self.post_failover_processes,
            Hook::PostUnsuccessfulFailover => &self.post_unsuccessful_failover_processes,
            Hook::PostGracefulTakeover => &self.post_graceful_takeover_processes,
        }
    }

    /// What the hooks' adapter is given.
    pub(crate) fn settings(&self) -> Result<HookSettings, Failure> {
        let timeout = self.hook_timeout_seconds;
        if !(timeout.is_finite() && timeout > 0.0 && timeout <= 3600.0) {
            return Err(Failure(format!(
                "HookTimeoutSeconds is {timeout}; it must be more than 0 and at most an hour"
            )));
        }
        let is_http = |url: &&String| url.starts_with("http://") || url.starts_with("https://");
        if let Some(at) = self.webhook_urls.iter().position(|url| !is_http(&url)) {
            return Err(Failure(format!(
                "WebhookURLs: number {} does not begin with http:// or https://",
                at + 1
            )));
        }
        let programs = Hook::ALL.into_iter().map(|hook| (hook, self.lines(hook).to_vec()));
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(HookSettings {
            shell: self.processes_shell_command.clone(),
            programs: programs.filter(|(_, lines)| !lines.is_empty()).collect(),
            timeout: seconds(timeout),
            failure_names: match self
                .hooks_use_orchestrator_names
                .unwrap_or(self.is_of_orchestrators_file)
            {
                true => FailureNames::Orchestrators,
                false => FailureNames::Own,
            },
            webhooks: self.webhook_urls.clone(),
            secret: self.webhook_secret.resolve("WebhookSecret")?,
            host,
        })
    }
}
