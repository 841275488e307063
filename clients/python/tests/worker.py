"""A consumer as a process: commits so many changes, and prints them. Run: python worker.py <redis URL> <database> <changes>"""

import sys

from event_ingestor import follow, sqlite

url, path, count = sys.argv[1:]
left = int(count)
for block in follow(
    url, chain=1, name="both", from_="earliest", finality="latest", checkpoint=sqlite(path), lease=0.5
):
    block.commit()
    print(f"{block.type} {block.number} {block.hash} {len(block.logs)}", flush=True)
    left -= 1
    if left == 0:
        break
