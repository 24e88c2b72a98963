// A value that is watched. All state of the page that outlives a component is one of these.

import { useEffect, useState } from 'preact/hooks'

export class Store<T> {
  private readonly watchers = new Set<(value: T) => void>()

  constructor(private current: T) {}

  get value(): T {
    return this.current
  }

  set(value: T): void {
    if (Object.is(value, this.current)) return
    this.current = value
    for (const watcher of [...this.watchers]) watcher(value)
  }

  watch(watcher: (value: T) => void): () => void {
    this.watchers.add(watcher)
    return () => this.watchers.delete(watcher)
  }
}

/** The value now; the component is drawn again when it changes. */
export function useStore<T>(store: Store<T>): T {
  const [value, setValue] = useState(store.value)
  useEffect(() => {
    setValue(() => store.value)
    return store.watch((next) => setValue(() => next))
  }, [store])
  return value
}

const HIDDEN_MS = 250

/** Runs `draw` once before the next frame, however often it is asked; a hidden page has no frames and gets a timer. */
export class FrameBatch {
  private frame = 0
  private timer = 0

  constructor(private readonly draw: () => void) {}

  ask(): void {
    if (this.frame || this.timer) return
    if (document.hidden) this.timer = window.setTimeout(this.run, HIDDEN_MS)
    else this.frame = requestAnimationFrame(this.run)
  }

  cancel(): void {
    cancelAnimationFrame(this.frame)
    clearTimeout(this.timer)
    this.frame = this.timer = 0
  }

  private readonly run = (): void => {
    this.frame = this.timer = 0
    this.draw()
  }
}
