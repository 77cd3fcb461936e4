#!/usr/bin/env bash
# The examples of docs/http_api.md, run with curl: curl_client.sh URL
set -euo pipefail
url=${1:?usage: curl_client.sh URL}

# expect TEXT CURL_ARGUMENTS...: the answer has to hold TEXT.
expect() {
  local text=$1 answer
  shift
  answer=$(curl -sS -H 'Content-Type: application/json' "$@")
  if [[ $answer != *"$text"* ]]; then
    printf 'no "%s" in the answer to %s:\n%s\n' "$text" "$*" "$answer" >&2
    exit 1
  fi
  echo "ok: $text"
}

expect '"role":"assistant"' "$url/v1/chat/completions" -d '{
  "messages": [{"role": "user", "content": "What is the capital of France?"}],
  "max_tokens": 20, "temperature": 0}'
expect '"token_logprobs":[null,-' "$url/v1/completions" -d '{
  "prompt": "The capital of France is", "max_tokens": 1, "echo": true, "logprobs": 1, "temperature": 0}'
expect 'data: [DONE]' -N "$url/v1/completions" -d '{"prompt": "Once", "max_tokens": 2, "stream": true}'
expect '"param":"top_p"' "$url/v1/completions" -d '{"prompt": "a", "top_p": 2}'
expect '"object":"list"' "$url/v1/models"
expect '"count":2' "$url/tokenize" -d '{"prompt": "Hello world", "return_token_strs": true}'
expect '"prompt":"Hello world"' "$url/detokenize" -d '{"tokens": [19556, 905]}'
expect '"kv_pages":{"total":' "$url/stats"
expect 'atom_generated_tokens_total' "$url/metrics"
expect '{"status":"ok"}' "$url/health"
