/** Summaries of measurements. */

export const quantile = (values: ReadonlyArray<number>, share: number): number => {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)] ?? Number.NaN
}

export const median = (values: ReadonlyArray<number>): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** Seconds. */
export interface Spread {
  readonly p50: number
  readonly worst: number
}

export const spreadOf = (millis: ReadonlyArray<number>): Spread => ({
  p50: quantile(millis, 0.5) / 1000,
  worst: Math.max(...millis) / 1000,
})

/** The slope of the least-squares line through points `[x, y]`. */
export const slope = (points: ReadonlyArray<readonly [number, number]>): number => {
  const mean = (of: 0 | 1) => points.reduce((sum, point) => sum + point[of], 0) / points.length
  const [x, y] = [mean(0), mean(1)]
  const covariance = points.reduce((sum, point) => sum + (point[0] - x) * (point[1] - y), 0)
  return covariance / points.reduce((sum, point) => sum + (point[0] - x) ** 2, 0)
}
