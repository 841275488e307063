"""Keeps a set of logs equal to the chain, from the stream of one chain. Run: python3 examples/consume.py events:1

One consumer per stream: retractions are only correct in order. Entries that were delivered and not acknowledged are read
first, so a crash repeats entries, and repeating an upsert or a delete changes nothing.

It does not notice a Redis that was set back, nor blocks: docs/CONSUMING.md has what does.
"""

import os
import sys

import redis

stream, group, consumer = (sys.argv[1:] + ["events:1", "my-app", "worker-1"][len(sys.argv) - 1 :])[:3]
client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), decode_responses=True)
logs = {}  # your database

try:
    client.xgroup_create(stream, group, "0", mkstream=True)
except redis.ResponseError as error:
    if not str(error).startswith("BUSYGROUP"):
        raise

start = "0"
while True:
    reply = client.xreadgroup(group, consumer, {stream: start}, count=500, block=5000)
    entries = reply[0][1] if reply else []
    if start != ">" and not entries:
        start = ">"  # nothing is pending any more: continue with new entries
    for entry_id, log in entries:
        if not log:
            # Trimmed after it was delivered, before it was read again: its content has to be read from a node.
            print(f"{entry_id} was trimmed before it was acknowledged", file=sys.stderr)
            client.xack(stream, group, entry_id)
            continue
        identity = f"{log['chain_id']}:{log['block_hash']}:{log['log_index']}"
        if log["removed"] == "true":
            logs.pop(identity, None)
        else:
            logs[identity] = log
        client.xack(stream, group, entry_id)
    if entries:
        print(f"{len(logs)} logs", flush=True)
