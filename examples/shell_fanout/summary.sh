#!/bin/sh
# Sums up what stdin has: a JSON list of objects {"log": …, "lines": …, "errors": …, "mostly": …}.
tr '}' '\n' | awk -F '"' -v files="$1" '
    $4 == "" { next }
    { lines += $8; errors += $12 }
    $12 > most { most = $12; worst = $4 " (" $12 " errors, mostly " $16 ")" }
    END { print "files=" files; print "lines=" lines; print "errors=" errors; print "worst=" worst }
' > "$NODEFLOW_OUTPUT"
