"""ACL objects as Consul's commands show them: labels in a column, links indented below them.

What the API answers becomes text here and nowhere else: whatever a field holds stays on its line, and no control
character reaches the terminal. The rules of a policy keep their lines.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from cluster.client.api import objects
from cluster.client.texts import printable

Answer: TypeAlias = Mapping[str, Any]
Lines: TypeAlias = Iterator[str]
_Fields: TypeAlias = Iterable[tuple[str, object]]

_TOKEN_COLUMN: Final = 18
_METHOD_COLUMN: Final = 15
_COLUMN: Final = 14
_INDENT: Final = "   "
_NO_TIME: Final = "0001-01-01T00:00:00Z"  # Go's zero time
_NO_TTLS: Final = (None, "", 0, "0s")
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(Z|([+-]\d\d):(\d\d))")


def one_line(value: object) -> str:
    """A field's value in one line: none as nothing, a list with commas, a boolean as in JSON."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case list():
            return ", ".join(map(one_line, value))
        case _:
            return printable(str(value)).replace("\n", " ")


def quoted(text: str) -> str:
    """A name or an id inside a sentence."""
    return f'"{one_line(text)}"'


def rules_text(answer: Answer) -> str:
    """The rules of a policy, with their lines and tabs."""
    lines = str(answer.get("Rules") or "").replace("\r\n", "\n")
    return "\t".join(map(printable, lines.split("\t")))


def go_time(value: object) -> str:
    """RFC 3339 as Go prints a time: `2020-05-22 18:52:31.5 +0000 UTC`. Anything else stays as it is."""
    found = _TIME.fullmatch(str(value))
    if found is None:
        return one_line(value)
    day, time, fraction, zone, hours, minutes = found.groups()
    fraction = (fraction or "").rstrip("0").rstrip(".")
    offset = "+0000" if zone == "Z" else f"{hours}{minutes}"
    return f"{day} {time}{fraction} {offset} {'UTC' if offset == '+0000' else offset}"


def token(answer: Answer, *, meta: bool) -> Lines:
    yield from _token_fields(answer, meta=meta)
    yield from _links(answer)


def policy(answer: Answer, *, meta: bool) -> Lines:
    fields = [("ID", answer.get("ID")), ("Name", answer.get("Name")), *_of_policy(answer, meta=meta)]
    yield from _labelled(_COLUMN, fields)
    yield "Rules:"
    yield rules_text(answer)


def role(answer: Answer, *, meta: bool) -> Lines:
    fields = [("ID", answer.get("ID")), ("Name", answer.get("Name")), *_of_role(answer, meta=meta)]
    yield from _labelled(_COLUMN, fields)
    yield from _links(answer)


def auth_method(answer: Answer, *, meta: bool) -> Lines:
    fields: list[tuple[str, object]] = [("Name", answer.get("Name")), ("Type", answer.get("Type"))]
    fields += _given(answer, "DisplayName")
    fields.append(("Description", answer.get("Description")))
    if answer.get("MaxTokenTTL") not in _NO_TTLS:
        fields.append(("MaxTokenTTL", answer["MaxTokenTTL"]))
    fields += _given(answer, "TokenLocality")
    yield from _labelled(_METHOD_COLUMN, [*fields, *_indexes(answer, meta=meta)])
    yield "Config:"
    yield json.dumps(answer.get("Config"), indent=2, sort_keys=True)


def binding_rule(answer: Answer, *, meta: bool) -> Lines:
    yield from _labelled(_COLUMN, [("ID", answer.get("ID")), *_of_binding_rule(answer, meta=meta)])


def token_list(answers: Iterable[Answer], *, meta: bool) -> Lines:
    for number, answer in enumerate(answers):
        if number:
            yield ""
        yield from token(answer, meta=meta)


def policy_list(answers: Iterable[Answer], *, meta: bool) -> Lines:
    for answer in answers:
        fields = _labelled(_COLUMN, [("ID", answer.get("ID")), *_of_policy(answer, meta=meta)])
        yield from _below(answer.get("Name"), fields)


