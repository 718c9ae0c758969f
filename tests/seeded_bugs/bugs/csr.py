"""What a CSR must be before anything is signed for it."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_CSR: Final = "providers/pki/csr.py"
_HOSTS: Final = "providers/pki/hosts.py"
_KEYS: Final = "providers/pki/keys.py"
_SPIFFE: Final = "providers/pki/spiffe.py"

_T_CSR: Final = "tests/unit/providers/test_profiles_csr.py"
_T_SPIFFE: Final = "tests/unit/providers/test_spiffe.py"
_T_FORM: Final = f"{_T_CSR}::test_csr_that_is_not_one_pem_block_is_refused"
_T_IDENTITY: Final = f"{_T_CSR}::test_identity_that_is_not_ours_to_sign_is_refused"
_T_DNS: Final = f"{_T_CSR}::test_dns_name_that_no_certificate_should_carry_is_refused"
_T_KEY: Final = f"{_T_CSR}::test_key_too_weak_too_big_or_of_another_type_is_refused"
_T_INTERMEDIATE: Final = f"{_T_CSR}::test_bad_intermediate_csr_is_refused"

BUGS: Final = (
    # -- form
    Bug(
        "CSRs of any size",
        "a client keeps the leader busy with decoding megabytes",
        _CSR,
        '    if len(csr_pem) > MAX_CSR_BYTES or len(data := csr_pem.encode("utf-8", "replace")) > MAX_CSR_BYTES:\n',
        '    data = csr_pem.encode("utf-8", "replace")\n    if False:\n',
        (_T_FORM,),
    ),
    Bug(
        "the size of a CSR is counted in characters",
        "what is allowed is up to four times as much",
        _CSR,
        '    if len(csr_pem) > MAX_CSR_BYTES or len(data := csr_pem.encode("utf-8", "replace")) > MAX_CSR_BYTES:\n',
        '    data = csr_pem.encode("utf-8", "replace")\n    if len(csr_pem) > MAX_CSR_BYTES:\n',
        (_T_FORM,),
    ),
    Bug(
        "a missing CSR is not told apart",
        "an operator looks for damage in a CSR that was never sent",
        _CSR,
        "    if not csr_pem or csr_pem.isspace():\n",
        "    if False:\n",
        (_T_FORM,),
    ),
    Bug(
        "the type of the PEM block is not looked at",
        "whoever sends a private key by mistake is told that nothing was sent",
        _CSR,
        "    if label and label not in _LABELS:\n",
        "    if False:\n",
        (_T_FORM,),
    ),
    Bug(
        "Base64 with anything in between",
        "two parsers read two different CSRs out of one text",
        _CSR,
        'binascii.a2b_base64(b"".join(body.split()), strict_mode=True)',
        'binascii.a2b_base64(b"".join(body.split()))',
        (_T_FORM,),
    ),
    Bug(
        "a PEM block without an end",
        "a CSR whose transfer broke off counts as a whole one",
        _CSR,
        "    if not end or not der:\n",
        "    if not der:\n",
        (_T_FORM,),
    ),
    Bug(
        "text after the PEM block",
        "of two CSRs in one request the second is dropped without a word",
        _CSR,
        "    if behind and not behind.isspace():\n",
        "    if False:\n",
        (_T_FORM,),
    ),
    Bug(
        "a parser's own error passes through",
        "a client's malformed CSR is answered and logged as a fault of the CA",
        _CSR,
        "    except Exception as error:\n        raise CSRRejected(",
        "    except ZeroDivisionError as error:\n        raise CSRRejected(",
        (f"{_T_CSR}::test_any_failure_of_the_parser_becomes_a_refusal",),
    ),
    Bug(
        "a defect of the Rust parser passes through",
        "one CSR ends the worker that signs, again and again",
        _CSR,
        '        if type(error).__name__ != "PanicException":\n            raise\n',
        "        raise\n",
        (f"{_T_CSR}::test_any_failure_of_the_parser_becomes_a_refusal",),
    ),
    Bug(
        "being stopped counts as a refusal",
        "a worker that is told to end goes on signing",
        _CSR,
        '        if type(error).__name__ != "PanicException":\n            raise\n',
        "",
        (f"{_T_CSR}::test_being_stopped_is_not_a_refusal",),
    ),
    # -- identity
    Bug(
        "any number of names",
        "a certificate is so large that each handshake with it is slow, or fails",
        _CSR,
        "    if len(names) > MAX_SANS:\n",
        "    if False:\n",
        (f"{_T_CSR}::test_a_hundred_names_are_the_limit",),
    ),
    Bug(
        "more than one URI",
        "which of two identities a certificate gets is left to chance",
        _CSR,
        "    if len(uris) != 1:\n",
        "    if not uris:\n",
        (_T_IDENTITY,),
    ),
    Bug(
        "email addresses",
        "a name that was asked for is dropped without a word",
        _CSR,
        "    if emails:\n",
        "    if False:\n",
        (_T_IDENTITY,),
    ),
    Bug(
        "email addresses are looked at before the URI",
        "a client of Consul gets another reason than from Consul",
        _CSR,
        "    if len(uris) != 1:\n"
        '        raise CSRRejected(f"CSR SAN contains an invalid number of URIs: {len(uris)}")\n'
        "    if emails:\n"
        '        raise CSRRejected("CSR SAN does not allow specifying email addresses")\n',
        "    if emails:\n"
        '        raise CSRRejected("CSR SAN does not allow specifying email addresses")\n'
        "    if len(uris) != 1:\n"
        '        raise CSRRejected(f"CSR SAN contains an invalid number of URIs: {len(uris)}")\n',
        (f"{_T_CSR}::test_rules_are_applied_in_consuls_order",),
    ),
    Bug(
        "names of other types",
        "a name that was asked for is dropped without a word",
        _CSR,
        "    if others:\n",
        "    if False:\n",
        (f"{_T_CSR}::test_names_of_other_types_are_refused",),
    ),
    Bug(
        "the identity of the CA itself",
        "only the rule about datacenters keeps a service from calling itself the CA",
        _CSR,
        "    if spiffe_id.kind in (Kind.SIGNING, Kind.SERVER):\n",
        "    if False:\n",
        (_T_IDENTITY,),
    ),
    Bug(
        "identities of another datacenter",
        "a certificate for services that this datacenter does not answer for",
        _CSR,
        "    if spiffe_id.datacenter != policy.datacenter:\n",
        "    if False:\n",
        (_T_IDENTITY,),
    ),
    Bug(
        "identities of another trust domain",
        "a service of another mesh becomes one of ours",
        _CSR,
        "    if spiffe_id.kind is not Kind.AGENT and not spiffe.same_trust_domain(spiffe_id.trust_domain,"
        " policy.trust_domain):\n",
        "    if False:\n",
        (_T_IDENTITY,),
    ),
    Bug(
        "an agent keeps the trust domain that it made up",
        "its certificate is refused by all others, or belongs to somebody else's mesh",
        _CSR,
        "    return spiffe_id.in_trust_domain(policy.trust_domain)\n",
        "    return spiffe_id\n",
        (f"{_T_CSR}::test_agent_of_any_trust_domain_is_rewritten_to_ours",),
    ),
    Bug(
        "the certificate carries the spelling of the CSR",
        "what is allowed to one spelling of an identity is not what peers see",
        _CSR,
        "uris[0] if uris[0].value == uri else x509.UniformResourceIdentifier(uri)",
        "uris[0]",
        (f"{_T_CSR}::test_trust_domain_is_compared_without_case_and_written_in_ours",),
    ),
    Bug(
        "trust domains are compared with their case",
        "a client that writes its identity in capitals gets no certificate",
        _SPIFFE,
        "    return one.lower() == other.lower()\n",
        "    return one == other\n",
        (f"{_T_CSR}::test_trust_domain_is_compared_without_case_and_written_in_ours",),
    ),
    Bug(
        "user and port in a SPIFFE ID",
        "an identity that other parsers read as one of another host",
        _SPIFFE,
        "(?P<host>[A-Za-z0-9._-]+)",
        "(?P<host>[^/?#]*)",
        (f"{_T_SPIFFE}::test_other_form_is_refused_with_the_uri",),
    ),
    Bug(
        "dots and controls in a SPIFFE ID",
        "a name that URL libraries resolve to another one, or that forges a line of the log",
        _SPIFFE,
        "    if text in _DOTS or not text.isprintable():\n",
        "    if False:\n",
        (f"{_T_SPIFFE}::test_bad_segment_is_refused_by_name",),
    ),
    # -- host names
    Bug(
        "DNS names of any form",
        "a certificate for a wildcard over everything, or with a name that ends early for C programs",
        _HOSTS,
        "    if len(bare) > _MAX_DNS_NAME or not _DNS_NAME.fullmatch(bare):\n",
        "    if len(bare) > _MAX_DNS_NAME:\n",
        (_T_DNS,),
    ),
    Bug(
        "DNS names of any length",
        "a certificate with a name that no host can have",
        _HOSTS,
        "    if len(bare) > _MAX_DNS_NAME or not _DNS_NAME.fullmatch(bare):\n",
        "    if not _DNS_NAME.fullmatch(bare):\n",
        (_T_DNS,),
    ),
    Bug(
        "a final dot stays",
        "the names of Consul's ingress gateways match no host",
        _HOSTS,
        "    return name if bare == name.value else x509.DNSName(bare)\n",
        "    return name\n",
        (f"{_T_CSR}::test_final_dot_of_a_dns_name_is_dropped",),
    ),
    # -- key
    Bug(
        "RSA keys of any size",
        "a certificate for a key that is broken in days, or that makes each handshake cost seconds",
        _KEYS,
        "        if not RSA_MIN_BITS <= key.key_size <= RSA_MAX_BITS:\n",
        "        if False:\n",
        (_T_KEY,),
    ),
    Bug(
        "RSA keys with any exponent",
        "a certificate for a key whose signatures can be forged",
        _KEYS,
        "        if not RSA_MIN_EXPONENT <= numbers.e <= RSA_MAX_EXPONENT or numbers.e % 2 == 0:\n",
        "        if False:\n",
        (_T_KEY,),
    ),
    Bug(
        "RSA keys with an even modulus",
        "a certificate for a key that everybody can factor",
        _KEYS,
        "        if numbers.n % 2 == 0:\n",
        "        if False:\n",
        ("tests/unit/providers/test_keys.py::test_even_modulus_is_refused",),
    ),
    Bug(
        "EC keys on any curve",
        "a certificate that no TLS 1.3 client accepts",
        _KEYS,
        "        if bits is None:\n",
        "        if False:\n",
        (_T_KEY,),
    ),
    Bug(
        "no proof of possession",
        "whoever knows a public key gets a certificate for it in their own name",
        _CSR,
        "    _prove_possession(csr, key)\n    uri = identity.uri\n",
        "    uri = identity.uri\n",
        (
            f"{_T_CSR}::test_csr_signed_by_another_key_is_refused",
            f"{_T_CSR}::test_csr_changed_after_signing_is_refused",
        ),
    ),
    Bug(
        "proof of possession with any hash",
        "a proof that somebody else's signature may be made to look like",
        _CSR,
        "        elif not isinstance(csr.signature_hash_algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):\n",
        "        elif False:\n",
        (f"{_T_CSR}::test_weak_or_foreign_signature_algorithm_is_refused",),
    ),
    Bug(
        "proof of possession in other forms is taken for granted",
        "as without any, for whoever signs with RSA-PSS",
        _CSR,
        "        elif not csr.is_signature_valid:\n            raise InvalidSignature\n",
        "",
        (f"{_T_CSR}::test_rsa_pss_signature_is_accepted",),
    ),
    # -- intermediates
    Bug(
        "an intermediate with several URIs",
        "a CA of two trust domains",
        _CSR,
        "    if len(uris) > 1:\n",
        "    if False:\n",
        (_T_INTERMEDIATE,),
    ),
    Bug(
        "an intermediate of another trust domain",
        "somebody else's CA is trusted in our mesh",
        _CSR,
        "        if not spiffe.can_sign(ours, theirs) or theirs.kind is not Kind.SIGNING:\n",
        "        if theirs.kind is not Kind.SIGNING:\n",
        (_T_INTERMEDIATE,),
    ),
    Bug(
        "an intermediate with a service's identity",
        "a service that asks in the right place becomes a CA",
        _CSR,
        "        if not spiffe.can_sign(ours, theirs) or theirs.kind is not Kind.SIGNING:\n",
        "        if not spiffe.can_sign(ours, theirs):\n",
        (_T_INTERMEDIATE,),
    ),
    Bug(
        "an intermediate says what it likes about itself",
        "verifiers of SPIFFE IDs see a CA without a trust domain",
        _CSR,
        "    return CheckedIntermediateCSR(csr.subject, key, (*kept, own))\n",
        "    return CheckedIntermediateCSR(csr.subject, key, tuple(kept))\n",
        (f"{_T_CSR}::test_intermediate_csr_without_uri_is_allowed_and_gets_ours",),
    ),
    Bug(
        "no proof of possession of an intermediate's key",
        "a CA certificate for a key that nobody has shown to hold",
        _CSR,
        "    _prove_possession(csr, key)\n    # The CA's own",
        "    # The CA's own",
        (_T_INTERMEDIATE,),
    ),
)
