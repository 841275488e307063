/**
 * What `kubectl kustomize` makes of a directory, without kubectl: only of the fields that our kustomizations have. Another field is
 * an error, so that none is left out.
 */
import { readFileSync, statSync } from "node:fs"
import { basename, join } from "node:path"
import { parseEnv } from "node:util"
import { parse, parseAllDocuments } from "yaml"

export interface Manifest {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: {
    readonly name: string
    readonly namespace?: string
    readonly labels?: Readonly<Record<string, string>>
  }
}

type Mutable<A> = { -readonly [K in keyof A]: A[K] extends object | undefined ? Mutable<A[K]> : A[K] }

interface Kustomization {
  readonly apiVersion: "kustomize.config.k8s.io/v1beta1"
  readonly kind: "Kustomization"
  readonly namespace?: string
  readonly resources?: ReadonlyArray<string>
  readonly images?: ReadonlyArray<Readonly<Record<"name" | "newName" | "newTag", string>>>
  readonly configMapGenerator?: ReadonlyArray<{
    readonly name: string
    readonly envs?: ReadonlyArray<string>
    readonly files?: ReadonlyArray<string>
  }>
  readonly generatorOptions?: {
    readonly disableNameSuffixHash?: boolean
    readonly labels?: Readonly<Record<string, string>>
  }
  readonly patches?: ReadonlyArray<{ readonly patch: string }>
}

const fields = new Set([
  "apiVersion",
  "kind",
  "namespace",
  "resources",
  "images",
  "configMapGenerator",
  "generatorOptions",
  "patches",
])

/** The objects of a YAML file. */
const read = (path: string) =>
  parseAllDocuments(readFileSync(path, "utf8")).map((document): Mutable<Manifest> => {
    if (document.errors.length > 0 || document.warnings.length > 0)
      throw new Error(`${path}: ${[...document.errors, ...document.warnings].join()}`)
    return document.toJS() as Mutable<Manifest>
  })

/** Every container of an object. */
const containersIn = (value: unknown): ReadonlyArray<{ image: string }> => {
  if (typeof value !== "object" || value === null) return []
  return Object.entries(value).flatMap(([key, inner]) =>
    key === "containers" ? (inner as ReadonlyArray<{ image: string }>) : containersIn(inner),
  )
}

const renderInto = (directory: string): ReadonlyArray<Mutable<Manifest>> => {
  const [content] = read(join(directory, "kustomization.yaml"))
  for (const field of Object.keys(content!))
    if (!fields.has(field)) throw new Error(`${directory}: the field ${field} is not known here`)
  const kustomization = content as unknown as Kustomization

  const resources = (kustomization.resources ?? []).flatMap((name) => {
    const path = join(directory, name)
    return statSync(path).isDirectory() ? renderInto(path) : read(path)
  })
  const { labels } = kustomization.generatorOptions ?? {}
  const generated = (kustomization.configMapGenerator ?? []).map(({ name, envs = [], files = [] }) => ({
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { name, ...(labels && { labels }) },
    data: Object.assign(
      {},
      ...envs.map((file) => parseEnv(readFileSync(join(directory, file), "utf8"))),
      ...files.map((file) => ({ [basename(file)]: readFileSync(join(directory, file), "utf8") })),
    ) as Readonly<Record<string, string>>,
  }))

  const removed = (kustomization.patches ?? []).map(({ patch }) => {
    const { $patch, kind, metadata } = parse(patch) as Manifest & { readonly $patch?: string }
    if ($patch !== "delete") throw new Error(`${directory}: only patches that delete are known here`)
    return `${kind} ${metadata.name}`
  })
  const all: ReadonlyArray<Mutable<Manifest>> = [...resources, ...generated]
  const kept = all.filter(({ kind, metadata }) => !removed.includes(`${kind} ${metadata.name}`))
  if (kept.length !== all.length - removed.length) throw new Error(`${directory}: a patch has no target`)

  for (const one of kept) {
    if (kustomization.namespace && one.kind !== "Namespace") one.metadata.namespace = kustomization.namespace
    for (const container of containersIn(one)) {
      const [name] = container.image.split(":")
      const image = kustomization.images?.find((image) => image.name === name)
      if (image) container.image = `${image.newName}:${image.newTag}`
    }
  }
  return kept
}

/** The objects that `kubectl apply -k` would apply. Names of ConfigMaps have no hash of their content. */
export const render = (directory: string): ReadonlyArray<Manifest> => renderInto(directory)
