#!/usr/bin/env python3
"""An asynchronous HTTP agent: takes the run with 202, works, and calls Doorbell back. Python's standard library only.

    AGENT_SECRET=some-text python3 examples/http_agent.py

The agent's table in doorbell.toml is `agents.bookkeeper` of examples/doorbell.toml. Three things matter:

* The request is signed as Standard Webhooks: check it before believing anything.
* `webhook-id` is the run's id. The same run may come twice (a lost answer, a restart): do its work once.
* Each attempt has its own run token. Report with the newest; an old one is answered 409.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY_MAX = 4 * 1024 * 1024
TOLERANCE_SECONDS = 300

# Run id to {"result": verdict or None, "report": (url, token)}. A real agent keeps this where a restart does not lose it.
runs = {}
lock = threading.Lock()


def signing_key(secret):
    """`whsec_` and base64, or any text."""
    if secret.startswith("whsec_"):
        return base64.b64decode(secret[len("whsec_") :])
    return secret.encode()


def is_signed(headers, body, key):
    run, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not at.isdigit() or abs(time.time() - int(at)) > TOLERANCE_SECONDS:
        return False
    mac = hmac.new(key, f"{run}.{at}.".encode() + body, hashlib.sha256).digest()
    wanted = b"v1," + base64.b64encode(mac)
    offered = headers.get("webhook-signature", "").encode().split(b" ")
    return any(hmac.compare_digest(wanted, one) for one in offered)


def work(envelope):
    """Here a model would be called with envelope["prompt"]."""
    time.sleep(1)
    return {"status": "succeeded", "output": f"looked at {envelope['event']['type']}", "steps": 1}


def carry_out(run, envelope):
    try:
        verdict = work(envelope)
    except Exception as error:  # whatever it was: Doorbell shall hear of it, not wait for the deadline
        verdict = {"status": "retry", "error": str(error)}
    with lock:
        if verdict["status"] == "retry":
            url, token = runs.pop(run)["report"]  # the next attempt shall work again
        else:
            runs[run]["result"] = verdict
            url, token = runs[run]["report"]
    report(url, token, verdict)


def report(url, token, verdict):
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    for pause in (0, 1, 5, 15, 60):
        time.sleep(pause)
        try:
            request = urllib.request.Request(url, json.dumps(verdict).encode(), headers, method="POST")
            with urllib.request.urlopen(request, timeout=10):
                return
        except urllib.error.HTTPError as error:
            if error.code < 500:
                # 409: the run was cancelled, timed out, or tried again. Sending it again does not help.
                print(f"the report was refused: {error.code} {error.read().decode()}", file=sys.stderr)
                return
        except OSError as error:
            print(f"Doorbell cannot be reached, trying again: {error}", file=sys.stderr)


class Agent(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers.get("content-length", "0"))
        if length > BODY_MAX:
            return self.answer(413, {"error": "too large"})
        body = self.rfile.read(length)
        if not is_signed(self.headers, body, self.server.key):
            return self.answer(401, {"error": "not signed by Doorbell"})
        run = self.headers["webhook-id"]
        where = f"{self.headers['doorbell-api']}/api/v1/runs/{run}/complete"
        with lock:
            known = runs.get(run)
            if known is None:
                runs[run] = {"result": None, "report": (where, self.headers["doorbell-run-token"])}
            else:
                known["report"] = (where, self.headers["doorbell-run-token"])
        if known is None:
            threading.Thread(target=carry_out, args=(run, json.loads(body)), daemon=True).start()
        elif known["result"] is not None:
            return self.answer(200, {"doorbell": known["result"]})  # done already: say it again, do nothing
        self.answer(202, {})

    def answer(self, status, value):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


if __name__ == "__main__":
    secret = os.environ.get("AGENT_SECRET", "")
    if not secret:
        sys.exit("set AGENT_SECRET to the `secret` of this agent in doorbell.toml")
    server = ThreadingHTTPServer(("127.0.0.1", 9000), Agent)
    server.key = signing_key(secret)
    server.serve_forever()
