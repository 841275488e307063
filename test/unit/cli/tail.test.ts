/** The readable lines of `tail`. */
import { assert, describe, it } from "@effect/vitest"
import { lineOf } from "../../../src/cli/tail.ts"

const topic = `0x${"ab".repeat(32)}`

const entry = { block_number: "5", log_index: "0", topics: JSON.stringify([topic]) }

const decoded = { ...entry, event: "Set(uint8)", args: '{"value":"5"}' }

describe("tail --events", () => {
  it("shows decoded events instead of the first topic", () => {
    assert.include(lineOf("devnet", decoded, true), "Set(value: 5)")
    assert.notInclude(lineOf("devnet", decoded, true), "0xabab")
  })

  it("shows the signature where the arguments could not be decoded, and the topic where there is no event", () => {
    assert.include(lineOf("devnet", { ...entry, event: "Set(uint8)" }, true), "Set(uint8)")
    assert.include(lineOf("devnet", entry, true), "0xabababab…abab")
  })

  it("removes control characters from decoded texts", () => {
    const args = JSON.stringify({ value: "a\u001b[31mb\nc" })
    assert.notMatch(lineOf("devnet", { ...decoded, args }, true), /\p{Cc}/u)
  })

  it("shows every argument of an event with seven of them", () => {
    const values = Array.from({ length: 7 }, (_, i) => [`argument${i}`, `0x${"ab".repeat(20)}`])
    const line = lineOf("devnet", { ...decoded, args: JSON.stringify(Object.fromEntries(values)) }, true)
    assert.include(line, `argument6: 0x${"ab".repeat(20)})`)
  })

  it("is what shows events: without it, the first topic is shown", () => {
    assert.include(lineOf("devnet", decoded), "0xabababab…abab")
  })
})
