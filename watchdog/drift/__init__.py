"""Settings that must agree between nodes, compared key by key while the nodes run.

Everything here is pure but `watch`, which ties it to watchdog main.
"""
