"""What an older release has taken into its log can be read, however odd it is: it cannot be taken out again."""

from dataclasses import replace

import pytest

from fsm.fields import FIRST_SECOND, LAST_SECOND
from tests.kit.fake_service import ledger_row, root
from tests.parts.http.conftest import Running

CERTS = "/v1/connect/ca/certs"
CONFIGURATION = "/v1/connect/ca/configuration"
ROOTS = "/v1/connect/ca/roots"
NUMBERS = [-(1 << 63), -1, FIRST_SECOND - 1, FIRST_SECOND, LAST_SECOND, LAST_SECOND + 1, 1 << 40, (1 << 63) - 1]


@pytest.mark.parametrize("kind", [-1, 0, 6, 99, (1 << 63) - 1])
async def test_certificate_of_a_kind_that_there_is_not_is_listed(api: Running, kind: int) -> None:
    api.service.certs = [ledger_row(1), ledger_row(2, kind=kind), ledger_row(3)]
    answer = (await api.get(CERTS)).json()
    assert [cert["Kind"] for cert in answer["Certs"]] == ["service", f"unknown-{kind}", "service"]
    serial = answer["Certs"][1]["SerialNumber"]
    assert (await api.get(f"{CERTS}/{serial}")).json() == answer["Certs"][1]


@pytest.mark.parametrize("number", NUMBERS)
async def test_certificate_of_any_time_is_listed(api: Running, number: int) -> None:
    api.service.certs = [ledger_row(1, not_before=number, not_after=number)]
    [cert] = (await api.get(CERTS)).json()["Certs"]
    assert cert["ValidAfter"] == cert["ValidBefore"]
    assert "0001-01-01T00:00:00Z" <= cert["ValidAfter"] <= "9999-12-31T23:59:59Z"


@pytest.mark.parametrize("text", ["nul\0", "x" * 300_000, "\u2028\x7f", ""])
async def test_certificate_with_any_text_is_listed(api: Running, text: str) -> None:
    api.service.certs = [ledger_row(1, name=text, spiffe_id=text, requested_by=text, serial=b"", public_key_sha256=b"")]
    [cert] = (await api.get(CERTS)).json()["Certs"]
    assert (cert["Service"], cert["SpiffeID"], cert["RequestedBy"]) == (text, text, text)


@pytest.mark.parametrize("number", NUMBERS)
async def test_root_of_any_time_is_listed(api: Running, number: int) -> None:
    await api.service.change(roots=(root("r1", not_before=number, not_after=number, root_pem="no PEM"),))
    assert (await api.get(ROOTS)).status == 200
    assert (await api.get("/v1/connect/ca/rotation")).status == 200


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 5000])
async def test_configuration_that_is_none_is_shown_as_empty_and_can_be_replaced(api: Running, text: str) -> None:
    assert api.service.state.config is not None
    await api.service.change(config=replace(api.service.state.config, config_json=text))
    reply = await api.get(CONFIGURATION)
    assert (reply.status, reply.json()["Config"]) == (200, {})
