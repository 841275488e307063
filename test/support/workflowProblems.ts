/** GitHub's own parser of workflows: its schema, and the contexts that an expression may use. */
import { readFileSync } from "node:fs"
import { registerHooks } from "node:module"
import { fileURLToPath } from "node:url"

/** The parser imports JSON as bundlers allow it, without saying that it is JSON. */
const hooks = registerHooks({
  load: (url, context, next) =>
    url.endsWith(".json") && url.includes("/@actions/workflow-parser/")
      ? {
          format: "module",
          source: `export default ${readFileSync(fileURLToPath(url), "utf8")}`,
          shortCircuit: true,
        }
      : next(url, context),
})
const { NoOperationTraceWriter, convertWorkflowTemplate, parseWorkflow } =
  await import("@actions/workflow-parser")
hooks.deregister()

/** What is wrong with a workflow. */
export const workflowProblems = async (name: string, content: string): Promise<ReadonlyArray<string>> => {
  const { context, value } = parseWorkflow({ name, content }, new NoOperationTraceWriter())
  if (value !== undefined) await convertWorkflowTemplate(context, value)
  return context.errors.getErrors().map(({ message }) => message)
}
