"""What a binding rule gives, with the names that a login has proved: `web-${serviceaccount.namespace}`.

Of Consul's HIL (https://github.com/hashicorp/hil) only `${name}`: nothing is computed, and what comes of it is never
looked at again, so a name cannot bring a name with it.
"""

import re
from collections.abc import Mapping
from typing import Final

from cluster.access.selector import Fields

MAX_BIND_NAME: Final = 4096
_PART: Final = re.compile(r"\$\{([^{}$]*)\}|\$\$\{|\$(?!\{)|[^$]+")


class BindNameRefused(ValueError):
    """The text, or what came of it, is no name."""


def check_bind_name(text: str, fields: Fields) -> None:
    """When a rule is written. Raises: BindNameRefused."""
    if not text or len(text) > MAX_BIND_NAME:
        raise BindNameRefused(f"must have from 1 to {MAX_BIND_NAME} characters")
    for variable in _variables(text):
        if variable not in fields.names:
            raise BindNameRefused(f"unknown variable {ascii(variable)[:80]}")


def bound_name(text: str, proved: Mapping[str, str]) -> str:
    """At a login. Raises: BindNameRefused where a value is missing, which the login has not proved."""

    def filled(part: "re.Match[str]") -> str:
        if part[1] is not None:
            value = proved.get(part[1].strip())
            if value is None:
                raise BindNameRefused(f"the login has no {ascii(part[1].strip())[:80]}")
            return value
        return "${" if part[0] == "$${" else part[0]

    _variables(text)
    return _PART.sub(filled, text)


def _variables(text: str) -> list[str]:
    at, found = 0, []
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            raise BindNameRefused(f"at {at + 1}: expected ${{NAME}}")
        if part[1] is not None:
            found.append(part[1].strip())
        at = part.end()
    return found
