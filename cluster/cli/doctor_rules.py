"""The CA's rules for `quorumca doctor`, which is below the CA. Apart: commands without need of them start faster."""

from functools import partial
from typing import Final

from cluster.ca.settings import mistake_in, unread_keys
from cluster.doctor.connect import ConnectRules

#: This process ends at once: the operator's private key may pass through it.
RULES: Final = ConnectRules(partial(mistake_in, looks_at_key=True), unread_keys)
