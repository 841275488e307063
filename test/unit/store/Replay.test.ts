import { assert, describe, it } from "@effect/vitest"
import type { Entry } from "../../../src/Domain.ts"
import { Replay } from "../../../src/store/Replay.ts"

/** The entry of a log, given as `block fork:index`, such as `12a:0`. */
const entry = (name: string, removed: boolean, changes: Partial<Entry> = {}): Entry => {
  const [, number, fork, index] = /^(\d+)(\w):(\d+)$/.exec(name)!
  return {
    chain_id: "1",
    block_number: number!,
    block_hash: `0x${number}${fork}`,
    tx_hash: "0x01",
    log_index: index!,
    contract: "0x02",
    topics: "[]",
    data: `0x${index}`,
    timestamp: "1700000000",
    tx_index: "0",
    removed: String(removed),
    ...changes,
  }
}

/** Replays a journal. `-` before a log removes it; a pair changes fields of the entry. */
const replayed = (
  journal: ReadonlyArray<string | readonly [string, Partial<Entry>]>,
  fromTheBeginning = true,
) => {
  const replay = new Replay(fromTheBeginning)
  for (const [i, one] of journal.entries()) {
    const [name, changes] = typeof one === "string" ? ([one, {}] as const) : one
    replay.apply({ id: String(i), entry: entry(name.replace("-", ""), name.startsWith("-"), changes) })
  }
  return replay
}

/** What remains of a journal, block by block. */
const left = ({ blocks }: Replay) =>
  blocks.map(({ number, hash, logs }) => [number, hash, ...logs.map(({ index }) => index)])

describe("Replay", () => {
  it("accepts reorgs, blocks that return, and blocks retracted while partially written", () => {
    const journal =
      "10a:0 10a:1 12a:0 12a:1 13a:0 -13a:0 -12a:1 -12a:0 11b:0 12b:3 12b:7 -12b:7 -12b:3 -11b:0 12a:0 12a:1 14a:0"
    const replay = replayed(journal.split(" "))
    assert.deepStrictEqual(replay.faults, [])
    assert.deepStrictEqual(left(replay), [
      [10, "0x10a", 0, 1],
      [12, "0x12a", 0, 1],
      [14, "0x14a", 0],
    ])
    assert.deepInclude(replay, { entries: 17, removed: 6 })
    assert.deepInclude(replay.lowest, { block_number: "10", log_index: "0" })
  })

  for (const [what, journal, fault] of [
    [
      "a duplicate entry",
      ["10a:0", "10a:1", "10a:1", "11a:0"],
      "2: the entry of 1:0x10a:1 in block 10 comes after log 1 of the same block",
    ],
    [
      "a duplicate block",
      ["10a:0", "11a:0", "10a:0"],
      "2: the entry of 1:0x10a:0 in block 10 comes on top of block 11",
    ],
    [
      "blocks out of order",
      ["11a:0", "10a:0"],
      "1: the entry of 1:0x10a:0 in block 10 comes on top of block 11",
    ],
    [
      "two blocks of one height",
      ["11a:0", "11b:0", "12b:0"],
      "1: the entry of 1:0x11b:0 in block 11 comes on top of block 11",
    ],
    [
      "logs out of order",
      ["10a:1", "10a:0"],
      "1: the entry of 1:0x10a:0 in block 10 comes after log 1 of the same block",
    ],
    [
      "a removal that is not on top",
      ["10a:0", "11a:0", "-10a:0"],
      "2: the removal of 1:0x10a:0 in block 10 retracts log 0 of block 11 0x11a",
    ],
    [
      "a removal of another block of that height",
      ["10a:0", "11a:0", "-11b:0"],
      "2: the removal of 1:0x11b:0 in block 11 retracts log 0 of block 11 0x11a",
    ],
    [
      "removals in the order of the logs",
      ["10a:0", "10a:1", "-10a:0"],
      "2: the removal of 1:0x10a:0 in block 10 retracts log 1 of block 10 0x10a",
    ],
    [
      "a removal that omits a log",
      ["10a:0", "10a:1", "10a:2", "-10a:2", "-10a:0"],
      "4: the removal of 1:0x10a:0 in block 10 retracts log 1 of block 10 0x10a",
    ],
    [
      "a duplicate removal",
      ["10a:0", "11a:0", "-11a:0", "-11a:0"],
      "3: the removal of 1:0x11a:0 in block 11 retracts log 0 of block 10 0x10a",
    ],
    [
      "a removal of a log that was never added",
      ["-10a:0", "10b:0"],
      "0: the removal of 1:0x10a:0 in block 10 retracts nothing",
    ],
    ...Object.entries({
      block_number: "12",
      tx_hash: "0x09",
      contract: "0x09",
      topics: '["0x09"]',
      data: "0x09",
      timestamp: "1700000001",
      tx_index: "1",
      traceparent: "00-01-02-01",
    }).map(
      ([field, value]) =>
        [
          `a removal with another ${field}`,
          ["10a:0", "11a:0", ["-11a:0", { [field]: value }]],
          `2: the removal of 1:0x11a:0 in block ${field === "block_number" ? value : 11} is not a copy of the entry it retracts`,
        ] as const,
    ),
  ] as const) {
    it(`reports ${what}, and no other fault`, () => {
      assert.deepStrictEqual(replayed(journal).faults, [fault])
    })
  }

  it("ignores removals of logs before its first entry when it does not read from the beginning", () => {
    const journal = ["-11a:0", "-10a:1", "10b:0", "11b:0"]
    assert.deepStrictEqual(replayed(journal, false).faults, [])
    assert.strictEqual(replayed(journal).faults.length, 2)
    assert.deepInclude(replayed(journal, false).lowest, { block_hash: "0x10b" })
  })
})
