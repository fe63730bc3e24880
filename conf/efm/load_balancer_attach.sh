#!/bin/sh
# efm.properties: script.load.balancer.attach=/etc/pgvigil/efm/load_balancer_attach.sh %h %t
#
# EFM calls it when a database is back, or has been promoted: every pgpool-II uses it again. Which one is the primary
# is told by post_promotion.sh.

exec "$(dirname "$0")/pgvigil-efm" attach "$1"
