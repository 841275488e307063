/** A store: everything that keeps the three contracts, for the pipeline, for readers and for operators. */
import { Context } from "effect"
import { Entries } from "./Entries.ts"
import { JournalStore } from "./JournalStore.ts"
import { StoreAdmin } from "./StoreAdmin.ts"

export type Store = JournalStore["Service"] & Entries["Service"] & StoreAdmin["Service"]

/** What the layer of a store provides. */
export type Contracts = JournalStore | Entries | StoreAdmin

export const contextOf = (store: Store): Context.Context<Contracts> =>
  Context.make(JournalStore, store).pipe(Context.add(Entries, store), Context.add(StoreAdmin, store))
