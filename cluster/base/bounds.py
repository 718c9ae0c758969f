"""How much a msgpack value would take up, seen before it is decoded: a list of four bytes may announce thousands of
millions of items, and a decoder makes room for as many, at each of hundreds of levels.
"""

from typing import Final

#: What follows the first byte: bytes of the length, and of the rest where it is fixed (msgpack's specification).
_FIXED: Final = {
    0xC0: 0,
    0xC2: 0,
    0xC3: 0,
    0xCA: 4,
    0xCB: 8,
    0xCC: 1,
    0xCD: 2,
    0xCE: 4,
    0xCF: 8,
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
}
_LENGTH_OF_BYTES: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_LENGTH_OF_LIST: Final = {0xDC: 2, 0xDD: 4}


def check_value(data: bytes, *, max_items: int, max_depth: int) -> None:
    """That `data` is one msgpack value of lists, texts, bytes and numbers (no maps, no extensions), and a modest one.

    Raises: ValueError.
    """
    position, items = 0, 0
    open_lists = [1]  # how many values are still to come, at each level
    while open_lists:
        if not open_lists[-1]:
            open_lists.pop()
            continue
        open_lists[-1] -= 1
        items += 1
        if items > max_items:
            raise ValueError(f"it holds more than {max_items} values")
        count, position = _step(data, position)
        if count > len(data) - position:
            raise ValueError(f"a list of {count} values is longer than the bytes that follow")
        if count:
            open_lists.append(count)
            if len(open_lists) > max_depth + 1:
                raise ValueError(f"it is nested more than {max_depth} deep")
    if position != len(data):
        raise ValueError(f"{len(data) - position} bytes follow the value")


def _step(data: bytes, position: int) -> tuple[int, int]:
    """The items of the list that begins here, 0 for anything else; and where the next value begins."""
    if position >= len(data):
        raise ValueError("it ends early")
    kind, position = data[position], position + 1
    if kind < 0x80 or kind >= 0xE0 or kind in _FIXED:
        count, size = 0, _FIXED.get(kind, 0)
    elif 0x90 <= kind <= 0x9F:
        count, size = kind & 0x0F, 0
    elif 0xA0 <= kind <= 0xBF:
        count, size = 0, kind & 0x1F
    elif kind in _LENGTH_OF_BYTES:
        width = _LENGTH_OF_BYTES[kind]
        count, size = 0, width + int.from_bytes(data[position : position + width], "big")
    elif kind in _LENGTH_OF_LIST:
        size = _LENGTH_OF_LIST[kind]
        count = int.from_bytes(data[position : position + size], "big")
    else:
        raise ValueError(f"a value of type 0x{kind:02x} does not belong there")
    if position + size > len(data):
        raise ValueError("it ends early")
    return count, position + size
