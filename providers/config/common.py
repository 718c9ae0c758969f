"""From raw to checked: the CA configuration that all providers share (docs/consul-compat.md 1.2).

Every refusal is a ConfigInvalid; the texts are Consul's where Consul has one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from providers.config.decode import Fields
from providers.config.durations import HOUR, format_duration, to_seconds
from providers.errors import ConfigInvalid
from providers.pki import keys
from providers.pki.keys import KeyKind

LEAF_TTL_NS = 72 * HOUR
INTERMEDIATE_TTL_NS = 8760 * HOUR
ROOT_TTL_NS = 87600 * HOUR
LEAF_TTL_MIN_NS = 1 * HOUR
LEAF_TTL_MAX_NS = 8760 * HOUR
INTERMEDIATE_TTL_MIN_NS = 3 * HOUR
DEFAULT_KEY_KIND = KeyKind("ec", 256)


@dataclass(frozen=True, slots=True)
class CommonConfig:
    """The keys of the CA configuration that mean the same for every provider (consul-compat 1.2)."""

    leaf_ttl_ns: int
    intermediate_ttl_ns: int
    root_ttl_ns: int
    skip_validate: bool
    csr_max_per_second: float  # 0 = no rate limit
    csr_max_concurrent: int  # 0 = no limit; counts only without a rate limit
    key_kind: KeyKind  # what a new key shall be
    key_type_given: bool  # an explicit PrivateKeyType also judges a supplied key; a default does not
    key_bits_given: bool

    @property
    def leaf_ttl_seconds(self) -> int:
        return to_seconds(self.leaf_ttl_ns)

    @property
    def intermediate_ttl_seconds(self) -> int:
        return to_seconds(self.intermediate_ttl_ns)

    @property
    def root_ttl_seconds(self) -> int:
        return to_seconds(self.root_ttl_ns)

    @classmethod
    def parse(cls, raw: Mapping[str, object]) -> "CommonConfig":
        """Raises: ConfigInvalid."""
        fields = Fields(raw)
        config = cls.read(fields)
        fields.finish()
        config.validate()
        return config

    @classmethod
    def read(cls, fields: Fields) -> "CommonConfig":
        """Decode without judging: a provider reads its own fields too before it reports what was wrong."""
        key_type, key_bits = fields.text("PrivateKeyType"), fields.integer("PrivateKeyBits", 0)
        return cls(
            leaf_ttl_ns=fields.duration_ns("LeafCertTTL", LEAF_TTL_NS),
            intermediate_ttl_ns=fields.duration_ns("IntermediateCertTTL", INTERMEDIATE_TTL_NS),
            # Consul takes an explicit zero as "not set" here, and only here.
            root_ttl_ns=fields.duration_ns("RootCertTTL", ROOT_TTL_NS) or ROOT_TTL_NS,
            skip_validate=fields.flag("SkipValidate", default=False),
            csr_max_per_second=fields.number("CSRMaxPerSecond", 50.0),
            csr_max_concurrent=fields.integer("CSRMaxConcurrent", 0),
            key_kind=KeyKind(key_type or DEFAULT_KEY_KIND.type, key_bits or DEFAULT_KEY_KIND.bits),
            key_type_given=bool(key_type),
            key_bits_given=bool(key_bits),
        )

    def validate(self) -> None:
        """The rules in Consul's order; the first broken one is reported. Raises: ConfigInvalid."""
        if not self.skip_validate:
            self._validate_ttls()
        # What follows holds under SkipValidate too: no certificate can be made otherwise.
        if min(self.leaf_ttl_ns, self.intermediate_ttl_ns, self.root_ttl_ns) <= 0:
            raise ConfigInvalid("LeafCertTTL, IntermediateCertTTL and RootCertTTL must be greater than 0s")
        if self.csr_max_per_second < 0 or self.csr_max_concurrent < 0:
            raise ConfigInvalid("CSRMaxPerSecond and CSRMaxConcurrent must not be negative")
        match self.key_kind.type:
            case "ec" if self.key_kind.bits not in keys.EC_BITS:
                raise ConfigInvalid(f"EC key length must be one of {keys.EC_BITS} bits")
            case "rsa" if self.key_kind.bits not in keys.RSA_BITS:
                raise ConfigInvalid("RSA key length must be 2048 or 4096 bits")
            case "ec" | "rsa":
                pass
            case _:
                raise ConfigInvalid("private key type must be either 'ec' or 'rsa'")

    def _validate_ttls(self) -> None:
        leaf, intermediate, root = self.leaf_ttl_ns, self.intermediate_ttl_ns, self.root_ttl_ns
        if root < intermediate:
            raise ConfigInvalid(
                "root cert TTL is set and is not greater than intermediate cert ttl. "
                f"root cert ttl: {format_duration(root)}, intermediate cert ttl: {format_duration(intermediate)}"
            )
        if leaf < LEAF_TTL_MIN_NS:
            raise ConfigInvalid(f"leaf cert TTL must be greater or equal than {format_duration(LEAF_TTL_MIN_NS)}")
        if leaf > LEAF_TTL_MAX_NS:
            raise ConfigInvalid(f"leaf cert TTL must be less than {format_duration(LEAF_TTL_MAX_NS)}")
        if intermediate < INTERMEDIATE_TTL_MIN_NS:
            raise ConfigInvalid("Intermediate Cert TTL must be greater or equal than 3h")
        if intermediate < 3 * leaf:
            raise ConfigInvalid(
                f"Intermediate Cert TTL must be greater or equal than 3 * LeafCertTTL (>={format_duration(3 * leaf)})."
            )

    def accepts_key(self, kind: KeyKind) -> bool:
        """Whether a supplied key is what PrivateKeyType and PrivateKeyBits, as far as given, ask for."""
        return (not self.key_type_given or kind.type == self.key_kind.type) and (
            not self.key_bits_given or kind.bits == self.key_kind.bits
        )
