/**
 * The chains that need no `<NAME>_CHAIN_ID`, and the four that need no endpoint either.
 *
 * `finalityDepth` is how far behind the head a block counts as final where a node does not know the `finalized` tag,
 * `blockTime` the usual time between two blocks (milliseconds).
 */
import type { ChainId } from "../Domain.ts"

export interface KnownChain {
  readonly name: string
  readonly id: ChainId
  readonly finalityDepth: number
  readonly blockTime: number
  /** Public endpoints without a key, in order of preference: for a first look, they refuse history. */
  readonly publicEndpoints: ReadonlyArray<string>
}

const known = (
  name: string,
  id: ChainId,
  finalityDepth: number,
  blockTime: number,
  ...publicEndpoints: ReadonlyArray<string>
): KnownChain => ({ name, id, finalityDepth, blockTime, publicEndpoints })

export const knownChains: ReadonlyArray<KnownChain> = [
  known("ethereum", 1, 96, 12_000, "wss://ethereum-rpc.publicnode.com", "wss://eth.drpc.org"),
  known("arbitrum", 42161, 4800, 250, "wss://arbitrum-one-rpc.publicnode.com", "wss://arbitrum.drpc.org"),
  known("optimism", 10, 900, 2000, "wss://optimism-rpc.publicnode.com", "wss://optimism.drpc.org"),
  known("base", 8453, 900, 2000, "wss://base-rpc.publicnode.com", "wss://base.drpc.org"),
  known("polygon", 137, 256, 2000),
  known("bsc", 56, 64, 750),
  known("gnosis", 100, 96, 5000),
  known("avalanche", 43114, 32, 2000),
  known("linea", 59144, 900, 2000),
  known("scroll", 534352, 900, 3000),
  known("zksync", 324, 900, 1000),
  known("sepolia", 11155111, 96, 12_000),
]

/** What `CHAINS` means when it is not set. */
export const defaultChains = "ethereum,arbitrum,optimism,base"

/** For a chain that is not in the table. */
export const defaultFinalityDepth = 64

/** How often heads are polled where they are (milliseconds): once a block, and not more than once a second. */
export const defaultPollInterval = (blockTime: number | undefined): number => Math.max(blockTime ?? 0, 1000)

/** What a chain's variables start with: `arbitrum-nova` reads `ARBITRUM_NOVA_…`. */
export const variablePrefix = (chain: string): string => chain.toUpperCase().replaceAll("-", "_")
