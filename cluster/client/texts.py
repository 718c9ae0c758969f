"""Texts that come from servers and files, made fit for a terminal."""


def printable(text: str) -> str:
    """Without control characters but newlines: texts come from servers and files, and terminals obey escapes."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
