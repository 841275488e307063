/** How far below the newest head a block is stored (`CONFIRMATIONS`). Pure. */
import type { ChainConfig } from "../config/AppConfig.ts"

/**
 * The height of the highest block that may be stored; `undefined` if there is none yet.
 *
 * @param head the height of the newest head
 * @param final the height of the final block, if known
 */
export const confirmedHeight = (
  confirmations: ChainConfig["confirmations"],
  head: number,
  final: number | undefined,
): number | undefined => {
  if (confirmations === "finalized") return final
  return head < confirmations ? undefined : head - confirmations
}
