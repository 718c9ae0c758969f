"""What stands around access control: files with tokens, ciphers of the API, what is checked before a release."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_FILES: Final = "cluster/cli/files.py"

_T_FLAGS: Final = "tests/parts/cli/test_api_flags.py"

BUGS: Final = (
    Bug(
        "a token is read from a file that everybody can read",
        "whoever has an account on an operator's machine is the operator",
        _FILES,
        " and mode & (stat.S_IRWXG | stat.S_IRWXO):\n",
        " and False:\n",
        (f"{_T_FLAGS}::test_token_file_that_others_can_get_at_is_refused",),
    ),
)
