"""The command line `quorumca`: one module per command group, imported only when its command is given."""
