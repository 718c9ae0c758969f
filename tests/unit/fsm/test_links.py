"""The way from a root's leaves back to every root before it, whatever order roots come and come back in."""

import random
from dataclasses import replace
from typing import Final

import pytest

from fsm.ca import CARoot, Intermediate
from fsm.links import links_of, live_links, needed_links
from tests.kit import samples

RETENTION: Final = 100
LEAF_TTL: Final = 50


def root(name: str, links: tuple[Intermediate, ...] = (), *, prune_at: int = 0) -> CARoot:
    return samples.root(
        name,
        key_id=name,
        signing_key_id=name,
        intermediates=links,
        rotated_out_at=int(prune_at > 0),
        prune_at=prune_at,
        leaf_ttl_max_seconds=LEAF_TTL,
    )


def link(key: str, issuer: str, not_after: int = 1000) -> Intermediate:
    return Intermediate(f"{key} by {issuer} until {not_after}", key, issuer, not_after)


def first_fit(links: tuple[Intermediate, ...], key: str, anchor: str, now: int) -> bool:
    """Whether a client of this anchor gets there that takes the first certificate that fits, and never a second."""
    left = list(links)
    while key != anchor:
        found = next((one for one in left if one.key_id == key and now <= one.not_after), None)
        if found is None:
            return False
        left.remove(found)
        key = found.issuer_key_id
    return True


@pytest.mark.parametrize("seed", range(300))
def test_every_root_is_reached_by_the_first_certificate_that_fits_for_as_long_as_it_is_listed(seed: int) -> None:
    rng, now = random.Random(seed), 1000
    active, retired = root("R"), list[CARoot]()
    for _ in range(12):
        now += rng.choice((1, 5, 30))
        retired = [one for one in retired if now < one.prune_at]
        active = replace(active, intermediates=needed_links(links_of(active), retired, active.key_id))
        name = rng.choice([one for one in "ABCD" if one != active.key_id])
        trusted = [one for one in retired if one.key_id != name]
        retired = [*trusted, root(active.key_id, prune_at=now + RETENTION)]
        cross = link(name, active.key_id, now + RETENTION + LEAF_TTL)
        old_links = live_links(active, now)
        active = root(name, needed_links((cross, *old_links), [*trusted, active], name))
        assert len(active.intermediates) <= 1 + len(old_links)
        assert links_of(active) == active.intermediates
        for one in retired:
            for moment in range(now, one.prune_at, 7):
                assert first_fit(active.intermediates, name, one.key_id, moment), (seed, one.key_id, moment)


def test_loop_that_nobody_needs_is_cut_out() -> None:
    links = (link("B", "A"), link("A", "B"), link("B", "A"), link("A", "R"))
    assert needed_links(links, [root("R"), root("A"), root("B")], "B") == (links[0], links[3])
    assert needed_links(links[1:], [root("R"), root("A"), root("B")], "A") == links[1:]
    assert needed_links(links[1:], [root("R"), root("A")], "A") == (links[3],)


def test_loop_stays_while_the_way_around_it_ends_sooner_than_the_root_is_listed() -> None:
    links = (link("A", "B", 900), link("B", "A", 800), link("A", "C", 700), link("C", "B", 600), link("B", "R", 500))
    others = [root("R", prune_at=100), root("C", prune_at=200)]
    for listed, kept in ((root("B"), links), (root("B", prune_at=700), links), (root("B", prune_at=500), links[2:])):
        assert needed_links(links, [*others, listed], "A") == kept
