"""pgvigil: a watchdog for pgpool-II that never lets two hosts answer for one virtual IP.

The four folders `ipc`, `heartbeat`, `lifecheck` and `watchdog` are links to the top level of the
repository, so that nothing called `watchdog` is installed beside PyPI's distribution of that name.
Imports point one way only: `ipc <- heartbeat <- lifecheck <- watchdog`.
"""

__version__ = "0.1.0"
