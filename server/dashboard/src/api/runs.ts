// The API of runs and of the server's health, typed.

import type {
  ControlAction,
  EpicLog,
  Health,
  LogName,
  PromptAnswer,
  Readiness,
  RunPage,
  RunSnapshot,
  RunStatus,
  TurnRecord,
} from './contracts'
import { ApiError, PROBE_MS, call, request } from './http'

const RUNS = '/api/runs'

export interface PageQuery {
  limit: number
  status?: RunStatus | null
  cursor?: string | null
}

export function listRuns(query: PageQuery, signal?: AbortSignal): Promise<RunPage> {
  const params = new URLSearchParams({ limit: String(query.limit) })
  if (query.status) params.set('status', query.status)
  if (query.cursor) params.set('cursor', query.cursor)
  return call(`${RUNS}?${params}`, { signal, timeoutMs: PROBE_MS })
}

export const readRun = (runId: string, signal?: AbortSignal): Promise<RunSnapshot> =>
  call(`${RUNS}/${runId}`, { signal, timeoutMs: PROBE_MS })

export async function readTurns(runId: string, signal?: AbortSignal): Promise<TurnRecord[]> {
  return (await call<{ turns: TurnRecord[] }>(`${RUNS}/${runId}/turns`, { signal })).turns
}

export const readPrompt = (runId: string, signal?: AbortSignal): Promise<PromptAnswer> =>
  call(`${RUNS}/${runId}/prompt`, { signal })

/** The prompt that a turn got. */
export const readTurnPrompt = async (runId: string, turn: number, signal?: AbortSignal): Promise<string> =>
  (await request(`${RUNS}/${runId}/turns/${turn}/prompt`, { signal })).text()

/** A log of the run's epic as it is now. */
export const readEpicLog = (runId: string, name: LogName, signal?: AbortSignal): Promise<EpicLog> =>
  call(`${RUNS}/${runId}/logs/${name}`, { signal })

export const outputUrl = (runId: string, turn: number, offset = 0): string =>
  `${RUNS}/${runId}/turns/${turn}/output${offset ? `?offset=${offset}` : ''}`

export function control(runId: string, action: ControlAction): Promise<{ runId: string; status: RunStatus }> {
  return call(`${RUNS}/${runId}/control`, { method: 'POST', body: { action, reason: 'manual' } })
}

export interface StartRequest {
  epicId: string
  config: Record<string, unknown>
}

/** The key makes a repeated click, or a retry after a lost answer, the same run. */
export function startRun(body: StartRequest, key: string): Promise<{ runId: string }> {
  return call(`${RUNS}/continuous`, { method: 'POST', body, headers: { 'Idempotency-Key': key } })
}

/** The prompt that a run of this config would send first; null from a server that can't say. */
export function previewRun(body: StartRequest): Promise<PromptAnswer | null> {
  return orNull(call<PromptAnswer>(`${RUNS}/preview`, { method: 'POST', body }))
}

/** Readiness, also when it is a refusal: a 503 carries the same checks. */
export async function readReadiness(signal?: AbortSignal): Promise<Readiness> {
  try {
    return await call<Readiness>('/readyz', { signal, timeoutMs: PROBE_MS })
  } catch (error) {
    if (error instanceof ApiError && error.details.checks) {
      const { checks, degraded } = error.details as unknown as Readiness
      return { ready: false, checks, degraded: degraded ?? [] }
    }
    throw error
  }
}

/** Workers, Redis and the archive; null while there is no Redis that could tell. */
export async function readHealth(signal?: AbortSignal): Promise<Health | null> {
  try {
    return await call<Health>('/api/health', { signal, timeoutMs: PROBE_MS })
  } catch (error) {
    if (error instanceof ApiError && error.status === 503) return null
    throw error
  }
}

async function orNull<T>(answer: Promise<T>): Promise<T | null> {
  try {
    return await answer
  } catch (error) {
    const absent = error instanceof ApiError && (error.status === 405 || (error.status === 404 && isRoute(error)))
    if (absent) return null
    throw error
  }
}

/** A 404 for the path itself, not for a run or turn that is named in it. */
const isRoute = (error: ApiError): boolean => error.message.startsWith('there is nothing at')
