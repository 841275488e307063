/**
 * Which chains this replica follows: all of them, or in a fleet those that are dealt to it (Sharding.ts). Sharding is loaded only where
 * a fleet is configured.
 */
import { Context, Effect, FiberMap } from "effect"
import type { Scope } from "effect"

/** A chain that may be followed here. */
export interface Followable<R> {
  readonly name: string
  /** Follows the chain until it is interrupted. */
  readonly follow: Effect.Effect<void, unknown, R>
  /** How often the store refused a move because another replica had made it. */
  readonly overtaken: () => number
  readonly onStart: Effect.Effect<void>
  readonly onStop: Effect.Effect<void>
}

/** Follows these chains, or those that are this replica's, as long as the scope. */
export type Share = <R>(chains: ReadonlyArray<Followable<R>>) => Effect.Effect<void, never, Scope.Scope | R>

/** The fleet as this replica sees it. */
export interface View {
  readonly name: string
  readonly replica: string
  /** Whether its last heartbeat was answered in time; otherwise the others take its chains. */
  readonly isMember: boolean
  /** Why the last heartbeat failed. */
  readonly error: string | undefined
  /** The replicas that are present. */
  readonly members: ReadonlyArray<string>
  /** Which replica follows each chain. */
  readonly holders: ReadonlyMap<string, string>
}

/** Follows all chains. */
export const all: Share = Effect.fnUntraced(function* (chains) {
  const fibers = yield* FiberMap.make<string>()
  for (const { name, follow } of chains) yield* FiberMap.run(fibers, name, follow)
})

/** Which chains this replica follows (default: all). */
export const Fleet = Context.Reference<{
  readonly share: Share
  readonly view: () => View | undefined
  /** What the replicas report about the chains that they follow, by chain. Read from Redis, at most once a second. */
  readonly reports: Effect.Effect<ReadonlyMap<string, unknown>>
  /** Reports chains that are followed here, as JSON; `undefined` without a fleet. */
  readonly publish: ((reports: ReadonlyMap<string, unknown>) => Effect.Effect<void>) | undefined
}>("event-ingestor/Fleet", {
  defaultValue: () => ({
    share: all,
    view: () => undefined,
    reports: Effect.succeed(new Map()),
    publish: undefined,
  }),
})
