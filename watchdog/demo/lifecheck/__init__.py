"""The acceptance table of lifecheck: what each fault looks like to pgvigil, how soon, and what the cluster does then.

Three hosts with real pgpool-II and PostgreSQL, stage and instruments of the fault matrix. `cases` says what is done and
what must be said about it, `faults` how, `verdict` what it means. Every case expects both: the right sentence, and not
one wrong verdict beside it.

    python -m pgvigil.watchdog.demo.lifecheck --help
"""
