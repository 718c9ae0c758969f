"""What is wrong with running nodes, from what they say (look.py). Pure: views and the time in, findings out."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from cluster.doctor.findings import Finding, critical, note, warning
from cluster.doctor.look import NodeView, member, members
from cluster.doctor.validity import end_text, expires_soon, is_expired, is_not_valid_yet, time_text

#: Certificates are backdated by a minute: with clocks further apart, new ones are refused as not valid yet.
_MAX_SKEW_SECONDS: Final = 50.0
_NOTABLE_SKEW_SECONDS: Final = 5.0
#: Every step but waiting for clients takes seconds.
_STEP_SECONDS: Final = 300.0
_NODE_CERT_SECONDS: Final = 14 * 86_400.0
#: The leader looks for work at least every 30 s.
_IDLE_SECONDS: Final = 120.0
_FULL_BYTES: Final = 64 << 20
#: In refusals of whoever has brought no token, and of any token before the bootstrap.
_OF_NOBODY: Final = ("anonymous token", "must be bootstrapped")
_RECOVERY: Final = "docs/recovery.md"


def findings_of(views: Sequence[NodeView], now: datetime) -> Iterator[Finding]:
    reached = [view for view in views if not view.unreachable]
    for view in views:
        if view.unreachable:
            yield _unreachable(view, is_last=not reached)
    for check in _CHECKS:
        yield from check(reached, now)


def _unreachable(view: NodeView, *, is_last: bool) -> Finding:
    make = critical if is_last else warning
    return make(
        "node-unreachable",
        view.address,
        view.unreachable,
        "Its clients get no certificates from it, and if it is down a further loss may cost the quorum.",
        "on its machine: quorumca doctor --config FILE, and look at the end of its log",
    )


def _leader(views: Sequence[NodeView], _now: datetime) -> Iterator[Finding]:
    views = [view for view in views if view.leader is not None]
    without = [view for view in views if not view.leader]
    if views and len(without) == len(views):
        yield critical(
            "no-leader",
            ", ".join(view.name for view in views),
            "no node knows a leader: there is no quorum, or an election is under way",
            "Nothing is signed or changed until a majority of the servers run and reach each other.",
            f"{_if_alone(views)}bring the other servers back: quorumca doctor --config FILE on each; if they are lost"
            f" for good: {_RECOVERY}",
        )
        return
    for view in without:
        yield warning(
            "no-leader-known",
            view.name,
            "this node knows no leader, others do",
            "It cannot reach the majority: a broken link, or a certificate that the others refuse.",
            f"on its machine: quorumca doctor --config FILE; is it still a server? quorumca members --http-addr"
            f" {_other(views, view)}",
        )
    if views and not without and not any(view.is_leader or not view.own for view in views):
        yield note(
            "leader-not-asked",
            ", ".join(view.name for view in views),
            f"the leader, {views[0].stat('raft', 'leader')}, was not asked",
            "Trouble with the CA's provider is known to the leader only.",
            "give its address too, with another --http-addr",
        )


def _if_alone(views: Sequence[NodeView]) -> str:
    """A server that was removed while it was away hears nothing of that: the others do not speak with it any more."""
    if len(views) > 1:
        return ""
    return (
        "first ask another server, for this one may have been removed: quorumca members --http-addr ANOTHER; then leave"
        " it stopped. Else "
    )


def _other(views: Sequence[NodeView], view: NodeView) -> str:
    return next((one.address for one in views if one is not view and one.leader), view.address)


def _rights(views: Sequence[NodeView], _now: datetime) -> Iterator[Finding]:
    for view in views:
        if view.forbidden:
            rights = dict.fromkeys(_right_to(path) for path in view.forbidden)
            yield warning(
                "no-right-to-look",
                view.name,
                f"it runs, and does not let you look: {' and '.join(rights)} missing:"
                f" {view.refusals.get(view.forbidden[0], '')}",
                "Not everything was looked at: something may be wrong with the rest.",
                'give a token (-token-file FILE) with the rules operator = "read" and agent_prefix "" { policy = "read"'
                " }, or with the policy builtin/global-read-only: docs/acl.md"
                f"{_if_never_bootstrapped(view)}",
            )


def _if_never_bootstrapped(view: NodeView) -> str:
    """Where nobody has made the first token there is none to give. No answer but this one says so to everybody."""
    refusals = [view.refusals.get(path, "") for path in view.forbidden]
    if any(said in refusal for refusal in refusals for said in _OF_NOBODY):
        return "; if nobody has made the first token of this cluster yet: quorumca acl bootstrap"
    return ""


def _right_to(path: str) -> str:
    return "agent:read" if path.startswith("/v1/agent/") else "operator:read"


def _ready(views: Sequence[NodeView], _now: datetime) -> Iterator[Finding]:
    """Of nodes that say no more: of the others it is known why."""
    for view in views:
        if view.not_ready and view.leader:
            yield critical(
                "not-ready",
                view.name,
                view.not_ready,
                "It has no certificates for its clients.",
                "ask with a token that may look: this says why",
            )


def _servers(views: Sequence[NodeView], _now: datetime) -> Iterator[Finding]:
    health = next((view.health for view in views if view.health), {})
    servers = members(health, "Servers")
    tolerance = health.get("FailureTolerance")
    for server in servers:
        if not server.get("Healthy"):
            make = warning if tolerance else critical
            yield make(
                "server-unhealthy",
                server.get("Name"),
                f"the leader has not heard from it: last contact {server.get('LastContact') or 'never'}",
                _spare(tolerance),
                "on its machine: quorumca doctor --config FILE; gone for good:"
                f" quorumca operator raft remove-peer -id {server.get('Name')}",
            )
    if len(servers) == 1:
        yield note(
            "single-server",
            servers[0].get("Name"),
            "the cluster has one server",
            "If its disk is lost, the CA is.",
            "save snapshots: quorumca snapshot save FILE; better, add servers: quorumca operator raft add-peer",
        )


def _spare(tolerance: object) -> str:
    match tolerance:
        case int() if tolerance > 1:
            return f"{tolerance} more servers may fail before nothing is signed any more."
        case 1:
            return "One more server may fail before nothing is signed any more."
        case _:
            return "If one more server fails, nothing is signed any more."


def _bootstrap(views: Sequence[NodeView], _now: datetime) -> Iterator[Finding]:
    """Whether it is set, as each node says; releases before do not say so."""
    said = [(view, member(view.own, "DebugConfig").get("ACLInitialManagementFile")) for view in views]
    without = [view.name for view, is_set in said if is_set is False]
    if without and any(is_set is True for _, is_set in said):
        yield warning(
            "initial-management-differs",
            ", ".join(without),
            "acl.initial_management_file is not set here, and is on other servers",
            "While such a server leads, whoever asks first gets the token that may do everything, unless there is one"
            " already.",
            "set it in the configuration of every server, or of none, and restart those; whether there is a token:"
            " quorumca acl token list",
        )


def _ca(views: Sequence[NodeView], _now: datetime) -> Iterator[Finding]:
    for view in views:
        for text in view.stat("ca", "warnings").splitlines():
            yield warning(
                "ca-warning",
                view.name,
                text,
                "The CA works as it is, and will not for ever.",
                f"do what it says: docs/vault.md; quorumca ca get-config --http-addr {view.address}",
            )
        if trouble := view.stat("ca", "trouble"):
            yield critical(
                "ca-trouble",
                view.name,
                trouble,
                "The leader cannot use its CA provider as it is configured: nothing is signed, and it tries again by"
                " itself.",
                f"quorumca ca get-config --http-addr {view.address}; mend it with quorumca ca set-config -config-file"
                " FILE",
            )
        elif view.is_leader and view.stat("ca", "initialized") != "true":
            yield critical(
                "ca-not-initialised",
                view.name,
                "there is no root certificate",
                "Nothing can be signed before the CA is initialised, which takes a new leader a moment.",
                "look for duty.failed in its log; is connect.enabled = true in its configuration?",
            )
        elif view.is_leader and view.gauge("quorumca_tick_age_seconds") > _IDLE_SECONDS:
            yield warning(
                "leader-idle",
                view.name,
                f"the leader has not looked for work for {view.gauge('quorumca_tick_age_seconds'):.0f} s",
                "Renewals, rotations and pruning do not happen.",
                f"quorumca operator raft transfer-leader --http-addr {view.address}, and keep its log",
            )


# -- certificates


def _roots(views: Sequence[NodeView], now: datetime) -> Iterator[Finding]:
    view = next((view for view in views if view.roots), None)
    if view is None:
        return
    domains = {str(one.roots.get("TrustDomain")) for one in views if one.roots}
    if len(domains) > 1:
        yield critical(
            "several-clusters",
            ", ".join(one.name for one in views),
            f"these nodes have different trust domains: {', '.join(sorted(domains))}",
            "They are not one cluster: clients of one do not trust certificates of the other.",
            "compare `servers` in their configurations; a node joins with: quorumca operator raft add-peer",
        )
    for root in members(view.roots, "Roots"):
        for cert in _certs(root.get("RootCert")):
            yield from _root(str(root.get("ID")), cert, now, is_active=bool(root.get("Active")))
        for pem in root.get("IntermediateCerts") or ():
            for cert in _certs(pem):
                yield from _intermediate(str(root.get("ID")), cert, now, root.get("SigningKeyID") == _key_id(cert))


def _root(root_id: str, cert: x509.Certificate, now: datetime, *, is_active: bool) -> Iterator[Finding]:
    if is_active and is_expired(cert, now):
        yield critical(
            "root-expired",
            root_id,
            f"the active root has expired: {end_text(cert)}",
            "No client accepts any certificate that it stands behind.",
            "make a new root: quorumca tls ca create -cluster-id ID -days 3650, then quorumca ca set-config"
            f" ({_RECOVERY})",
        )
    elif is_active and expires_soon(cert, now):
        yield warning(
            "root-expires-soon",
            root_id,
            f"the active root expires at {end_text(cert)}",
            "No certificate outlives it: leaves get shorter, and then there are none.",
            "quorumca ca rotate --dry-run, then quorumca ca rotate --staged",
        )
    elif is_active and is_not_valid_yet(cert, now):
        yield warning(
            "root-not-valid-yet",
            root_id,
            f"the active root is valid from {time_text(cert.not_valid_before_utc)} on",
            "Clients refuse what it signs; or this machine's clock is wrong.",
            "compare clocks: date -u on every machine",
        )
    elif not is_active and is_expired(cert, now):
        yield warning(
            "retired-root-expired",
            root_id,
            f"a root that does not sign has expired and is still listed: {end_text(cert)}",
            "It makes every chain longer, and vouches for nobody.",
            f"quorumca ca distrust {root_id}",
        )


def _intermediate(root_id: str, cert: x509.Certificate, now: datetime, signs: bool) -> Iterator[Finding]:
    expired, soon = is_expired(cert, now), expires_soon(cert, now)
    if signs and (expired or soon):
        make = critical if expired else warning
        yield make(
            "intermediate-expired" if expired else "intermediate-expires-soon",
            root_id,
            f"the intermediate that signs {'has expired' if expired else 'expires'}: {end_text(cert)}",
            "It should have been renewed at half its life: leaves behind an expired one are refused.",
            "look for duty.failed and ca.warning in the leader's log: it is renewed as soon as the provider does so",
        )
    elif expired:
        yield warning(
            "cross-signed-expired",
            root_id,
            f"a cross-signed certificate has expired: {end_text(cert)}",
            "Clients that know only the root of before do not accept new leaves any more.",
            "have clients fetch the roots again: quorumca ca roots",
        )


def _node_certificates(views: Sequence[NodeView], now: datetime) -> Iterator[Finding]:
    for view in views:
        # The node itself knows how long they live. One of an earlier release does not say.
        soon = {
            labels.get("certificate"): bool(value) for labels, value in view.gauges("quorumca_node_cert_expires_soon")
        }
        for labels, not_after in view.gauges("quorumca_node_cert_not_after_seconds"):
            left = not_after - now.timestamp()
            is_late = soon.get(labels.get("certificate"), left < _NODE_CERT_SECONDS)
            if not not_after or (left > 0 and not is_late):
                continue
            make = critical if left <= 0 else warning
            end = time_text(datetime.fromtimestamp(not_after, UTC))
            if view.renews and labels.get("certificate") == "node":
                yield _not_renewed(view, make, end, has_ended=left <= 0)
                continue
            yield make(
                "node-certificate-expired" if left <= 0 else "node-certificate-expires-soon",
                view.name,
                f"its {labels.get('certificate')} certificate ends at {end}",
                "Other nodes, or clients, refuse every new connection to it.",
                f"quorumca tls cert create -server -node {view.name}, put the files in place; the node takes them"
                f" within 10 s ({_RECOVERY})",
            )


def _not_renewed(view: NodeView, make: Callable[..., Finding], end: str, *, has_ended: bool) -> Finding:
    """Of a node that renews by itself, when a third of the life is left."""
    by_token = f"quorumca operator join-token -name {view.name} -rejoin on another server, and quorumca join -rejoin"
    return make(
        "node-certificate-expired" if has_ended else "node-certificate-expires-soon",
        view.name,
        f"its node certificate ends at {end}, and it should have renewed it by itself by now",
        "Other nodes refuse every new connection to it once it has ended.",
        f"{by_token} on its machine (docs/join.md)"
        if has_ended
        else "look for tls.renewal_failed in its log: it is tried again until then; afterwards"
        f" {by_token} (docs/join.md)",
    )


def _rotation(views: Sequence[NodeView], now: datetime) -> Iterator[Finding]:
    view = next((view for view in views if view.rotation), None)
    if view is None:
        return
    rotation, last = member(view.rotation, "Rotation"), member(view.rotation, "Last")
    if rotation.get("Paused"):
        yield note(
            "rotation-paused",
            rotation.get("ID"),
            "a staged rotation is paused",
            "The new root is listed and does not sign until somebody says so.",
            "quorumca ca rotation resume, or activate, or abort",
        )
    elif rotation:
        since = _time(rotation.get("WaitUntil")) or _time(rotation.get("PhaseSince"))
        if since is not None and (now - since).total_seconds() > _STEP_SECONDS:
            yield warning(
                "rotation-stuck",
                rotation.get("ID"),
                f"it does not get on: phase {rotation.get('Phase')}, waiting for {rotation.get('WaitingFor')}",
                "Every step is tried again until it works; until then the old root signs.",
                "look for duty.failed in the leader's log; give it up: quorumca ca rotation abort",
            )
    elif last.get("Reason"):
        yield note(
            "rotation-given-up",
            last.get("ID"),
            f"the last rotation was given up: {last['Reason']}",
            "The root is as it was before.",
            "mend the cause, then again: quorumca ca rotate --dry-run",
        )
    until = _time(last.get("ClientsMayFailUntil"))
    if until is not None and until > now:
        yield note(
            "rotation-forced",
            last.get("ID"),
            f"the last rotation was forced: clients may fail until {time_text(until)}",
            "Clients that have not fetched the roots since refuse new certificates.",
            "have every client fetch the roots: quorumca ca roots",
        )


# -- machines


def _clocks(views: Sequence[NodeView], _now: datetime) -> Iterator[Finding]:
    measured = [(view, *view.ahead) for view in views if view.ahead is not None]
    apart = [(view, _at_least(low, high)) for view, low, high in measured]
    wrong = [(view, seconds) for view, seconds in apart if seconds > _NOTABLE_SKEW_SECONDS]
    latest, earliest = max((low for _, low, _ in measured), default=0), min((high for *_, high in measured), default=0)
    if len(wrong) == len(measured) > 1 and latest - earliest <= _NOTABLE_SKEW_SECONDS:
        yield warning(
            "own-clock-wrong",
            "this machine",
            f"its clock differs by {wrong[0][1]:.0f} s from those of all nodes, which agree",
            "Whatever is said here about expiry is off by as much.",
            "timedatectl; chronyc tracking",
        )
        return
    for view, seconds in wrong:
        make = critical if seconds > _MAX_SKEW_SECONDS else warning
        yield make(
            "clock-skew",
            view.name,
            f"its clock differs by at least {seconds:.0f} s from this machine's",
            "Certificates are backdated by 60 s only: beyond, they are refused as not valid yet, or end early.",
            "on its machine: timedatectl; chronyc tracking",
        )


def _at_least(low: float, high: float) -> float:
    return max(0.0, low, -high)


def _disks(views: Sequence[NodeView], _now: datetime) -> Iterator[Finding]:
    for view in views:
        free = view.gauge("quorumca_disk_free_bytes")
        if view.gauge("quorumca_disk_low"):
            make = critical if free < _FULL_BYTES else warning
            yield make(
                "disk-low",
                view.name,
                f"its data directory has {free / (1 << 20):.0f} MiB left",
                "A node that cannot write its log stops.",
                "on its machine: df -h; du -sh DATA_DIR/*; make room, or move the data to a larger disk",
            )
        for labels, count in view.counts("quorumca_scrub_damage"):
            if count and labels.get("file") == "ledger":
                yield critical(
                    "ledger-damaged",
                    view.name,
                    "its record of certificates is damaged",
                    "Look-ups on this node may be wrong, and the disk behind it cannot be trusted.",
                    f"replace it and its disk: quorumca operator raft remove-peer -id {view.name} ({_RECOVERY})",
                )
            elif count:
                yield warning(
                    "journal-damaged",
                    view.name,
                    f"damaged files of its log that were found since it started, and put right: {count:.0f}",
                    "Files do not get damaged on a sound disk.",
                    "on its machine: dmesg | grep -i error; smartctl -a DEVICE; replace the disk in good time",
                )


def _digests(views: Sequence[NodeView], _now: datetime) -> Iterator[Finding]:
    seen: dict[object, tuple[NodeView, tuple[object, ...]]] = {}
    for view in views:
        if not view.digest:
            continue
        index = view.digest.get("AppliedIndex")
        content = tuple(view.digest.get(key) for key in ("StateDigest", "LedgerCount", "LedgerDigest"))
        other, expected = seen.setdefault(index, (view, content))
        if content != expected:
            yield critical(
                "nodes-differ",
                f"{other.name}, {view.name}",
                f"at the same log index, {index}, they hold different data",
                "They must never: one of them has been damaged, or has been changed from outside.",
                "ask a third node which is right (quorumca doctor with all --http-addr), and replace the other one"
                f" ({_RECOVERY})",
            )


def _default_policies(views: Sequence[NodeView], _now: datetime) -> Iterator[Finding]:
    """A node of the release before does not say."""
    nodes: dict[str, list[NodeView]] = {}
    for view in views:
        if policy := member(view.own, "DebugConfig").get("ACLDefaultPolicy"):
            nodes.setdefault(str(policy), []).append(view)
    if len(nodes) > 1:
        yield warning(
            "default-policy-differs",
            ", ".join(view.name for view in views),
            "; ".join(f"{policy}: {', '.join(view.name for view in said)}" for policy, said in sorted(nodes.items())),
            "What no rule of access control speaks of is allowed or refused depending on the node that is asked, and"
            " for writes on the one that leads.",
            "make default_policy under [acl] the same in every node's file, and restart one after the other; without"
            " the setting it is allow on a node whose listeners are all on loopback, and deny elsewhere",
        )


_CHECKS: Final[tuple[Callable[[Sequence[NodeView], datetime], Iterator[Finding]], ...]] = (
    _leader,
    _bootstrap,
    _rights,
    _ready,
    _ca,
    _roots,
    _servers,
    _node_certificates,
    _digests,
    _disks,
    _clocks,
    _rotation,
    _default_policies,
)


def _certs(pem: object) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(str(pem).encode())
    except ValueError:
        return []


def _key_id(cert: x509.Certificate) -> str:
    try:
        return cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex(":")
    except (x509.ExtensionNotFound, ValueError):
        return ""


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
