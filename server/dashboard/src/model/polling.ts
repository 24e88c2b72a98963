// Asking again and again, one question at a time, less often while nobody looks.

import { ApiError } from '../api/http'
import { connection, told } from './connection'

const HIDDEN_FACTOR = 10

/** Calls `ask` now and `everyMs` after each answer, until stopped; also tells the page's connection state. */
export function poll(everyMs: number, ask: (signal: AbortSignal) => Promise<void>): () => void {
  const stopped = new AbortController()
  let timer = 0
  const again = (): void => {
    if (!stopped.signal.aborted) timer = window.setTimeout(round, document.hidden ? everyMs * HIDDEN_FACTOR : everyMs)
  }
  async function round(): Promise<void> {
    try {
      await ask(stopped.signal)
      if (!stopped.signal.aborted) told(null)
    } catch (error) {
      if (stopped.signal.aborted) return
      if (error instanceof ApiError && error.status === 401) connection.set({ kind: 'signed-out' })
      else told(error instanceof Error ? error.message : String(error))
    }
    again()
  }
  const seen = (): void => {
    if (document.hidden) return
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
