"""From a name to a provider."""

from importlib.metadata import EntryPoint

import pytest

from providers import registry
from providers.builtin.provider import BuiltinProvider
from providers.errors import ConfigInvalid


def _offer(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    points = [EntryPoint("x", value, registry.GROUP) for value in values]
    monkeypatch.setattr(registry, "entry_points", lambda group, name: points if name == "x" else [])


def test_consul_is_the_built_in_provider() -> None:
    one, other = registry.create_provider("consul"), registry.create_provider("consul")
    assert isinstance(one, BuiltinProvider)
    assert one is not other


@pytest.mark.parametrize("name", ["x", "", "Consul"])
def test_unknown_name_is_refused_in_consuls_words(name: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        registry.create_provider(name)
    assert str(caught.value) == f'unknown CA provider "{name}"'


def test_provider_of_another_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, "providers.builtin.provider:BuiltinProvider")
    assert isinstance(registry.create_provider("x"), BuiltinProvider)


def test_name_offered_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, "providers.builtin.provider:BuiltinProvider", "evil:Provider")
    with pytest.raises(ConfigInvalid, match="is offered more than once: evil:Provider, "):
        registry.create_provider("x")


@pytest.mark.parametrize("value", ["no_such_module:Provider", "providers.builtin.provider:NoSuchName"])
def test_provider_that_cannot_be_imported_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    _offer(monkeypatch, value)
    with pytest.raises(ConfigInvalid, match='CA provider "x" cannot be loaded'):
        registry.create_provider("x")
