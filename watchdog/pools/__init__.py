"""Each node watches its own pgpool-II over PCP and brings it to what the cluster has agreed on."""
