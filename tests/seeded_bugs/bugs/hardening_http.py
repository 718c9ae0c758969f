"""What a client can make a node hold, wait for, and write down, over HTTP."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_BODY: Final = "cluster/http/body.py"
_CONNECTION: Final = "cluster/http/connection.py"
_FAILURES: Final = "cluster/http/failures.py"
_HOSTS: Final = "cluster/http/hosts.py"
_INTAKE: Final = "cluster/http/intake.py"
_SEATS: Final = "cluster/base/seats.py"

_T_BODIES: Final = "tests/parts/http/test_bodies.py"
_T_FAILURES: Final = "tests/parts/http/test_failures.py"
_T_HOSTS: Final = "tests/parts/http/test_hosts.py"
_T_SEATS: Final = "tests/unit/base/test_seats.py"

BUGS: Final = (
    # -- bodies
    Bug(
        "what was read of a body that broke off stays",
        "connections that are long gone hold half a megabyte each: a node grows by gigabytes in a minute",
        _BODY,
        "        error.__traceback__ = None\n",
        "        pass\n",
        (
            f"{_T_BODIES}::test_nothing_is_left_of_bodies_that_break_off",
            f"{_T_BODIES}::test_nothing_is_left_of_a_body_that_is_broken",
        ),
    ),
    Bug(
        "bodies of one address have no bound in all",
        "one client that sends half a megabyte on every connection, and no end, holds gigabytes",
        _INTAKE,
        "        if held > MAX_HELD_PER_SOURCE or ",
        "        if ",
        (
            f"{_T_BODIES}::test_bodies_of_one_address_are_bounded_and_small_ones_are_read_all_the_same",
            f"{_T_BODIES}::test_one_source_has_its_share_and_all_together_the_whole",
        ),
    ),
    Bug(
        "bodies have no bound in all",
        "a few addresses together hold gigabytes",
        _INTAKE,
        " or self.held_bytes + count > MAX_HELD_BYTES:\n",
        ":\n",
        (f"{_T_BODIES}::test_one_source_has_its_share_and_all_together_the_whole",),
    ),
    Bug(
        "what is held of a body counts after its end",
        "the node refuses every body after a while",
        _BODY,
        "        held.end()\n",
        "        pass\n",
        (f"{_T_BODIES}::test_nothing_is_left_of_bodies_that_break_off",),
    ),
    # -- callbacks
    Bug(
        "a connection whose place was taken away is made all the same",
        "its deadline outlives it: thousands of exceptions, and answers that nobody gets, under a flood",
        _CONNECTION,
        "        if not self._seat.is_taken:\n",
        "        if False:\n",
        ("tests/parts/http/test_given_away.py",),
    ),
    Bug(
        "exceptions of callbacks are none of the log's business",
        "tracebacks of many lines between the lines of JSON, and nobody is told",
        "cluster/main.py",
        "    report_callbacks(asyncio.get_running_loop(), log)\n",
        "",
        ("tests/parts/node/test_start.py::test_exception_of_a_callback_is_a_line_of_the_log",),
    ),
    Bug(
        "each exception of a callback is a line of the log",
        "what a client repeats fills the disk",
        "cluster/base/background.py",
        "        if (now := clock()) >= next_line:\n",
        "        if now := clock() + 1:\n",
        ("tests/unit/base/test_background.py::test_exceptions_of_callbacks_are_lines_of_the_log_and_few",),
    ),
    # -- blocking queries
    Bug(
        "queries that wait keep their places",
        "two addresses that wait for news shut out every other one, at no effort and for good",
        _SEATS,
        " or self._end_waiting(source, self._counts)\n",
        "\n",
        (
            f"{_T_HOSTS}::test_queries_that_wait_shut_nobody_at_another_address_out",
            f"{_T_SEATS}::test_what_waits_for_news_makes_room_for_a_source_that_has_fewer",
        ),
    ),
    Bug(
        "whoever comes ends a query that waits",
        "who has most places takes those of everybody else",
        _SEATS,
        "        if counts.get(most, 0) <= counts.get(source, 0):\n",
        "        if not counts.get(most, 0):\n",
        (f"{_T_SEATS}::test_what_waits_for_news_makes_room_for_a_source_that_has_fewer",),
    ),
    Bug(
        "every place may wait",
        "with all places waiting, each request ends somebody's query",
        _SEATS,
        "_WAITING_PART: Final = 3 / 4\n",
        "_WAITING_PART: Final = 1\n",
        (
            f"{_T_HOSTS}::test_places_are_left_free_of_queries_that_wait",
            f"{_T_SEATS}::test_a_part_of_the_places_never_waits_and_no_source_keeps_others_from_waiting",
        ),
    ),
    Bug(
        "every place of an address may wait",
        "clients behind one proxy that wait for news shut out the others behind it",
        _SEATS,
        "        if len(self._waiting.get(source, ())) >= caps.per_source:\n",
        "        if False:\n",
        (f"{_T_SEATS}::test_a_part_of_the_places_never_waits_and_no_source_keeps_others_from_waiting",),
    ),
    Bug(
        "a query that has ended counts as one that waits",
        "a connection ends in the middle of what it is served",
        _SEATS,
        """    def end_wait(self) -> None:
        \"\"\"Again is all right.\"\"\"
        if self._seats is not None:
""",
        """    def end_wait(self) -> None:
        \"\"\"Again is all right.\"\"\"
        if False:
""",
        (f"{_T_SEATS}::test_a_query_that_has_its_news_is_served",),
    ),
    # -- log lines
    Bug(
        "every request that fails is a line of the log",
        "one connection fills the disk with megabytes a second",
        _FAILURES,
        "        if said < MAX_LINES_PER_SOURCE and self._lines < MAX_LINES:\n",
        "        if True:\n",
        (f"{_T_FAILURES}::test_requests_that_fail_are_few_lines_and_a_count_and_metrics_have_all",),
    ),
    Bug(
        "every address has lines of its own",
        "a host with a network of addresses fills the disk",
        _FAILURES,
        " and self._lines < MAX_LINES:\n",
        ":\n",
        (f"{_T_FAILURES}::test_many_addresses_that_fail_are_few_lines_too",),
    ),
    Bug(
        "nobody is told how many requests failed without a line",
        "a flood looks like ten requests",
        _FAILURES,
        "        for (source, status), count in left_out.items():\n",
        "        for (source, status), count in ():\n",
        (f"{_T_FAILURES}::test_requests_that_fail_are_few_lines_and_a_count_and_metrics_have_all",),
    ),
    Bug(
        "what succeeds is left out of the log, too",
        "who fails often enough changes things without a line",
        "cluster/http/app.py",
        "    if status >= 400:\n        api.failures",
        "    if status:\n        api.failures",
        (f"{_T_FAILURES}::test_changes_are_a_line_each_however_much_fails",),
    ),
    # -- pages
    Bug(
        "what loads media for a page is no browser",
        "a page's video element has leaves signed, on loopback too",
        _HOSTS,
        "        silent: tuple[str, ...] = _MEDIA_LOADERS\n",
        "        silent: tuple[str, ...] = ()\n",
        ("tests/parts/http/test_pages.py::test_what_loads_media_for_a_page_has_nothing_made",),
    ),
)
