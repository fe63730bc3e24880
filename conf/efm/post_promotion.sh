#!/bin/sh
# efm.properties: script.post.promotion=/etc/pgvigil/efm/post_promotion.sh %p %f
#
# EFM calls it on the database that it has promoted (%p), after the standbys follow it: every pgpool-II takes it for the
# primary, and the one that failed (%f) for down. It may have been detached before, so it is attached first.

efm="$(dirname "$0")/pgvigil-efm"
"$efm" attach "$1" || exit
"$efm" check_primary "$1"
case $? in
0) exec "$efm" promote "$1" ;;
1) exit 0 ;;
*) exit 1 ;;
esac
