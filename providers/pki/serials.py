"""Serial numbers as bytes and as text. Imports nothing: whoever only hands serials on needs no cryptography for it."""


def serial_bytes(serial: int) -> bytes:
    """Minimal big-endian, as serials are stored and sent."""
    return serial.to_bytes((serial.bit_length() + 7) // 8, "big")


def serial_text(serial: int) -> str:
    """The same in hex with colons: `0e`, `01:2f`."""
    return (serial_bytes(serial) or b"\0").hex(":")
