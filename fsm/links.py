"""Which roots leaves of a root lead to: through the cross-signed certificates that go with it, while these last."""

from collections.abc import Iterable

from fsm.ca import CARoot, Intermediate


def local_chain(root: CARoot) -> tuple[Intermediate, ...]:
    """The intermediates between the root and the leaves it signs."""
    links = links_of(root)
    return tuple(found for found in root.intermediates if found not in links)


def links_of(root: CARoot) -> tuple[Intermediate, ...]:
    """The cross-signed certificates that lead from this root to the roots before it, nearest first."""
    return _walk(root.key_id, root.intermediates)


def needed_links(links: Iterable[Intermediate], trusted: Iterable[CARoot], own_key_id: str) -> tuple[Intermediate, ...]:
    """Of the links of a root with this key, those that still lead to a trusted root other than itself.

    They stay one way, each link certified by the next. A way that branches where a root has come back (two certificates
    of one key, side by side) would be shorter, but OpenSSL and others take the first certificate that fits and never
    try the second. So a way may pass the same key twice. What lies between is cut out where nobody needs it.
    """
    roots = [root for root in trusted if root.key_id != own_key_id]
    kept = _up_to_last(tuple(links), {root.key_id for root in roots})
    while (shorter := _without_a_loop(kept, roots)) is not None:
        kept = shorter
    return kept


def live_links(root: CARoot, now: float) -> tuple[Intermediate, ...]:
    """Its links up to the first that has expired: nobody gets past that one."""
    return _walk(root.key_id, (link for link in root.intermediates if now <= link.not_after))


def cut_off_early(roots: Iterable[CARoot], now: float) -> tuple[tuple[CARoot, int], ...]:
    """Of the retired roots whose clients accept new leaves now, those that will be lost while they are still listed,
    and when: a certificate on the way to them ends, or the active root does, which certifies the next one for no
    longer than it lasts itself.
    """
    listed = tuple(roots)
    active = next((root for root in listed if root.is_active), None)
    if active is None:
        return ()
    links, found = live_links(active, now), list[tuple[CARoot, int]]()
    for root in must_stay_trusted(active, listed, now):
        end = min(active.not_after, _lasts_until(links, root.key_id))
        if root.is_retired and root.key_id != active.key_id and end < min(root.prune_at, root.not_after):
            found.append((root, end))
    return tuple(found)


def _walk(key: str, certificates: Iterable[Intermediate]) -> tuple[Intermediate, ...]:
    """From this key upwards. One that was certified twice has its certificates in the order in which it is passed."""
    left = [found for found in certificates if found.key_id != found.issuer_key_id]
    links: list[Intermediate] = []
    while (link := next((found for found in left if found.key_id == key), None)) is not None:
        left.remove(link)
        links.append(link)
        key = link.issuer_key_id
    return tuple(links)


def _up_to_last(links: tuple[Intermediate, ...], keys: set[str]) -> tuple[Intermediate, ...]:
    """The links up to the last that one of these keys has signed."""
    last = max((number for number, link in enumerate(links, start=1) if link.issuer_key_id in keys), default=0)
    return links[:last]


def _without_a_loop(links: tuple[Intermediate, ...], roots: list[CARoot]) -> tuple[Intermediate, ...] | None:
    """The way without the longest piece that ends at the key where it began, if all these roots are served without it;
    None if there is no such piece.
    """
    passed = [*(link.key_id for link in links), *(link.issuer_key_id for link in links[-1:])]
    for length in range(len(links), 0, -1):
        for start in range(len(links) - length + 1):
            if passed[start] == passed[start + length]:
                shorter = links[:start] + links[start + length :]
                if all(_serves(shorter, links, root) for root in roots):
                    return shorter
    return None


def _serves(shorter: tuple[Intermediate, ...], links: tuple[Intermediate, ...], root: CARoot) -> bool:
    """Whether clients of this root lose nothing: it is reached, and for as long as before, or as it is listed."""
    before = _lasts_until(links, root.key_id)
    wanted = min(before, root.prune_at + root.leaf_ttl_max_seconds) if root.is_retired else before
    return _lasts_until(shorter, root.key_id) >= wanted


def _lasts_until(links: tuple[Intermediate, ...], key: str) -> int:
    """The end of the way to where this key is met first; 0 if it is not."""
    ends: list[int] = []
    for link in links:
        ends.append(link.not_after)
        if link.issuer_key_id == key:
            return min(ends)
    return 0


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
