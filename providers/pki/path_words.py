"""What `cryptography`'s path builder found, in words for who has to mend a CA.

Its own texts are about its search: which candidates were exhausted, and how each certificate looks as an object.
"""

import re

# Part of its text -> ours. The first that fits counts; a test meets every one that a certificate can bring about.
_WORDS = (
    ("no interior errors", "no trusted root has issued it, directly or through the CAs that come with it"),
    ("path length constraint", "a CA has more CAs below it than its path length allows"),
    ("matched SAN", "a CA's name constraints do not permit one of its names"),
    ("name constraint", "a CA has name constraints that a verifier does not understand"),
    ("nameConstraints", "a CA has name constraints that are empty"),
    ("not valid at validation time", "a certificate of the chain is not valid at this time"),
    ("cA must be asserted", "a CA is none by its basic constraints: must be CA:TRUE"),
    ("cA must not be asserted", "it is a CA"),
    ("keyCertSign must be asserted", "a CA may not sign certificates: its key usage must have keyCertSign"),
    ("must not assert keyCertSign", "it may sign certificates"),
    ("EKU", "the extended key usage of a certificate of the chain forbids TLS: must be absent, or allow clientAuth"),
    ("too weak", "a key of the chain is too weak"),
    ("Forbidden public key", "a key of the chain is of a type that is not allowed"),
    ("Forbidden signature", "a signature of the chain is of a type that is not allowed"),
    ("signature does not match", "a signature of the chain does not verify"),
    ("non-empty Issuer", "a certificate of the chain has an empty issuer"),
    ("serial", "a certificate of the chain has a serial that is not of 1 to 20 octets, or negative"),
    ("X509v3", "a certificate of the chain is not of version 3"),
    ("critical extensions", "a certificate of the chain has a critical extension that is not known"),
    ("keyIdentifier", "a certificate of the chain names its issuer's key without a key identifier"),
    ("subjectAltName", "its subject alternative name is missing, or critical although there is a subject"),
    ("signature check limit", "too many certificates could be its issuer"),
)
_EXTENSION = re.compile(r"missing required|prohibited|incorrect criticality|invalid extension", re.IGNORECASE)
_OID = re.compile(r"\b\d+(?:\.\d+){2,}\b")


def is_about_names(error: Exception) -> bool:
    """Whether a CA's name constraints are what it has failed at."""
    return "name constraints" in why_no_path(error)


def why_no_path(error: Exception) -> str:
    """Completes the sentence "no valid path ...: "."""
    text = str(error)
    for part, words in _WORDS:
        if part in text:
            return words
    if _EXTENSION.search(text):
        found = _OID.search(text)
        which = f" {found[0]}" if found else ""
        return f"an extension{which} of a certificate of the chain is missing, forbidden, or wrongly critical"
    return "a strict verifier (RFC 5280) refuses a certificate of the chain"
