"""Snapshots for keeping."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Meta:
    """What `inspect` shows."""

    format: int
    index: int
    log_index: int
    created_at: int  # Unix seconds
    datacenter: str
    node: str
    trust_domain: str
    active_root_id: str
    roots: int
    certificates: int
    seal_source: str
    seal_key_id: str