def role_list(answers: Iterable[Answer], *, meta: bool) -> Lines:
    for answer in answers:
        fields = _labelled(_COLUMN, [("ID", answer.get("ID")), *_of_role(answer, meta=meta)])
        yield from _below(answer.get("Name"), [*fields, *_links(answer)])


def auth_method_list(answers: Iterable[Answer], *, meta: bool) -> Lines:
    for answer in answers:
        fields = [
            ("Type", answer.get("Type")),
            *_given(answer, "DisplayName"),
            ("Description", answer.get("Description")),
            *_indexes(answer, meta=meta),
        ]
        yield from _below(answer.get("Name"), _labelled(_COLUMN, fields))


def binding_rule_list(answers: Iterable[Answer], *, meta: bool) -> Lines:
    for answer in answers:
        yield from _below(answer.get("ID"), _labelled(_COLUMN, _of_binding_rule(answer, meta=meta)))


def expanded_token(answer: Answer, *, meta: bool) -> Lines:
    """With the rules that each link and identity stands for, and what counts where no rule does."""
    policies = {item.get("ID"): item for item in objects(answer, "ExpandedPolicies")}
    roles = {item.get("ID"): item for item in objects(answer, "ExpandedRoles")}
    yield from _token_fields(answer, meta=meta)
    yield from _expanded_links(answer, policies)
    if links := objects(answer, "Roles"):
        yield "Roles:"
        for link in links:
            expanded = roles.get(link.get("ID"), link)
            yield f"  Role Name: {one_line(expanded.get('Name'))}"
            yield f"    ID: {one_line(expanded.get('ID'))}"
            yield f"    Description: {one_line(expanded.get('Description'))}"
            for line in _expanded_links(expanded, policies):
                yield f"    {line}" if line else ""
    yield "=== End of Authorizer Layer 0: Token ==="
    yield "=== Start of Authorizer Layer 2: Agent Configuration Defaults (Inherited) ==="
    yield (
        "Description: Defined at request-time by the agent that resolves the ACL token;"
        " other agents may have different configuration defaults"
    )
    yield f"Resolved By Agent: {quoted(one_line(answer.get('ResolvedByAgent')))}"
    yield ""
    yield f"Default Policy: {one_line(answer.get('AgentACLDefaultPolicy'))}"
    yield (
        "  Description: Backstop rule used if no preceding layer has a matching rule"
        " (refer to default_policy option in agent configuration)"
    )
    yield ""
    yield f"Down Policy: {one_line(answer.get('AgentACLDownPolicy'))}"
    yield (
        "  Description: Defines what to do if this Token's information cannot be read from the primary_datacenter"
        " (refer to down_policy option in agent configuration)"
    )
    yield ""


def _token_fields(answer: Answer, *, meta: bool) -> Lines:
    fields: list[tuple[str, object]] = [
        *((name, answer.get(name)) for name in ("AccessorID", "SecretID", "Description")),
        ("Local", bool(answer.get("Local"))),
    ]
    if answer.get("AuthMethod"):
        fields.append(("Auth Method", answer["AuthMethod"]))
    fields.append(("Create Time", go_time(answer.get("CreateTime") or _NO_TIME)))
    if answer.get("ExpirationTime") not in (None, "", _NO_TIME):
        fields.append(("Expiration Time", go_time(answer["ExpirationTime"])))
    yield from _labelled(_TOKEN_COLUMN, [*fields, *_hash_and_indexes(answer, meta=meta)])


def _of_policy(answer: Answer, *, meta: bool) -> _Fields:
    yield "Description", answer.get("Description")
    yield "Datacenters", answer.get("Datacenters")
    yield from _hash_and_indexes(answer, meta=meta)


def _of_role(answer: Answer, *, meta: bool) -> _Fields:
    yield "Description", answer.get("Description")
    yield from _hash_and_indexes(answer, meta=meta)


