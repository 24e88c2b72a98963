// Asking again and again, one question at a time, less often while nobody looks.

import { failed, told } from './connection'

const HIDDEN_FACTOR = 10

/** Calls `ask` now and `everyMs` after each answer, until stopped; also tells the page's connection state. */
export function poll(everyMs: number, ask: (signal: AbortSignal) => Promise<void>): () => void {
  const stopped = new AbortController()
  let timer = 0
  let isAsking = false
  const again = (): void => {
    if (!stopped.signal.aborted) timer = window.setTimeout(round, document.hidden ? everyMs * HIDDEN_FACTOR : everyMs)
  }
  async function round(): Promise<void> {
    isAsking = true
    try {
      await ask(stopped.signal)
      if (!stopped.signal.aborted) told(null)
    } catch (error) {
      if (stopped.signal.aborted) return
      failed(error)
    } finally {
      isAsking = false
    }
    again()
  }
  const seen = (): void => {
    // The question that is on its way is answered soon, and the next one comes behind it.
    if (document.hidden || isAsking) return
    clearTimeout(timer)
    void round()
  }
  document.addEventListener('visibilitychange', seen)
  void round()
  return () => {
    stopped.abort()
    clearTimeout(timer)
    document.removeEventListener('visibilitychange', seen)
  }
}
