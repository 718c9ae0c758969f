"""What a CA certificate may say, and whose key it may have, so that no peer refuses what is below it."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_FORMS: Final = "providers/pki/forms.py"
_PEERS: Final = "providers/pki/peers.py"

_T_FORMS: Final = (
    "tests/unit/providers/test_forms.py::test_root_that_some_peer_does_not_read_is_refused_by_the_name_of_the_field"
)


def _rule(name: str, consequence: str, file: str, rule: str) -> Bug:
    """Without one of the rules."""
    return Bug(name, consequence, file, f"    {rule},\n", "", (_T_FORMS,))


BUGS: Final = (
    # -- what is read
    _rule("kinds of text in a CA's name", "Go or OpenSSL cannot read the root, and trusts nothing", _FORMS, "_strings"),
    _rule("numbers of an object identifier", "Go cannot read the root, and trusts nothing", _FORMS, "_arcs"),
    _rule("path length beyond an octet", "rustls refuses every chain through the root", _FORMS, "_path_length"),
    _rule("key identifiers without end", "no leaf can be recorded: the CA signs nothing more", _FORMS, "_key_ids"),
    _rule("unique identifiers of a CA", "Go and rustls cannot read the root", _FORMS, "_unique_ids"),
    _rule("times in the other form", "it is refused in words that name nothing", _FORMS, "_times"),
    _rule("name constraints that are no domains", "verifiers refuse all leaves below the root", _FORMS, "_constraints"),
    _rule("a certificate policy twice", "Go cannot read the root, and trusts nothing", _FORMS, "_policies"),
    _rule("alternative names beyond ASCII", "Go cannot read the root", _FORMS, "_alternative_names"),
    _rule("proxies and number resources", "OpenSSL refuses every leaf below the root", _PEERS, "_unsupported"),
    Bug(
        "Netscape's type by its last octet",
        "OpenSSL cannot read the root, and trusts nothing",
        _PEERS,
        "        if not _is_flags(value.value):\n",
        "        if len(value.value) < 4:\n",
        (_T_FORMS,),
    ),
    Bug(
        "an authority by name and serial alone",
        "OpenSSL looks for another certificate than the root itself, and refuses every leaf",
        _PEERS,
        "    if cert.subject != cert.issuer or named is None:\n",
        "    if cert.subject != cert.issuer or named is None or not named.key_identifier:\n",
        (_T_FORMS,),
    ),
)
