"""What a CA certificate may say, and whose key it may have, so that no peer refuses what is below it."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_FORMS: Final = "providers/pki/forms.py"
_PEERS: Final = "providers/pki/peers.py"

_ROTATION: Final = "cluster/ca/rotation.py"

_TLS_CLI: Final = "cluster/cli/tls.py"
_OWN_KEY: Final = "cluster/ca/own_key.py"

_T_TLS: Final = "tests/parts/cli/test_tls_proof.py"
_T_ROOTS: Final = "tests/parts/ca/test_operators_roots.py"
_T_HALF: Final = f"{_T_ROOTS}::test_root_that_is_half_a_listed_one_is_refused_before_anything_begins"
_T_LIMITS: Final = "tests/parts/ca/test_rotation_limits.py"
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
    _rule("a root of any size", "no rotation to it or from it fits into the log", _FORMS, "_size"),
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
    # -- what can be written
    Bug(
        "a step of a rotation that nobody takes",
        "it is tried again for ever, and every change of the CA is refused until an operator gives it up",
        _ROTATION,
        """        except Refused as refusal:
            await self.give_up(state, f"the rotation cannot go on: {refusal}")
            return False
""",
        """        except TimeoutError:
            return False
""",
        (f"{_T_LIMITS}::test_step_that_is_refused_ends_the_rotation_and_leaves_everything_as_it_was",),
    ),
    Bug(
        "room in the log for an operator's root",
        "a rotation begins that cannot be finished",
        _ROTATION,
        "        require_writable(self._finish(after, trial))\n",
        "",
        (f"{_T_LIMITS}::test_root_for_which_there_is_no_room_in_the_log_is_refused_before_anything_begins",),
    ),
    Bug(
        "room in the log for one more root",
        "the plan says that a rotation is possible which is not",
        _ROTATION,
        "        _require_room(state, opened.config)\n",
        "",
        (f"{_T_LIMITS}::test_rotation_for_which_there_is_no_room_is_refused_by_its_plan",),
    ),
    # -- names as Java reads them
    _rule("names of the CAs below a constrained one", "Java refuses all after the next rotation", _PEERS, "_below"),
    Bug(
        "the common name of the next root",
        "clients in Java that trust the constrained root before refuse every new leaf",
        _ROTATION,
        "            self._check_common_name(state, trial, root)\n",
        "",
        (f"{_T_ROOTS}::test_next_root_has_a_common_name_that_the_constrained_one_before_permits",),
    ),
    # -- the command that makes a root
    Bug(
        "addresses as name constraints",
        "a constraint is made that means nothing, and nobody is told",
        _TLS_CLI,
        ' and not text.rpartition(".")[2].isdigit()\n',
        "\n",
        (f"{_T_TLS}::test_name_constraint_that_is_no_domain_is_refused",),
    ),
    Bug(
        "line breaks in a common name",
        "a CA has a name that breaks the lines it is shown in",
        _TLS_CLI,
        " and text.isprintable(),\n",
        ",\n",
        (f"{_T_TLS}::test_common_name_that_nobody_can_print_is_refused",),
    ),
    Bug(
        "a root for another trust domain",
        "somebody makes a root, spreads it, and learns at PUT that it cannot be one",
        _TLS_CLI,
        "    if args.cluster_id and args.domain != _MESH_DOMAIN:\n",
        "    if False:\n",
        (f"{_T_TLS}::test_ca_for_a_cluster_is_made_and_told_of_if_it_can_never_be_the_meshs_root",),
    ),
    # -- whose key it is
    Bug(
        "an identifier for two keys",
        "OpenSSL takes one root for the other, and refuses every new leaf",
        _OWN_KEY,
        "    if is_same_id and not is_same_key:\n",
        "    if False:\n",
        (_T_HALF,),
    ),
    Bug(
        "two identifiers for a key",
        "Java finds no way from a leaf to the root before, and refuses it",
        _OWN_KEY,
        "    if is_same_key and not is_same_id:\n",
        "    if False:\n",
        (_T_HALF,),
    ),
    Bug(
        "two names for a key",
        "no link leads from one to the other, and clients of the one before are cut off",
        _OWN_KEY,
        "    if is_same_key and new.subject.public_bytes() != known.subject.public_bytes():\n",
        "    if False:\n",
        (_T_HALF,),
    ),
    Bug(
        "the identifier of a CA in a chain",
        "links are followed to the wrong key",
        _OWN_KEY,
        '        yield from (\n            (f"the chain of',
        '        yield from () if listed else (\n            (f"the chain of',
        (f"{_T_ROOTS}::test_root_with_the_identifier_of_a_ca_in_a_chain_is_refused_though_no_root_has_it",),
    ),
)
