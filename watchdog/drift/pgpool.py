"""The settings of a pgpool-II that must agree with the other pgpool-IIs', from its answer to PCP pool_status.

pgpool-II's own watchdog compares about forty of them at a join, and neither the commands nor the lists that decide
where a query goes. What belongs to one machine (addresses, ports, folders, logs, numbers of the moment) is left out;
so is all that could be a password, whatever version sends it. Values stay in pgpool-II's own spelling.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pgvigil.watchdog.drift.facts import shown
from pgvigil.watchdog.pcp.records import Parameter

PREFIX = "pgpool.conf."
BACKENDS = f"{PREFIX}backends"

_COMPARED = """
    backend_clustering_mode replication_mode
    failover_command failback_command failover_on_backend_error failover_on_backend_shutdown
    follow_primary_command detach_false_primary auto_failback auto_failback_interval search_primary_node_timeout
    recovery_user recovery_1st_stage_command recovery_2nd_stage_command recovery_timeout client_idle_limit_in_recovery
    health_check_period health_check_timeout health_check_user health_check_database health_check_max_retries
    health_check_retry_delay connect_timeout
    sr_check_period sr_check_user sr_check_database delay_threshold delay_threshold_by_time prefer_lower_delay_standby
    load_balance_mode ignore_leading_white_space read_only_function_list write_function_list
    primary_routing_query_pattern_list database_redirect_preference_list app_name_redirect_preference_list
    disable_load_balance_on_write dml_adaptive_object_relationship_list statement_level_load_balance allow_sql_comments
    replicate_select insert_lock lobj_lock_table replication_stop_on_mismatch failover_if_affected_tuples_mismatch
    num_init_children max_pool reserved_connections listen_backlog_multiplier child_life_time child_max_connections
    connection_life_time client_idle_limit connection_cache reset_query_list
    process_management_mode process_management_strategy min_spare_children max_spare_children
    enable_pool_hba authentication_timeout allow_clear_text_frontend_auth ssl ssl_ciphers ssl_ecdh_curve
    ssl_prefer_server_ciphers
    relcache_expire relcache_size relcache_query_target check_temp_table check_unlogged_table enable_shared_relcache
    memory_cache_enabled memqcache_method memqcache_total_size memqcache_max_num_cache memqcache_expire
    memqcache_auto_cache_invalidation memqcache_maxcache memqcache_cache_block_size cache_safe_memqcache_table_list
    cache_unsafe_memqcache_table_list
    use_watchdog delegate_ip wd_lifecheck_method wd_interval wd_heartbeat_keepalive wd_heartbeat_deadtime wd_life_point
    wd_lifecheck_query wd_lifecheck_dbname wd_lifecheck_user trusted_servers trusted_server_command
    clear_memqcache_on_escalation wd_escalation_command wd_de_escalation_command
    failover_when_quorum_exists failover_require_consensus allow_multiple_failover_requests_from_node
    enable_consensus_with_half_votes wd_remove_shutdown_nodes wd_lost_node_removal_timeout
    wd_no_show_node_removal_timeout
"""
# pgpool-II numbers these by backend: backend_port1.
_PER_BACKEND = """
    backend_hostname backend_port backend_weight backend_data_directory backend_flag backend_application_name
    health_check_period health_check_timeout health_check_user health_check_database health_check_max_retries
    health_check_retry_delay connect_timeout
"""
_COMPARED_NAMES, _BACKEND_NAMES = frozenset(_COMPARED.split()), frozenset(_PER_BACKEND.split())
_NUMBERED = re.compile(r"([a-z_]+[a-z])([0-9]{1,3})")
_SECRET = re.compile(r"passw|passphrase|authkey|secret")


def of_pgpool(parameters: Iterable[Parameter]) -> dict[str, str]:
    """The facts of one pgpool-II."""
    found: dict[str, str] = {}
    backends: set[int] = set()
    for parameter in parameters:
        name = parameter.name.lower()  # delegate_IP until 4.3
        if not _is_compared(name):
            continue
        found[PREFIX + name] = shown(parameter.value)
        if name.startswith("backend_hostname") and parameter.value:
            backends.add(int(name.removeprefix("backend_hostname")))
    found[BACKENDS] = " ".join(map(str, sorted(backends))) or "none"
    return {key: found[key] for key in sorted(found)}


def _is_compared(name: str) -> bool:
    if _SECRET.search(name):
        return False
    numbered = _NUMBERED.fullmatch(name)
    return name in _COMPARED_NAMES or (numbered is not None and numbered[1] in _BACKEND_NAMES)
