-- The users that vtorc and replication need, with the least grants.
--
-- Run it on every server before it joins a shard:  mysql -u root < init_db.sql
-- Works on MySQL 8.0 and later and on MariaDB 10.6 and later: /*!80000 ... */ is read by MySQL only,
-- /*M! ... */ by MariaDB only. Change the passwords here and in orc_config.json together.
--
-- It does not go into the binary log: every server gets its own copy, and none of them is errant.

SET sql_log_bin = 0;

-- The topology user: MySQLTopologyUser and MySQLTopologyPassword.
CREATE USER IF NOT EXISTS 'orc_client_user'@'%' IDENTIFIED BY 'orc_client_user_password';

-- Without it: SHOW REPLICA STATUS is refused, so the finding is AccessDenied and nothing is recovered.
/*!80000 GRANT REPLICATION CLIENT ON *.* TO 'orc_client_user'@'%' */
/*M! GRANT REPLICA MONITOR, BINLOG MONITOR ON *.* TO 'orc_client_user'@'%' */;

-- Without it: replicas cannot be stopped, repointed or started; every recovery fails at its first step.
/*!80000 GRANT REPLICATION_SLAVE_ADMIN ON *.* TO 'orc_client_user'@'%' */
/*M! GRANT REPLICATION SLAVE ADMIN ON *.* TO 'orc_client_user'@'%' */;

-- Without it: read_only and semi-sync cannot be set; no primary is promoted, none is demoted.
/*!80000 GRANT SYSTEM_VARIABLES_ADMIN ON *.* TO 'orc_client_user'@'%' */
/*M! GRANT READ_ONLY ADMIN, REPLICATION MASTER ADMIN ON *.* TO 'orc_client_user'@'%' */;

-- Without it: RESET REPLICA is refused; a promotion stops half-way and is completed only by hand.
GRANT RELOAD ON *.* TO 'orc_client_user'@'%';

-- Without them: client sessions of a demoted primary are not ended; a commit that waits for an
-- acknowledgement holds the demotion up until it fails. On MariaDB, a replica on which a backup holds a read
-- lock is not repointed before that ends.
GRANT PROCESS ON *.* TO 'orc_client_user'@'%';
/*!80000 GRANT CONNECTION_ADMIN ON *.* TO 'orc_client_user'@'%' */
/*M! GRANT CONNECTION ADMIN ON *.* TO 'orc_client_user'@'%' */;

-- Without it: sessions of root and of others that have it are not ended, and hold a demotion up; and where a
-- primary dies in the middle of a transaction, the promotion of a replica that has a part of it takes a minute.
/*!80016 GRANT SYSTEM_USER ON *.* TO 'orc_client_user'@'%' */
/*M! DO 0 */;

-- Without it: errant transactions whose GTIDs have tags cannot be made up for (--inject).
/*!80300 GRANT TRANSACTION_GTID_TAG ON *.* TO 'orc_client_user'@'%' */
/*M! DO 0 */;

-- Without them: the same minute; such a replica cannot be told from others.
/*!80000 GRANT SELECT ON performance_schema.replication_applier_status_by_coordinator TO 'orc_client_user'@'%' */
/*M! DO 0 */;
/*!80000 GRANT SELECT ON performance_schema.threads TO 'orc_client_user'@'%' */
/*M! DO 0 */;

-- Without it: a replica on which a backup holds FLUSH TABLES WITH READ LOCK may be promoted before another one.
/*!80000 GRANT SELECT ON performance_schema.metadata_locks TO 'orc_client_user'@'%' */
/*M! DO 0 */;

-- Without it: `vtorc topo import` cannot list a server's replicas; nothing else needs it.
/*!80000 GRANT REPLICATION SLAVE ON *.* TO 'orc_client_user'@'%' */
/*M! DO 0 */;

-- Without it: heartbeats cannot be seen; a frozen primary shows only after replica_net_timeout.
/*!80000 GRANT SELECT ON performance_schema.replication_connection_status TO 'orc_client_user'@'%' */
/*M! DO 0 */;
/*!80000 GRANT SELECT ON performance_schema.replication_connection_configuration TO 'orc_client_user'@'%' */
/*M! DO 0 */;

-- Without it: replication filters of a server that follows nobody cannot be seen.
/*!80000 GRANT SELECT ON performance_schema.replication_applier_global_filters TO 'orc_client_user'@'%' */
/*M! DO 0 */;

-- Without it: why an applier stopped is told by the coordinator's words, which only say where to look.
/*!80000 GRANT SELECT ON performance_schema.replication_applier_status_by_worker TO 'orc_client_user'@'%' */
/*M! DO 0 */;

-- Without it: no reparent journal; a reparent ends as "unclear", and tablets that missed one are not told
-- from those that did not.
GRANT SELECT, INSERT, CREATE ON _vt.* TO 'orc_client_user'@'%';

-- The replica user: MySQLReplicaUser and MySQLReplicaPassword.
CREATE USER IF NOT EXISTS 'vt_repl'@'%' IDENTIFIED BY '';
GRANT REPLICATION SLAVE ON *.* TO 'vt_repl'@'%';

SET sql_log_bin = 1;
