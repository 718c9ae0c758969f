"""That rights which end have ended: for whoever waits, on whichever node, and whatever was under way."""

from typing import Final

from tests.seeded_bugs.bug import Bug

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

_T_STANDING: Final = "tests/parts/http/test_standing.py"
_T_DIRECTORY: Final = "tests/unit/access/test_directory.py"
_T_SHOWN: Final = "tests/parts/http/test_secrets_shown.py"
_T_AGAIN: Final = "tests/parts/node/test_judged_again.py"

BUGS: Final = (
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
        "            if judge is not None:\n                judge()\n",
        "",
        (f"{_T_AGAIN}::test_change_of_the_ca_is_judged_once_its_turn_has_come",),
    ),
    Bug(
        "a write of access control is judged when it arrives",
        "an auth method with slow keys is written by a token that was revoked meanwhile",
        _WORK,
        "            if judge is not None:\n                judge()\n",
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
)
