"""The acting part of Quorum CA: Raft, leader work, the HTTP API, the command line."""
