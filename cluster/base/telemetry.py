"""Every event and metric name, and how they leave the process.

Events are `noun.verb` with fields, JSON on stdout (readable on a terminal). Secrets are never passed here: what holds
one has no `repr`. Labels of metrics are constant and few; never a serial or a SPIFFE ID.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from types import ModuleType
from typing import Any, Final, cast

from cluster.base.ascii_json import AsciiJson
from cluster.base.log import Log
from cluster.base.seats import Caps, PeerSeats, Seats, TurnedAway

# structlog takes rich if it is there, for tracebacks that no node prints: 5 MB of every node's memory.
_HAS_RICH: Final = "rich" in sys.modules
sys.modules.setdefault("rich", cast(ModuleType, None))
import structlog  # noqa: E402
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram  # noqa: E402

from providers.texts import MAX_TEXT, bounded  # noqa: E402

if not _HAS_RICH:
    del sys.modules["rich"]  # whoever wants it may have it

#: Events that are more, or less, than a change of state worth INFO.
_LEVELS: Final[Mapping[str, str]] = {
    "acl.denies_by_default": "warning",
    "acl.initial_management_failed": "error",
    "api.stalled": "error",
    "background.failed": "error",
    "ca.sign_failed": "warning",
    "ca.signing": "info",
    "ca.warning": "warning",
    "ca.warnings_unknown": "warning",
    "config.unknown_key": "warning",
    "config.without_effect": "warning",
    "connections.fewer": "warning",
    "connections.turned_away": "warning",
    "disk.low": "error",
    "duty.failed": "error",
    "entry.failed": "critical",
    "entry.refused": "error",
    "entry.skipped": "error",
    "entry.unknown": "error",
    "files.authenticated": "warning",
    "http.failed": "error",
    "http.request": "info",
    "join.refused": "warning",
    "journal.damaged": "error",
    "journal.torn_tail": "warning",
    "keeper.unprotected": "warning",
    "leader.gives_way": "warning",
    "ledger.damaged": "error",
    "loop.failed": "error",
    "node.failed": "critical",
    "node.unprotected": "warning",
    "provider.cleanup_failed": "warning",
    "raft.background_failed": "error",
    "raft.dial_refused": "warning",
    "raft.frame_refused": "warning",
    "raft.link_down": "warning",
    "raft.peer_refused": "warning",
    "raft.peer_stuck": "warning",
    "root.expired": "error",
    "root.expires_soon": "warning",
    "rotation.given_up": "warning",
    "rotation.old_root_expired": "warning",
    "rpc.refused": "warning",
    "snapshot.not_restorable": "warning",
    "snapshot.refused": "warning",
    "snapshot.restored": "warning",
    "tls.expired": "error",
    "tls.expires_soon": "warning",
    "tls.key_not_pinned": "error",
    "tls.reload_failed": "error",
    "tls.renewal_failed": "error",
    "worker.lost": "error",
    "worker.unconfigured": "error",
    "worker.unprotected": "warning",
    "worker.unreplaced": "error",
}


def configure_logging(level: str, form: str) -> None:
    """Once per process. `form` is "json", "pretty", or "auto": pretty on a terminal."""
    is_pretty = form == "pretty" or (form == "auto" and sys.stdout.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if is_pretty else _render_json
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _bounded,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory() if is_pretty else structlog.BytesLoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _bounded(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Whoever has written a text: no line of the log is longer than a reader can take."""
    for name, value in event.items():
        if isinstance(value, str) and len(value) > MAX_TEXT:
            event[name] = bounded(value)
    return event


def _render_json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> bytes:
    return _JSON.encode(event)


_JSON: Final = AsciiJson(default=str)


class EventLog:
    """Callable from any thread: `log("leader.elected", term=7)`."""

    def __init__(self, **context: object) -> None:
        logger = structlog.get_logger().bind(**context)
        self._methods = {level: getattr(logger, level) for level in ("debug", "info", "warning", "error", "critical")}

    def __call__(self, event: str, /, **fields: object) -> None:
        self._methods[_LEVELS.get(event, "info")](event, **fields)


