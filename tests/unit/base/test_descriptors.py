"""How the descriptors of a process are shared out."""

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.base.descriptors import LEAST, raise_limit, shares_of


@given(
    st.integers(LEAST + 128, 1 << 21),
    st.integers(1, 64),
    st.integers(16, 1_000_000),
    st.none() | st.integers(1, 1_000_000),
)
def test_connections_never_get_the_descriptors_of_the_log(
    limit: int, workers: int, http: int, per_source: int | None
) -> None:
    shares = shares_of(limit, workers, http, per_source)
    given_away = shares.http.total + 2 * shares.strangers.total + shares.rpc_members.total + shares.dialled
    assert limit - given_away >= 96 + 2 * workers
    assert shares.http.total <= http
    assert shares.rpc_members.per_source >= shares.dialled
    assert shares.rpc_members.total >= 2 * shares.dialled
    for caps in (shares.http, shares.strangers, shares.rpc_members, shares.raft_members):
        assert 1 <= caps.per_source <= caps.total
    if per_source is not None:
        assert shares.http.per_source <= per_source


def test_a_small_limit_leaves_a_node_that_serves() -> None:
    shares = shares_of(256, 1, 4096, None)
    assert shares.http.total >= 64
    assert shares.strangers.total >= 8
    assert shares.rpc_members.total >= 16


def test_a_large_limit_gives_what_is_configured() -> None:
    shares = shares_of(65536, 1, 4096, None)
    assert (shares.http.total, shares.http.per_source) == (4096, 2048)
    assert shares_of(65536, 1, 4096, 100).http.per_source == 100


def test_too_few_are_refused_and_the_text_says_how_many_it_takes() -> None:
    with pytest.raises(ValueError, match=r"^this process may have 193 open files \(ulimit -n\): .* at least 194$"):
        shares_of(193, 1, 4096, None)


@pytest.mark.parametrize(
    ("soft", "hard", "found"),
    [(1024, 4096, 4096), (4096, 4096, 4096), (256, 256, 256), (1024, -1, 1 << 20), (-1, -1, 1 << 20)],
)
def test_the_limit_is_raised_as_far_as_the_process_may(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, found: int
) -> None:
    limits = {"now": (soft, hard)}
    monkeypatch.setattr(resource, "getrlimit", lambda _what: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _what, to: limits.update(now=to))
    assert raise_limit() == found
    assert limits["now"][0] in (found, resource.RLIM_INFINITY)


def test_a_limit_that_cannot_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_what: int, _to: tuple[int, int]) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _what: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_limit() == 1024
