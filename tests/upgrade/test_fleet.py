"""What in the log of a node counts as trouble."""

from tests.upgrade.fleet import troubles

_EVENT = '{"event":"raft.link_up","level":"info"}'
_ERROR = '{"event":"node.failed","level":"critical","error":"[Errno 9] Bad file descriptor"}'
_TRACEBACK = """Exception in thread Thread-3 (_work):
Traceback (most recent call last):
  File "worker.py", line 241, in _run
    self._outgoing.flush()
BrokenPipeError: [Errno 32] Broken pipe"""


def test_errors_and_whole_tracebacks_are_trouble() -> None:
    assert troubles("\n".join((_EVENT, _TRACEBACK, _EVENT, _ERROR, _EVENT))) == [_ERROR, _TRACEBACK]


def test_trouble_that_is_known_is_left_out_and_nothing_else() -> None:
    log = "\n".join((_ERROR, _TRACEBACK, _EVENT, "killed", _EVENT))
    assert troubles(log, ["self._outgoing."]) == [_ERROR, "killed"]
    assert troubles(log, ["self._outgoing.", "Bad file descriptor"]) == ["killed"]


def test_traceback_is_one_whatever_the_node_says_between_its_lines() -> None:
    torn = "\n".join(f"{line}\n{_EVENT}" for line in _TRACEBACK.splitlines())
    assert troubles(f"{torn}\n{torn}\nkilled") == [_TRACEBACK, _TRACEBACK, "killed"]
    assert troubles(f"{torn}\nkilled\n{torn}", ["self._outgoing."]) == ["killed"]
