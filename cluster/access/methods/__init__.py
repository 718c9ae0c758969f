"""Auth methods: how workloads prove who they are. Knows neither routes nor the log: a method's configuration and what
a caller has sent go in, what that proves (`cluster.access.selector.Proved`) comes out, or `LoginRefused`.
"""
