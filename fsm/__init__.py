"""The replicated state machine: pure values and functions, no I/O, clock or randomness (the ledger's SQLite aside)."""
