"""That rights which end have ended: for whoever waits, on whichever node, and whatever was under way."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_ACCESS: Final = "cluster/node/access.py"
_NODE: Final = "cluster/raft/node.py"
_GUARD: Final = "cluster/raft/guard.py"
_AGENT: Final = "cluster/http/routes/agent.py"
_APP: Final = "cluster/http/app.py"
_BLOCKING: Final = "cluster/http/blocking.py"
_BODY: Final = "cluster/http/body.py"
_SNAPSHOT: Final = "cluster/http/routes/snapshot.py"
_PIPELINE: Final = "cluster/signing/pipeline.py"
_CHANGES: Final = "cluster/ca/changes.py"
_DIRECTORY: Final = "cluster/access/directory.py"
_WORDS: Final = "cluster/base/words.py"
_WORK: Final = "cluster/node/acl_work.py"

_RULES: Final = "fsm/acl_rules.py"
_ROOM: Final = "cluster/access/room.py"
_LOGIN: Final = "cluster/access/login.py"

_T_ACL: Final = "tests/unit/fsm/test_acl.py"
_T_ROOM: Final = "tests/unit/access/test_room.py"
_T_LOGIN: Final = "tests/unit/access/test_login.py"
_T_NODE: Final = "tests/unit/node/test_acl_login.py"
_T_ACCESS: Final = "tests/unit/node/test_access.py"
_T_CURRENT: Final = "tests/unit/raft/test_current.py"
_T_CUT: Final = "tests/parts/node/test_gate.py"
_T_OWN: Final = "tests/parts/http/test_acl_waiting.py::test_own_token_tells_nothing_of_the_others"
_SELECTOR: Final = "cluster/access/selector.py"
_T_SELECTOR: Final = "tests/unit/access/test_selector.py"
_T_STANDING: Final = "tests/parts/http/test_standing.py"
_T_DIRECTORY: Final = "tests/unit/access/test_directory.py"
_T_SHOWN: Final = "tests/parts/http/test_secrets_shown.py"
_T_AGAIN: Final = "tests/parts/node/test_judged_again.py"

BUGS: Final = (
    Bug(
        "logins may take all places for tokens",
        "one workload keeps operators from making a token for a day, while something has to be revoked",
        _RULES,
        "    most = MAX_TOKENS - RESERVED_TOKENS if token.auth_method else MAX_TOKENS\n",
        "    most = MAX_TOKENS\n",
        (f"{_T_ACL}::test_logins_leave_places_for_tokens_that_operators_make_and_for_the_bootstrap",),
    ),
    Bug(
        "logins may take all of the room",
        "fewer of them, with long descriptions, keep operators out just as well",
        _ROOM,
        "        most = self._most - (RESERVED_WEIGHT if _is_login(wanted) else 0)\n",
        "        most = self._most\n",
        (f"{_T_ROOM}::test_logins_leave_room_for_tokens_that_operators_make_and_for_the_bootstrap",),
    ),
    Bug(
        "an identity has as many tokens as it likes",
        "one workload fills all places that logins have, and no other one logs in",
        _RULES,
        "    return tuple(own[: max(0, len(own) + 1 - MAX_OF_AN_IDENTITY)])\n",
        "    return ()\n",
        (f"{_T_ACL}::test_identity_that_has_as_many_logins_as_it_may_loses_its_oldest",),
    ),
    Bug(
        "the first of the table ends for another login, and not the oldest",
        "a token that was just made is gone before it is used",
        _RULES,
        "    own.sort(key=lambda other: (not other.is_expired(token.created_at), other.create_index))\n",
        "",
        (f"{_T_ACL}::test_identity_that_has_as_many_logins_as_it_may_loses_its_oldest",),
    ),
    Bug(
        "the order of a list makes another identity",
        "whoever is in some groups has as many tokens as they can be shuffled",
        _LOGIN,
        "    lists = {name: sorted(set(values)) for name, values in proved.lists.items()}\n",
        "    lists = {name: list(values) for name, values in proved.lists.items()}\n",
        (f"{_T_LOGIN}::test_identity_is_the_method_and_all_that_was_proved",),
    ),
    Bug(
        "logins that are granted have no rate",
        "one workload fills the log with tokens that end each other",
        _WORK,
        "                self._logins.take(made.command.token.identity_hash)\n",
        "",
        (f"{_T_NODE}::test_identity_logs_in_so_often_and_others_all_the_same",),
    ),
    Bug(
        "a login is counted before it is granted",
        "whoever has a credential without rights learns by the 429 that it is believed",
        _WORK,
        "            made = self._new_login(state, judged, description)\n",
        """            self._logins.take(b"")\n            made = self._new_login(state, judged, description)\n""",
        (f"{_T_NODE}::test_whoever_gets_nothing_is_never_told_to_come_again",),
    ),
    Bug(
        "a server that joins is not told what the cluster allows by default",
        "by its own listeners it may come to allow what all others refuse",
        "cluster/cli/join.py",
        '        "acl": {"default_policy": _default_policy(answer)},\n',
        "",
        ("tests/parts/cli/test_join.py::test_what_is_allowed_by_default_is_as_the_cluster_has_it",),
    ),
    Bug(
        "a claim that a login did not bring differs from everything",
        'a rule for `value.project != ""` gives its rights to logins without a project',
        _SELECTOR,
        'login.texts.get(self.name, "") == self.value',
        "login.texts.get(self.name) == self.value",
        (f"{_T_SELECTOR}::test_selector_holds_of_what_it_says",),
    ),
    Bug(
        "a selector may ask any name below value and list",
        "a misspelt name, or one that is not mapped any more, makes a rule for every login",
        _SELECTOR,
        "        if name in self._fields.names:\n",
        '        if name in self._fields.names or name.startswith("value."):\n',
        (
            f"{_T_SELECTOR}::test_what_is_no_selector_is_refused",
            f"{_T_LOGIN}::test_a_login_that_no_rule_gives_anything_is_refused",
        ),
    ),
    Bug(
        "a blocking query on a leaf is judged by its token alone",
        "a service whose right was taken away goes on waiting for its next key",
        _AGENT,
        "        needs_while_waiting(request, SERVICE_WRITE, name)\n",
        "",
        (f"{_T_STANDING}::test_blocking_query_ends_when_its_right_does",),
    ),
    Bug(
        "whoever waits is judged when there is news",
        "a revoked token keeps its blocking queries open for minutes",
        _BLOCKING,
        "                    judge()\n                except",
        "                    pass\n                except",
        (f"{_T_STANDING}::test_blocking_query_ends_when_its_right_does",),
    ),
    Bug(
        "one blocking query that cannot be judged ends the judging of all",
        "revoked tokens keep their blocking queries open on that node",
        _BLOCKING,
        "                except Exception as error:  # whoever",
        "                except BadRequest as error:  # whoever",
        (f"{_T_STANDING}::test_blocking_query_that_cannot_be_judged_ends_and_takes_no_other_along",),
    ),
    Bug(
        "a read is for whoever could ask when it came",
        "what has waited for a leader is handed out with a token that was revoked meanwhile",
        _APP,
        "    if not response.prepared:\n        require_standing(request)\n",
        "",
        (f"{_T_STANDING}::test_read_that_waited_for_a_leader_is_not_for_a_token_that_is_gone",),
    ),
    Bug(
        "that nothing is there is told to whoever could ask when the request came",
        "a revoked token learns which objects exist",
        _APP,
        "    except Exception:\n        require_standing(request)\n        raise\n",
        "    except Exception:\n        raise\n",
        (f"{_T_STANDING}::test_read_that_waited_for_a_leader_is_not_for_a_token_that_is_gone",),
    ),
    Bug(
        "a body is of whoever began to send it",
        "a token that is revoked still changes things for half a minute, byte by byte",
        _BODY,
        "        require_standing(request)\n",
        "",
        (f"{_T_STANDING}::test_body_that_comes_slowly_is_of_whoever_may_by_its_end",),
    ),
    Bug(
        "a snapshot goes on to whoever began to load it",
        "a revoked token reads everything there is for an hour",
        _SNAPSHOT,
        "                    require_standing(request)  # a client may take an hour for all of it\n",
        "",
        (f"{_T_STANDING}::test_snapshot_breaks_off_when_its_token_ends",),
    ),
    Bug(
        "what was signed is recorded whoever asks by then",
        "a backend that takes seconds makes certificates for revoked tokens",
        _PIPELINE,
        "[found for found in signed if await self._may_have(found[0])]",
        "signed",
        (f"{_T_AGAIN}::test_what_was_signed_meanwhile_is_not_recorded",),
    ),
    Bug(
        "what was recorded is handed out whoever asks by then",
        "a commit that takes seconds gives certificates to revoked tokens",
        _PIPELINE,
        "            if position not in result.duplicates and await self._may_have(request):\n",
        "            if position not in result.duplicates:\n",
        (f"{_T_AGAIN}::test_what_was_recorded_meanwhile_is_not_handed_out",),
    ),
    Bug(
        "of who asks nothing is judged again but that the token is there",
        "a policy that denies does not stop what was signed by the one before",
        _PIPELINE,
        "        if now.rules is before.rules or now.rules.grant == before.rules.grant:\n",
        "        if now:\n",
        (f"{_T_AGAIN}::test_what_was_signed_meanwhile_is_not_recorded",),
    ),
    Bug(
        "a change of the CA is judged when it queues",
        "a revoked operator's rotation begins when its turn has come",
        _CHANGES,
        "            by = LEADER if judge is None else judge().by\n",
        "            by = LEADER\n",
        (f"{_T_AGAIN}::test_change_of_the_ca_is_judged_once_its_turn_has_come",),
    ),
    Bug(
        "a write of access control is judged when it arrives",
        "an auth method with slow keys is written by a token that was revoked meanwhile",
        _WORK,
        "            if judge is not None:\n                by = judge().by\n",
        "",
        (
            f"{_T_AGAIN}::test_auth_method_whose_keys_are_slow_is_not_written",
            f"{_T_AGAIN}::test_write_that_another_one_overtakes_is_judged_again",
        ),
    ),
    Bug(
        "a judgement stands whatever has changed since",
        "a token is good for as long as a request of it can be kept waiting",
        _DIRECTORY,
        "        if before is None or before.judged_by is not self._current():\n",
        "        if before is None:\n",
        (f"{_T_DIRECTORY}::test_every_change_counts_with_the_next_question",),
    ),
    Bug(
        "a judgement stands for longer than its token",
        "a token that has expired is good for whatever waits",
        _DIRECTORY,
        "        if before.expires_at and self._clock.now() >= before.expires_at:\n",
        "        if before.expires_at < 0:\n",
        (f"{_T_DIRECTORY}::test_judgement_stands_until_anything_has_changed",),
    ),
    Bug(
        "a secret of the wrong type is shown in the error",
        "the log of requests has tokens in it",
        _BODY,
        '        _fail(f"{name}: must be a string")\n',
        '        _fail(f"{name} = {shown(value)}: must be a string")\n',
        (f"{_T_SHOWN}::test_secret_of_the_wrong_type_is_not_shown",),
    ),
    Bug(
        "a secret in the place of a name is shown in the error",
        "the log of requests has tokens in it",
        _WORDS,
        '    return _UUID.sub("<hidden>", text)\n',
        "    return text\n",
        (f"{_T_SHOWN}::test_secret_in_the_place_of_a_name_is_not_shown",),
    ),
    Bug(
        "a node that is cut off believes every token that it knows",
        "where nobody hears of a revocation a token is good, and keys are handed out, without end",
        _ACCESS,
        "        if seconds > self._stale_seconds and not self._directory.is_open:\n",
        "        if False:\n",
        (
            f"{_T_ACCESS}::test_token_counts_no_longer_than_it_can_be_known_to",
            f"{_T_CUT}::test_leaf_in_the_cache_is_for_nobody_while_the_node_is_cut_off",
        ),
    ),
    Bug(
        "a node is current while a leader is heard",
        "one that never catches up honours what was revoked while it was away",
        _NODE,
        "        elif told is not None and self._visible_index >= told[1]:\n",
        "        elif told is not None:\n",
        (f"{_T_CURRENT}::test_leader_that_is_heard_and_not_followed_up_to_its_end_keeps_nobody_current",),
    ),
    Bug(
        "of what a leader has told the last counts",
        "a node that is a little late all the time, under load, takes no token",
        _GUARD,
        "        if told is not None and (self.told is None or told[1] < self.told[1]):\n",
        "        if told is not None:\n",
        (f"{_T_CURRENT}::test_leader_that_is_heard_and_not_followed_up_to_its_end_keeps_nobody_current",),
    ),
    Bug(
        "a recovery token outlives whoever has given it",
        "an operator whose token was taken away keeps a way in, on each node, until it is started anew",
        _ACCESS,
        "        return found if found is not None and self.has_recovery_token else None\n",
        "        return found\n",
        (f"{_T_ACCESS}::test_recovery_token_is_for_just_that_and_ends_with_who_has_given_it",),
    ),
    Bug(
        "a recovery token that is given anew by itself is nobody's",
        "whoever changes it on a node that is cut off has none from then on",
        "cluster/access/agent_tokens.py",
        "        if found is TokenKind.RECOVERY and setter != _ACCESSOR:",
        "        if found is TokenKind.RECOVERY:",
        (f"{_T_ACCESS}::test_recovery_token_is_for_just_that_and_ends_with_who_has_given_it",),
    ),
    Bug(
        "who looks at a token of their own waits for news of all of them",
        "without a token anybody sees when somebody logs in",
        "cluster/http/routes/acl.py",
        "            while _has_seen(point.state.acl, accessor_id, options.index):\n",
        "            while point.state.acl.tokens_index <= options.index:\n",
        (_T_OWN,),
    ),
    Bug(
        "a token of one's own is shown with the index of all of them",
        "without a token anybody counts logins",
        "cluster/http/routes/acl.py",
        "point_headers(point, token.modify_index, options)",
        "point_headers(point, point.state.acl.tokens_index, options)",
        (_T_OWN,),
    ),
)
