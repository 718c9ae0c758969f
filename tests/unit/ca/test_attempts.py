"""Writes that are sent again, or wait for their turn."""

from dataclasses import replace

import pytest

from cluster.base.errors import NotLeader
from cluster.ca.attempts import Arrival, Attempt, done_before
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


def test_write_that_waited_while_another_node_led_is_not_made_here() -> None:
    """Another leader may have done it meanwhile."""
    state = samples.full_state()
    arrival = Arrival(Attempt(b"begun", state.ca_index - 1, is_repeat=False), term=3, is_overtaken=False)
    assert arrival.base_index(state, 3) == state.ca_index
    with pytest.raises(NotLeader):
        arrival.base_index(state, 4)
