#!/bin/sh
# Prints a log file as a mirror would that is busy now and then: it refuses billing.log to the first attempt.
if [ "$1" = billing.log ] && [ "$NODEFLOW_ATTEMPT_NUMBER" -lt 2 ]; then
    echo "mirror: $1: busy, try again" >&2
    exit 75
fi
cat "$NODEFLOW_WORKFLOW_DIR/logs/$1"
