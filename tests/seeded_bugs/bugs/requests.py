"""The way of a request: from the node that is asked to the leader, in which words, and a certificate to its record."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_SIGNING: Final = "cluster/signing/pipeline.py"
_FORWARD: Final = "cluster/rpc/forward.py"
_PEERS: Final = "cluster/rpc/peers.py"
_BATCHES: Final = "cluster/rpc/batches.py"
_SERVER: Final = "cluster/rpc/server.py"
_CLIENT: Final = "cluster/rpc/client.py"
_ENVELOPE: Final = "cluster/rpc/envelope.py"
_OPERATION: Final = "cluster/rpc/operation.py"
_MESSAGES: Final = "cluster/rpc/messages.py"

_T_SIGNING: Final = "tests/parts/signing/test_pipeline.py"
_T_FORWARD: Final = "tests/parts/rpc/test_forward.py"
_T_LOST: Final = "tests/parts/rpc/test_lost_leader.py"
_T_RPC: Final = "tests/parts/rpc/test_server.py"
_T_CLIENT: Final = "tests/parts/rpc/test_client.py"
_T_MESSAGES: Final = "tests/unit/rpc/test_messages.py"
_T_SILENT: Final = f"{_T_LOST}::test_silent_leader_is_given_up_once_another_leads"
_T_SPLIT: Final = f"{_T_FORWARD}::test_batches_split_and_each_request_gets_its_own_answer"
_T_ENVELOPE: Final = f"{_T_MESSAGES}::test_envelope_is_bounded_and_outcomes_are_counted"
_T_VERSION: Final = f"{_T_CLIENT}::test_connection_begins_with_the_oldest_version_and_goes_on_with_the_newest_of_both"

BUGS: Final = (
    Bug(
        "a certificate leaves though its record was refused",
        "a certificate that no node knows of",
        _SIGNING,
        '        if isinstance(result, Rejected):\n            raise InternalError(f"certificates could not',
        '        if False:\n            raise InternalError(f"certificates could not',
        (_T_SIGNING,),
    ),
    Bug(
        "a repeated request gets what was signed last",
        "its certificate is another than the one on record",
        _SIGNING,
        "            if position not in result.duplicates and await self._may_have(request):\n",
        "            if await self._may_have(request):\n",
        (_T_SIGNING,),
    ),
    Bug(
        "a request whose outcome is unknown is sent again",
        "a change of the configuration is made twice, or over somebody else's",
        _FORWARD,
        "                if not operation.is_repeatable:\n                    raise\n",
        "",
        (_T_FORWARD,),
    ),
    Bug(
        "a repetition does not say that it is one",
        "a change whose answer was lost is made twice",
        _FORWARD,
        "repetition if is_lost and repetition else request",
        "request",
        (f"{_T_FORWARD}::test_unknown_outcome_is_asked_for_again_as_a_repetition",),
    ),
    Bug(
        "a request whose answer was lost is sent again",
        "a transfer of leadership, or a removed server, is done twice",
        _FORWARD,
        "                is_lost = True\n                if not operation.is_repeatable:\n                    break\n",
        "                is_lost = True\n",
        (f"{_T_FORWARD}::test_connection_lost_under_way_is_an_unknown_outcome",),
    ),
    Bug(
        "an answer that says that it was lost is asked for again",
        "a change that somebody else may have followed is tried until the time is over",
        _FORWARD,
        "            except AnswerLost:\n                raise\n",
        "",
        (f"{_T_FORWARD}::test_refusal_comes_back_as_it_is_and_is_final",),
    ),
    Bug(
        "what is unknown is called not done",
        "a client makes its change again, and it is made twice",
        _FORWARD,
        "        if is_lost:\n            raise unknown",
        "        if False:\n            raise unknown",
        (f"{_T_FORWARD}::test_unknown_outcome_stays_unknown_when_no_leader_comes",),
    ),
    Bug(
        "a node that does not lead works all the same",
        "two nodes sign from different states",
        _SERVER,
        "        if operation.needs_leader and not self._replica.leadership.is_ready:\n",
        "        if False:\n",
        (_T_FORWARD,),
    ),
    Bug(
        "a silent leader is waited for",
        "requests to a leader that is stopped hang long after there is another one",
        _PEERS,
        "                    limit.reschedule(soon)\n",
        "                    pass\n",
        (_T_SILENT,),
    ),
    Bug(
        "a leader is given up before another one leads",
        "its answer, which is on its way, is thrown away, and the request asked for again",
        _PEERS,
        "                if leader_id not in (None, peer) and not limit.expired()",
        "                if leader_id != peer and not limit.expired()",
        (_T_SILENT,),
    ),
    Bug(
        "a leader that has gone is still asked",
        "what has waited in the queue is sent to a node that cannot do it",
        _PEERS,
        "        if is_repeatable and self._replica.leadership.leader_id not in (None, member.id):\n",
        "        if False:\n",
        (_T_SILENT,),
    ),
    Bug(
        "what cannot be repeated is given up as well",
        "every transfer of leadership ends with an unknown outcome",
        _PEERS,
        "        if is_repeatable:\n            self._awaited.add(entry)\n",
        "        if True:\n            self._awaited.add(entry)\n",
        (f"{_T_LOST}::test_what_cannot_be_repeated_is_not_given_up_when_another_leads",),
    ),
    Bug(
        "a server's failure is called not sent",
        "what was done, and could not be answered, is done again",
        _PEERS,
        "        if answer.status >= 500:\n",
        "        if False:\n",
        (f"{_T_FORWARD}::test_failure_of_the_server_is_an_unknown_outcome",),
    ),
    Bug(
        "a server that is not reached is called lost",
        "a change that was certainly not made is reported as one of which nobody knows",
        _PEERS,
        "        except Unreached:\n            raise Unsent from None\n",
        "        except Unreached:\n            raise Lost from None\n",
        (f"{_T_FORWARD}::test_leader_that_cannot_be_reached_means_not_sent_and_the_next_one_does_it",),
    ),
    Bug(
        "a request that was given up is answered",
        "one client that goes away fails all requests of its message",
        _BATCHES,
        "                if item.done.done():\n                    continue\n",
        "",
        (f"{_T_FORWARD}::test_request_given_up_while_it_waits_disturbs_nobody",),
    ),
    Bug(
        "messages with any number of requests",
        "a message after an election is larger than a leader takes, and all of it is refused",
        _BATCHES,
        "range(min(len(queue), _BATCH_ITEMS))",
        "range(len(queue))",
        (_T_SPLIT,),
    ),
    Bug(
        "a message has the time of its most hasty request",
        "the others are given up while there is time",
        _BATCHES,
        "max(item.seconds for item in batch)",
        "min(item.seconds for item in batch)",
        (_T_SPLIT,),
    ),
    Bug(
        "any number of messages at a time",
        "a wave of requests costs the leader a message each",
        _BATCHES,
        "        while self._under_way < _BATCHES and self._waiting:\n",
        "        while self._waiting:\n",
        (_T_SPLIT,),
    ),
    Bug(
        "any number of requests in a message",
        "a node that went mad starts as many tasks as fit into 4 MiB",
        _ENVELOPE,
        "    requests: Annotated[list[Raw], Meta(max_length=MAX_REQUESTS)]\n",
        "    requests: list[Raw]\n",
        (_T_ENVELOPE,),
    ),
    Bug(
        "time that has run out already",
        "a negative number of milliseconds is waited for",
        _ENVELOPE,
        "Meta(ge=0, le=(1 << 53))",
        "Meta(le=(1 << 53))",
        (_T_ENVELOPE,),
    ),
    Bug(
        "any number of outcomes",
        "a request gets the certificate of the one before it",
        _ENVELOPE,
        "    if len(outcomes) != count:\n",
        "    if False:\n",
        (_T_ENVELOPE,),
    ),
    Bug(
        "fields of a newer release are an error",
        "nodes of two releases refuse each other while they are exchanged one by one",
        _OPERATION,
        "array_like=True, frozen=True):\n",
        "array_like=True, frozen=True, forbid_unknown_fields=True):\n",
        (f"{_T_MESSAGES}::test_fields_of_a_newer_release_are_passed_over",),
    ),
    Bug(
        "types are made to fit",
        "a number that was sent as text counts, and another release reads something else into it",
        _OPERATION,
        "        self._decoder = msgpack.Decoder(kind)\n",
        "        self._decoder = msgpack.Decoder(kind, strict=False)\n",
        (f"{_T_MESSAGES}::test_index_is_a_count",),
    ),
    Bug(
        "a decoder's other errors pass through",
        "bytes of no text or no end are answered as a fault of the node",
        _OPERATION,
        "    except (msgspec.MsgspecError, ValueError, RecursionError) as error:",
        "    except msgspec.ValidationError as error:",
        (f"{_T_MESSAGES}::test_no_bytes_raise_anything_else",),
    ),
    Bug(
        "serials of any length",
        "a leaf is signed whose serial X.509 does not allow, and no record can hold",
        _MESSAGES,
        "NewSerial = Annotated[bytes, Meta(min_length=16, max_length=20)]",
        "NewSerial = Annotated[bytes, Meta()]",
        (f"{_T_MESSAGES}::test_fields_are_bounded",),
    ),
    Bug(
        "counts below zero and above 63 bits",
        "a log entry with a number that no other node can read",
        _MESSAGES,
        "Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]",
        "Count = Annotated[int, Meta()]",
        (f"{_T_MESSAGES}::test_index_is_a_count",),
    ),
    Bug(
        "the version of the peer is spoken whatever it is",
        "a node of the next release is sent messages of a form that this one does not know",
        _CLIENT,
        "        self.version = min(head.version, VERSION)\n",
        "        self.version = head.version\n",
        (_T_VERSION,),
    ),
    Bug(
        "a connection begins with the newest version",
        "a node of the release before is sent what it does not understand",
        _CLIENT,
        "        self.version = OLDEST  #",
        "        self.version = VERSION  #",
        (_T_VERSION,),
    ),
    Bug(
        "a request of any version is taken",
        "what another release has written is read as if it were ours",
        _SERVER,
        "    return int(given) if given in _VERSIONS else None\n",
        "    return int(given) if given.isdigit() else None\n",
        (f"{_T_RPC}::test_version_that_this_node_does_not_speak_is_refused_at_the_door",),
    ),
    Bug(
        "answers are written in our version",
        "a node of the release before does not understand what was done for it",
        _SERVER,
        "_packed(operation, _outcome(task), version)",
        "_packed(operation, _outcome(task), VERSION)",
        (f"{_T_RPC}::test_answer_has_the_form_of_the_request",),
    ),
)
