/**
 * Validation of manifests by the schemas of Kubernetes and of the Prometheus Operator (the packages `kubernetes-models`): the validators of
 * the schemas, and, because these accept unknown fields, the compiler with the types made from the same schemas.
 */
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import { symlinkSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { directory } from "./directory.ts"
import type { Manifest } from "./kustomize.ts"

type Models = Readonly<Record<string, new (data: unknown) => { readonly validate: () => void }>>

/** The module with the kinds of an `apiVersion`. */
const moduleOf = (apiVersion: string) =>
  apiVersion.startsWith("monitoring.coreos.com/")
    ? `@kubernetes-models/prometheus-operator/${apiVersion}`
    : `kubernetes-models/${apiVersion}`

/** What the validator of its kind says against a manifest. */
const violations = async (manifest: Manifest): Promise<ReadonlyArray<string>> => {
  const { apiVersion, kind, metadata } = manifest
  const models = (await import(moduleOf(apiVersion))) as Models
  const Model = models[kind]
  if (Model === undefined) return [`${kind} ${metadata.name}: no such kind in ${apiVersion}`]
  try {
    new Model(manifest).validate()
    return []
  } catch (error) {
    return [`${kind} ${metadata.name}: ${(error as Error).message}`]
  }
}

/** What the compiler says against manifests, where each is a literal of the type of its kind: no other field is allowed. */
const typeErrors = (manifests: ReadonlyArray<Manifest>) =>
  Effect.gen(function* () {
    const place = yield* directory
    symlinkSync(resolve("node_modules"), join(place, "node_modules"))
    writeFileSync(join(place, "package.json"), '{ "type": "module" }')
    const literals = manifests.map((manifest) => {
      const type = `import("${moduleOf(manifest.apiVersion)}").I${manifest.kind}`
      return `export const _ = ${JSON.stringify(manifest)} satisfies ${type}`
    })
    for (const [i, literal] of literals.entries()) writeFileSync(join(place, `${i}.ts`), literal)
    const options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "esnext"]
    const { status, stdout, stderr } = spawnSync(
      resolve("node_modules/.bin/tsc"),
      [...options, ...literals.map((_, i) => `${i}.ts`)],
      { cwd: place, encoding: "utf8" },
    )
    const output = stdout + stderr
    return status === 0 ? [] : output.split("\n").filter((line) => line !== "")
  }).pipe(Effect.scoped)

/** Everything that is wrong with these manifests. */
export const problemsOf = (manifests: ReadonlyArray<Manifest>): Effect.Effect<ReadonlyArray<string>> =>
  Effect.gen(function* () {
    const found = yield* Effect.promise(() => Promise.all(manifests.map(violations)))
    return [...found.flat(), ...(yield* typeErrors(manifests))]
  })
