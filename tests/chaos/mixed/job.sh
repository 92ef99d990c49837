# One process of a mixed run. It holds a lock as long as it or a child of it lives, and says so if it is not alone.
mark="$MARKS/job-$NODEFLOW_EXECUTION_ID-$NODEFLOW_TASK_NUMBER"
exec 9>>"$mark"
flock --nonblock 9 || echo "overlap $NODEFLOW_ATTEMPT_NUMBER" >&9
echo "begin $NODEFLOW_ATTEMPT_NUMBER" >&9
echo "job $JOB begins"
sleep "$NAP"
echo "job $JOB in the middle" >&2
sleep 0.06
echo "job $JOB ends"
mkdir out
echo "$JOB" > out/number
echo "number=$JOB" > "$NODEFLOW_OUTPUT"
echo "end $NODEFLOW_ATTEMPT_NUMBER" >&9
