/** Which replica of a fleet follows which chain: all replicas that see the same members deal them out in the same way. */
import { createHash } from "node:crypto"

/** How near a shard is to a member: a number that does not depend on the other members. */
const distance = (member: string, shard: number) =>
  createHash("sha256").update(`${member} ${shard}`).digest().readUInt32BE()

/**
 * The member that each shard is dealt to: shares differ by at most one shard. When a member joins or leaves, few of the shards move
 * that need not: each goes to the nearest member that has not got its share.
 *
 * @returns the members, by shard - 1
 */
export const deal = (members: ReadonlyArray<string>, shards: number): ReadonlyArray<string> => {
  const pairs = members
    .toSorted()
    .flatMap((member) =>
      Array.from({ length: shards }, (_, i) => ({ member, i, distance: distance(member, i + 1) })),
    )
    .toSorted((a, b) => a.distance - b.distance)
  const least = Math.floor(shards / members.length)
  /** How many members get one shard more. */
  let rest = shards % members.length
  const sizes = new Map<string, number>()
  const dealt = new Map<number, string>()
  for (const { member, i } of pairs) {
    const size = sizes.get(member) ?? 0
    if (dealt.has(i) || size > least || (size === least && rest === 0)) continue
    if (size === least) rest--
    sizes.set(member, size + 1)
    dealt.set(i, member)
  }
  return Array.from({ length: shards }, (_, i) => dealt.get(i)!)
}
