"""How servers come to their certificates: tokens, the machine that joins, renewal, and what ends with a removal."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_RULES: Final = "fsm/nodes_rules.py"
_CA_RULES: Final = "fsm/ca_rules.py"
_NODE_CERTS: Final = "cluster/node/node_certs.py"
_PROOF: Final = "cluster/tls/join_proof.py"
_MEMBERSHIP: Final = "cluster/node/membership.py"
_RENEWAL: Final = "cluster/node/renewal.py"
_RESEAL: Final = "cluster/node/reseal.py"
_TLS: Final = "cluster/tls/node_certs.py"
_MESSAGES: Final = "cluster/rpc/messages.py"
_CLIENT: Final = "cluster/client/joining.py"
_RPC_CLIENT: Final = "cluster/rpc/client.py"
_RPC_SERVER: Final = "cluster/rpc/server.py"
_REPLICA: Final = "cluster/raft/replica.py"
_POOL: Final = "cluster/signing/pool.py"
_BACKUP: Final = "cluster/backup/file.py"
_COMMAND: Final = "cluster/cli/join.py"

_T_STATE: Final = "tests/unit/fsm/test_nodes.py"
_T_TLS: Final = "tests/unit/tls/test_node_certs.py"
_T_LEADER: Final = "tests/parts/node/test_node_certs.py"
_T_PROOF: Final = "tests/unit/tls/test_join_proof.py"
_T_MEMBERSHIP: Final = "tests/unit/node/test_membership.py"
_T_RENEWAL: Final = "tests/parts/node/test_renewal.py"
_T_PORT: Final = "tests/parts/http/test_join.py"
_T_PLACES: Final = "tests/parts/rpc/test_places.py"
_T_COMMAND: Final = "tests/parts/cli/test_join.py"
_T_RESTORE: Final = "tests/parts/backup/test_restore.py"
_T_REPLICA: Final = "tests/parts/raft/test_replica.py"

BUGS: Final = (
    Bug(
        "a token stays when it was taken",
        "whoever has seen a command that was used joins with it, too",
        _RULES,
        "    kept = tuple(token for token in state.nodes.join_tokens if token != found)\n",
        "    kept = state.nodes.join_tokens\n",
        (_T_STATE, _T_LEADER),
    ),
    Bug(
        "the log takes a token for any name",
        "of two requests at once one gets by the leader's look, and a token is good for another server",
        _RULES,
        "        if token.name == name and not token.is_expired(now)",
        "        if not token.is_expired(now)",
        (_T_STATE,),
    ),
    Bug(
        "the log takes a token that has expired",
        "a request that waits for a leader uses a token long after its minutes",
        _RULES,
        "        if token.name == name and not token.is_expired(now)",
        "        if token.name == name",
        (_T_STATE,),
    ),
    Bug(
        "a token for a name leaves the one before",
        "a token that was lost cannot be made void by another one",
        _RULES,
        "        if token.name != cmd.token.name and token.public_key",
        "        if token.public_key",
        (_T_STATE,),
    ),
    Bug(
        "the agent CA's key is taken though the data key has changed since it was sealed",
        "nobody can open it: no server joins or renews, and all certificates end",
        _RULES,
        "    if cmd.ca_index != state.ca_index:\n",
        "    if False:\n",
        (_T_STATE,),
    ),
    Bug(
        "another data key leaves the agent CA's key behind",
        "after `seal rotate` nobody can open it, and all certificates end",
        _CA_RULES,
        "    if _without_key(cmd.agent_ca) != _without_key(state.nodes.agent_ca):\n",
        "    if False:\n",
        (_T_STATE,),
    ),
    Bug(
        "a change of the seal key forgets the agent CA's",
        "it is refused from then on, or the key is lost",
        _RESEAL,
        "            agent_ca = agent_ca_sealed_again(*sealers, state.nodes.agent_ca)\n",
        "            agent_ca = state.nodes.agent_ca\n",
        (_T_LEADER,),
    ),
    Bug(
        "a restored CA brings its cluster's agent CA and tokens",
        "tokens that were used are good again, and servers are signed by a CA that nobody here trusts",
        _CA_RULES,
        "        nodes=state.nodes,\n",
        "",
        (_T_STATE,),
    ),
    Bug(
        "a snapshot for keeping holds the agent CA's sealed key and join tokens",
        "whoever gets at backups and the seal key can be any server",
        _BACKUP,
        "        put(_dumped(replace(state, nodes_index=0, nodes=Nodes())))\n",
        "        put(_dumped(state))\n",
        (_T_RESTORE,),
    ),
    Bug(
        "a certificate is handed out without taking the token",
        "one token makes as many servers as there are requests",
        _NODE_CERTS,
        "        await self._take(request, token)\n",
        "",
        (_T_LEADER,),
    ),
    Bug(
        "a token that was taken by another is good all the same",
        "of fifty at once each gets a certificate",
        _NODE_CERTS,
        "        if isinstance(await self._replica.propose(command, timeout=_COMMIT_SECONDS), Rejected):\n",
        "        if await self._replica.propose(command, timeout=_COMMIT_SECONDS) is None:\n",
        (_T_LEADER,),
    ),
    Bug(
        "the log takes a token for another one's of this name",
        "a token that was made void by another is good all the same, if it was looked at before",
        _RULES,
        "    if found is None or found.public_key != cmd.public_key:\n",
        "    if found is None:\n",
        (_T_STATE,),
    ),
    Bug(
        "a join token outlives the token that made it",
        "who had rights for a minute has a server an hour later",
        _RULES,
        "    return any(made_by.accessor_id == token.made_by and",
        "    return True or any(made_by.accessor_id == token.made_by and",
        (_T_STATE, _T_LEADER),
    ),
    Bug(
        "a join token of an open cluster outlives the bootstrap",
        "access control is in use, and somebody who never had a right has a server",
        _RULES,
        "        return not acl.bootstrap_index\n",
        "        return True\n",
        (_T_STATE,),
    ),
    Bug(
        "a join token forgets who made it",
        "it outlives the token that was revoked",
        _NODE_CERTS,
        "made_by=caller.accessor_on_record or None",
        "made_by=None",
        (_T_LEADER,),
    ),
    Bug(
        "a proof is not looked at",
        "whoever knows that a server is about to join is it",
        _NODE_CERTS,
        "        if found is None or not is_proved(found.public_key, statement, request.proof):\n",
        "        if found is None:\n",
        (_T_LEADER,),
    ),
    Bug(
        "a machine may have met anybody",
        "with the key of a removed server machines are made to ask, and what they say is used in their place",
        _NODE_CERTS,
        "        if through is None or request.server_key not in map(public_part, through.keys):\n",
        "        if False:\n",
        (_T_LEADER,),
    ),
    Bug(
        "a proof is not over the server that was met",
        "as before: the key of a removed server gets what machines ask",
        _PROOF,
        '        parts = (_SIGNED, *(text.encode("utf-8", "surrogatepass") for text in texts), self.server_key)\n',
        '        parts = (_SIGNED, *(text.encode("utf-8", "surrogatepass") for text in texts))\n',
        (_T_PROOF,),
    ),
    Bug(
        "parts of what is proved run into each other",
        "a proof for one name and address is one for others",
        _PROOF,
        '        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)\n',
        '        return b"".join(parts)\n',
        (_T_PROOF,),
    ),
    Bug(
        "whoever brings a machine's request says which server it has met",
        "one server's key passes for all of them",
        _MESSAGES,
        "        return structs.replace(self, through=peer)\n",
        "        return self\n",
        (_T_LEADER,),
    ),
    Bug(
        "an operator makes join tokens",
        "operator:write is every right: a server's key puts anything into the log",
        _MESSAGES,
        'Operation("join_token", JoinTokenRequest, JoinTokenAnswer, needs=SERVER_CERTIFICATES)',
        'Operation("join_token", JoinTokenRequest, JoinTokenAnswer, needs=OPERATOR_WRITE)',
        (_T_LEADER,),
    ),
    Bug(
        "an operator hands over an agent CA",
        "tokens are void and servers are signed by whoever may change settings",
        _MESSAGES,
        'Operation("set_agent_ca", AgentCARequest, Nothing, needs=SERVER_CERTIFICATES)',
        'Operation("set_agent_ca", AgentCARequest, Nothing, needs=OPERATOR_WRITE)',
        (_T_LEADER,),
    ),
    Bug(
        "a token for a server that is there is made without a word",
        "one command gives a live server's name to another key",
        _NODE_CERTS,
        "        if request.is_rejoin and not request.is_forced:\n",
        "        if False:\n",
        (_T_LEADER,),
    ),
    Bug(
        "a token for a server that was away is good when it is there again",
        "its name goes to another key for as long as the token lasts",
        _NODE_CERTS,
        "        if token.is_rejoin and not token.is_forced:\n",
        "        if False:\n",
        (_T_LEADER,),
    ),
    Bug(
        "a token need not say at which addresses",
        "its holder has all servers dial where they like, and a certificate for that address",
        _NODE_CERTS,
        "            if (address or not request.is_rejoin) and not is_address(address):\n",
        "            if address and not is_address(address):\n",
        (_T_LEADER,),
    ),
    Bug(
        "the agent CA is written for whoever was somebody before it was tried",
        "a token that was revoked meanwhile says who signs servers' certificates",
        _NODE_CERTS,
        "        if problem := await self._pool.check_agent_ca(covered,",
        "        known = judge()\n        judge = lambda: known\n"
        "        if problem := await self._pool.check_agent_ca(covered,",
        (_T_LEADER,),
    ),
    Bug(
        "a server is removed for whoever was somebody before the wait",
        "a revoked token's removals are done once another change is over",
        _MEMBERSHIP,
        "            by = judge().by\n            if member.id == self._node_name:\n",
        "            if member.id == self._node_name:\n",
        (_T_MEMBERSHIP,),
    ),
    Bug(
        "a server's key is exchanged for whoever was somebody before the wait",
        "a revoked token's word takes a server's name to another key",
        _MEMBERSHIP,
        "            key = await self._replica.look_up_key(member)\n            by = judge().by\n",
        "            key = await self._replica.look_up_key(member)\n",
        (_T_MEMBERSHIP,),
    ),
    Bug(
        "a server is added for whoever was somebody before the wait",
        "a revoked token's servers join once another change is over",
        _MEMBERSHIP,
        "            by = judge().by\n            return new if self._is_unknown(new) else None\n",
        "            return new if self._is_unknown(new) else None\n",
        (_T_MEMBERSHIP,),
    ),
    Bug(
        "a token is good at every address",
        "whoever gets hold of it has the log sent to a machine of their own",
        _NODE_CERTS,
        "            if bound and bound != address:\n",
        "            if False:\n",
        (_T_LEADER,),
    ),
    Bug(
        "a newcomer comes into the log without its key",
        "whoever is first to show a certificate with its name is it",
        _NODE_CERTS,
        "        newcomer = replace(newcomer, keys=(key,))\n",
        "",
        (_T_LEADER,),
    ),
    Bug(
        "a token for a newcomer takes the place of a server",
        "a name that has become a server's since is somebody else's from then on",
        _MEMBERSHIP,
        "        if new.id in self._replica.members:\n",
        "        if False:\n",
        (_T_LEADER,),
    ),
    Bug(
        "the agent CA is handed over before all servers know what that is",
        "a server of the release before ends at the entry, and at each start again",
        _NODE_CERTS,
        "        if self._replica.state.acl.key is None:\n",
        "        if False:\n",
        (_T_LEADER,),
    ),
    Bug(
        "an agent CA is taken that the servers do not trust",
        "each server that joins or renews is refused by all others",
        _NODE_CERTS,
        "        if anchors and hash_of_certificate(der) not in anchors:\n",
        "        if False:\n",
        (_T_LEADER,),
    ),
    Bug(
        "an agent CA is taken untried",
        "with another key than the certificate's nothing that it signs is good, and that shows when certificates end",
        _NODE_CERTS,
        "        if problem := await self._pool.check_agent_ca(covered,",
        "        if problem := False and await self._pool.check_agent_ca(covered,",
        (_T_LEADER,),
    ),
    Bug(
        "a renewal brings any key",
        "whoever speaks for a server once gives it a key of their own",
        _NODE_CERTS,
        "        if not is_key_of(key, member.keys):\n",
        "        if False:\n",
        (_T_LEADER,),
    ),
    Bug(
        "a server renews for another",
        "one server is all of them",
        _MESSAGES,
        '        """Nobody asks for another server."""\n        return structs.replace(self, name=peer)\n',
        '        """Nobody asks for another server."""\n        return self\n',
        (_T_LEADER,),
    ),
    Bug(
        "processes that have had the agent CA's key outlive the leadership",
        "a node that does not lead any more has the key in its memory",
        _POOL,
        "        self._sent.add(_AGENT_CA)\n",
        "",
        (_T_LEADER,),
    ),
    Bug(
        "a CSR need not be signed by its key",
        "somebody gets a certificate for a key that another server has",
        _TLS,
        "        key.verify(csr.signature, csr.tbs_certrequest_bytes, ec.ECDSA(hashes.SHA256()))\n",
        "",
        (_T_TLS,),
    ),
    Bug(
        "a renewed certificate takes the names of one of another CA",
        "a server makes a CA of its own, and with it any name",
        _TLS,
        "        cert.verify_directly_issued_by(issuer.cert)\n",
        "",
        (_T_TLS,),
    ),
    Bug(
        "a renewed certificate takes the names of another server's",
        "a server that has seen another's certificate has its names",
        _TLS,
        '    if servers != {f"{identity.node}{suffix}"} or len',
        "    if len",
        (_T_TLS,),
    ),
    Bug(
        "a machine takes any CA for the one with the fingerprint",
        "whoever is on the way gets the token, and the machine for a cluster of their own",
        _CLIENT,
        "        if hashlib.sha256(der).hexdigest() == fingerprint:\n",
        "        if der:\n",
        (_T_PORT,),
    ),
    Bug(
        "a machine does not verify the server by the CA",
        "whoever shows the right CA, which is no secret, gets the token",
        _CLIENT,
        "    context.verify_mode = ssl.CERT_REQUIRED\n",
        "",
        (_T_PORT,),
    ),
    Bug(
        "a machine takes any certificate of the CA for a server's",
        "whoever has a client's certificate gets the token",
        _CLIENT,
        "    if len(own) != 1 or not is_node_name(own[0]):\n",
        "    if False:\n",
        (_T_PORT,),
    ),
    Bug(
        "a machine keeps a certificate that its servers would refuse",
        "it is told that it is a server, and finds out when it starts",
        _COMMAND,
        "        _check(cert_pem, key_pem(key), ca_pem, args.name, args.datacenter, args.domain)\n",
        "",
        (_T_COMMAND,),
    ),
    Bug(
        "a renewed certificate is put in place unlooked",
        "a server whose leader errs is refused by all others from then on",
        _RENEWAL,
        "            check_made(Pair(cert_pem, present.key_pem), identity, present.ca_pem)\n",
        "            pass\n",
        (_T_RENEWAL,),
    ),
    Bug(
        "renewal does not wait until it is time",
        "each server asks the leader all the time",
        _RENEWAL,
        "            if left > 0:\n",
        "            if False:\n",
        (_T_RENEWAL,),
    ),
    Bug(
        "a removed server's connections end at the next look",
        "for a second it is heard by servers that know of its removal",
        _RPC_SERVER,
        "                    await self._replica.admission_changed.wait()\n",
        "                    await asyncio.Event().wait()\n",
        (_T_PLACES,),
    ),
    Bug(
        "nobody is told that a server was removed",
        "its connections end only when they are looked at",
        _REPLICA,
        "            self._to_owner(self.admission_changed.fire)\n",
        "",
        (_T_REPLICA,),
    ),
    Bug(
        "kept connections to a removed server stay",
        "it sees who was about to ask it, for as long as it likes",
        _RPC_CLIENT,
        "                if self._refusal(peer, connection.key) is not None:\n",
        "                if False:\n",
        (_T_PLACES,),
    ),
)
