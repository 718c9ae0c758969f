"""How a CA comes up: seal, configuration, key and intent, root. Each is a duty, and each is one commit.

A leader that dies at any point leaves a state from which the next one goes on: a root that is made again from the
committed intent is the same root, byte for byte.
"""

import asyncio
import contextlib
import secrets
from dataclasses import replace

from cluster.access.first import first_acl
from cluster.access.secret_ids import new_key
from cluster.base.errors import InternalError
from cluster.base.log import audited_signature
from cluster.ca.commit import commit
from cluster.ca.opened import Stored
from cluster.ca.parts import Parts
from cluster.ca.roots import root_of
from cluster.ca.settings import policies_of
from cluster.seal.keeper import CoveredRecord
from cluster.signing.serials import new_intent
from fsm.ca import CAConfig, InitConfig, InitSeal, SetProviderState, SetRootsConfig
from fsm.state import State
from providers.errors import ConfigInvalid
from providers.pki import verify


class Bootstrap:
    """Does the duties that bring up a new CA, on the leader: one method for each."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def init_seal(self, _state: State) -> None:
        # Off the loop: a passphrase is stretched for a quarter of a second.
        seal = await asyncio.to_thread(self._parts.sealer.new_data_key)
        await commit(self._parts.replica, InitSeal(seal))

    async def init_acl(self, _state: State) -> None:
        key, bare = await asyncio.to_thread(new_key, self._parts.sealer)
        await commit(self._parts.replica, first_acl(key, bare, self._parts.unix_now))

    async def init_config(self, _state: State) -> None:
        first = self._parts.first
        settings = first.settings()
        record = CoveredRecord(settings.secrets, b"", settings.config_json)
        config = CAConfig(first.new_cluster_id(), settings.provider, secrets.token_hex(8), settings.config_json)
        with contextlib.suppress(ConfigInvalid):  # the next duty says what is wrong with it
            policies = policies_of(settings)
            config = replace(
                config,
                leaf_ttl_seconds=policies.leaf_ttl_seconds,
                auto_rotate_percent=policies.auto_rotate_percent,
            )
        sealed = self._parts.opener.sealed(config, record, is_prepared=False)
        await commit(self._parts.replica, InitConfig(config, sealed))

    async def prepare_root(self, state: State) -> None:
        """Commit key and intent before anything is signed with them."""
        stored = await self._configured(state)
        intent = new_intent(self._parts.unix_now)
        prepared = await self._parts.pool.prepare_root(stored.config.provider_id, intent)
        sealed = self._parts.opener.resealed(stored.config, stored.record, prepared)
        await commit(self._parts.replica, SetProviderState(state.ca_index, sealed))

    async def generate_root(self, state: State) -> None:
        """Roots and configuration in one command: there is never one without the other."""
        stored = await self._configured(state)
        config, log, pool = stored.config, self._parts.log, self._parts.pool
        log("ca.signing", profile="root", provider=config.provider, by="leader")
        with audited_signature(log, profile="root", provider=config.provider, by="leader"):
            chain, provider_state = await pool.generate_root(config.provider_id)
            # Whatever the provider says: no chain is committed that was not verified here.
            verify.verify_ca(chain, trust_domain=state.trust_domain, now=self._parts.unix_now)
            verify.check_for_peers(chain)
        root = root_of(chain, config, is_active=True, made_at=self._parts.unix_now)
        setup = stored.settings.setup(config.cluster_id, self._parts.datacenter, provider_state)
        configured = await pool.configure(config.provider_id, setup)
        sealed = self._parts.opener.resealed(config, stored.record, provider_state)
        config = replace(config, public_state=tuple(sorted(configured.public_state.items())))
        await commit(self._parts.replica, SetRootsConfig(state.ca_index, (root,), config, (sealed,)))
        log("ca.signed", profile="root", provider=config.provider, root=root.root_id, by="leader")

    async def _configured(self, state: State) -> Stored:
        """What is stored, and its provider in the workers. Raises: InternalError when it cannot be configured."""
        stored = self._parts.opener.stored(state)
        try:
            await self._parts.authority.configure(stored)
        except ConfigInvalid as error:
            raise InternalError(f"error configuring provider: {error}") from error
        return stored
