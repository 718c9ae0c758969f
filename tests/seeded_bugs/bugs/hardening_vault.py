"""A Vault, or what calls itself one, that holds calls up, cuts paths off, counts oddly or tells what it was sent."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_EXCHANGE: Final = "providers/vault/exchange.py"
_T_TRANSPORT: Final = "tests/parts/providers/vault/test_transport.py"

BUGS: Final = (
    # -- an exchange ends
    Bug(
        "nothing cuts an exchange that is overdue",
        "a Vault that answers without end holds a call, and the worker that waits for it, for as long as it likes",
        _EXCHANGE,
        "                    _cut(exchange)\n                    self._open.discard(exchange)\n",
        "                    self._open.discard(exchange)\n",
        (f"{_T_TRANSPORT}::test_exchange_ends_in_time_whatever_part_of_an_answer_has_no_end[goes_on]",),
    ),
    Bug(
        "what arrives in an exchange is not counted",
        "a Vault that answers `100 Continue` as fast as it can keeps a processor busy until the deadline",
        _EXCHANGE,
        "        self._exchange.count(arrived or 0)\n",
        "",
        (f"{_T_TRANSPORT}::test_no_more_is_read_than_an_exchange_may_have[goes_on_fast]",),
    ),
    Bug(
        "each address of a name has the time for connecting anew",
        "a name with a thousand addresses where nobody answers holds a call up for most of an hour",
        _EXCHANGE,
        "            if (left := until - time.monotonic()) <= 0:\n",
        "            if (left := exchange.connect_seconds) <= 0:\n",
        (f"{_T_TRANSPORT}::test_many_addresses_share_the_time_for_connecting",),
    ),
)