def _of_binding_rule(answer: Answer, *, meta: bool) -> _Fields:
    for name in ("AuthMethod", "Description", "BindType", "BindName", "Selector"):
        yield name, answer.get(name)
    yield from _indexes(answer, meta=meta)


def _hash_and_indexes(answer: Answer, *, meta: bool) -> _Fields:
    if meta:
        yield "Hash", _hex(answer.get("Hash"))
    yield from _indexes(answer, meta=meta)


def _indexes(answer: Answer, *, meta: bool) -> _Fields:
    if meta:
        yield "Create Index", answer.get("CreateIndex", 0)
        yield "Modify Index", answer.get("ModifyIndex", 0)


def _given(answer: Answer, name: str) -> list[tuple[str, object]]:
    """A field that is shown only when it is not empty."""
    return [(name, answer[name])] if answer.get(name) else []


def _links(answer: Answer) -> Lines:
    for title, field in (("Policies:", "Policies"), ("Roles:", "Roles")):
        if links := objects(answer, field):
            yield title
            yield from (f"{_INDENT}{one_line(link.get('ID'))} - {one_line(link.get('Name'))}" for link in links)
    for title, field, shown in _IDENTITIES:
        if identities := objects(answer, field):
            yield title
            yield from (f"{_INDENT}{shown(identity)}" for identity in identities)


def _service(identity: Answer) -> str:
    return f"{one_line(identity.get('ServiceName'))} (Datacenters: {one_line(identity.get('Datacenters')) or 'all'})"


def _node(identity: Answer) -> str:
    return f"{one_line(identity.get('NodeName'))} (Datacenter: {one_line(identity.get('Datacenter'))})"


_IDENTITIES: Final = (
    ("Service Identities:", "ServiceIdentities", _service),
    ("Node Identities:", "NodeIdentities", _node),
)


def _expanded_links(answer: Answer, policies: Mapping[object, Answer]) -> Lines:
    if links := objects(answer, "Policies"):
        yield "Policies:"
        for link in links:
            expanded = policies.get(link.get("ID"), link)
            yield f"  Policy Name: {one_line(expanded.get('Name'))}"
            yield f"    ID: {one_line(expanded.get('ID'))}"
            yield f"    Description: {one_line(expanded.get('Description'))}"
            yield from _expanded_rules(rules_text(expanded))
    for title, field, shown in _IDENTITIES:
        if identities := objects(answer, field):
            yield title
            for identity in identities:
                yield f"  Name: {shown(identity)}"
                yield "    Description: synthetic policy"
                yield from _expanded_rules(_rules_of(identity))


def _expanded_rules(rules: str) -> Lines:
    yield "    Rules:"
    yield from (f"      {line}" for line in rules.split("\n"))
    yield ""


def _rules_of(identity: Answer) -> str:
    """The rules that an identity stands for, as text for a person. Nothing ever reads it back."""
    from cluster.access.identities import node_rules, service_rules
    from fsm.acl import NodeIdentity, ServiceIdentity

    rules = (
        service_rules(ServiceIdentity(one_line(identity.get("ServiceName"))))
        if "ServiceName" in identity
        else node_rules(NodeIdentity(one_line(identity.get("NodeName")), ""))
    )
    return "\n".join(
        f'{rule.resource}{"_prefix" if rule.is_prefix else ""} "{rule.name}" {{ policy = "{rule.level.name.lower()}" }}'
        for rule in rules
    )


def _labelled(column: int, fields: _Fields) -> Lines:
    for label, value in fields:
        yield f"{label + ':':<{column}}{one_line(value)}"


def _below(name: object, lines: Iterable[str]) -> Lines:
    yield f"{one_line(name)}:"
    yield from (_INDENT + line for line in lines)


def _hex(value: object) -> str:
    """Base64, which JSON has it in, as Go prints bytes."""
    try:
        return base64.b64decode(str(value or ""), validate=True).hex()
    except (binascii.Error, ValueError):
        return one_line(value)
