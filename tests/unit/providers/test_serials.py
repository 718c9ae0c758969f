import pytest

from providers.pki.serials import serial_bytes, serial_text


@pytest.mark.parametrize(("number", "expected"), [(1, b"\x01"), (0x80, b"\x80"), (0x1FF, b"\x01\xff")])
def test_bytes_have_no_leading_zeros(number: int, expected: bytes) -> None:
    assert serial_bytes(number) == expected


def test_serials_print_as_minimal_colon_hex() -> None:
    assert [serial_text(number) for number in (0, 14, 255, 256, 303)] == ["00", "0e", "ff", "01:00", "01:2f"]
