/** A plugin for bundles: a module finds the files beside it where they are copied to, whatever chunk it becomes a part of. */
import { relative } from "node:path"

/** @param src the absolute path of the directory that is bundled */
export const filesStayBeside = (src) => ({
  name: "files stay beside",
  transform: (code, id) =>
    id.startsWith(src) && code.includes("import.meta.url")
      ? code.replaceAll(
          "import.meta.url",
          `new URL(${JSON.stringify(relative(src, id))}, import.meta.url).href`,
        )
      : undefined,
})
