"""The two ways to say no: to whoever wants in, and to whoever writes a method."""


class LoginRefused(Exception):
    """A login that failed. Its text is the same for every cause: what was wrong with a credential tells a thief what to
    change. `reason` is for the log of this node, and for nothing else.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("Permission denied")
        self.reason = reason


class MethodInvalid(ValueError):
    """An auth method that cannot be written; the text is Consul's where Consul has one."""

    def __init__(self, text: str) -> None:
        super().__init__(f"Invalid Auth Method: {text}")
