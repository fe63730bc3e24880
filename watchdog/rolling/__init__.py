"""Rolling work on backends: detach a batch, run a command for each, attach it again, then the next batch."""
