"""What arrives, and what is in the log already, ends no node."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_CODEC: Final = "fsm/codec.py"
_MACHINE: Final = "cluster/raft/machine.py"
_NODE: Final = "cluster/raft/node.py"
_CONTENT: Final = "cluster/backup/content.py"
_RESTORE: Final = "cluster/backup/restore.py"
_SKIP: Final = "cluster/cli/skip_entry.py"

_T_BOUNDS: Final = "tests/unit/fsm/test_bounds.py"
_T_MACHINE: Final = "tests/unit/raft/test_machine.py"
_T_LOOP: Final = "tests/parts/ca/test_leader_outlives.py"
_T_CONTENT: Final = "tests/parts/backup/test_content.py"
_T_SKIP: Final = "tests/parts/cli/test_skip_entry.py"
_T_STORED: Final = "tests/parts/http/test_stored.py"

BUGS: Final = (
    Bug(
        "commands without bounds",
        "one row that SQLite cannot hold is in every log, and no node ever runs again",
        "cluster/raft/replica.py",
        "        check_command(command)\n",
        "        pass\n",
        ("tests/parts/raft/test_replica.py",),
    ),
    Bug(
        "a field without bounds",
        "the next field that is added takes whatever somebody sends",
        _CODEC,
        '        raise TypeError(f"{where} has no bounds")\n',
        "        pass\n",
        (_T_BOUNDS,),
    ),
    Bug(
        "numbers out of range in the log",
        "an entry of an older release ends each node that applies it",
        "fsm/leaf_rules.py",
        "            if not MIN_INT64 <= number <= MAX_INT64:\n",
        "            if False:\n",
        (_T_MACHINE,),
    ),
    Bug(
        "malformed commands in the log",
        "a command that no release has written ends each node, at each start",
        _MACHINE,
        "            command = self._load(data)\n        except Malformed as error:\n",
        "            command = self._load(data)\n        except ZeroDivisionError as error:\n",
        (_T_MACHINE,),
    ),
    Bug(
        "commands of a newer release are skipped",
        "nodes of two releases apply different things",
        _CODEC,
        "    if version > FORMAT_VERSION:\n        raise CodecError(",
        "    if version > FORMAT_VERSION:\n        raise Malformed(",
        (_T_MACHINE, _T_BOUNDS),
    ),
    Bug(
        "entries that cannot be read",
        "a peer puts one into the log, and the node never starts again",
        "cluster/raft/guard.py",
        "            self._check_entry(*entry)  # what is in the log once is there for ever\n",
        "            pass\n",
        ("tests/unit/raft/test_guard.py",),
    ),
    Bug(
        "a snapshot whose state cannot be read",
        "a leader that sends one ends its followers",
        _CODEC,
        "        if not 0 <= getattr(state, name) <= MAX_INDEX:\n",
        "        if False:\n",
        (_T_BOUNDS,),
    ),
    Bug(
        "the leader's loop ends at what nobody foresaw",
        "a configuration that is none ends one leader after the other",
        "cluster/base/background.py",
        '    return isinstance(error, Exception) or type(error).__name__ == "PanicException"\n',
        "    return False\n",
        (
            f"{_T_LOOP}::test_text_of_an_error_that_nobody_foresaw_is_not_shown_to_clients",
            "tests/unit/base/test_background.py",
        ),
    ),
    Bug(
        "workers are not replaced after a failure",
        "a moment without descriptors leaves the leader unable to sign for ever",
        "cluster/signing/pool.py",
        "            except Exception as error:  # no process can be started just now, for want of memory or"
        " descriptors perhaps\n",
        "            except ZeroDivisionError as error:\n",
        ("tests/parts/signing/test_pool.py::test_worker_that_cannot_be_replaced_now_is_replaced_later",),
    ),
    Bug(
        "a lack of descriptors ends a node",
        "as many idle connections as a process may have end it at the next compaction",
        _NODE,
        "_SHORTAGES: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM))\n",
        "_SHORTAGES: Final = frozenset((errno.ENOSPC, errno.EDQUOT))\n",
        ("tests/unit/raft/test_node.py",),
    ),
    Bug(
        "texts that end a rotation are not cut",
        "a provider that says much holds its rotation up for ever",
        "cluster/ca/rotation.py",
        "        reason = bounded(as_reason(reason), _MAX_REASON)\n",
        "",
        ("tests/parts/ca/test_rotation.py::test_rotation_is_given_up_however_much_its_provider_has_to_say",),
    ),
    Bug(
        "kinds that there are not",
        "one such record has every list of certificates answered with 500",
        "cluster/http/routes/certs.py",
        '        "Kind": kind_label(record.kind),\n',
        '        "Kind": LeafKind(record.kind).label,\n',
        (_T_STORED,),
    ),
    Bug(
        "times that cannot be shown",
        "one such record has every list of certificates answered with 500",
        "cluster/base/clock.py",
        "    seconds = max(_FIRST_SECOND, min(seconds, _LAST_SECOND))\n",
        "",
        (_T_STORED,),
    ),
    Bug(
        "serials of one byte",
        "a member has certificates made whose serials can be guessed",
        "cluster/rpc/messages.py",
        "NewSerial = Annotated[bytes, Meta(min_length=16, max_length=20)]\n",
        "NewSerial = Annotated[bytes, Meta(min_length=1, max_length=20)]\n",
        ("tests/unit/rpc/test_bounds.py",),
    ),
    Bug(
        "texts that have no encoding",
        "one refusal is lost with all answers beside it",
        "cluster/base/wire.py",
        '    return bounded(str(error).encode("utf-8", "replace").decode())\n',
        "    return str(error)\n",
        ("tests/unit/base/test_wire.py",),
    ),
    Bug(
        "certificates of a version that there is not",
        "reading one raises what nobody expects: a snapshot with it is answered as a fault of the node",
        "providers/pki/x509.py",
        "    except x509.InvalidVersion as error:\n",
        "    except ZeroDivisionError as error:\n",
        ("tests/unit/providers/test_x509.py",),
    ),
    Bug(
        "roots of a snapshot are not compared with their certificates",
        "what is said of a root is not what clients trust",
        _CONTENT,
        "        _require(said == found, ",
        "        _require(True, ",
        (_T_CONTENT,),
    ),
    Bug(
        "links of a snapshot are not verified",
        "certificates of somebody else are served with every leaf",
        _CONTENT,
        "        said == (found.key_id, found.issuer_key_id, found.not_after),\n",
        "        True,\n",
        (_T_CONTENT,),
    ),
    Bug(
        "the configuration of a snapshot is not the sealed one",
        "the secrets of a provider are sent to an address that somebody has written into a backup",
        _CONTENT,
        "    _require(config.config_json == record.config_json, ",
        "    _require(True, ",
        (_T_CONTENT,),
    ),
    Bug(
        "the provider of a snapshot is not tried",
        "a root is active whose key nobody has",
        _RESTORE,
        "        if found != root.root_id:\n",
        "        if False:\n",
        (_T_CONTENT,),
    ),
    Bug(
        "a skipped entry may be any at its index",
        "the entry that took its place is applied by some nodes only",
        "cluster/raft/skips.py",
        "        return cls(entry.log_index, entry.term, hashlib.sha256(entry.command).hexdigest())\n",
        '        return cls(entry.log_index, 0, "")\n',
        ("tests/unit/raft/test_skips.py",),
    ),
    Bug(
        "skipping what has taken effect",
        "a node differs from the others in what it has on record",
        _SKIP,
        "    if log_index <= applied:\n",
        "    if False:\n",
        (_T_SKIP,),
    ),
    Bug(
        "marking in the directory of a node that runs",
        "the mark is not looked at before the next start, and this node applies what the others pass over",
        _SKIP,
        '        with locked(args.data_dir / "lock"):\n',
        "        if True:\n",
        (_T_SKIP,),
    ),
)
