#!/bin/sh
# A compiler that never ends with more than 20,000 bytes, and is the real one, `real`, for less. Writes its number into `pid`
# while it does not end, and a line into `overlaps` if it comes while another one is still there.
folder="${0%/*}"
if [ -e "$folder/pid" ] && kill -0 "$(cat "$folder/pid")" 2>/dev/null; then echo overlap >> "$folder/overlaps"; fi
cat > "$folder/code.$$"
if [ "$(wc -c < "$folder/code.$$")" -gt 20000 ]; then
  echo $$ > "$folder/pid.$$"
  mv "$folder/pid.$$" "$folder/pid"
  exec sleep 3600
fi
exec "$folder/real" "$@" < "$folder/code.$$"
