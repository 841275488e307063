"""Gives an alert for each large transfer of a token in a final block, which no reorg can retract.
Run: pip install 'event_ingestor[decode]' && python3 examples/final-alerts.py 1

An alert is a line of JSON; with ALERT_URL it is also posted there, until it is accepted. REDIS_URL names the Redis of the ingestor,
MIN_VALUE the least value of a transfer, DATABASE_PATH a SQLite file for the position. A second argument says where a new file begins:
earliest, now, or a block.

At least once: a process that is killed before it has stored its position repeats the alerts of a block. `key` is that of the log, and
the same for each repetition.
"""

import itertools
import json
import os
import signal
import sys
import threading
import urllib.request

from event_ingestor import follow, sqlite

TRANSFER = "Transfer(address indexed from, address indexed to, uint256 value)"

chain, start = (sys.argv[1:] + ["1", "now"][len(sys.argv) - 1 :])[:2]
minimum = int(os.environ.get("MIN_VALUE", "0"))
url = os.environ.get("ALERT_URL")
stop = threading.Event()
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stop.set())


def post(alert):
    """Whether the receiver has accepted the alert. False: this process was stopped before."""
    request = urllib.request.Request(url, json.dumps(alert).encode(), {"content-type": "application/json"})
    for attempt in itertools.count():
        try:
            with urllib.request.urlopen(request, timeout=10):
                return True
        except OSError as error:
            print(f"{alert['key']}: {error}", file=sys.stderr)
        if stop.wait(min(0.1 * 2**attempt, 30)):
            return False


def handle(block):
    for event in block.events:
        if event.args["value"] < minimum:
            continue
        alert = {"key": event.log.key, "block": block.number, "time": block.timestamp, "token": event.log.contract, **event.args}
        if url and not post(alert):
            return False
        print(json.dumps(alert), flush=True)
    return True


blocks = follow(
    os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"),
    chain=int(chain),
    name="final-alerts",
    from_=int(start) if start.isdigit() else start,
    finality="finalized",
    events=[TRANSFER],
    # After kill -9, the next process waits so long before it takes over (seconds).
    lease=2,
    checkpoint=sqlite(os.environ.get("DATABASE_PATH", "final-alerts.db")),
    stop=stop,
)
for block in blocks:
    if not handle(block):
        break
    block.commit()
