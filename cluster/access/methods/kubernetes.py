"""Service accounts of a Kubernetes cluster: what its TokenReview API says of a token, or what the token itself says
when it is checked with the cluster's keys.

Proved is `serviceaccount.namespace`, `.name` and `.uid`. Asked for, the cluster may give a service another name than
its account has, by an annotation. What the cluster answers is read like anything else from outside: its names become
part of a URL, and of rules.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from cluster.access.methods.config import KubernetesConfig, KubernetesOfflineConfig
from cluster.access.methods.fetching import Fetch, FetchFailed, Request
from cluster.access.methods.jwt import MAX_TOKEN, verified_claims
from cluster.access.methods.key_sets import KeySets
from cluster.access.methods.keys import KeyRefused, decoded
from cluster.access.methods.refusal import LoginRefused
from cluster.access.methods.strict_json import JsonRefused, is_clean, read_object
from cluster.access.selector import Proved

ANNOTATION: Final = "consul.hashicorp.com/service-name"
_REVIEWS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
_MAX_ANSWER: Final = 128 << 10
_MAX_UID: Final = 128
_MAX_NAME: Final = 253

#: A label and a subdomain of RFC 1123, as Kubernetes names namespaces and service accounts.
_USER: Final = re.compile(
    r"system:serviceaccount:(?P<namespace>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?):"
    r"(?P<name>(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*)"
)


async def proved_by_review(token: str, config: KubernetesConfig, fetch: Fetch) -> Proved:
    """Raises: LoginRefused."""
    _check_shape(token)
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token},
    }
    answer = await _asked(config, fetch, _REVIEWS, json.dumps(review).encode())
    status = _member(answer, "status")
    if status.get("error") or status.get("authenticated") is not True:
        error = str(status.get("error") or "service account jwt not valid").replace(token, "TOKEN")
        raise LoginRefused(f"lookup failed: {error[:500]!a}")
    user = _member(status, "user")
    namespace, name = _account(user.get("username"))
    uid = _uid(user.get("uid", ""))
    account = await _asked(config, fetch, f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}", None)
    metadata = _member(account, "metadata")
    # It may have been deleted and made anew since, by somebody else.
    if uid and metadata.get("uid", uid) != uid:
        raise LoginRefused("annotation lookup failed: the service account is another one than the token's")
    return _proved(namespace, _renamed(metadata, name), uid)


async def proved_by_keys(token: str, config: KubernetesOfflineConfig, keys: KeySets, now: float) -> Proved:
    """Of a token that is bound to a service account; the old ones, which never end, do not pass.

    Raises: LoginRefused.
    """
    claims = await verified_claims(token, config.check, keys, now)
    namespace, name = _account(claims.get("sub"))
    inside = _member(claims, "kubernetes.io")
    account = _member(inside, "serviceaccount")
    if inside.get("namespace") != namespace or account.get("name") != name:
        raise LoginRefused("sub and kubernetes.io are of different service accounts")
    return _proved(namespace, name, _uid(account.get("uid", "")))


def _proved(namespace: str, name: str, uid: str) -> Proved:
    return Proved(
        {"serviceaccount.namespace": namespace, "serviceaccount.name": name, "serviceaccount.uid": uid},
    )


def _check_shape(token: str) -> None:
    """That it can be a token at all, before anybody is asked."""
    parts = token.split(".", 3)
    try:
        is_token = len(token) <= MAX_TOKEN and len(parts) == 3 and all(decoded(part, MAX_TOKEN) for part in parts)
    except KeyRefused:
        is_token = False
    if not is_token:
        raise LoginRefused("failed to parse and validate JWT")


async def _asked(config: KubernetesConfig, fetch: Fetch, path: str, body: bytes | None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {config.service_account_jwt}"}
    try:
        answer = await fetch(Request(config.host + path, config.ca_pem, headers, body, _MAX_ANSWER))
        return read_object(answer, max_bytes=_MAX_ANSWER)
    except (FetchFailed, JsonRefused) as error:
        raise LoginRefused(f"the Kubernetes API: {error}") from error


def _member(answer: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = answer.get(name)
    if not isinstance(value, dict):
        raise LoginRefused(f"{name} is missing, or no object")
    return value


def _account(user: object) -> tuple[str, str]:
    found = _USER.fullmatch(user) if isinstance(user, str) else None
    if found is None:
        raise LoginRefused(f"the user {str(user)[:300]!a} is no service account")
    return found["namespace"], found["name"]


def _uid(uid: object) -> str:
    if not isinstance(uid, str) or len(uid) > _MAX_UID or not is_clean(uid):
        raise LoginRefused("the uid is no text, or too long")
    return uid


def _renamed(metadata: Mapping[str, Any], name: str) -> str:
    annotations = metadata.get("annotations")
    if annotations is None:
        return name
    if not isinstance(annotations, dict):
        raise LoginRefused("annotations is no object")
    renamed = annotations.get(ANNOTATION, name)
    if not isinstance(renamed, str) or len(renamed) > _MAX_NAME or not is_clean(renamed):
        raise LoginRefused(f"the annotation {ANNOTATION} is no text, or too long")
    return renamed
