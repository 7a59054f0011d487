#!/bin/sh
# The demo's agent: reads the JSON envelope on standard input, logs to standard error, prints its result.
# A real one would call a model here. It needs nothing but a POSIX shell.
envelope=$(cat)

# The first "name":"text" of the envelope. Quotes inside JSON texts are escaped, so a payload cannot fake one.
value() {
  rest=${envelope#*\"$1\":\"}
  [ "$rest" = "$envelope" ] || printf '%s' "${rest%%\"*}"
}

type=$(value type)
subject=$(value subject)
echo "run $DOORBELL_RUN_ID, attempt $DOORBELL_ATTEMPT: $type $subject" >&2

case $type in
pull_request) echo "Reviewed ${subject}: no objections" ;;
invoice.payment_failed)
  # A colleague that is down at first: Doorbell tries again by itself.
  if [ "$DOORBELL_ATTEMPT" = 1 ]; then
    echo "the billing system is busy" >&2
    exit 1
  fi
  echo "Wrote to the customer of ${subject}"
  ;;
app_mention) echo "Answered in ${subject}" ;;
customer.created) echo "Prepared a welcome" ;;
*)
  echo "do not know what to do with $type" >&2
  exit 78
  ;;
esac
