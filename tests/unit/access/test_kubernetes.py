"""Service accounts: asked about at the cluster, or read from a token that the cluster's keys have signed."""

import json
from typing import Any

import pytest

from cluster.access.methods.config import KubernetesConfig, KubernetesOfflineConfig, written_config
from cluster.access.methods.key_sets import KeySets
from cluster.access.methods.kubernetes import ANNOTATION, proved_by_keys, proved_by_review
from cluster.access.methods.refusal import LoginRefused
from cluster.access.selector import Proved
from fsm.acl import MethodType
from tests.kit.clock import FakeClock
from tests.kit.fake_fetch import FakeFetch
from tests.kit.tokens import public_pem, signer, token_of

NOW = 1_800_000_000
HOST = "https://k8s.example:6443"
REVIEWS = f"{HOST}/apis/authentication.k8s.io/v1/tokenreviews"
ACCOUNT = f"{HOST}/api/v1/namespaces/shop/serviceaccounts/web"
SECRET = token_of({"sub": "reviewer"})
TOKEN = token_of({"sub": "system:serviceaccount:shop:web"})
CONFIG = KubernetesConfig(HOST, "CA", SECRET)
USER = "system:serviceaccount:shop:web"


def review(user: Any = USER, **status: Any) -> bytes:
    return json.dumps({"status": {"authenticated": True, "user": {"username": user, "uid": "u1"}} | status}).encode()


def account(**metadata: Any) -> bytes:
    return json.dumps({"metadata": {"name": "web", "uid": "u1"} | metadata}).encode()


async def proved(answer: bytes, about: bytes | None = None, token: str = TOKEN) -> Proved:
    fetch = FakeFetch({REVIEWS: answer, ACCOUNT: account() if about is None else about})
    return await proved_by_review(token, CONFIG, fetch)


def of(name: str = "web", uid: str = "u1") -> Proved:
    return Proved({"serviceaccount.namespace": "shop", "serviceaccount.name": name, "serviceaccount.uid": uid})


async def test_cluster_is_asked_with_the_reviewers_token() -> None:
    fetch = FakeFetch({REVIEWS: review(), ACCOUNT: account()})
    assert await proved_by_review(TOKEN, CONFIG, fetch) == of()
    first, second = fetch.asked
    assert json.loads(first.body or b"") == {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": TOKEN},
    }
    assert second.body is None
    assert {request.ca_pem for request in fetch.asked} == {"CA"}
    assert [dict(request.headers) for request in fetch.asked] == [{"Authorization": f"Bearer {SECRET}"}] * 2
    assert SECRET not in repr(fetch.asked)
    assert TOKEN not in repr(fetch.asked)


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({}, "web"),
        ({"annotations": None}, "web"),
        ({"annotations": {"other": "x"}}, "web"),
        ({"annotations": {ANNOTATION: "shop-web"}}, "shop-web"),
        ({"annotations": {ANNOTATION: ""}}, ""),
    ],
)
async def test_annotation_names_the_service(metadata: dict[str, Any], name: str) -> None:
    assert await proved(review(), account(**metadata)) == of(name)


@pytest.mark.parametrize(
    "answer",
    [
        review(authenticated=False),
        review(authenticated="true"),
        review(authenticated=1),
        review(error=f"[invalid bearer token, {TOKEN}]"),
        review(user=None),
        review("admin"),
        review("system:node:web"),
        review("system:serviceaccount:shop"),
        review("system:serviceaccount:shop:web:x"),
        review("system:serviceaccount:shop:web/../../../../secrets/x"),
        review("system:serviceaccount:shop:web?x=1"),
        review("system:serviceaccount:shop:%2e%2e"),
        review("system:serviceaccount:shop:.."),
        review("system:serviceaccount:Shop:web"),
        review("system:serviceaccount::web"),
        review("system:serviceaccount:shop:web\n"),
        review("system:serviceaccount:shop:" + "x" * 254),
        review("system:serviceaccount:" + "x" * 64 + ":web"),
        review(USER.upper()),
        review([USER]),
        json.dumps({"status": {"authenticated": True, "user": {"username": USER, "uid": 1}}}).encode(),
        json.dumps({"status": {"authenticated": True, "user": {"username": USER, "uid": "x" * 129}}}).encode(),
        json.dumps({"status": {"authenticated": True}}).encode(),
        json.dumps({"status": True}).encode(),
        b'{"status":{"authenticated":false,"authenticated":true}}',
        b"{}",
        b"[]",
        b"",
        b"[" * 5000,
        b'{"a":"' + b"x" * (128 << 10) + b'"}',
    ],
)
async def test_an_answer_that_is_no_service_account_is_refused(answer: bytes) -> None:
    with pytest.raises(LoginRefused) as caught:
        await proved(answer)
    assert TOKEN not in caught.value.reason


@pytest.mark.parametrize(
    "about",
    [
        b"{}",
        b'{"metadata":[]}',
        account(uid="u2"),
        account(uid=None),
        account(annotations=[]),
        account(annotations={ANNOTATION: 1}),
        account(annotations={ANNOTATION: None}),
        account(annotations={ANNOTATION: "x" * 254}),
        account(annotations={ANNOTATION: "\ud800"}),
    ],
)
async def test_an_account_that_is_another_or_odd_is_refused(about: bytes) -> None:
    with pytest.raises(LoginRefused):
        await proved(review(), about)


async def test_nobody_is_asked_about_what_cannot_be_a_token_and_no_answer_is_a_refusal() -> None:
    for token in ("", "a", "a.b", "a.b.c.d", "a.b.c\n", "é.b.c", "..", "a." * 9000, "a.b." + "c" * (16 << 10)):
        fetch = FakeFetch({REVIEWS: review(), ACCOUNT: account()})
        with pytest.raises(LoginRefused):
            await proved_by_review(token, CONFIG, fetch)
        assert fetch.asked == []
    for answers in ({}, {REVIEWS: review()}):
        with pytest.raises(LoginRefused, match="Permission denied"):
            await proved_by_review(TOKEN, CONFIG, FakeFetch(answers))


# -- by the cluster's keys

CLAIMS = {
    "iss": "https://k8s.example",
    "aud": ["ca"],
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 3600,
    "sub": USER,
    "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "web", "uid": "u1"}, "pod": {"name": "p"}},
}


async def offline(claims: dict[str, Any]) -> Proved:
    raw = {
        "JWTValidationPubKeys": public_pem(signer()),
        "BoundIssuer": "https://k8s.example",
        "BoundAudiences": "ca",
    }
    config = written_config(MethodType.KUBERNETES, raw).config
    assert isinstance(config, KubernetesOfflineConfig)
    return await proved_by_keys(token_of(claims), config, KeySets(FakeFetch(), FakeClock()), NOW)


async def test_a_bound_token_says_the_same_as_the_cluster() -> None:
    assert await offline(CLAIMS) == of()


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"aud": ["kubernetes"]},
        {"exp": NOW - 3600},
        {"sub": None},
        {"sub": "system:serviceaccount:shop:admin"},
        {"sub": "system:serviceaccount:other:web"},
        {"kubernetes.io": None},
        {"kubernetes.io": {"namespace": "shop"}},
        {"kubernetes.io": {"namespace": "shop", "serviceaccount": {"uid": "u1"}}},
        {"kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "web", "uid": 1}}},
        {"kubernetes.io": {"namespace": ["shop"], "serviceaccount": {"name": "web", "uid": "u1"}}},
    ],
)
async def test_a_token_of_something_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(LoginRefused):
        await offline(CLAIMS | changes)
