"""Names of environment variables: cheap to import, before anything that copies the environment."""

from typing import Final

PASSPHRASE_VARIABLE: Final = "QUORUMCA_SEAL_PASSPHRASE"  # noqa: S105 - a name, no secret
