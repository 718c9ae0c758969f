"""From a provider's name in the configuration to the thing that makes it.

Third parties add providers through the entry-point group. A name that two packages offer is refused, so an add-on
cannot quietly take the place of a built-in provider and its keys.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import cast

from providers.api import Provider
from providers.errors import ConfigInvalid

GROUP = "quorumca.providers"

Constructor = Callable[[], Provider]


def create_provider(name: str) -> Provider:
    """A new provider of this name, not yet configured.

    Raises: ConfigInvalid when there is none, more than one, or when it cannot be imported.
    """
    return _constructor(name)()


def secret_keys(name: str) -> frozenset[str]:
    """Configuration keys whose values this provider keeps secret.

    Raises: as `create_provider`.
    """
    return create_provider(name).secret_keys


def destination(name: str, config: Mapping[str, object]) -> Mapping[str, object]:
    """Where this provider's secrets go with this configuration: see `Provider.destination`.

    Raises: as `create_provider`.
    """
    return create_provider(name).destination(config)


def names() -> list[str]:
    """Of all providers that can be asked for, in alphabetical order."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def check(name: str, config: Mapping[str, object], credentials_dir: str = "") -> None:
    """Judge a primary's configuration as `Provider.configure` would, as far as that takes no backend.

    Raises: as `create_provider`; ConfigInvalid.
    """
    judge = getattr(create_provider(name), "check", None)  # an add-on need not have it
    if judge is not None:
        judge(config, credentials_dir)


def _constructor(name: str) -> Constructor:
    found = list(entry_points(group=GROUP, name=name))
    if not found:
        raise ConfigInvalid(f'unknown CA provider "{name}"')
    if len(found) > 1:
        offers = ", ".join(sorted(point.value for point in found))
        raise ConfigInvalid(f'CA provider "{name}" is offered more than once: {offers}')
    try:
        return cast(Constructor, found[0].load())
    except (ImportError, AttributeError) as error:
        raise ConfigInvalid(f'CA provider "{name}" cannot be loaded: {error}') from error
