"""Who another node is, and what is done for it; and what a node believes of another's answer."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_TLS: Final = "cluster/tls/contexts.py"
_RPC: Final = "cluster/rpc/server.py"
_ENVELOPE: Final = "cluster/rpc/envelope.py"
_CLIENT: Final = "cluster/rpc/client.py"
_TRANSPORT: Final = "cluster/raft/transport.py"

_T_TLS: Final = "tests/unit/tls/test_contexts.py"
_T_RPC: Final = "tests/parts/rpc/test_server.py"
_T_CLIENT: Final = "tests/parts/rpc/test_client.py"
_T_TRANSPORT: Final = "tests/unit/raft/test_transport.py"
_T_PEER: Final = f"{_T_TLS}::test_peer_is_the_one_server_its_certificate_names"
_T_CONTEXTS: Final = f"{_T_TLS}::test_only_mutual_tls_1_3_is_spoken"
_T_ANSWER: Final = f"{_T_CLIENT}::test_what_is_no_answer_is_not_taken_for_one"
_T_RUBBISH: Final = f"{_T_RPC}::test_rubbish_is_refused"

BUGS: Final = (
    # -- certificates of nodes
    Bug(
        "names of other types name a server",
        "whoever gets a certificate with a URI of their choice is a server of the cluster",
        _TLS,
        '            if kind == "DNS" and value.endswith(self._suffix)\n',
        "            if value.endswith(self._suffix)\n",
        (_T_PEER,),
    ),
    Bug(
        "names of other roles and datacenters name a server",
        "a client's certificate that also names `localhost` is one of a server with that name",
        _TLS,
        '            if kind == "DNS" and value.endswith(self._suffix)\n',
        '            if kind == "DNS"\n',
        (_T_PEER,),
    ),
    Bug(
        "wildcards and names below a server's name a server",
        "a certificate that was made for hosts of a server is taken for the server's own",
        _TLS,
        "        names = {name for name in names if is_node_name(name)}\n",
        "",
        (_T_PEER,),
    ),
    Bug(
        "a certificate of several servers",
        "one server votes for two",
        _TLS,
        "        return names.pop() if len(names) == 1 else None\n",
        "        return min(names) if names else None\n",
        (_T_PEER,),
    ),
    Bug(
        "TLS 1.2 between nodes",
        "connections can be resumed, and downgraded to what nobody has looked at",
        _TLS,
        "    context.minimum_version = ssl.TLSVersion.TLSv1_3\n",
        "    context.minimum_version = ssl.TLSVersion.TLSv1_2\n",
        (_T_CONTEXTS,),
    ),
    Bug(
        "nodes come in without a certificate",
        "only the name that is looked at later keeps everybody in the network out",
        _TLS,
        "        context.num_tickets = 0\n",
        "        context.num_tickets = 0\n        context.verify_mode = ssl.CERT_OPTIONAL\n",
        (_T_CONTEXTS,),
    ),
    Bug(
        "any node may answer for another",
        "a server that is asked in the leader's place is believed",
        _TLS,
        "    context.verify_mode = ssl.CERT_REQUIRED\n",
        "    context.check_hostname = False\n    context.verify_mode = ssl.CERT_REQUIRED\n",
        (_T_CONTEXTS,),
    ),
    Bug(
        "connections between nodes can be resumed",
        "a server whose certificate has expired, or was replaced, goes on as if it had not",
        _TLS,
        "        context.num_tickets = 0\n",
        "        pass\n",
        (f"{_T_TLS}::test_no_connection_can_be_resumed",),
    ),
    Bug(
        "an RPC client does not look at the name",
        "any server of the cluster may answer in the leader's place",
        _CLIENT,
        "                    server_hostname=self._tls.server_name(peer),\n",
        '                    server_hostname=self._tls.server_name("a"),\n',
        (f"{_T_CLIENT}::test_peer_that_is_not_there_or_not_the_one_is_not_reached",),
    ),
    # -- the RPC port
    Bug(
        "any certificate of the CA may ask",
        "a client's certificate signs, changes the configuration and adds servers",
        _RPC,
        '            return "no server of this cluster"\n',
        "            return None\n",
        (f"{_T_RPC}::test_certificate_of_another_role_gets_nowhere",),
    ),
    Bug(
        "servers that were removed may ask",
        "a server that was taken out of the cluster, because it was stolen perhaps, goes on signing",
        _RPC,
        "        return self._replica.admission.refusal(peer, key)\n",
        "        return None\n",
        (f"{_T_RPC}::test_server_that_was_removed_gets_nowhere",),
    ),
    Bug(
        "messages between nodes may be of any size",
        "a node that went mad fills the memory of the leader",
        _RPC,
        "client_max_size=MAX_RPC_BYTES",
        "client_max_size=1 << 40",
        (f"{_T_RPC}::test_oversized_message_is_refused",),
    ),
    Bug(
        "messages between nodes of any form",
        "a message that is half understood is carried out",
        _ENVELOPE,
        "    milliseconds: Annotated[int, Meta(ge=0, le=(1 << 53))]",
        "    milliseconds: Any",
        (_T_RUBBISH,),
    ),
    Bug(
        "what is no message is an internal error",
        "a node of another version is answered as if the request had failed halfway",
        _RPC,
        "        except NotUnderstood as error:\n            return _refused(400",
        "        except ZeroDivisionError as error:\n            return _refused(400",
        (_T_RUBBISH,),
    ),
    Bug(
        "one error is that of the whole message",
        "a client's mistake fails the requests of all that came with it",
        _ENVELOPE,
        "    if isinstance(outcome, BaseException):\n        return refusal(outcome)\n",
        "    if isinstance(outcome, BaseException):\n        raise outcome\n",
        (f"{_T_RPC}::test_each_argument_gets_its_own_outcome",),
    ),
    # -- answers
    Bug(
        "answers of any length",
        "a leader that went mad fills the memory of a follower",
        _CLIENT,
        '    if b"transfer-encoding" in headers or not length.isdigit() or int(length) > _MAX_ANSWER_BYTES:\n',
        '    if b"transfer-encoding" in headers or not length.isdigit():\n',
        (_T_ANSWER,),
    ),
    Bug(
        "answers in another encoding",
        "the length of a chunk is taken for the answer",
        _CLIENT,
        '    if b"transfer-encoding" in headers or not length.isdigit() or int(length) > _MAX_ANSWER_BYTES:\n',
        "    if not length.isdigit() or int(length) > _MAX_ANSWER_BYTES:\n",
        (_T_ANSWER,),
    ),
    Bug(
        "more than was announced",
        "what is left over is taken for the answer to the next request: a client gets another's certificate",
        _CLIENT,
        "        if len(self._buffer) > head.length:\n",
        "        if False:\n",
        (_T_ANSWER,),
    ),
    Bug(
        "answers to what was not asked",
        "as above, when an answer comes late",
        _CLIENT,
        "        except BaseException:\n"
        "            connection.abort()  # an answer that comes later must not be taken for the next one's\n"
        "            raise\n",
        "        except BaseException:\n"
        "            self._idle.setdefault((peer, address), []).append(connection)\n"
        "            connection.idle_since = asyncio.get_running_loop().time()\n"
        "            raise\n",
        (f"{_T_CLIENT}::test_answer_of_a_request_that_was_given_up_is_not_the_next_ones",),
    ),
    Bug(
        "a head without an end",
        "a server that sends for ever fills the memory of a follower",
        _CLIENT,
        "                if len(self._buffer) > _MAX_HEAD_BYTES:\n",
        "                if False:\n",
        (f"{_T_ANSWER}[{'x' * 40}]",),
    ),
    Bug(
        "any number of connections to the leader",
        "a wave of requests costs the leader a handshake each",
        _CLIENT,
        "        async with self._slots:\n",
        "        if True:\n",
        (f"{_T_CLIENT}::test_connections_are_bounded",),
    ),
    # -- the Raft port
    Bug(
        "any certificate of the CA is a Raft peer",
        "a client's certificate votes",
        _TRANSPORT,
        "        if self.peer is None or self.peer == self._links.node_id:\n",
        "        if self.peer == self._links.node_id:\n",
        (f"{_T_TRANSPORT}::test_certificate_of_no_other_server_gets_nowhere",),
    ),
    Bug(
        "a node is its own Raft peer",
        "whoever has stolen a server's key votes against it with its own name",
        _TRANSPORT,
        "        if self.peer is None or self.peer == self._links.node_id:\n",
        "        if self.peer is None:\n",
        (f"{_T_TRANSPORT}::test_certificate_of_no_other_server_gets_nowhere",),
    ),
)
