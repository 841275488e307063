"""The recorded streams, on a real Redis: a reader sees exactly the changes that each of them lists.

They are the same for the TypeScript client; test/clients/record.ts describes and writes them.
"""

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import Server

from event_ingestor import Checkpoint, ConsumerError, Finality, memory, sqlite
from event_ingestor.changes import follow_from
from event_ingestor.options import Options
from event_ingestor.redis_source import RedisSource

DIRECTORY = Path(__file__).parents[3] / "test/fixtures/streams"
FINALITIES: dict[str, Finality] = {"latest": "latest", "finalized": "finalized", "2": 2}


class UntilQuiet(RedisSource):
    """Stops its reader when it has waited twice with nothing to deliver between."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        super().__init__(url, 1, "events")
        self._stop = stop
        self.waited = 0

    def changed(self, after: str, seconds: float) -> None:
        self.waited += 1
        if self.waited == 2:
            self._stop.set()


def fail(warning: Exception) -> None:
    raise AssertionError("a warning") from warning


def options_of(**others: Any) -> Options[Any]:
    defaults: dict[str, Any] = {field.name: None for field in dataclasses.fields(Options)}
    defaults |= {
        "source": "redis://",
        "prefix": "events",
        "chain": 1,
        "name": "reader",
        "from_": "earliest",
        "finality": "latest",
        "addresses": (),
        "pinned": True,
        "lease": 10.0,
        "on_warning": fail,
    }
    return Options(**{**defaults, **others})


def read_all(url: str, name: str, checkpoint: Checkpoint[Any]) -> Any:
    seen: list[Any] = []
    stop = threading.Event()
    source = UntilQuiet(url, stop)
    options = options_of(name=f"reader-{name}", finality=FINALITIES[name], checkpoint=checkpoint, stop=stop)
    try:
        for block in follow_from(lambda _: source, options):
            source.waited = 0
            seen.append([block.type, block.number, block.hash, [log.index for log in block.logs], block.finalized])
            block.commit()
    except ConsumerError as error:
        return {"error": error.code}
    return seen


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("file", sorted(DIRECTORY.glob("*.jsonl")), ids=lambda path: path.stem)
def test_a_reader_of_a_recorded_stream_sees_exactly_its_changes(
    file: Path, kind: str, server: Server, tmp_path: Path
) -> None:
    client = server.client
    checkpoints: dict[str, Checkpoint[Any]] = {
        name: memory() if kind == "memory" else sqlite(tmp_path / f"{name}.db") for name in FINALITIES
    }
    for line in map(json.loads, file.read_text().splitlines()):
        if line["op"] == "restore":
            client.delete("events:1", "{events:1}:head")
        elif line["op"] == "trim":
            client.xtrim("events:1", minid=line["lowest"], approximate=False)
        elif line["op"] == "append":
            pipe = client.pipeline(transaction=True)
            for id_, fields in line["entries"]:
                pipe.xadd("events:1", fields, id=id_)
            pipe.delete("{events:1}:head")
            pipe.hset("{events:1}:head", mapping=line["head"])
            pipe.execute()
        elif line["op"] == "expect":
            for name, checkpoint in checkpoints.items():
                assert read_all(server.url, name, checkpoint) == line[name], f"finality {name}"
    for checkpoint in checkpoints.values():
        checkpoint.close()
