"""Somebody who has a certificate: what they may fill a node with, and say in another's name."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_RAFT: Final = "cluster/raft/transport.py"
_GUARD: Final = "cluster/raft/guard.py"
_READS: Final = "cluster/raft/reads.py"
_RPC: Final = "cluster/rpc/server.py"
_CONTENT: Final = "cluster/backup/content.py"
_RESTORE: Final = "cluster/backup/restore.py"

_T_RAFT: Final = "tests/unit/raft/test_transport.py"
_T_GUARD: Final = "tests/unit/raft/test_guard.py"
_T_READS: Final = "tests/unit/raft/test_reads.py"
_T_REQUESTS: Final = "tests/parts/node/test_hostile_requests.py"
_T_POISON: Final = "tests/parts/backup/test_poison.py"
_T_FUZZ: Final = "tests/fuzz/test_fuzz.py::test_changed_inputs_are_understood_or_refused"
_T_CHAOS: Final = "tests/chaos/test_chaos.py::test_nothing_acknowledged_is_lost_and_the_cluster_heals"

BUGS: Final = (
    Bug(
        "frames of strangers are kept",
        "a certificate of a server that never was fills a node's memory, by as much for each connection as the largest"
        " frame has",
        _RAFT,
        "                if self._is_greeted and self.standing is Standing.STRANGER:\n",
        "                if self._is_greeted and self.standing is Standing.STRANGER and size - start >= length:\n",
        (f"{_T_RAFT}::test_no_part_of_a_frame_of_a_stranger_is_kept",),
    ),
    Bug(
        "a hello may be as long as a frame",
        "before it has said who it is, a connection may fill a node's memory",
        _RAFT,
        "                most = MAX_FRAME_BYTES if self._is_greeted else _MAX_HELLO_BYTES\n",
        "                most = MAX_FRAME_BYTES\n",
        (f"{_T_RAFT}::test_hello_that_is_as_long_as_a_frame_is_refused_by_its_header",),
    ),
    Bug(
        "a term may have two leaders",
        "entries of somebody with a server's key take the place of the leader's own, whose loss nobody notices",
        _GUARD,
        """        leader = "this node" if core.is_leader else core.leader_id\n""",
        """        leader = "this node" if core.is_leader else None\n""",
        (f"{_T_GUARD}::test_nobody_else_leads_in_the_term_of_the_leader",),
    ),
    Bug(
        "any server answers for the leader",
        "what somebody reads is as old as another server says",
        _READS,
        "                if asked is not None and asked.leader == peer:\n",
        "                if asked is not None:\n",
        (f"{_T_READS}::test_only_the_leader_that_was_asked_answers",),
    ),
    # -- what chaos notices, too
    Bug(
        "a frame that no server sends does not end its connection",
        "whoever sends garbage goes on sending it",
        _RAFT,
        "            self.peer = None\n            self.transport.abort()\n            return\n        if offset:\n",
        "            del buffer[:]\n            return\n        if offset:\n",
        (f"{_T_CHAOS}[hostile_member]",),
    ),
    Bug(
        "a version of the wire that is none is taken",
        "a request ends in an error that nobody has foreseen, or is read as what it is not",
        _RPC,
        "    return int(given) if given in _VERSIONS else None\n",
        "    return int(given)\n",
        (f"{_T_REQUESTS}::test_what_no_server_asks_is_refused_whole",),
    ),
    Bug(
        "servers that are none are served",
        "a certificate of the agent CA signs, and makes itself a server",
        _RPC,
        "        return self._replica.admission.refusal(peer, key)\n",
        "        return None\n",
        (f"{_T_CHAOS}[hostile_stranger]",),
    ),
    Bug(
        "a MAC that is wrong is no reason",
        "who gets hold of a backup puts roots and certificates into it",
        _RESTORE,
        "    if mac and not is_authentic:\n",
        "    if False:\n",
        (f"{_T_POISON}::test_no_poison_is_restored", f"{_T_CHAOS}[poisoned_snapshot]"),
    ),
    # -- what the million cases notice
    Bug(
        "a saved state that cannot be read is an error of the leader's",
        "bytes of another server reach code that expects none of them",
        _RESTORE,
        '        except CodecError as error:\n            raise Refused(f"the saved state cannot be read',
        '        except ZeroDivisionError as error:\n            raise Refused(f"the saved state cannot be read',
        (f"{_T_FUZZ}[rpc-operations]",),
    ),
    Bug(
        "content that a library chokes on is no refusal",
        "a snapshot that somebody has made up ends in an error that nobody has foreseen",
        _CONTENT,
        "    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:\n",
        "    except ZeroDivisionError as error:\n",
        (f"{_T_FUZZ}[put-snapshot]",),
    ),
)