_LATENCY_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0)
#: Up to the most that are signed together (`MAX_BATCH` of cluster/signing/pipeline.py).
_BATCH_BUCKETS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class Metrics:
    """The metrics of one node."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"quorumca_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"quorumca_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = _LATENCY_BUCKETS) -> Histogram:
            return Histogram(f"quorumca_{name}", text, labels, registry=self.registry, buckets=buckets)

        self.leaf_signed = counter("leaf_signed", "Leaves signed and recorded", "provider", "profile")
        self.sign_seconds = histogram("sign_seconds", "From request to recorded certificate, on the leader")
        self.sign_batch_size = histogram("sign_batch_size", "Leaves signed together", buckets=_BATCH_BUCKETS)
        self.commit_seconds = histogram("commit_seconds", "From proposal to applied entry, on the leader")
        self.http_requests = counter("http_requests", "HTTP requests answered", "route", "status")
        self.http_seconds = histogram("http_seconds", "Time to answer an HTTP request", "route")
        self.connections = gauge("connections", "Connections to a port, open now", "port")
        self.connections_refused = counter("connections_refused", "Connections refused: the port was full", "port")
        self.connections_gave_way = counter(
            "connections_gave_way", "Idle connections ended, because the port was full", "port"
        )
        self.limited = counter("limited", "Requests refused by one of the rates in `[limits]`", "limit")
        self.rpc_requests = counter("rpc_requests", "Requests from other nodes", "operation", "status")
        self.forwarded = counter("forwarded", "Requests handed to the leader", "operation")
        self.is_leader = gauge("is_leader", "1 while this node leads")
        self.raft_term = gauge("raft_term", "Present Raft term")
        self.raft_applied_index = gauge("raft_applied_index", "Raft log index applied by this node")
        self.raft_frames_refused = gauge(
            "raft_frames_refused", "Frames since the start that no correct server sends: their connections were closed"
        )
        self.raft_pump_seconds_max = gauge("raft_pump_seconds_max", "Longest round of the Raft thread since the start")
        self.api_stalls = gauge("api_stalls", "Times since the start that the API stood still and could not lead")
        self.api_stall_seconds_max = gauge("api_stall_seconds_max", "Longest of these times")
        self.state_index = gauge("state_index", "Index of the replicated state")
        self.ledger_records = gauge("ledger_records", "Issued certificates on record")
        self.ca_ready = gauge("ca_ready", "1 while this node leads and can sign")
        self.ca_duty_failures = counter("ca_duty_failures", "Leader duties that failed", "duty")
        self.background_failures = counter(
            "background_failures", "Exceptions in what the node does by itself; it goes on", "work"
        )
        self.ca_warnings = gauge("ca_warnings", "What an operator should do something about although the CA works")
        self.root_not_after_seconds = gauge("root_not_after_seconds", "Expiry of the active root, Unix seconds")
        self.root_expires_soon = gauge("root_expires_soon", "1 from a fifth of the active root's lifetime on")
        self.tick_age_seconds = gauge("tick_age_seconds", "Time since the leader last looked for duties")
        self.disk_free_bytes = gauge("disk_free_bytes", "Free space where the data directory is")
        self.disk_low = gauge("disk_low", "1 while there is less than limits.disk_alarm_mb")
        self.journal_bytes = gauge("journal_bytes", "Commands held in the Raft log")
        self.compactions = gauge("compactions", "Compactions of the Raft log since the start")
        self.scrubs = counter("scrubs", "Times that the node's files were read again and checked")
        self.scrub_damage = counter("scrub_damage", "Damaged files that were found", "file")
        self.node_cert_not_after_seconds = gauge(
            "node_cert_not_after_seconds", "Expiry of the node's own TLS certificates, Unix seconds", "certificate"
        )
        self.node_cert_expires_soon = gauge(
            "node_cert_expires_soon",
            "1 from two weeks before the end of these on; if the node renews them, from a quarter of their life on",
            "certificate",
        )
        self.workers_lost = gauge("workers_lost", "Signing processes that died since the start")
        self.blocking_queries = gauge("blocking_queries", "Blocking queries that wait now")
        self.leaf_cache_entries = gauge("leaf_cache_entries", "Leaves held for local services")

    def turned_away(self, port: str, log: Log) -> TurnedAway:
        """What a port says of connections for which it has no place."""
        return TurnedAway(port, log, self.connections_refused.labels(port), self.connections_gave_way.labels(port))

    def peer_seats(self, port: str, strangers: Caps, members: Caps, log: Log) -> PeerSeats:
        """Of a port between nodes."""
        turned_away = self.turned_away(port, log)
        seats = PeerSeats(Seats(strangers, turned_away), Seats(members, turned_away))
        self.connections.labels(port).set_function(lambda: seats.taken)
        return seats
