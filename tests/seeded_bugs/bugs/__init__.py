"""All seeded bugs, one table for each area. The paths that a table changes and runs stand at its top."""

from typing import Final

from tests.seeded_bugs.bug import Bug
from tests.seeded_bugs.bugs import (
    backup,
    ca,
    certificates,
    consensus,
    csr,
    fsm,
    hardening_archive,
    hardening_doors,
    hardening_keys,
    hardening_log,
    hardening_members,
    hardening_names,
    hardening_secrets,
    hardening_trust,
    http,
    ledger,
    nodes,
    requests,
    seal,
    storage,
    vault,
    verify,
)

BUGS: Final[tuple[Bug, ...]] = (
    *storage.BUGS,
    *consensus.BUGS,
    *ledger.BUGS,
    *fsm.BUGS,
    *ca.BUGS,
    *requests.BUGS,
    *csr.BUGS,
    *certificates.BUGS,
    *verify.BUGS,
    *vault.BUGS,
    *seal.BUGS,
    *backup.BUGS,
    *http.BUGS,
    *nodes.BUGS,
    *hardening_archive.BUGS,
    *hardening_log.BUGS,
    *hardening_secrets.BUGS,
    *hardening_names.BUGS,
    *hardening_trust.BUGS,
    *hardening_keys.BUGS,
    *hardening_members.BUGS,
    *hardening_doors.BUGS,
)
