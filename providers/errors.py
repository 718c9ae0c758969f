"""Every error a provider may raise. Callers catch by type; the text is for the operator or the client."""


class ProviderError(Exception):
    """Base class. `retryable` says whether the same call may succeed later without anything being changed."""

    retryable = False


class ConfigInvalid(ProviderError):
    """The CA configuration breaks a rule; the text is Consul's where Consul has one."""


class Malformed(ConfigInvalid):
    """A text of the configuration is none of its kind: whoever has sent it is told so, and nobody else is asked."""


class NotInitialized(ProviderError):
    """The provider has no signing certificate yet."""


class CSRRejected(ProviderError):
    """The CSR breaks a rule of the CA; nothing was signed. The text is Consul's where Consul has one."""


class NotSupported(ProviderError):
    """This provider, or this role (primary or secondary), cannot do what was asked."""


class ChainInvalid(ProviderError):
    """A certificate or chain failed independent verification, and was therefore neither stored nor served."""


class NamesRefused(ChainInvalid):
    """A leaf verifies but for its names, which a CA above it does not permit: another CSR would do."""


class NotGranted(ProviderError):
    """Whoever asks may not have this certificate. The text goes on where somebody has said who asks."""


class ProviderRefused(ProviderError):
    """The system behind the provider has answered, and will not do it before somebody changes something there, or in
    the configuration."""


class ProviderUnavailable(ProviderError):
    """The system behind the provider does not answer, or refuses for a reason that can pass.

    `retry_after_seconds` is when it is worth trying again, as far as the provider knows.
    """

    retryable = True

    def __init__(self, text: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


class SigningKeyGone(ProviderUnavailable):
    """The backend no longer has the key that signs leaves, and will not get it back: a new signing certificate is
    needed, from `renew_signing_cert` in a primary and from the primary in a secondary."""


class RateLimited(ProviderError):
    """The system behind the provider asks for fewer requests."""

    retryable = True

    def __init__(self, text: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds
