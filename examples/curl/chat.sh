#!/bin/sh
# Asks a protected server with curl, through `server-keys seal`, which seals what leaves this machine:
#   server-keys seal --to http://127.0.0.1:8000
#   sh chat.sh "What does the river keep?"
# The tokens arrive one by one.
set -eu
curl --no-buffer --silent --show-error --fail-with-body \
    --header "Content-Type: application/json" \
    --data @- "${BASE_URL:-http://127.0.0.1:8011/v1}/chat/completions" <<QUESTION
{"model": "toy-rambler", "stream": true, "messages": [{"role": "user", "content": "${1:-Hello}"}]}
QUESTION
