"""What is wrong with the files of `[acl]` that hold a token."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cluster.base.config import NodeConfig
from cluster.doctor.findings import Finding, critical, note
from cluster.seal.token_files import TokenFileRefused, read_secret_id, read_token

_CODE: Final = "acl-token"


def check_token_files(config: NodeConfig) -> Iterator[Finding]:
    if (own := config.acl.agent_token_file) is not None:
        missing = critical(
            _CODE,
            own,
            "acl.agent_token_file is not there",
            "The node does not start without it.",
            "make it, mode 0600, with the SecretID of the node's token in it, or take the setting out",
        )
        yield from _check("acl.agent_token_file", own, read_token, missing)
    if (initial := config.acl.initial_management_file) is not None:
        missing = note(
            _CODE,
            initial,
            "acl.initial_management_file is not there",
            "That is right if the cluster has its first token; until then nobody can manage it.",
            "for a new cluster make it, mode 0600, with a UUID in it",
        )
        yield from _check("acl.initial_management_file", initial, read_secret_id, missing)


def _check(setting: str, path: Path, read: Callable[[str, Path], str], missing: Finding) -> Iterator[Finding]:
    try:
        read(setting, path)
    except FileNotFoundError:
        yield missing
    except TokenFileRefused as error:
        if isinstance(error.__cause__, PermissionError):
            yield note(
                _CODE,
                path,
                f"{setting} cannot be read by you",
                "It was not looked at.",
                "run this as the user that the node runs as, or as root",
            )
            return
        yield critical(
            _CODE,
            path,
            str(error).removeprefix(f"{setting} {path}").lstrip(": "),
            "The node does not start with it.",
            f"put one token into it, on one line, and chmod 600 {path}",
        )
