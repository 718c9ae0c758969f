"""What the Vault provider is configured with: raw map to checked value, by Consul's rules (consul-compat 1.4).

Opens no file and no connection. Secrets are kept out of every `repr`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from providers.config.common import CommonConfig
from providers.config.decode import Fields
from providers.errors import ConfigInvalid
from providers.texts import one_line
from providers.vault.files import CredentialFiles
from providers.vault.names import require_namespace, require_path, require_token

#: How each kind of login works is in vault_auth.py.
AUTH_METHODS: Final = ("approle", "kubernetes", "userpass", "ldap", "cert", "jwt")
#: Auth methods of Consul that cannot be offered before they have been tried against the real thing.
_UNTRIED: Final = ("aws", "azure", "gcp", "alicloud", "cf", "github", "kerberos", "oci", "okta", "radius")


@dataclass(frozen=True, slots=True)
class AuthMethod:
    type: str
    mount_path: str
    params: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TLSOptions:
    ca_file: str = ""
    ca_path: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""
    skip_verify: bool = False
    files: CredentialFiles = field(
        default_factory=CredentialFiles
    )  # where `cert_file` and `key_file`, and files of a login, must be


@dataclass(frozen=True, slots=True)
class Place:
    """A mount, and the namespace in which it is."""

    namespace: str
    path: str  # without slashes at either end

    def __str__(self) -> str:
        return f"{self.path} (namespace {self.namespace})" if self.namespace else self.path


@dataclass(frozen=True, slots=True)
class VaultConfig:
    common: CommonConfig
    address: str
    namespace: str  # where tokens are made and looked up
    token: str = field(repr=False)
    auth_method: AuthMethod | None
    root: Place  # with an empty path in a secondary that names none
    intermediate: Place
    tls: TLSOptions

    @classmethod
    def parse(cls, raw: Mapping[str, object], *, is_primary: bool, credentials_dir: str = "") -> "VaultConfig":
        """`credentials_dir` is the node's, empty for none. Raises: ConfigInvalid; the first broken rule is reported."""
        fields = Fields(raw)
        common = CommonConfig.read(fields)
        # A token from a file has a line end, as often as not.
        token, namespace = fields.text("Token").strip(), fields.text("Namespace").strip("/")
        address = fields.text("Address").strip().rstrip("/")
        root = Place(_namespace(fields, "RootPKINamespace", namespace), fields.text("RootPKIPath").strip("/"))
        intermediate = Place(
            _namespace(fields, "IntermediatePKINamespace", namespace), fields.text("IntermediatePKIPath").strip("/")
        )
        tls = TLSOptions(
            ca_file=fields.text("CAFile"),
            ca_path=fields.text("CAPath"),
            cert_file=fields.text("CertFile"),
            key_file=fields.text("KeyFile"),
            server_name=fields.text("TLSServerName"),
            skip_verify=fields.flag("TLSSkipVerify", default=False),
            files=CredentialFiles(credentials_dir),
        )
        raw_method = fields.get("AuthMethod") or fields.get("auth_method")
        fields.finish()
        if not token and not raw_method:
            raise ConfigInvalid("must provide a Vault token or configure a Vault auth method")
        if token and raw_method:
            raise ConfigInvalid("only one of Vault token or Vault auth method can be provided, but not both")
        if is_primary and not root.path:
            raise ConfigInvalid("must provide a valid path to a root PKI backend")
        if not intermediate.path:
            raise ConfigInvalid("must provide a valid path for the intermediate PKI backend")
        common.validate()
        require_token("Token", token)
        for name, text in (
            ("Namespace", namespace),
            ("RootPKINamespace", root.namespace),
            ("IntermediatePKINamespace", intermediate.namespace),
        ):
            require_namespace(name, text)
        if root == intermediate:
            raise ConfigInvalid(f'RootPKIPath and IntermediatePKIPath are both "{root.path}": they must be two mounts')
        _check_address(address)
        if bool(tls.cert_file) != bool(tls.key_file):
            raise ConfigInvalid("CertFile and KeyFile go together: only one of them is given")
        method = _auth_method(raw_method) if raw_method else None
        if method and method.type == "cert" and not tls.cert_file:
            raise ConfigInvalid('AuthMethod of type "cert" needs CertFile and KeyFile')
        return cls(common, address, namespace, token, method, root, intermediate, tls)

    def require_paths(self, known: Collection[Place]) -> None:
        """That no mount path is one that could be taken for another. Raises: ConfigInvalid.

        Releases before took any; a mount at which a CA is already stays.
        """
        for name, place in (("RootPKIPath", self.root), ("IntermediatePKIPath", self.intermediate)):
            if place.path and place not in known:
                require_path(name, place.path)
        if self.auth_method:
            require_path("AuthMethod.MountPath", self.auth_method.mount_path)


def destination(raw: Mapping[str, object]) -> dict[str, object]:
    """Where a login of this configuration goes, and whom it takes for Vault: see `Provider.destination`.

    Not the mounts, nor our own certificate: those change what is asked of Vault, and how, but not whom. But a path may
    begin with a namespace, and nobody can see where that ends and the mount begins: so what is above the last part of a
    path counts.
    """
    fields = Fields(raw)
    return {
        "Address": fields.text("Address").strip().rstrip("/"),
        **{
            name: fields.text(name).strip("/") for name in ("Namespace", "RootPKINamespace", "IntermediatePKINamespace")
        },
        **{name: _above(fields.text(name)) for name in ("RootPKIPath", "IntermediatePKIPath")},
        **{name: fields.text(name) for name in ("CAFile", "CAPath", "TLSServerName")},
        "TLSSkipVerify": fields.flag("TLSSkipVerify", default=False),
    }


def _above(path: str) -> str:
    return path.strip("/").rpartition("/")[0]


def _namespace(fields: Fields, name: str, default: str) -> str:
    return fields.text(name).strip("/") or default


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        # A path or host that ends early is another one; a request is one line.
        is_plain = address.isprintable() and not set(address) & set(" ?#\\")
        is_url = (
            is_plain
            and parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        is_url = False
    if not is_url:
        raise ConfigInvalid(f'Address is "{one_line(address)}": must be a URL such as https://vault.example:8200')


def _auth_method(raw: object) -> AuthMethod:
    """The map itself, or a list of one: the form that it has after a pass through HCL."""
    if isinstance(raw, list) and len(raw) == 1:
        raw = raw[0]
    if not isinstance(raw, Mapping):
        raise ConfigInvalid("AuthMethod must be a map of Type, MountPath and Params")
    fields = Fields(raw)
    kind = fields.text("Type")
    mount_path = (fields.text("MountPath") or fields.text("mount_path")).strip("/") or kind
    params = fields.get("Params") or {}
    fields.finish()
    allowed = ", ".join(AUTH_METHODS)
    if kind in _UNTRIED:
        raise ConfigInvalid(f'auth method "{kind}" is not supported yet: it must be one of {allowed}')
    if kind not in AUTH_METHODS:
        raise ConfigInvalid(f'auth method "{kind}" is not supported: it must be one of {allowed}')
    if not isinstance(params, Mapping):
        raise ConfigInvalid("AuthMethod.Params must be a map")
    return AuthMethod(kind, mount_path, params)
