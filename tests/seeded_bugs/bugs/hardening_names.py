"""Whose names are signed, what is verified before it is written, and in which words a refusal is told."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_CSR: Final = "providers/pki/csr.py"
_HOSTS: Final = "providers/pki/hosts.py"
_SPIFFE: Final = "providers/pki/spiffe.py"
_X509: Final = "providers/pki/x509.py"
_PROOF: Final = "cluster/tls/proof.py"
_TLS_CLI: Final = "cluster/cli/tls.py"
_WORDS: Final = "cluster/base/words.py"
_CONFIG: Final = "cluster/base/config.py"
_LOG: Final = "cluster/base/log.py"

_T_NAMES: Final = "tests/unit/providers/test_identities.py"
_T_REFUSED: Final = f"{_T_NAMES}::test_dns_name_of_somebody_else_is_refused"
_T_TLS: Final = "tests/parts/cli/test_tls_proof.py"
_T_DOCTOR: Final = "tests/parts/doctor/test_node.py"

BUGS: Final = (
    # -- identities
    Bug(
        "a server's identity over the API",
        "whoever may ask for a certificate becomes a server of the cluster to every client",
        _CSR,
        "    if spiffe_id.kind in (Kind.SIGNING, Kind.SERVER):\n",
        "    if spiffe_id.kind is Kind.SIGNING:\n",
        (f"{_T_NAMES}::test_nobody_gets_a_servers_identity",),
    ),
    Bug(
        "agents of other datacenters",
        "an agent of one datacenter is taken for one of another",
        _CSR,
        "    if spiffe_id.datacenter != policy.datacenter:\n",
        "    if spiffe_id.kind is not Kind.AGENT and spiffe_id.datacenter != policy.datacenter:\n",
        (f"{_T_NAMES}::test_identities_of_another_datacenter_are_refused",),
    ),
    Bug(
        "names of any characters",
        "one library reads a service, another one a path to a different service",
        _SPIFFE,
        "    if not _ISSUED_NAME.fullmatch(name) or name in _DOTS:\n",
        "    if name in _DOTS:\n",
        (
            f"{_T_NAMES}::test_name_of_other_characters_is_refused",
            f"{_T_NAMES}::test_what_is_issued_is_exactly_the_alphabet",
        ),
    ),
    Bug(
        "escapes in a SPIFFE ID",
        "the same name has several spellings, and what is allowed to one is asked for under another",
        _SPIFFE,
        '    if "%" in uri:\n',
        "    if False:\n",
        (f"{_T_NAMES}::test_escapes_of_what_needs_none_are_refused",),
    ),
    Bug(
        "other namespaces and partitions",
        "a service gets the identity of a tenant that nobody here answers for",
        _SPIFFE,
        "        if (value := getattr(identity, field)) != DEFAULT:\n",
        "        if False:\n",
        (f"{_T_NAMES}::test_other_namespaces_and_partitions_are_refused",),
    ),
    Bug(
        "names of no service at the leaf endpoint",
        "a key is made and a name is kept for every path that anybody asks for",
        "cluster/node/leaves.py",
        '            check_name("service", service)\n',
        "            pass\n",
        ("tests/parts/node/test_service.py::test_name_that_no_service_can_have_is_refused",),
    ),
    # -- host names
    Bug(
        "DNS names of servers",
        "a service answers agents in the place of a server of the cluster",
        _HOSTS,
        "    if _is_servers(labels, policy):\n",
        "    if False:\n",
        (_T_REFUSED,),
    ),
    Bug(
        "wildcards that stand for servers",
        "as with their names: *.dc1.consul is server.dc1.consul, too",
        _HOSTS,
        '    if len(below) >= 2 and below[-2] in ("server", "*"):\n',
        '    if len(below) >= 2 and below[-2] == "server":\n',
        (_T_REFUSED,),
    ),
    Bug(
        "wildcards over whole registries",
        "one certificate is good for every domain below .com",
        _HOSTS,
        '    if labels[0] == "*" and is_public_suffix(labels[1:]):\n',
        "    if False:\n",
        (_T_REFUSED, f"{_T_NAMES}::test_wildcard_is_refused_directly_below_every_public_suffix"),
    ),
    Bug(
        "only single labels count as registries",
        "one certificate is good for every domain below .co.uk",
        _HOSTS,
        '    return not rules.isdisjoint((name, f"*.{name}", ".".join(["*", *labels[1:]])))\n',
        "    return False\n",
        (_T_REFUSED, f"{_T_NAMES}::test_wildcard_is_refused_directly_below_every_public_suffix"),
    ),
    Bug(
        "localhost for services",
        "a service is taken for whatever else runs on the host of a client",
        _HOSTS,
        '    if labels[-1] == "localhost" and identity.kind is not Kind.AGENT:\n',
        "    if False:\n",
        (_T_REFUSED,),
    ),
    Bug(
        "addresses as DNS names",
        "a name that some clients compare with the address that they dial",
        _HOSTS,
        "    if _NUMBER.fullmatch(labels[-1]):\n",
        "    if False:\n",
        (_T_REFUSED,),
    ),
    Bug(
        "addresses that no host has",
        "a certificate for everybody who listens to a group, or for nobody",
        _HOSTS,
        "    if mapped.is_unspecified or mapped.is_multicast or mapped == _BROADCAST:\n",
        "    if False:\n",
        (f"{_T_NAMES}::test_address_of_no_host_is_refused",),
    ),
    # -- keys and form
    Bug(
        "a key in another form",
        "who asks with a key for one kind of signature gets a certificate that allows more",
        _CSR,
        "    if spki not in csr.tbs_certrequest_bytes and not _is_compressed(key, spki, csr.tbs_certrequest_bytes):\n",
        "    if False:\n",
        (
            f"{_T_NAMES}::test_key_for_rsassa_pss_alone_is_refused",
            f"{_T_NAMES}::test_key_of_another_kind_is_refused",
        ),
    ),
    Bug(
        "the older label of CSRs",
        "what keytool, certtool and certutil write is refused",
        _CSR,
        '_LABELS = (b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST")\n',
        '_LABELS = (b"CERTIFICATE REQUEST",)\n',
        (f"{_T_NAMES}::test_csr_with_the_label_of_keytool_certtool_and_certutil_is_taken",),
    ),
    Bug(
        "labels at both ends that differ",
        "what begins as one thing and ends as another is taken",
        _CSR,
        'rest.partition(b"-----END %b-----" % label)',
        'rest.replace(b"END NEW", b"END").partition(b"-----END CERTIFICATE REQUEST-----")',
        (f"{_T_NAMES}::test_other_labels_and_several_blocks_are_refused",),
    ),
    # -- what is made is verified
    Bug(
        "a certificate is written unproved",
        "nodes with it do not find together, and nothing has said so",
        _TLS_CLI,
        "    _check_made(pair, identity, ca_file)\n    if",
        "    if",
        (f"{_T_TLS}::test_certificate_that_no_peer_accepts_is_not_written",),
    ),
    Bug(
        "a CA is written unproved",
        "it is on every node before the first certificate of it is refused",
        _TLS_CLI,
        "    _check_ca(pair, args.domain)\n",
        "",
        (f"{_T_TLS}::test_ca_that_no_peer_accepts_is_not_made",),
    ),
    Bug(
        "only one end of a connection is tried",
        "a certificate that is good for clients alone is written for a server",
        _PROOF,
        "        tls.server_context.wrap_bio(to_server, to_client, server_side=True),\n    ]\n",
        "        tls.server_context.wrap_bio(to_server, to_client, server_side=True),\n    ][1:]\n",
        (f"{_T_TLS}::test_certificate_that_no_peer_accepts_is_not_written",),
    ),
    Bug(
        "doctor does not ask as a peer does",
        "a cluster that cannot come together is called well",
        "cluster/doctor/tls_files.py",
        "    if is_sound:\n",
        "    if False:\n",
        (
            f"{_T_DOCTOR}::test_ca_whose_certificates_no_peer_accepts_is_named_with_the_reason",
            f"{_T_DOCTOR}::test_certificate_that_no_peer_accepts_is_named",
        ),
    ),
    # -- words
    Bug(
        "a parser's words about a CSR",
        "a client reads where in somebody's parser its CSR ended",
        _CSR,
        '        raise CSRRejected(f"malformed CSR: {_fault(error)}") from error\n',
        '        raise CSRRejected(f"malformed CSR: {error}") from error\n',
        (f"{_T_NAMES}::test_refusals_are_in_our_own_words",),
    ),
    Bug(
        "a parser's words about a certificate",
        "an operator reads of codecs and parsers, and not what is wrong with the root",
        _X509,
        "    except _UNUSABLE as error:\n        raise ValueError(text) from error\n",
        "    except _UNUSABLE as error:\n        raise ValueError(str(error)) from error\n",
        (
            "tests/unit/providers/test_odd_config.py::test_odd_root_is_refused_by_name",
            "tests/unit/providers/test_odd_config.py::test_damaged_certificate_is_told_in_plain_words",
        ),
    ),
    Bug(
        "a verifier's words about a chain",
        "an operator reads which candidates were exhausted",
        "providers/pki/verify.py",
        "to a trusted root: {why_no_path(error)}",
        "to a trusted root: {error}",
        ("tests/parts/providers/test_path_words.py::test_reason_is_told_in_words",),
    ),
    Bug(
        "a leaf that nobody asked for in an operator's error",
        "who brings a root reads of the certificate of a gateway",
        "providers/pki/verify.py",
        '        what = _show(cert) if is_ca(cert) else "a leaf"\n',
        "        what = _show(cert)\n",
        ("tests/parts/providers/test_path_words.py::test_reason_is_told_in_words",),
    ),
    Bug(
        "errors of the system as Python writes them",
        "a person reads numbers of errors and places in a C file",
        _WORDS,
        "    if text and not _OF_ASYNCIO.search(text):\n",
        "    if text:\n",
        ("tests/unit/base/test_words.py::test_reason_is_told_without_what_is_for_programmers",),
    ),
    Bug(
        "a byte-order mark is read as a part of the first key",
        "an operator looks at line 1, column 1, where nothing can be seen",
        _CONFIG,
        "    if mark := byte_order_mark(data):\n",
        '    if mark := "":\n',
        ("tests/unit/base/test_config_files.py::test_what_is_wrong_with_it_is_said",),
    ),
    Bug(
        "failed signatures leave no line",
        "who reads the log does not see who has tried what",
        _LOG,
        '        log("ca.sign_failed", **fields, reason=str(error)[:_MAX_REASON])\n',
        "",
        ("tests/parts/node/test_leader_work.py::test_every_failed_signature_is_in_the_log_with_serial_and_reason",),
    ),
    Bug(
        "refused texts of any length in the log",
        "whoever sends large CSRs fills the disk of the leader",
        _LOG,
        "reason=str(error)[:_MAX_REASON])",
        "reason=str(error))",
        ("tests/parts/node/test_leader_work.py::test_every_failed_signature_is_in_the_log_with_serial_and_reason",),
    ),
)
