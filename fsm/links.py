"""Which roots leaves of a root lead to: through the cross-signed certificates that go with it, while these last."""

from collections.abc import Iterable

from fsm.ca import CARoot, Intermediate


def local_chain(root: CARoot) -> tuple[Intermediate, ...]:
    """The intermediates between the root and the leaves it signs."""
    links = links_of(root)
    return tuple(found for found in root.intermediates if found not in links)


def links_of(root: CARoot) -> tuple[Intermediate, ...]:
    """The cross-signed certificates that lead from this root to the roots before it, nearest first."""
    by_key = {found.key_id: found for found in root.intermediates if found.key_id != found.issuer_key_id}
    links: list[Intermediate] = []
    key = root.key_id
    while (link := by_key.pop(key, None)) is not None:
        links.append(link)
        key = link.issuer_key_id
    return tuple(links)


def needed_links(links: Iterable[Intermediate], trusted: Iterable[CARoot], own_key_id: str) -> tuple[Intermediate, ...]:
    """Of the links of a root with this key, those that still lead to a trusted root other than itself."""
    keys = {root.key_id for root in trusted} - {own_key_id}
    kept: list[Intermediate] = []
    needed = 0
    for link in links:
        if kept and link.key_id == own_key_id:
            break  # the way back to where it began: that root was active before
        kept.append(link)
        if link.issuer_key_id in keys:
            needed = len(kept)
    return tuple(kept[:needed])


def live_links(root: CARoot, now: float) -> tuple[Intermediate, ...]:
    """Its links up to the first that has expired: nobody gets past that one."""
    live: list[Intermediate] = []
    for link in links_of(root):
        if now > link.not_after:
            break
        live.append(link)
    return tuple(live)


def trusted_through(root: CARoot, roots: Iterable[CARoot], now: float) -> tuple[CARoot, ...]:
    """Of these roots, those that leaves of this one lead to: itself, and each that its links reach while they last."""
    keys = {root.key_id, *(link.issuer_key_id for link in live_links(root, now))}
    return tuple(listed for listed in roots if listed.key_id in keys and now <= listed.not_after)


def must_stay_trusted(old: CARoot, roots: Iterable[CARoot], now: float) -> tuple[CARoot, ...]:
    """Of these roots, those whose clients a rotation away from this one must not lose, because they accept its leaves
    now. Others were cut off before, by a forced rotation or by a certificate that has expired: nothing that is done
    today brings their clients back, so they hold nothing up. Of an expired root nobody accepts a leaf any more.
    """
    return trusted_through(old, roots, now) if now <= old.not_after else ()


def cut_off(roots: Iterable[CARoot], now: float, *, by_force: bool = False) -> tuple[CARoot, ...]:
    """Of the listed roots, those whose clients refuse new leaves until they have fetched the roots: what the active
    one does not lead to or, `by_force`, what a forced rotation would leave behind. None that has not signed yet.
    """
    listed = tuple(roots)
    active = next((root for root in listed if root.is_active), None)
    reached = () if active is None or by_force else must_stay_trusted(active, listed, now)
    return tuple(root for root in listed if (root.is_active or root.is_retired) and root not in reached)
