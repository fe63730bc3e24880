"""Three hosts with pgpool-II and PostgreSQL each: what pgvigil's consensus failover is shown and measured with."""
