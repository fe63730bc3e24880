"""The fault matrix: fault x role x timing on a lab with real processes, each case judged from what was recorded.

`cases` says what is done, `faults_*` how, `history` what it means. The scene that makes a fault never judges it:
the checker sees nothing but the tapes of the prober and the samplers, and has tests of its own.

    python -m pgvigil.watchdog.demo.matrix --help
"""
