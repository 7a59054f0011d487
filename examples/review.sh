#!/bin/sh
# A process agent. Doorbell writes a JSON envelope to stdin: the run, the event with its data, and the prompt, in which the
# event is fenced as untrusted data. What this prints is the run's output, what it writes to stderr is the run's log.
#
# It may be started twice for one event (after a crash). DOORBELL_RUN_ID is the same then: put it into whatever you change
# outside, so that the second time finds the first.
#
# Needs jq, and a coding agent that reads its prompt from stdin: `claude -p`, or what REVIEW_COMMAND names (list that variable
# in the agent's `env`). Give it no more rights than reading: the text of a pull request is written by strangers.
set -eu

command=${REVIEW_COMMAND:-claude -p}
program=${command%% *}

for needed in jq "$program"; do
  if ! command -v "$needed" >/dev/null; then
    echo "$needed is not installed, or not in the PATH that this agent is given" >&2
    exit 78 # for good: trying again does not install it
  fi
done

envelope=$(cat)
echo "run $DOORBELL_RUN_ID, attempt $DOORBELL_ATTEMPT, lane ${DOORBELL_KEY:-none}" >&2

# $command is split into words on purpose; nothing of the event reaches a command line.
# shellcheck disable=SC2086
if ! review=$(printf '%s' "$envelope" | jq -r .prompt | $command); then
  echo "$program failed" >&2
  exit 75 # try again later
fi

# The verdict. Printing the review alone would do as well.
printf '%s' "$review" | jq -Rs '{doorbell: {status: "succeeded", output: .}}'
