"""What a client has written as JSON, on its way to the leader: as text, because JSON's numbers have no bounds."""

import json
from collections.abc import Mapping

from cluster.base.errors import BadRequest
from cluster.rpc.messages import MAX_JSON


def json_text(what: str, value: Mapping[str, object]) -> str:
    """It may be longer than the body that it came in: 1e15 is written out. Raises: BadRequest, on whatever node."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if len(text) > MAX_JSON:
        raise BadRequest(f"{what} has {len(text)} characters when it is written out: at most {MAX_JSON} are allowed")
    return text
