//! Every key of Orchestrator and of this program: honoured, ignored or incompatible, and why.

/// What becomes of a key here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Support {
    /// It does what it says.
    Honoured,
    /// It has no effect, and needs none.
    Ignored,
    /// It has no effect, and somebody may miss it.
    Incompatible,
}

/// One key.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) support: Support,
    pub(crate) why: &'static str,
}

/// What is known of a key.
pub(crate) fn look_up(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// A known key as it is spelt here, whatever case it is written in; none where nobody knows it.
pub(crate) fn spelt(name: &str) -> Option<&'static str> {
    let known = || KEYS.iter().find(|key| key.name.eq_ignore_ascii_case(name));
    look_up(name).or_else(known).map(|key| key.name)
}

/// The known key that looks most like this one, if any looks like it at all.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    let likeness = |key: &&Key| strsim::jaro_winkler(key.name, name);
    let best = KEYS.iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(&best) > 0.85).then_some(best.name)
}

/// The table for the documentation.
#[cfg(test)]
pub(crate) fn as_markdown() -> String {
    let mut text = String::from("| key | here | |\n|---|---|---|\n");
    for key in KEYS {
        let support = match key.support {
            Support::Honoured => "honoured",
            Support::Ignored => "ignored",
            Support::Incompatible => "incompatible",
        };
        text.push_str(&format!("| `{}` | {support} | {} |\n", key.name, key.why));
    }
    text
}

const fn key(name: &'static str, support: Support, why: &'static str) -> Key {
    Key { name, support, why }
}

use Support::{Honoured, Ignored, Incompatible};

