"""Why something was refused, as a text that is the same for all inputs that meet the same rule.

Refusals are counted by it. It only has to keep the counts few and easy to read: nothing is decided by it.
"""

import re
from typing import Final

_LENGTH: Final = 80
#: Numbers, and what stands in quotes; an apostrophe inside a word is none, and a text that is cut off may not end.
_OWN_VALUES: Final = re.compile(r"""(?<![A-Za-z])b?'[^']*(?:'|$)|"[^"]*(?:"|$)|0x[0-9a-f]+|[0-9]+""")
#: Of these the rule stands after the first colon; of all others the rule stands before it, and the value after.
_GENERAL: Final = ("malformed CSR", "CSR key")


def reason_of(error: Exception) -> str:
    return _without_values(str(error)[:300])


def csr_reason_of(error: Exception) -> str:
    text = str(error)[:300]
    head, _, rest = text.partition(": ")
    return _without_values(f"{head}: {rest.partition(': ')[0]}" if head in _GENERAL else head)


def _without_values(text: str) -> str:
    return _OWN_VALUES.sub("_", text)[:_LENGTH]
