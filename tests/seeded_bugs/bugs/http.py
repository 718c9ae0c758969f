"""The HTTP API: what is refused at the door, what a client is told, and what it is not."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_APP: Final = "cluster/http/app.py"
_AGENT: Final = "cluster/http/routes/agent.py"
_BLOCKING: Final = "cluster/http/blocking.py"
_BODY: Final = "cluster/http/body.py"
_CERTS: Final = "cluster/http/routes/certs.py"
_CONFIGURATION: Final = "cluster/http/routes/configuration.py"
_CONNECTION: Final = "cluster/http/connection.py"
_CONTEXT: Final = "cluster/http/context.py"
_ERRORS: Final = "cluster/http/errors.py"
_OPERATOR: Final = "cluster/http/routes/operator.py"
_QUERY: Final = "cluster/http/query.py"
_ROOTS: Final = "cluster/http/routes/roots.py"
_ROTATION: Final = "cluster/http/routes/rotation.py"
_SIGN: Final = "cluster/http/routes/sign.py"
_SNAPSHOT: Final = "cluster/http/routes/snapshot.py"
_TRANSFERS: Final = "cluster/http/transfers.py"
_CODES: Final = "cluster/base/errors.py"

_T_DOOR: Final = "tests/parts/http/test_door.py"
_T_QUERIES: Final = "tests/parts/http/test_queries.py"
_T_RESOURCES: Final = "tests/parts/http/test_resources.py"
_T_ROTATION: Final = "tests/parts/http/test_rotation.py"
_T_SNAPSHOT: Final = "tests/parts/http/test_snapshot.py"
_T_ODD_BODY: Final = f"{_T_RESOURCES}::test_a_body_that_is_odd_is_400_and_says_why"
_T_URL: Final = f"{_T_DOOR}::test_a_url_that_does_not_decode_is_400"
_T_FILTER: Final = f"{_T_RESOURCES}::test_a_filter_that_is_odd_is_400_and_says_what_is_allowed"
_T_WAIT: Final = f"{_T_QUERIES}::test_the_wait_is_clamped_and_gets_up_to_a_sixteenth_more"
_T_ODD_QUERY: Final = f"{_T_QUERIES}::test_parameters_that_are_odd_are_400_with_consuls_texts"

BUGS: Final = (
    # -- bounds
    Bug(
        "bodies of any size",
        "a few requests fill the memory of a node",
        _BODY,
        "        if size > MAX_BODY_BYTES:\n",
        "        if False:\n",
        (f"{_T_DOOR}::test_a_chunked_body_is_bounded_too",),
    ),
    Bug(
        "the rest of a refused body is taken in without end",
        "a client that never stops keeps its connection for ever",
        _BODY,
        "            while left > 0 and (chunk := await content.readany()):\n",
        "            while chunk := await content.readany():\n",
        (f"{_T_DOOR}::test_of_an_endless_body_about_1_mb_is_read",),
    ),
    Bug(
        "clients are asked for bodies that are too large",
        "a client sends a gigabyte to hear that it is too much",
        _BODY,
        "    if is_waiting and (request.content_length or 0) <= max_body_bytes:\n",
        "    if is_waiting:\n",
        (f"{_T_DOOR}::test_expect_continue_is_answered_before_the_body_and_only_if_it_is_wanted",),
    ),
    Bug(
        "bodies at any speed",
        "clients that send a byte an hour use up the connections",
        _BODY,
        "        async with asyncio.timeout(BODY_SECONDS):\n",
        "        async with asyncio.timeout(None):\n",
        (f"{_T_DOOR}::test_a_body_that_never_ends_is_408",),
    ),
    Bug(
        "bodies are unpacked",
        "a kilobyte becomes a gigabyte of memory",
        _CONNECTION,
        "            auto_decompress=False,",
        "            auto_decompress=True,",
        (f"{_T_DOOR}::test_a_compressed_body_is_not_unpacked",),
    ),
    Bug(
        "header lines together may be of any size",
        "each request holds sixty times as much memory as it may",
        _APP,
        "    if size > MAX_HEADER_BYTES:\n",
        "    if False:\n",
        (f"{_T_DOOR}::test_many_middling_headers_are_refused_by_their_sum",),
    ),
    Bug(
        "headers without an end",
        "a client that sends lines for ever fills the memory of a node",
        _CONNECTION,
        "            if self._head_bytes > MAX_HEADER_BYTES + MAX_URL_BYTES:\n",
        "            if False:\n",
        (f"{_T_DOOR}::test_headers_without_an_end_are_refused_while_they_arrive",),
    ),
    Bug(
        "any number of headers",
        "a request keeps the event loop busy with parsing",
        _CONNECTION,
        "            max_headers=MAX_HEADERS,\n",
        "            max_headers=10_000,\n",
        (f"{_T_DOOR}::test_64_headers_pass_and_65_do_not",),
    ),
    Bug(
        "heads at any speed",
        "clients that send nothing use up the connections",
        _CONNECTION,
        "        self._deadline = self._loop.call_later(self._door.head_seconds, self._too_slow)\n",
        "        pass\n",
        (f"{_T_DOOR}::test_the_second_head_of_a_connection_has_its_time_too",),
    ),
    Bug(
        "answers wait for ever to be read",
        "clients that do not read use up the connections, and hold their answers in memory",
        _CONNECTION,
        "            self._stalled = self._loop.call_later(self._door.answer_seconds, self.transport.abort)\n",
        "            pass\n",
        (f"{_T_DOOR}::test_an_answer_that_nobody_reads_ends_the_connection",),
    ),
    Bug(
        "CSRs of any size reach the node",
        "a megabyte of nonsense is sent on to the leader",
        _SIGN,
        "    if len(csr_pem) > MAX_CSR_BYTES:\n",
        "    if False:\n",
        (f"{_T_RESOURCES}::test_a_csr_over_16_kb_is_refused_before_the_node_sees_it",),
    ),
    Bug(
        "any number of parameters",
        "a request keeps the event loop busy with decoding",
        _QUERY,
        "    if len(parts) > MAX_PARAMETERS:\n",
        "    if False:\n",
        (_T_URL,),
    ),
    Bug(
        "pages of any size",
        "one request reads the whole ledger into memory",
        _CERTS,
        "    if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:\n",
        "    if not _DIGITS.fullmatch(text):\n",
        (_T_FILTER,),
    ),
    # -- what is understood
    Bug(
        "a name that is given twice",
        "what a proxy has checked is not what is done: each takes another of the two values",
        _BODY,
        "        if name in value:\n            raise ValueError",
        "        if False:\n            raise ValueError",
        (_T_ODD_BODY,),
    ),
    Bug(
        "a name in two spellings",
        "which of two values of a change counts is left to chance",
        _BODY,
        "        if key in fields:\n",
        "        if False:\n",
        (_T_ODD_BODY,),
    ),
    Bug(
        "bodies of any depth",
        "a configuration is committed that other nodes cannot decode",
        _BODY,
        "            if depth == _MAX_DEPTH:\n",
        "            if False:\n",
        (_T_ODD_BODY,),
    ),
    Bug(
        "numbers of any size",
        "a configuration is committed that other nodes cannot decode",
        _BODY,
        "        case int() if not _MIN_NUMBER <= value <= _MAX_NUMBER:\n",
        "        case int() if False:\n",
        (_T_ODD_BODY,),
    ),
    Bug(
        "numbers that are none",
        "a configuration is committed that is no JSON",
        _BODY,
        '    raise ValueError(f"{text} is not a JSON number")\n',
        "    return None  # type: ignore[misc]\n",
        (_T_ODD_BODY,),
    ),
    Bug(
        "NUL in a text",
        "a name that ends early for some programs, and not for others",
        _BODY,
        '    if "\\0" in text:\n',
        "    if False:\n",
        (_T_ODD_BODY,),
    ),
    Bug(
        "texts that cannot be encoded",
        "a configuration cannot be written to the log: the request ends in an internal error",
        _BODY,
        "        except UnicodeEncodeError:\n            raise ValueError",
        "        except UnicodeDecodeError:\n            raise ValueError",
        (_T_ODD_BODY,),
    ),
    Bug(
        "whole numbers may be true",
        "`ModifyIndex: true` is a check against index 1",
        _BODY,
        "    if not isinstance(value, int) or isinstance(value, bool) or value < 0:\n",
        "    if not isinstance(value, int) or value < 0:\n",
        (_T_ODD_BODY,),
    ),
    Bug(
        "broken percent-encoding is guessed at",
        "a proxy and a node see two different names",
        _QUERY,
        "        if _BROKEN_ESCAPE.search(raw):\n",
        "        if False:\n",
        (_T_URL,),
    ),
    Bug(
        "NUL in a URL",
        "a name that ends early for some programs, and not for others",
        _QUERY,
        '    if "\\0" in text:\n',
        "    if False:\n",
        (_T_URL,),
    ),
    Bug(
        "a misspelt filter selects everything",
        "who asks for one service's certificates takes those of all for them",
        _CERTS,
        "    refuse_unknown(query, _FILTERS)\n",
        "",
        (_T_FILTER,),
    ),
    Bug(
        "a misspelt field of a rotation is passed over",
        "what was meant to be a staged rotation replaces the root at once",
        _ROTATION,
        '    refuse_other_fields(fields, _FIELDS if action in (_ROTATE, _PLAN) else _FIELDS[:1], f"Action {action}")\n',
        "",
        (f"{_T_ROTATION}::test_malformed_requests_are_400_and_reach_nobody",),
    ),
    Bug(
        "a wait without stages",
        "an operator who wanted a staged rotation gets one at once",
        _ROTATION,
        "    if not is_staged:\n        raise BadRequest(",
        "    if False:\n        raise BadRequest(",
        (f"{_T_ROTATION}::test_malformed_requests_are_400_and_reach_nobody",),
    ),
    Bug(
        "a peer with any name",
        "a server is added that no certificate can be made for",
        _OPERATOR,
        "    if not is_node_name(name):\n",
        "    if False:\n",
        (f"{_T_RESOURCES}::test_a_peer_that_is_odd_is_400",),
    ),
    Bug(
        "a peer to remove is named twice",
        "which of two servers leaves the cluster is left to chance",
        _OPERATOR,
        "    if name is not None and address is not None:\n",
        "    if False:\n",
        (f"{_T_RESOURCES}::test_a_peer_is_removed_by_exactly_one_of_two",),
    ),
    # -- methods, places, and their order
    Bug(
        "a wrong method is a wrong path",
        "a client that uses PATCH is told that there is no such thing",
        _APP,
        'Route(("OPTIONS",), path, _NOBODY_HOME, options), Route(("*",), path, _NOBODY_HOME, refuse)):\n',
        'Route(("OPTIONS",), path, _NOBODY_HOME, options)):\n',
        (f"{_T_DOOR}::test_methods_that_a_path_has_not_are_405_with_allow",),
    ),
    Bug(
        "requests for another datacenter are answered here",
        "a client gets the roots, or certificates, of another mesh than it has asked for",
        _APP,
        '    if query and query.get("dc", "") not in ("", datacenter):\n',
        "    if False:\n",
        (f"{_T_QUERIES}::test_another_datacenter_is_500_with_consuls_text",),
    ),
    Bug(
        "endpoints work although Connect is off",
        "a node that must not sign does",
        _ROOTS,
        "    if not api.service.config.connect.enabled:\n",
        "    if False:\n",
        (f"{_T_RESOURCES}::test_without_connect_reads_are_500_with_consuls_text",),
    ),
    Bug(
        "a broken body spoils the next request",
        "a client's next request on the connection is read out of the middle of this one",
        _CONNECTION,
        "            self._break_off_body()\n        elif",
        "        elif",
        (f"{_T_DOOR}::test_a_chunked_body_that_breaks_is_400",),
    ),
    Bug(
        "a URL is decoded before its headers are counted",
        "what is too large is worked on first",
        _APP,
        "    if size > MAX_HEADER_BYTES:\n"
        '        raise HeadersTooLarge(f"request headers are too large: at most {MAX_HEADER_BYTES} bytes")\n'
        "    hosts.check(request)\n"
        "    url = request.rel_url\n"
        "    check_path(url.raw_path)\n",
        "    url = request.rel_url\n"
        "    check_path(url.raw_path)\n"
        "    if size > MAX_HEADER_BYTES:\n"
        '        raise HeadersTooLarge(f"request headers are too large: at most {MAX_HEADER_BYTES} bytes")\n',
        (f"{_T_DOOR}::test_what_is_too_large_is_refused_before_it_is_looked_at",),
    ),
    # -- what clients are told
    Bug(
        "unexpected errors are shown",
        "a client sees what went wrong inside, and with which values",
        _ERRORS,
        '        return text_response("internal error", 500)\n',
        "        return text_response(str(error), 500)\n",
        (f"{_T_RESOURCES}::test_an_unexpected_error_shows_nothing_and_is_logged_without_a_traceback",),
    ),
    Bug(
        "the parser's words are shown",
        "what was sent, a token perhaps, is in the answer and in the logs of proxies",
        _CONNECTION,
        "            return 400, _MALFORMED\n",
        "            return 400, str(error)\n",
        (f"{_T_DOOR}::test_garbage_is_400_in_plain_text",),
    ),
    Bug(
        "a secret of the wrong type is repeated",
        "a private key stands in an error text, and in the log",
        _BODY,
        '        _fail(f"{name}: must be an object, not {_kind(value)}")\n',
        '        _fail(f"{name}: must be an object, not {shown(value)}")\n',
        (f"{_T_RESOURCES}::test_a_secret_of_the_wrong_type_is_not_repeated",),
    ),
    Bug(
        "URLs are logged",
        "ACL tokens stand in the log",
        _APP,
        '    fields: dict[str, object] = {"method": request.method, "route": route}',
        '    fields: dict[str, object] = {"method": request.method, "route": request.path_qs}',
        (f"{_T_RESOURCES}::test_changes_and_failures_are_one_line_each_without_the_url",),
    ),
    Bug(
        "nobody says when to come back",
        "clients of an overloaded node try again at once, all together",
        _ERRORS,
        "    if status in (429, 503) or isinstance(error, ProviderUnavailable):\n",
        "    if False:\n",
        (f"{_T_RESOURCES}::test_refusals_of_sign_have_their_status_and_text",),
    ),
    Bug(
        "the backend's own pause is not passed on",
        "clients try again while Vault is still left alone",
        _ERRORS,
        "        return max(_RETRY_SECONDS, math.ceil(error.retry_after_seconds))\n",
        "        return _RETRY_SECONDS\n",
        (f"{_T_RESOURCES}::test_refusals_of_sign_have_their_status_and_text",),
    ),
    Bug(
        "reads without a leader are 503",
        "Consul's Go client does not repeat them",
        _ERRORS,
        "    return 500 if isinstance(error, NoLeader) else standard_status(error)\n",
        "    return standard_status(error)\n",
        (f"{_T_RESOURCES}::test_agent_roots_are_served_without_a_leader",),
    ),
    # -- check-and-set
    Bug(
        "the index of a change is not passed on",
        "of two operators the later overwrites what the earlier has done, without a word",
        _CONFIGURATION,
        '        modify_index=index_field(fields, "ModifyIndex"),\n',
        "        modify_index=0,\n",
        (f"{_T_RESOURCES}::test_a_stale_index_is_409_and_names_the_present_one",),
    ),
    Bug(
        "a stale index is an internal error",
        "a client that would read again and repeat its change gives up",
        _CODES,
        '    code = "stale_index"\n    http_status = 409\n',
        '    code = "stale_index"\n    http_status = 500\n',
        (f"{_T_RESOURCES}::test_a_stale_index_is_409_and_names_the_present_one",),
    ),
    Bug(
        "an unknown outcome is a failure",
        "a client sends a change again that has taken effect",
        _CODES,
        '    code = "commit_unknown"\n    http_status = 504\n',
        '    code = "commit_unknown"\n    http_status = 503\n',
        (f"{_T_RESOURCES}::test_refusals_of_put_configuration_have_their_status_and_text",),
    ),
    # -- queries
    Bug(
        "an index of 0 is sent",
        "clients ask again and again without waiting",
        _BLOCKING,
        '        "X-Consul-Index": str(max(1, index)),\n',
        '        "X-Consul-Index": str(index),\n',
        (f"{_T_RESOURCES}::test_roots_without_any_are_an_empty_list_and_the_index_is_never_0",),
    ),
    Bug(
        "the index of the roots is that of the configuration",
        "clients that watch the roots are not told of a rotation",
        _ROOTS,
        "    headers = point_headers(point, point.state.roots_watch_index, options)\n",
        "    headers = point_headers(point, point.state.config.modify_index if point.state.config else 0, options)\n",
        (f"{_T_RESOURCES}::test_query_headers_are_all_there",),
    ),
    Bug(
        "clients are not told that there is no leader",
        "they take what a node without a leader has for the latest",
        _BLOCKING,
        '        "X-Consul-KnownLeader": "true" if has_leader else "false",\n',
        '        "X-Consul-KnownLeader": "true",\n',
        (f"{_T_RESOURCES}::test_agent_roots_are_served_without_a_leader",),
    ),
    Bug(
        "blocking queries last as long as they like",
        "clients that have gone, and whose connection nobody closes, use up the places",
        _BLOCKING,
        "        seconds = min(self.wait_seconds or default, MAX_WAIT_SECONDS)\n",
        "        seconds = self.wait_seconds or default\n",
        (_T_WAIT,),
    ),
    Bug(
        "blocking queries end together",
        "clients that came together come back together, for ever",
        _BLOCKING,
        "        return seconds * (1 + rng.random() * _JITTER)\n",
        "        return seconds\n",
        (_T_WAIT,),
    ),
    Bug(
        "any number of blocking queries",
        "watching clients fill the memory of a node",
        _CONNECTION,
        "        if not self._seat.wait():\n",
        "        if False:\n",
        (f"{_T_QUERIES}::test_too_many_blocking_queries_are_503",),
    ),
    Bug(
        "a client that has left keeps its place",
        "clients that come and go use up the places of blocking queries",
        _CONNECTION,
        "        self._ends_with_this = task\n",
        "        self._ends_with_this = None\n",
        (f"{_T_QUERIES}::test_a_client_that_leaves_frees_its_place",),
    ),
    Bug(
        "blocking queries hold up the end of a node",
        "each restart waits for the longest of them",
        _BLOCKING,
        "        for task in self._tasks:\n            task.cancel()\n",
        "",
        (f"{_T_QUERIES}::test_stop_ends_blocking_queries_and_lets_other_requests_finish",),
    ),
    Bug(
        "an index of any size",
        "a query waits for an index that cannot come",
        _BLOCKING,
        "    if not _INDEX.fullmatch(text) or int(text) > _MAX_INDEX:\n",
        "    if not _INDEX.fullmatch(text):\n",
        (f"{_T_ODD_QUERY}[/v1/connect/ca/roots-index=18446744073709551616-Invalid index]",),
    ),
    Bug(
        "stale and consistent at once",
        "a client that has asked for the latest gets what this node has",
        _BLOCKING,
        '    if "consistent" in query and (is_stale or is_cached):\n',
        "    if False:\n",
        (_T_ODD_QUERY,),
    ),
    Bug(
        "stale answers of any age",
        "a client that allows a second gets what was so an hour ago",
        _CONTEXT,
        "    if options.max_stale_ms and point.last_contact_ms > options.max_stale_ms:\n",
        "    if False:\n",
        (f"{_T_QUERIES}::test_max_stale_asks_the_leader_when_this_node_is_too_far_behind",),
    ),
    Bug(
        "stale reads everywhere",
        "a client does not see its own change",
        _BLOCKING,
        "        level=ReadLevel.STALE if is_stale else ReadLevel.LINEARIZABLE,\n",
        "        level=ReadLevel.STALE,\n",
        (f"{_T_QUERIES}::test_the_level_follows_the_flags",),
    ),
    Bug(
        "cache control is not looked at",
        "a client's mistake goes unnoticed until it talks to Consul",
        _BLOCKING,
        '        if name in ("max-age", "stale-if-error") and not _NUMBER.fullmatch(value):\n',
        "        if False:\n",
        (f"{_T_QUERIES}::test_cache_control_is_checked",),
    ),
    Bug(
        "a leaf from the cache has no age",
        "a client takes an old leaf for one that was made for it",
        _AGENT,
        '        headers["Age"] = str(max(0, leaf.age_seconds))\n',
        "        pass\n",
        (f"{_T_RESOURCES}::test_a_leaf_has_consuls_fields_order_and_headers",),
    ),
    Bug(
        "a new leaf counts as one from the cache",
        "nobody sees how many leaves are made",
        _AGENT,
        '    headers["X-Cache"] = "HIT" if leaf.is_hit else "MISS"\n',
        '    headers["X-Cache"] = "HIT"\n',
        (f"{_T_RESOURCES}::test_a_leaf_has_consuls_fields_order_and_headers",),
    ),
    # -- snapshots
    Bug(
        "snapshots of any size",
        "an upload fills the disk, and the node stops",
        _SNAPSHOT,
        "        if size > MAX_FILE_BYTES:\n",
        "        if False:\n",
        (f"{_T_SNAPSHOT}::test_too_large_is_refused",),
    ),
    Bug(
        "snapshots fill the disk",
        "the node cannot write its log any more, and stops",
        _TRANSFERS,
        "        if free - wanted_bytes < _RESERVED_BYTES:\n",
        "        if False:\n",
        (f"{_T_SNAPSHOT}::test_disk_is_never_filled",),
    ),
    Bug(
        "any number of snapshots at a time",
        "a few clients fill the disk, and the node stops",
        _TRANSFERS,
        "        if self._saves >= MAX_SAVES:\n",
        "        if False:\n",
        (f"{_T_SNAPSHOT}::test_saves_at_a_time_are_bounded",),
    ),
    Bug(
        "two restores at a time",
        "the record of certificates is a mixture of two clusters'",
        _TRANSFERS,
        "        if self._is_restoring:\n",
        "        if False:\n",
        (f"{_T_SNAPSHOT}::test_one_restore_at_a_time",),
    ),
    Bug(
        "files of snapshots stay",
        "each save leaves the whole CA on the disk once more",
        _TRANSFERS,
        "        finally:\n            shutil.rmtree(directory, ignore_errors=True)\n",
        "        finally:\n            pass\n",
        (f"{_T_SNAPSHOT}::test_save_that_fails_leaves_nothing",),
    ),
    Bug(
        "the length of a snapshot is not told",
        "behind an old proxy a part of it looks like the whole, and cannot be restored",
        _SNAPSHOT,
        "        response.content_length = os.fstat(file.fileno()).st_size\n",
        "",
        (f"{_T_SNAPSHOT}::test_saved_snapshot_comes_whole_with_query_headers",),
    ),
    Bug(
        "a snapshot that does not come is waited for",
        "a client that has gone keeps others from restoring",
        _SNAPSHOT,
        "        async with asyncio.timeout(_SILENCE_SECONDS):\n",
        "        async with asyncio.timeout(None):\n",
        (f"{_T_SNAPSHOT}::test_body_that_does_not_come_is_not_waited_for",),
    ),
)
