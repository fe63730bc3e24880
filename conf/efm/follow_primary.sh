#!/bin/sh
# pgvigil.toml: follow_primary = { run = "/etc/pgvigil/efm/follow_primary.sh %h %p", timeout_s = 120 } in [commands]
#
# After a promotion pgvigil keeps every other standby down until it follows the new primary, and asks this script about
# each. EFM has made it follow already; it may still be starting. Ends with 0 as soon as it answers: pgvigil attaches it.
# timeout_s of [commands] ends the waiting.

if [ $# -ne 2 ]; then
    echo "usage: follow_primary.sh HOST PORT" >&2
    exit 2
fi
if ! command -v pg_isready >/dev/null 2>&1; then
    echo "pg_isready is not installed here: $1:$2 is attached unseen"
    exit 0
fi
until pg_isready -q -h "$1" -p "$2" -t 3; do
    sleep 1
done
echo "$1:$2 answers"
