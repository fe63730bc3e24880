"""A laboratory of network namespaces: three hosts, a client, real pgpool-II and PostgreSQL.

The demo, the acceptance runner, the bench and the lab tests share it. Nothing here is imported by a daemon, and
what measures shares no code with what is measured.
"""
