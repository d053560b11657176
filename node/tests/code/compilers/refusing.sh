#!/bin/sh
# A compiler that refuses everything, as the command does with its exit code, and counts.
echo once >> "${0%/*}/count"
echo 'not like this' >&2
exit 93
