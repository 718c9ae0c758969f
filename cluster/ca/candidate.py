"""A provider with a configuration that is not in force: tried in the workers under a key of its own, then gone."""

import secrets

from cluster.base.errors import BadRequest, InternalError
from cluster.ca.parts import Parts
from cluster.ca.settings import CASettings
from cluster.signing.pool import Configured
from cluster.signing.serials import new_intent
from providers.api import CAChain
from providers.errors import Malformed, ProviderError
from providers.pki import verify, x509


class Candidate:
    """An async context. `key` is what the workers know it by. `state` is what the provider is given at first; empty for
    one that shall begin afresh.
    """

    def __init__(self, parts: Parts, cluster_id: str, settings: CASettings, state: bytes) -> None:
        self._pool = parts.pool
        self._datacenter = parts.datacenter
        self._cluster_id = cluster_id
        self.key = f"candidate-{secrets.token_hex(8)}"
        self.settings = settings
        self.state = state
        self.configured = Configured(None, {})

    async def __aenter__(self) -> "Candidate":
        """Raises: InternalError with the provider's reason, as Consul words it; BadRequest."""
        setup = self.settings.setup(self._cluster_id, self._datacenter, self.state)
        try:
            self.configured = await self._pool.configure(self.key, setup)
        except BaseException as error:  # being cancelled too: some workers may have it already
            await self._pool.forget(self.key)
            if isinstance(error, Malformed):
                raise BadRequest(f"error configuring provider: {error}") from error
            if isinstance(error, ProviderError):
                raise InternalError(f"error configuring provider: {error}") from error
            raise
        return self

    async def root_to_adopt(self) -> str:
        """Id of the root that `prepare_root` and what follows would bring without making it; else empty.

        Raises: InternalError.
        """
        try:
            root_pem = await self._pool.root_to_adopt(self.key)
            if root_pem:
                verify.check_for_peers(CAChain(root_pem, root_pem))
        except ProviderError as error:
            raise InternalError(f"error generating CA root certificate: {error}") from error
        return x509.root_id(root_pem) if root_pem else ""

    async def prepare_root(self, now: int) -> bytes:
        """The provider's state with its key made or taken over. Raises: InternalError."""
        try:
            return await self._pool.prepare_root(self.key, new_intent(now))
        except ProviderError as error:
            raise InternalError(f"error generating CA root certificate: {error}") from error

    async def __aexit__(self, *_: object) -> None:
        await self._pool.forget(self.key)
