/** A checkpoint by Prisma: `follow({ checkpoint: postgres(prisma(client)), … })`; handlers write by `tx`, a `TransactionClient`. */
import type { Dialect } from "../../clients/typescript/src/index.ts" // yours: "@event-ingestor/consumer"

/** What is used of a `PrismaClient`. */
interface Prisma<Tx> {
  $transaction<A>(run: (tx: Tx) => Promise<A>, options: { readonly timeout: number }): Promise<A>
}

interface Transaction {
  $queryRawUnsafe(text: string, ...values: Array<unknown>): PromiseLike<unknown>
  $executeRawUnsafe(text: string, ...values: Array<unknown>): PromiseLike<unknown>
}

export const prisma = <Tx extends Transaction>(client: Prisma<Tx>): Dialect<Tx> => ({
  // Its own limit of 5 s is too short for a batch of blocks.
  transaction: (run) => client.$transaction(run, { timeout: 60_000 }),
  query: async (tx, text, values) => {
    if (text.startsWith("SELECT"))
      return (await tx.$queryRawUnsafe(text, ...values)) as ReadonlyArray<Record<string, unknown>>
    await tx.$executeRawUnsafe(text, ...values)
    return []
  },
})
