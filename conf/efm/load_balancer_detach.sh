#!/bin/sh
# efm.properties: script.load.balancer.detach=/etc/pgvigil/efm/load_balancer_detach.sh %h %t
#
# EFM calls it when a database has failed or is about to be stopped: no pgpool-II uses it any more. The primary is left
# alone: to detach it is a failover, and EFM is about to do one. post_promotion.sh takes it out when its successor is
# known. Without a successor nobody could serve the writes anyway.

efm="$(dirname "$0")/pgvigil-efm"
"$efm" check_primary "$1"
case $? in
0) exec "$efm" detach "$1" ;;
1) echo "$1 is the primary: left to the promotion of another one" ;;
*) exit 1 ;;
esac
