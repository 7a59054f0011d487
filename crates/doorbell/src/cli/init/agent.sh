#!/bin/sh
# An agent is any program. Doorbell writes a JSON envelope to its stdin: the run, the event with its data, the prompt.
# What it prints is the run's output, what it writes to stderr is the run's log.
#
# Exit code 0: done. 75: try again later. 78: failed, do not try again. Others: failed, try again by `retries`.
# It may be started twice for one event (after a crash): DOORBELL_RUN_ID is the same then.
set -eu

envelope=$(cat)
echo "run $DOORBELL_RUN_ID, attempt $DOORBELL_ATTEMPT: $(printf %s "$envelope" | wc -c) bytes on stdin" >&2

# Here would stand, for example:  printf %s "$envelope" | my-agent --run "$DOORBELL_RUN_ID"

printf '{"doorbell": {"status": "succeeded", "output": "rung by event %s"}}\n' "$DOORBELL_EVENT_ID"
