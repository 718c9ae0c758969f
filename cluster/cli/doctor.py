"""`quorumca doctor`: what is wrong, why it matters and what to do next, the worst first."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.cli.api_flags import add_api_flags, apis_from
from cluster.cli.arguments import Subcommands
from cluster.cli.output import print_json, waiting
from cluster.client.errors import Exit
from cluster.client.texts import printable

if TYPE_CHECKING:
    from cluster.doctor.findings import Finding, Severity


def add_parser(subcommands: Subcommands) -> None:
    parser = subcommands.add_parser(
        "doctor",
        help="say what is wrong with a cluster or a node, and what to do",
        description="Asks running nodes, best all of them: repeat --http-addr. With --config: looks at one node's"
        " configuration, certificates and data, also when it does not start. Changes nothing. Exit code"
        f" {Exit.UNHEALTHY}: something is wrong; notes alone are not.",
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="a node's settings, TOML")
    add_api_flags(parser, is_read=False, asks_many=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from cluster.cli.doctor_rules import RULES
    from cluster.doctor.findings import is_well, ranked
    from cluster.doctor.live import findings_of
    from cluster.doctor.look import look_at
    from cluster.doctor.node import check_node

    findings: list[Finding] = []
    looked_at: list[str] = []
    if args.config is not None:
        with waiting(f"Looking at the files of {args.config}"):
            findings += check_node(args.config, datetime.now(UTC), RULES)
        looked_at.append(str(args.config))
    if args.config is None or args.http_addr:
        views = [look_at(api) for api in apis_from(args)]
        findings += findings_of(views, datetime.now(UTC))
        looked_at += [view.address for view in views]
    found, well = ranked(findings), is_well(findings)
    if args.format == "json":
        print_json({"Healthy": well, "LookedAt": looked_at, "Findings": [_object(finding) for finding in found]})
    else:
        _print(found, looked_at)
    return Exit.OK if well else Exit.UNHEALTHY


def _object(finding: "Finding") -> dict[str, str]:
    return {
        "Severity": finding.severity.label,
        "Code": finding.code,
        "Subject": finding.subject,
        "What": finding.what,
        "Why": finding.why,
        "Next": finding.next,
    }


def _print(findings: "Sequence[Finding]", looked_at: Sequence[str]) -> None:
    for finding in findings:
        print(printable(f"{finding.severity.name} {finding.code}: {finding.subject}: {finding.what}"))
        print(printable(f"    {finding.why}"))
        print(printable(f"    next: {finding.next}\n"))
    print(printable(f"Looked at {', '.join(looked_at)}: {_summary(findings)}."))


def _summary(findings: "Sequence[Finding]") -> str:
    from cluster.doctor.findings import Severity

    counts = [(sum(finding.severity is severity for finding in findings), severity) for severity in Severity]
    return ", ".join(_counted(count, severity) for count, severity in counts if count) or "nothing is wrong"


def _counted(count: int, severity: "Severity") -> str:
    """`critical` is no noun."""
    ending = "s" if count > 1 and severity.label != "critical" else ""
    return f"{count} {severity.label}{ending}"
