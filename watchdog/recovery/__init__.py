"""Online recovery of a backend, over all pgpool-IIs of the cluster."""
