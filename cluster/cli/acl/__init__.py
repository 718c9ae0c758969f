"""`quorumca acl`, `login` and `logout`: access control by Consul's commands, one module per kind of object.

A command asks the API and shows what it answers (docs/consul-compat.md 12.1). Secrets are in no output but of
those commands whose result they are: bootstrap, token create and token clone; login puts its into a file.
"""
