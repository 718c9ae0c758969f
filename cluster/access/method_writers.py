"""Auth methods and binding rules that an operator has written, as commands: checked, with Consul's texts, and secrets
sealed. See writers.py.
"""

import json
import re
from dataclasses import dataclass, replace
from typing import Final

from cluster.access.bind_names import BindNameRefused, check_bind_name
from cluster.access.inputs import AuthMethodInput, BindingRuleInput, duration_ns
from cluster.access.methods.config import Written, fields_of, stored_config, written_config
from cluster.access.methods.prove import Prover
from cluster.access.methods.refusal import MethodInvalid
from cluster.access.secret_ids import Sealer, key_sealed_again, new_id
from cluster.access.selector import SelectorRefused, parse_selector
from cluster.base.errors import BadRequest, NotFound
from fsm.acl import Acl, AuthMethod, BindingRule, BindType, Locality, MethodType, SetAuthMethod, SetBindingRule
from fsm.acl_rules import find
from fsm.fields import MAX_REASON
from providers.config.durations import SECOND, format_duration

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MIN_TTL_SECONDS: Final = 60
_MAX_TTL_SECONDS: Final = 24 * 3600


@dataclass(frozen=True, slots=True)
class Prepared:
    """A method whose configuration was tried; `replaces` is what it was tried beside."""

    method: AuthMethod
    replaces: int


class MethodWriter:
    def __init__(self, prover: Prover, sealer: Sealer) -> None:
        self._prover = prover
        self._sealer = sealer

    async def prepared(self, acl: Acl, name: str, given: AuthMethodInput) -> Prepared:
        """All of it that takes time. Without a name in the path one of that name is replaced.

        Raises: BadRequest, NotFound.
        """
        if name and given.name and given.name != name:
            raise BadRequest("AuthMethod Name in URL and payload do not match")
        wanted = name or given.name
        if not wanted:
            raise BadRequest("Invalid Auth Method: no Name is set")
        if not is_method_name(wanted):
            raise BadRequest(
                "Invalid Auth Method: invalid Name. Only alphanumeric characters, '-' and '_' are allowed, at most 128"
            )
        old = find_method(acl, wanted)
        if name and old is None:
            raise NotFound(f'cannot find auth method with name "{name}"')
        kind = _kind(given.type, old)
        try:
            written = written_config(kind, given.config or {}, self.written(old) if old is not None else None)
            await self._prover.check(written.config)
        except MethodInvalid as error:
            raise BadRequest(str(error)) from error
        method = AuthMethod(
            wanted,
            kind,
            given.display_name,
            given.description,
            written.public_json,
            self._sealed(wanted, written),
            _ttl(given),
            _locality(given.token_locality),
        )
        return Prepared(method, old.modify_index if old is not None else 0)

    def set_method(self, acl: Acl, prepared: Prepared) -> SetAuthMethod:
        """Raises: BadRequest when another write came first: it would be undone unseen."""
        old = find_method(acl, prepared.method.name)
        if (old.modify_index if old is not None else 0) != prepared.replaces:
            raise BadRequest(f"auth method {prepared.method.name} was written by somebody else meanwhile: look again")
        return SetAuthMethod(prepared.method, prepared.replaces)

    def written(self, method: AuthMethod) -> Written:
        """As it was written, secrets and all. Raises: MethodInvalid, SealError."""
        secrets = {}
        if method.sealed:
            secrets = json.loads(self._sealer.open_bare(_purpose(method.name), method.sealed))
        return stored_config(method.kind, method.config_json, secrets)

    def _sealed(self, name: str, written: Written) -> bytes:
        if not written.secrets:
            return b""
        return self._sealer.seal_bare(_purpose(name), json.dumps(dict(written.secrets)).encode())

    def set_binding_rule(self, acl: Acl, rule_id: str, given: BindingRuleInput) -> SetBindingRule:
        """Raises: BadRequest, NotFound."""
        if rule_id and given.id and given.id.lower() != rule_id:
            raise BadRequest("BindingRule ID in URL and payload do not match")
        if not rule_id and given.id:
            raise BadRequest("Cannot specify the ID when creating a new binding rule")
        old: BindingRule | None = find(acl, "binding_rules", rule_id)
        if rule_id and old is None:
            raise NotFound(f"cannot find binding rule {rule_id}")
        if old is not None and given.auth_method not in ("", old.auth_method):
            raise BadRequest("the AuthMethod field of an Binding Rule is immutable")
        method_name = given.auth_method or (old.auth_method if old is not None else "")
        if not method_name:
            raise BadRequest("Invalid Binding Rule: no AuthMethod is set")
        method = find_method(acl, method_name)
        if method is None:
            raise NotFound(f'cannot find auth method with name "{method_name:.128}"')
        bind_type = _bind_type(given.bind_type)
        if not given.bind_name:
            raise BadRequest("Invalid Binding Rule: no BindName is set")
        if given.bind_vars:
            raise BadRequest("Invalid Binding Rule: invalid BindName or BindVars: templated policies are not supported")
        self._check_expressions(method, given)
        rule = BindingRule(
            rule_id or new_id(), given.description, method_name, given.selector, bind_type, given.bind_name
        )
        return SetBindingRule(rule, old.modify_index if old is not None else 0)

    def _check_expressions(self, method: AuthMethod, given: BindingRuleInput) -> None:
        """Raises: BadRequest."""
        try:
            config = self.written(method).config
            fields = fields_of(config)
            parse_selector(given.selector, fields)
            check_bind_name(given.bind_name, fields)
        except MethodInvalid as error:
            raise BadRequest(f"auth method {method.name}: {error}") from error
        except SelectorRefused as error:
            raise BadRequest(f"invalid Binding Rule: Selector is invalid: {error}"[:MAX_REASON]) from error
        except BindNameRefused as error:
            raise BadRequest(f"Invalid Binding Rule: invalid BindName or BindVars: {error}") from error


