// Whether what the page shows is what the server has. One for the page: the newest page's source tells it.

import { ApiError } from '../api/http'
import { Store } from './store'

export type Connection =
  | { kind: 'connecting' }
  | { kind: 'live' }
  | { kind: 'lost'; reason: string; sinceMs: number }
  | { kind: 'ended' }
  | { kind: 'refused'; message: string }
  | { kind: 'signed-out' }

export const connection = new Store<Connection>({ kind: 'connecting' })

/** Tells of a question that failed. */
export function failed(error: unknown): void {
  if (error instanceof ApiError && error.status === 401) connection.set({ kind: 'signed-out' })
  else told(error instanceof Error ? error.message : String(error))
}

/** Tells of answers that were asked for again and again: the first failure begins an outage, an answer ends it. */
export function told(reason: string | null): void {
  if (reason === null) connection.set(connection.value.kind === 'live' ? connection.value : { kind: 'live' })
  else if (connection.value.kind !== 'lost') connection.set({ kind: 'lost', reason, sinceMs: Date.now() })
}
