#!/bin/sh
# Backs up the queues of @QUEUES@ while they are in use, checks the copy, and removes those that
# are older than @KEEP_DAYS@ days. A copy that isn't whole leaves the older ones where they are.
#
# To restore: stop the application, then
#   @PYTHON@ -m celeriac restore file:///NEW/DIRECTORY FILE
# and have the application's URL name that directory, or move it to where the old one was.
set -eu
umask 077
file=@BACKUPS@/celeriac-$(date -u +%Y%m%dT%H%M%S).backup
@PYTHON@ -m celeriac backup @QUEUES@ "$file"
@PYTHON@ -m celeriac verify "$file"
find @BACKUPS@ -maxdepth 1 -name 'celeriac-*.backup' -mtime +@KEEP_DAYS@ -delete
