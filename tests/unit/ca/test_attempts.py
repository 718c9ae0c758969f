"""What a write that is repeated has led to, as the state says."""

from dataclasses import replace

from cluster.ca.attempts import done_before
from tests.kit import samples


def test_write_is_known_by_its_request_while_its_rotation_is_under_way_and_after_it() -> None:
    state = samples.full_state()
    rotation, config = state.rotation, state.config
    assert rotation is not None
    assert config is not None
    begun = replace(rotation, config=replace(rotation.config, request_id=b"begun"))
    ended = samples.outcome(rotation_id="rotation-0", request_id=b"ended")
    state = replace(state, rotation=begun, last_rotation=ended, config=replace(config, request_id=b"set"))
    assert done_before(state, b"begun") == begun.rotation_id
    assert done_before(state, b"ended") == "rotation-0"
    assert done_before(state, b"set") == ""
    assert done_before(state, b"another") is None
