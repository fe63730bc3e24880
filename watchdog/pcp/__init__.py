"""PCP, the protocol by which pgpool-II is asked and told things: pure parts, and one small blocking client."""
