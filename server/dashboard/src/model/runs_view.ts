// The runs to show, of all that are known: filtered, searched, sorted. Pure.

import type { RunStatus, RunSummary } from '../api/contracts'
import { elapsedMs } from '../text/format'

export const SORT_KEYS = ['created', 'status', 'epic', 'turn', 'elapsed', 'tokens', 'files', 'tests', 'activity', 'host'] as const
export type SortKey = (typeof SORT_KEYS)[number]

export interface Sort {
  key: SortKey
  down: boolean
}

export const NEWEST_FIRST: Sort = { key: 'created', down: true }

/** `tokens` is upwards, `-tokens` downwards; anything else is the newest first. */
export function readSort(text: string | null): Sort {
  const down = text?.startsWith('-') ?? false
  const key = SORT_KEYS.find((one) => one === (down ? text?.slice(1) : text))
  return key ? { key, down } : NEWEST_FIRST
}

export const sortText = (sort: Sort): string => `${sort.down ? '-' : ''}${sort.key}`
export const isNewestFirst = (sort: Sort): boolean => sort.key === 'created' && sort.down

/** What a click on a column's head asks for: downwards first where large numbers are what people look for. */
export function nextSort(sort: Sort, key: SortKey): Sort {
  if (sort.key === key) return { key, down: !sort.down }
  return { key, down: key !== 'epic' && key !== 'host' && key !== 'status' }
}

const STATUS_ORDER: Record<RunStatus, number> = {
  running: 0,
  pausing: 1,
  cancelling: 2,
  paused: 3,
  queued: 4,
  failed: 5,
  cancelled: 6,
  completed: 7,
}

export function visibleRuns(
  runs: Iterable<RunSummary>,
  { status, query, sort, nowMs }: { status: RunStatus | null; query: string; sort: Sort; nowMs: number },
): RunSummary[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean)
  const found = [...runs].filter((run) => (!status || run.status === status) && matches(run, words))
  const value = sortValue(sort.key, nowMs)
  const keyed = found.map((run) => ({ run, value: value(run) }))
  const sign = sort.down ? -1 : 1
  keyed.sort((a, b) => sign * compare(a.value, b.value) || compare(b.run.createdAt, a.run.createdAt) || compare(a.run.runId, b.run.runId))
  return keyed.map(({ run }) => run)
}

function matches(run: RunSummary, words: string[]): boolean {
  if (!words.length) return true
  const text = `${run.epicId} ${run.runId} ${run.status} ${run.host ?? ''} ${run.agent} ${run.workingDir} ${run.error?.message ?? ''}`.toLowerCase()
  return words.every((word) => text.includes(word))
}

function sortValue(key: SortKey, nowMs: number): (run: RunSummary) => number | string {
  switch (key) {
    case 'created':
      return (run) => run.createdAt
    case 'status':
      return (run) => STATUS_ORDER[run.status]
    case 'epic':
      return (run) => run.epicId.toLowerCase()
    case 'turn':
      return (run) => run.currentTurn ?? 0
    case 'elapsed':
      return (run) => elapsedMs(run, nowMs) ?? -1
    case 'tokens':
      return (run) => run.stats.tokens
    case 'files':
      return (run) => run.stats.filesWritten
    case 'tests':
      return (run) => run.stats.testsFailed * 1e9 + run.stats.testsPassed
    case 'activity':
      return (run) => run.updatedAt
    case 'host':
      return (run) => run.host ?? ''
  }
}

const compare = (a: number | string, b: number | string): number => (a < b ? -1 : a > b ? 1 : 0)
