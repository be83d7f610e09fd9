//! Flags of VTOrc's that have no effect here: taken, so that a service file needs no change, and named in the log.

/// A flag without effect.
pub(crate) struct Foreign {
    pub(crate) name: &'static str,
    /// A value follows it; otherwise it is a boolean.
    pub(crate) takes_value: bool,
    pub(crate) why: &'static str,
}

const fn value(name: &'static str, why: &'static str) -> Foreign {
    Foreign { name, takes_value: true, why }
}

const fn switch(name: &'static str, why: &'static str) -> Foreign {
    Foreign { name, takes_value: false, why }
}

const LOGS: &str = "logs go to standard error, and to log_dir with rotation";
const CONFIG: &str = "the configuration is Orchestrator's JSON, named by --config";
const STATS: &str = "figures are served at /metrics and /debug/vars, not pushed";
const SERVER: &str = "this process serves no gRPC";
const BACKEND: &str = "what is seen is kept in memory, and no database is asked";
const CHANNEL: &str = "one connection a vttablet is kept; the library's windows and limits apply";

/// All of them.
#[rustfmt::skip]
pub(crate) const FLAGS: &[Foreign] = &[
    switch("audit-to-backend", "what happens is kept in the history in any case"),
    value("backend-read-concurrency", BACKEND),
    value("backend-write-concurrency", BACKEND),
    value("catch-sigpipe", "a broken pipe never ends the process"),
    value("cell", "where this process runs prefers no tablet"),
    value("cells-to-watch", "a shard is judged by all its tablets: half a shard cannot be repaired safely; see --cells-no-recovery"),
    value("config-file-not-found-handling", CONFIG),
    value("config-name", CONFIG),
    value("config-path", CONFIG),
    value("config-persistence-min-interval", CONFIG),
    value("config-type", CONFIG),
    value("discovery-workers", "each tablet has a prober of its own"),
    switch("emit-stats", STATS),
    value("grpc-auth-mode", SERVER),
    value("grpc-compression", CHANNEL),
    value("grpc-dial-concurrency-limit", CHANNEL),
    switch("grpc-enable-tracing", SERVER),
    value("grpc-initial-conn-window-size", CHANNEL),
    value("grpc-initial-window-size", CHANNEL),
    value("grpc-keepalive-time", "connections with calls under way are pinged every 10 s"),
    value("grpc-keepalive-timeout", "connections with calls under way are pinged every 10 s"),
    switch("grpc-prometheus", SERVER),
    value("keep-logs", LOGS),
    value("keep-logs-by-mtime", LOGS),
    value("lameduck-period", "--shutdown-wait-time says how long running recoveries get"),
    value("log-backtrace-at", LOGS),
    switch("log-err-stacks", LOGS),
    switch("log-link", LOGS),
    value("log-rotate-max-size", LOGS),
    switch("log-structured", "--log-format json"),
    value("log-level", "Debug in the configuration logs more"),
    switch("logtostderr", LOGS),
    value("max-stack-size", "stacks have a fixed size here"),
    value("onclose-timeout", "--shutdown-wait-time says how long running recoveries get"),
    value("onterm-timeout", "--shutdown-wait-time says how long running recoveries get"),
    value("pid-file", "the service manager knows the process"),
    value("pprof", "profiles are made with perf"),
    switch("pprof-http", "profiles are made with perf"),
    value("purge-logs-interval", LOGS),
    value("recovery-poll-duration", "a finding is acted on when it arises, not when it is looked for"),
    value("snapshot-topology-interval", "a shard's snapshot is at GET /api/v1/shards/KEYSPACE/SHARD/snapshot"),
    value("stats-backend", STATS),
    value("stats-combine-dimensions", STATS),
    value("stats-common-tags", STATS),
    value("stats-drop-variables", STATS),
    value("stats-emit-period", STATS),
    value("stderrthreshold", LOGS),
    value("table-refresh-interval", "no tables are looked at"),
    value("tablet-manager-grpc-concurrency", CHANNEL),
    value("tablet-manager-grpc-connpool-size", CHANNEL),
    value("tablet-manager-protocol", "vttablets are called over gRPC"),
    value("topo-k8s-context", "Kubernetes keeps no topology of newer Vitess either"),
    value("topo-k8s-kubeconfig", "Kubernetes keeps no topology of newer Vitess either"),
    value("topo-k8s-namespace", "Kubernetes keeps no topology of newer Vitess either"),
    value("topo-zk-max-concurrency", "--topo-read-concurrency limits reads"),
    value("tracer", "there is no tracing"),
    value("tracing-enable-logging", "there is no tracing"),
    value("tracing-sampling-rate", "there is no tracing"),
    value("tracing-sampling-type", "there is no tracing"),
    value("v", "Debug in the configuration logs more"),
    value("vmodule", "Debug in the configuration logs more"),
];

/// Whether a flag, in clap's spelling, is one of them.
pub(crate) fn look_up(name: &str) -> Option<&'static Foreign> {
    FLAGS.iter().find(|flag| flag.name == name)
}
