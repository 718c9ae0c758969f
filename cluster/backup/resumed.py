"""What becomes of a rotation that was under way when a snapshot was saved.

Whoever restores a snapshot is told which roots it brings (trust.py). A rotation in phase GENERATE has none to be told
of yet, but the sealed record of its provider holds the key and the intent that its root comes from: the next leader
would make the very root that this rotation has brought once, which may be distrusted by now. So it is given up. Whoever
still wants it begins another one, with another key.

A rotation with a root goes on where it stands, but for what it waits for: a staged one had counted the clients of
another time, by the indexes of another cluster. It waits anew, until those of this one have its root.
"""

from dataclasses import replace
from typing import Final

from cluster.base.errors import Refused
from fsm.apply import apply
from fsm.ca import AbortRotation, Rotation, RotationOutcome, RotationPhase
from fsm.commands import Rejected
from fsm.state import State

_REASON: Final = "the snapshot that it was under way in was restored, and it had no root yet"


def rootless(saved: State) -> Rotation | None:
    """The rotation that is not restored with the rest of this state."""
    rotation = saved.rotation
    return rotation if rotation is not None and rotation.root is None else None


def without_rootless(saved: State, now: int) -> State:
    """As if that rotation had been aborted, without the key that its provider has prepared. Nothing is removed from a
    backend: what is there may be in use by now.

    Raises: Refused.
    """
    rotation = rootless(saved)
    if rotation is None:
        return saved
    outcome = RotationOutcome(rotation.rotation_id, rotation.config.request_id, now, "", _REASON)
    aborted, result = apply(saved, AbortRotation(saved.ca_index, outcome))
    if isinstance(result, Rejected):
        raise Refused(f"the snapshot's rotation, which has no root yet, cannot be given up: {result.detail}")
    return aborted


def waiting_anew(saved: State, next_index: int, now: int) -> State:
    """With a staged rotation that waits from now on, for clients that have seen `next_index`, which the restore has at
    least, or had a leaf renewed since. So what was recorded before counts for nothing, the snapshot's own certificates
    among it.
    """
    rotation = saved.rotation
    if rotation is None:
        return saved
    rotation = replace(rotation, phase_since=now)
    if rotation.is_staged and rotation.phase in (RotationPhase.WAIT, RotationPhase.ACTIVATE):
        rotation = replace(rotation, phase=RotationPhase.WAIT, published_index=next_index)
    return replace(saved, rotation=rotation)


def given_up(saved: State) -> tuple[str, ...]:
    """What is to be said of it when it was done."""
    rotation = rootless(saved)
    if rotation is None:
        return ()
    shown = f"{ascii(rotation.rotation_id)[1:-1]:.80}"
    return (
        f"Rotation {shown}, which was under way and had no root yet, is given up: begin another one if it is wanted",
    )