def acl_sealed_again(before: Sealer, after: Sealer, acl: Acl) -> Acl:
    """The same, all that is sealed of it under another data key. Raises: SealError."""
    key = key_sealed_again(before, after, acl.key) if acl.key is not None else None
    return replace(acl, key=key, methods=tuple(_sealed_again(before, after, method) for method in acl.methods))


def _sealed_again(before: Sealer, after: Sealer, method: AuthMethod) -> AuthMethod:
    if not method.sealed:
        return method
    purpose = _purpose(method.name)
    return replace(method, sealed=after.seal_bare(purpose, before.open_bare(purpose, method.sealed)))


def is_method_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def find_method(acl: Acl, name: str) -> AuthMethod | None:
    found: AuthMethod | None = find(acl, "methods", name)
    return found


def _purpose(name: str) -> str:
    return f"auth method {name}"


def _kind(given: str, old: AuthMethod | None) -> MethodType:
    if old is not None and given not in ("", old.kind):
        raise BadRequest("Invalid Auth Method: the Type field of an Auth Method is immutable")
    try:
        return old.kind if old is not None else MethodType(given)
    except ValueError:
        raise BadRequest(f"Invalid Auth Method: Type should be one of: [{' '.join(MethodType)}]") from None


def _ttl(given: AuthMethodInput) -> int:
    nanoseconds = duration_ns(given.max_token_ttl, "Invalid Auth Method: MaxTokenTTL")
    shown = format_duration(nanoseconds)
    if nanoseconds and nanoseconds < _MIN_TTL_SECONDS * SECOND:
        raise BadRequest(f"Invalid Auth Method: MaxTokenTTL {shown} cannot be less than 1m0s")
    if nanoseconds > _MAX_TTL_SECONDS * SECOND:
        raise BadRequest(f"Invalid Auth Method: MaxTokenTTL {shown} cannot be more than 24h0m0s")
    return nanoseconds // SECOND


def _locality(given: str) -> Locality:
    try:
        return Locality(given or Locality.LOCAL)
    except ValueError:
        raise BadRequest(
            f"Invalid Auth Method: TokenLocality {given!a:.80} must be one of: [{' '.join(Locality)}]"
        ) from None


def _bind_type(given: str) -> BindType:
    if not given:
        raise BadRequest("Invalid Binding Rule: no BindType is set")
    try:
        return BindType(given)
    except ValueError:
        raise BadRequest(
            f'Invalid Binding Rule: invalid BindName or BindVars: unknown BindType "{given:.80}": must be one of'
            f" {', '.join(BindType)}"
        ) from None
