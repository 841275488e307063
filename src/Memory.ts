/**
 * Frees memory that is not used any more, where the garbage collector would free it late: what survived two minor collections
 * stays until the next full collection, under a steady load for many seconds (docs/decisions/0012).
 */

/** Frees the bytes of a buffer that is not read any more. Its memory must be its own, not a part of a pool. */
export const freeBuffer = ({ buffer }: Buffer<ArrayBufferLike>): void => {
  if (buffer instanceof ArrayBuffer && !buffer.detached) buffer.transfer(0)
}

/** The text of bytes in UTF-8 that are not read any more. Frees them, unless they share their memory with others. */
export const takeText = (bytes: Buffer): string => {
  const text = bytes.toString()
  if (bytes.buffer.byteLength === bytes.byteLength) freeBuffer(bytes)
  return text
}

/** Empties an array that is not read any more, so that its elements are collected although something still refers to it. */
export const freeItems = (items: ReadonlyArray<unknown>): void => void ((items as Array<unknown>).length = 0)
