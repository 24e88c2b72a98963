// Waiting that ends.

/** What `work` gives; `late` is called once it has taken longer than this, to end it. */
export function within<T>(ms: number, work: Promise<T>, late: () => void): Promise<T> {
  const timer = setTimeout(late, ms)
  return work.finally(() => clearTimeout(timer))
}
