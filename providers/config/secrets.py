"""What in a configuration map is a secret, or looks like one: by its name in any spelling, or by what it holds.

A key may be misspelt, or belong to another provider, and its value is as secret as before. So nothing here asks whether
a provider knows the key. Where secrets are kept, and what is refused, is for the caller.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

#: Keys of the configuration that are no secrets, whatever their names sound like; their contents are looked at all the
#: same. In the spelling of Consul's API.
PUBLIC_KEYS: Final = (
    "LeafCertTTL",
    "IntermediateCertTTL",
    "RootCertTTL",
    "SkipValidate",
    "CSRMaxPerSecond",
    "CSRMaxConcurrent",
    "PrivateKeyType",
    "PrivateKeyBits",
    "RootCert",
    "DisableCrossSigning",
    "AutoRotateRoot",
    "AutoRotateRootPercent",
    "Address",
    "Namespace",
    "RootPKIPath",
    "RootPKINamespace",
    "IntermediatePKIPath",
    "IntermediatePKINamespace",
    "CAFile",
    "CAPath",
    "CertFile",
    "KeyFile",
    "TLSServerName",
    "TLSSkipVerify",
    "ExistingARN",
    "DeleteOnExit",
)
#: Deeper than any configuration is; what is below is not looked at, but taken for a secret.
_MAX_DEPTH: Final = 32
_NAMES: Final = re.compile(
    r"secret|passw|passphrase|passcode|token|credential|privatekey|authmethod|apikey|accesskey|signingkey|sealkey"
    r"|^(?:jwt|bearer|authorization)$|(?<!by)(?<!com)pass$|pwd$"
)
#: Bounded repetitions and fixed beginnings: a text of half a megabyte must not take longer than it has characters.
_TEXTS: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY"
    r"|(?<![A-Za-z0-9_-])(?:hv[sbr]\.[A-Za-z0-9_-]{20}|eyJ[A-Za-z0-9_-]{8,4096}\.eyJ)"  # a Vault token, a JWT
    # DER in Base64: PKCS #8, PKCS #1 and SEC 1 begin with the length and a version.
    r"|(?<![A-Za-z0-9+/])(?-i:MII[A-Za-z0-9+/]{2}[AQgw]IBA(?:DAN|AKC)|MI[GH][A-Za-z0-9+/]AgE[AB]"
    r"|M[A-H][A-Za-z0-9+/]C(?:AQAw|AQEE))"
    r"|://[^/?#\s@]{1,512}@",  # a user, with a password perhaps, in a URL
    re.IGNORECASE,
)
#: Instead of a name that is itself a secret.
_UNNAMED: Final = "(a secret as a name)"
#: As Vault before 1.10 and OpenBao make them, in a namespace with its id; in a header perhaps.
_VAULT_TOKEN: Final = re.compile(
    r"(?:[A-Za-z-]{1,40}:?\s+){0,2}[sbr]\.[A-Za-z0-9]{24,4096}(?:\.[A-Za-z0-9]{1,64})?", re.IGNORECASE
)


def folded(name: str) -> str:
    """Two names that are the same here name the same key."""
    return name.replace("_", "").replace("-", "").casefold()


_PUBLIC: Final = frozenset(map(folded, PUBLIC_KEYS))


def secret_places(config: Mapping[str, object]) -> Iterator[str]:
    """Where in this map there is something that looks like a secret: `Key`, `Key.inner`, `Key[2]`; never what it is."""
    left: list[tuple[str, str, object, int]] = [("", key, value, 0) for key, value in reversed([*config.items()])]
    while left:
        above, key, value, depth = left.pop()
        place = f"{above}{_UNNAMED if looks_secret(key) else key}"
        if _is_secret(key, value, depth):
            yield place
        elif isinstance(value, Mapping):
            left += [(f"{place}.", inner, found, depth + 1) for inner, found in reversed([*value.items()])]
        elif isinstance(value, list | tuple):
            left += [(place, f"[{number}]", found, depth + 1) for number, found in reversed([*enumerate(value)])]


def without_secrets(config: Mapping[str, object]) -> dict[str, object]:
    """The map as far as it may be shown."""
    return {key: _shown(value, 1) for key, value in config.items() if not _is_secret(key, value, 0)}


def _shown(value: object, depth: int) -> object:
    if isinstance(value, Mapping):
        return {key: _shown(found, depth + 1) for key, found in value.items() if not _is_secret(key, found, depth)}
    if isinstance(value, list | tuple):
        return [_shown(found, depth + 1) for found in value if not _is_secret("", found, depth)]
    return value


def _is_secret(key: str, value: object, depth: int) -> bool:
    """Whether this entry is one, as far as its name and its own text say. An empty value is none."""
    if value is None or value == "" or value == [] or value == {}:
        return looks_secret(key)
    if depth >= _MAX_DEPTH and isinstance(value, Mapping | list | tuple):
        return True
    is_public = depth == 0 and folded(key) in _PUBLIC
    if not is_public and _NAMES.search(re.sub(r"[^a-z0-9]", "", key.casefold())):
        return True
    return looks_secret(key) or (isinstance(value, str) and looks_secret(value))


def looks_secret(text: str) -> bool:
    """Whether this text holds a private key, a token, or a URL with a password."""
    return bool(_TEXTS.search(text) or _VAULT_TOKEN.fullmatch(text.strip()))