/// All keys, by name.
#[rustfmt::skip]
pub(crate) const KEYS: &[Key] = &[
    key("AccessTokenExpiryMinutes", Ignored, "authentication is basic, token or by certificate"),
    key("AccessTokenUseExpirySeconds", Ignored, "authentication is basic, token or by certificate"),
    key("AgentPollMinutes", Ignored, "there are no agents"),
    key("AgentSSLCAFile", Ignored, "there are no agents"),
    key("AgentSSLCertFile", Ignored, "there are no agents"),
    key("AgentSSLPrivateKeyFile", Ignored, "there are no agents"),
    key("AgentSSLSkipVerify", Ignored, "there are no agents"),
    key("AgentSSLValidOUs", Ignored, "there are no agents"),
    key("AgentsServerPort", Ignored, "there are no agents"),
    key("AgentsUseMutualTLS", Ignored, "there are no agents"),
    key("AgentsUseSSL", Ignored, "there are no agents"),
    key("ApplyMySQLPromotionAfterMasterFailover", Ignored, "what a failover does is fixed by safety, not by configuration"),
    key("AuditLogFile", Honoured, "one line for each recovery and operator's act goes there as well"),
    key("AuditPurgeDays", Honoured, "recoveries, findings and audit that ended longer ago are removed (default 90; 0 keeps all)"),
    key("AuditToBackendDB", Ignored, "recoveries are kept in the history store in any case"),
    key("AuditToSyslog", Honoured, "the same lines go to syslog"),
    key("AuthProxyAddresses", Honoured, "from where the proxy of `proxy` calls; nobody else is believed; default: this machine"),
    key("AuthUserHeader", Honoured, "the header in which the proxy of `proxy` says who asks; default `X-Forwarded-User`"),
    key("AuthenticationMethod", Honoured, "`basic`, `multi` (whoever calls himself `readonly` may look), `proxy` or `token`; without it, changes are taken from loopback only"),
    key("AutoPseudoGTID", Incompatible, "GTIDs are required"),
    key("BackendDB", Ignored, "the history is in an embedded store; there is no backend database"),
    key("BinlogEventsChunkSize", Ignored, "GTIDs are required"),
    key("BufferInstanceWrites", Ignored, "the history is in an embedded store; there is no backend database"),
    key("CandidateInstanceExpireMinutes", Ignored, "it has no meaning here"),
    key("CellsNoRecovery", Honoured, "cells whose tablets are watched and not repaired (`--cells-no-recovery`); a first primary is elected unless the shard has no tablets elsewhere; default none"),
    key("ClusterNameToAlias", Ignored, "keyspace, shard, cell and type are in the topology"),
    key("CoMasterRecoveryMustPromoteOtherCoMaster", Ignored, "replicas follow the primary directly"),
    key("ConsulAclToken", Ignored, "the primary is named in the Vitess topology"),
    key("ConsulAddress", Ignored, "the primary is named in the Vitess topology"),
    key("ConsulCrossDataCenterDistribution", Ignored, "the primary is named in the Vitess topology"),
    key("ConsulKVStoreProvider", Ignored, "the primary is named in the Vitess topology"),
    key("ConsulMaxKVsPerTransaction", Ignored, "the primary is named in the Vitess topology"),
    key("ConsulScheme", Ignored, "the primary is named in the Vitess topology"),
    key("DataCenterPattern", Ignored, "keyspace, shard, cell and type are in the topology"),
    key("Debug", Honoured, "logs more"),
    key("DefaultInstancePort", Ignored, "what is watched is read from the topology, and servers are compared by uuid"),
    key("DefaultRaftPort", Ignored, "several vtorcs exclude each other by the topology's shard locks"),
    key("DelayMasterPromotionIfSQLThreadNotUpToDate", Honoured, "always so: a promotion never throws away what was received"),
    key("DetachLostReplicasAfterMasterFailover", Ignored, "what a failover does is fixed by safety, not by configuration"),
    key("DetachLostSlavesAfterMasterFailover", Ignored, "what a failover does is fixed by safety, not by configuration"),
    key("DetectClusterAliasQuery", Ignored, "keyspace, shard, cell and type are in the topology"),
    key("DetectClusterDomainQuery", Ignored, "keyspace, shard, cell and type are in the topology"),
    key("DetectDataCenterQuery", Ignored, "keyspace, shard, cell and type are in the topology"),
    key("DetectInstanceAliasQuery", Ignored, "keyspace, shard, cell and type are in the topology"),
    key("DetectPhysicalEnvironmentQuery", Ignored, "keyspace, shard, cell and type are in the topology"),
    key("DetectPromotionRuleQuery", Ignored, "keyspace, shard, cell and type are in the topology"),
    key("DetectPseudoGTIDQuery", Ignored, "GTIDs are required"),
    key("DetectRegionQuery", Ignored, "keyspace, shard, cell and type are in the topology"),
    key("DetectSemiSyncEnforcedQuery", Ignored, "keyspace, shard, cell and type are in the topology"),
    key("DiscoverByShowSlaveHosts", Ignored, "what is watched is read from the topology, and servers are compared by uuid"),
    key("DiscoveryCollectionRetentionSeconds", Ignored, "what is watched is read from the topology, and servers are compared by uuid"),
    key("DiscoveryIgnoreHostnameFilters", Ignored, "what is watched is read from the topology, and servers are compared by uuid"),
    key("DiscoveryIgnoreMasterHostnameFilters", Ignored, "what is watched is read from the topology, and servers are compared by uuid"),
    key("DiscoveryIgnoreReplicaHostnameFilters", Ignored, "what is watched is read from the topology, and servers are compared by uuid"),
    key("DiscoveryMaxConcurrency", Ignored, "what is watched is read from the topology, and servers are compared by uuid"),
    key("DiscoveryQueueCapacity", Ignored, "what is watched is read from the topology, and servers are compared by uuid"),
    key("DiscoveryQueueMaxStatisticsSize", Ignored, "what is watched is read from the topology, and servers are compared by uuid"),
    key("DiscoverySeeds", Ignored, "there are no agents"),
    key("DiskStalledRecovery", Honoured, "replace a primary whose vttablet says that its disk is stalled; default false"),
    key("DrainErrantTablets", Honoured, "tablets with errant GTIDs become DRAINED by themselves (default false)"),
    key("Durability", Honoured, "the policy of keyspaces whose record names none; default `none`"),
    key("EnableSyslog", Ignored, "it has no meaning here"),
    key("EnforceExactSemiSyncReplicas", Ignored, "semi-sync follows the durability policy"),
    key("ExpectFailureAnalysisConcensus", Ignored, "several vtorcs exclude each other by the topology's shard locks"),
    key("ExpiryHostnameResolvesMinutes", Ignored, "what is watched is read from the topology, and servers are compared by uuid"),
    key("FailMasterPromotionIfSQLThreadNotUpToDate", Honoured, "rather than wait, give up"),
    key("FailMasterPromotionOnLagMinutes", Ignored, "lag is what SHOW REPLICA STATUS says"),
    key("FailureDetectionPeriodBlockMinutes", Ignored, "it has no meaning here"),
    key("GraphiteAddr", Ignored, "metrics are served at /metrics"),
    key("GraphiteConvertHostnameDotsToUnderscores", Ignored, "metrics are served at /metrics"),
    key("GraphitePath", Ignored, "metrics are served at /metrics"),
    key("GraphitePollSeconds", Ignored, "metrics are served at /metrics"),
    key("HTTPAdvertise", Ignored, "the HTTP server listens on ListenAddress only"),
    key("HTTPAuthPassword", Honoured, "the password of `basic` and `multi`, or the token of `token`"),
    key("HTTPAuthUser", Honoured, "the user of `basic` and `multi`"),
    key("HookTimeoutSeconds", Honoured, "a hook that takes longer is ended, with all that it started (default 10)"),
    key("HostnameResolveMethod", Ignored, "what is watched is read from the topology, and servers are compared by uuid"),
    key("InstanceBulkOperationsWaitTimeoutSeconds", Ignored, "it has no meaning here"),
    key("InstanceFlushIntervalMilliseconds", Ignored, "the history is in an embedded store; there is no backend database"),
    key("InstancePollSeconds", Honoured, "how often each server is probed; default 1, fractions allowed"),
    key("InstancePoolExpiryMinutes", Ignored, "there are no pools"),
    key("InstanceWriteBufferSize", Ignored, "the history is in an embedded store; there is no backend database"),
    key("KVClusterMasterPrefix", Ignored, "the primary is named in the Vitess topology"),
    key("ListenAddress", Honoured, "where the HTTP server listens; default `:3000`"),
    key("ListenSocket", Ignored, "the HTTP server listens on ListenAddress only"),
    key("LockShardTimeoutSeconds", Honoured, "how long a requested reparent waits for the shard lock; default 45"),
    key("MasterFailoverDetachReplicaMasterHost", Ignored, "what a failover does is fixed by safety, not by configuration"),
    key("MasterFailoverDetachSlaveMasterHost", Ignored, "what a failover does is fixed by safety, not by configuration"),
    key("MasterFailoverLostInstancesDowntimeMinutes", Ignored, "what a failover does is fixed by safety, not by configuration"),
    key("MaxConcurrentReplicaOperations", Ignored, "it has no meaning here"),
    key("MySQLConnectTimeoutSeconds", Honoured, "longest wait for a connection; default 2"),
    key("MySQLConnectionLifetimeSeconds", Ignored, "it has no meaning here"),
    key("MySQLDiscoveryReadTimeoutSeconds", Honoured, "longest wait for the answer to a probe; default 1"),
    key("MySQLHostnameResolveMethod", Ignored, "what is watched is read from the topology, and servers are compared by uuid"),
    key("MySQLOrchestratorCredentialsConfigFile", Ignored, "the history is in an embedded store; there is no backend database"),
    key("MySQLOrchestratorDatabase", Ignored, "the history is in an embedded store; there is no backend database"),
    key("MySQLOrchestratorHost", Ignored, "the history is in an embedded store; there is no backend database"),
    key("MySQLOrchestratorMaxPoolConnections", Ignored, "the history is in an embedded store; there is no backend database"),
    key("MySQLOrchestratorPassword", Ignored, "the history is in an embedded store; there is no backend database"),
    key("MySQLOrchestratorPort", Ignored, "the history is in an embedded store; there is no backend database"),
    key("MySQLOrchestratorReadTimeoutSeconds", Ignored, "the history is in an embedded store; there is no backend database"),
    key("MySQLOrchestratorRejectReadOnly", Ignored, "the history is in an embedded store; there is no backend database"),
    key("MySQLOrchestratorSSLCAFile", Ignored, "the history is in an embedded store; there is no backend database"),
    key("MySQLOrchestratorSSLCertFile", Ignored, "the history is in an embedded store; there is no backend database"),
    key("MySQLOrchestratorSSLPrivateKeyFile", Ignored, "the history is in an embedded store; there is no backend database"),
    key("MySQLOrchestratorSSLSkipVerify", Ignored, "the history is in an embedded store; there is no backend database"),
    key("MySQLOrchestratorUseMutualTLS", Ignored, "the history is in an embedded store; there is no backend database"),
    key("MySQLOrchestratorUser", Ignored, "the history is in an embedded store; there is no backend database"),
    key("MySQLReplicaCredentialsConfigFile", Honoured, "a file with `user=` and `password=` of the replica user"),
    key("MySQLReplicaPassword", Honoured, "its password; `${NAME}` takes an environment variable"),
    key("MySQLReplicaUser", Honoured, "the user that replicas log in with at their source; without it each keeps what its channel uses"),
    key("MySQLTopologyCredentialsConfigFile", Honoured, "a file with `user=` and `password=` of the topology user"),
    key("MySQLTopologyPassword", Honoured, "its password; `${NAME}` takes an environment variable"),
    key("MySQLTopologyReadTimeoutSeconds", Honoured, "longest wait for a statement of a recovery; default 10"),
    key("MySQLTopologySSLCAFile", Honoured, "certificate authorities of the servers"),
    key("MySQLTopologySSLCertFile", Honoured, "our certificate"),
    key("MySQLTopologySSLPrivateKeyFile", Honoured, "our key"),
    key("MySQLTopologySSLSkipVerify", Honoured, "accept any certificate of a server"),
    key("MySQLTopologyUseMixedTLS", Honoured, "servers without TLS are reached without it; default true"),
    key("MySQLTopologyUseMutualTLS", Honoured, "show a certificate to the servers"),
    key("MySQLTopologyUser", Honoured, "the user that vtorc logs in with"),
    key("OAuthClientId", Incompatible, "authentication is basic, token or by certificate"),
    key("OAuthClientSecret", Incompatible, "authentication is basic, token or by certificate"),
    key("OAuthScopes", Incompatible, "authentication is basic, token or by certificate"),
    key("OSCIgnoreHostnameFilters", Ignored, "it has no meaning here"),
    key("OnFailureDetectionProcesses", Honoured, "run when a finding appears that calls for another primary; nobody waits for them"),
    key("PanicIfDifferentDatabaseDeploy", Ignored, "the history is in an embedded store; there is no backend database"),
    key("PhysicalEnvironmentPattern", Ignored, "keyspace, shard, cell and type are in the topology"),
    key("PostFailoverProcesses", Honoured, "run after a reparent that went well"),
    key("PostGracefulTakeoverProcesses", Honoured, "run after a planned reparent, last"),
    key("PostIntermediateMasterFailoverProcesses", Ignored, "there are no intermediate primaries here, and no such takeover"),
    key("PostMasterFailoverProcesses", Honoured, "run after a reparent that went well, before PostFailoverProcesses"),
    key("PostTakeMasterProcesses", Ignored, "there are no intermediate primaries here, and no such takeover"),
    key("PostUnsuccessfulFailoverProcesses", Honoured, "run after a reparent that was refused or went wrong"),
    key("PostponeReplicaRecoveryOnLagMinutes", Ignored, "lag is what SHOW REPLICA STATUS says"),
    key("PostponeSlaveRecoveryOnLagMinutes", Ignored, "lag is what SHOW REPLICA STATUS says"),
    key("PowerAuthGroups", Honoured, "with `proxy`, groups of this machine whose members may change something"),
    key("PowerAuthUsers", Honoured, "with `proxy`, who may change something; default `[\"*\"]`: everybody whom the proxy lets in"),
    key("PreFailoverProcesses", Honoured, "run before any reparent, under the lock; one that fails or takes too long stops it"),
    key("PreGracefulTakeoverProcesses", Honoured, "run before a planned reparent; one that fails or takes too long stops it"),
    key("PreventCrossDataCenterMasterFailover", Honoured, "a primary is never taken from another cell than the old one's"),
    key("PreventCrossRegionMasterFailover", Incompatible, "there are cells, not regions: PreventCrossDataCenterMasterFailover"),
    key("ProblemIgnoreHostnameFilters", Ignored, "it has no meaning here"),
    key("ProcessesShellCommand", Honoured, "the shell that reads the command lines (default `bash`)"),
    key("PromotionIgnoreHostnameFilters", Honoured, "tablets on these hosts are never promoted: an IP address means itself alone, everything else is a regular expression over the host or `host:port`"),
    key("PromotionRules", Honoured, "how willingly tablets are promoted: `{\"zone1-0000000101\": \"must_not\", \"backup.*\": \"prefer_not\"}`, by alias or host pattern; goes before the `promotion_rule` tag of a record"),
    key("PseudoGTIDMonotonicHint", Incompatible, "GTIDs are required"),
    key("PseudoGTIDPattern", Incompatible, "GTIDs are required"),
    key("PseudoGTIDPatternIsFixedSubstring", Incompatible, "GTIDs are required"),
    key("RaftAdvertise", Ignored, "several vtorcs exclude each other by the topology's shard locks"),
    key("RaftBind", Ignored, "several vtorcs exclude each other by the topology's shard locks"),
    key("RaftDataDir", Ignored, "several vtorcs exclude each other by the topology's shard locks"),
    key("RaftEnabled", Incompatible, "several vtorcs exclude each other by the topology's shard locks"),
    key("RaftNodes", Ignored, "several vtorcs exclude each other by the topology's shard locks"),
    key("ReadOnly", Honoured, "nothing is changed over HTTP; vtorc itself goes on repairing; default false"),
    key("ReasonableInstanceCheckSeconds", Ignored, "it has no meaning here"),
    key("ReasonableLockedSemiSyncMasterSeconds", Ignored, "semi-sync follows the durability policy"),
    key("ReasonableMaintenanceReplicationLagSeconds", Ignored, "lag is what SHOW REPLICA STATUS says"),
    key("ReasonableReplicationLagSeconds", Honoured, "a replica further behind is no candidate of a planned reparent; default 10"),
    key("RecoverIntermediateMasterClusterFilters", Ignored, "replicas follow the primary directly"),
    key("RecoverLockedSemiSyncMaster", Ignored, "semi-sync follows the durability policy"),
    key("RecoverMasterClusterFilters", Honoured, "the shards that are recovered: `*`, a keyspace, `keyspace/shard` or a regular expression over that, also with Orchestrator's `alias=` and `alias~=`; all others are only watched; default `[\"*\"]` (Orchestrator: nowhere)"),
    key("RecoverNonWriteableMaster", Incompatible, "a primary that refuses writes is made to take them in any case"),
    key("RecoveryIgnoreHostnameFilters", Ignored, "it has no meaning here"),
    key("RecoveryPeriodBlockMinutes", Honoured, "the same in minutes; seconds win"),
    key("RecoveryPeriodBlockSeconds", Honoured, "no second automatic reparent of a shard before this has passed; default 3600"),
    key("ReduceReplicationAnalysisCount", Ignored, "it has no meaning here"),
    key("RegionPattern", Ignored, "keyspace, shard, cell and type are in the topology"),
    key("RejectHostnameResolvePattern", Ignored, "what is watched is read from the topology, and servers are compared by uuid"),
    key("RemoveTextFromHostnameDisplay", Ignored, "it has no meaning here"),
    key("ReplicaHeartbeatSeconds", Honoured, "heartbeat period that replicas are told to ask for; a silent source shows after three; default 0.3"),
    key("ReplicationCredentialsQuery", Honoured, "answers user and password of a replica that follows nobody yet, where MySQLReplicaUser is not set; else mysql.slave_master_info of the others is read"),
    key("ReplicationLagQuery", Ignored, "lag is what SHOW REPLICA STATUS says"),
    key("SQLite3DataFile", Honoured, "the history store, of one vtorc alone; default `vtorc.sqlite3` in `-log_dir`, or memory"),
    key("SSLCAFile", Honoured, "certificate authorities of callers"),
    key("SSLCertFile", Honoured, "our certificate"),
    key("SSLPrivateKeyFile", Honoured, "our key"),
    key("SSLSkipVerify", Honoured, "with UseMutualTLS: take any certificate"),
    key("SSLValidOUs", Incompatible, "a certificate of the configured authority is enough; with UseMutualTLS it stops the start"),
    key("SeedAcceptableBytesDiff", Ignored, "there are no agents"),
    key("SeedWaitSecondsBeforeSend", Ignored, "there are no agents"),
    key("ServeAgentsHttp", Ignored, "there are no agents"),
    key("SkipBinlogEventsContaining", Ignored, "GTIDs are required"),
    key("SkipBinlogServerUnresolveCheck", Ignored, "GTIDs are required"),
    key("SkipMaxScaleCheck", Ignored, "what is watched is read from the topology, and servers are compared by uuid"),
    key("SkipOrchestratorDatabaseUpdate", Ignored, "the history is in an embedded store; there is no backend database"),
    key("SlaveLagQuery", Ignored, "lag is what SHOW REPLICA STATUS says"),
    key("SnapshotTopologiesIntervalHours", Ignored, "it has no meaning here"),
    key("StaleSeedFailMinutes", Ignored, "there are no agents"),
    key("StatusEndpoint", Ignored, "the HTTP server listens on ListenAddress only"),
    key("StatusOUVerify", Ignored, "a certificate of the configured authority is enough"),
    key("SupportFuzzyPoolHostnames", Ignored, "there are no pools"),
    key("TLSCacheTTLFactor", Ignored, "it has no meaning here"),
    key("TopoRefreshSeconds", Honoured, "a full reading of the topology now and then, whatever the watches say; default 60"),
    key("TryReplicaLogin", Honoured, "before a planned reparent stops writes, vtorc logs in at the candidate as replicas will; off where that user may only come from the replicas' hosts; default true"),
    key("URLPrefix", Ignored, "the HTTP server listens on ListenAddress only"),
    key("UnseenAgentForgetHours", Ignored, "there are no agents"),
    key("UnseenInstanceForgetHours", Ignored, "what is watched is read from the topology, and servers are compared by uuid"),
    key("UseMutualTLS", Honoured, "callers must show a certificate"),
    key("UseSSL", Honoured, "serve HTTPS"),
    key("UseSuperReadOnly", Honoured, "also `super_read_only` where the server has it; default true"),
    key("VerifyReplicationFilters", Ignored, "it has no meaning here"),
    key("WaitReplicasTimeoutSeconds", Honoured, "how long a promotion waits for received transactions to be applied; default 30"),
    key("WebMessage", Ignored, "it has no meaning here"),
    key("WebhookSecret", Honoured, "signs webhooks (HMAC-SHA256 in `X-Vtorc-Signature`); `${NAME}` stands for an environment variable"),
    key("WebhookURLs", Honoured, "told on the same occasions as the hooks, by a POST of JSON, repeated until it is taken"),
    key("WriteOutageMaxSeconds", Honoured, "a planned reparent that would refuse writes for longer is undone; default 5"),
    key("ZkAddress", Ignored, "the primary is named in the Vitess topology"),
];
