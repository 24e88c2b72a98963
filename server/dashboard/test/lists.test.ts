import { expect, test } from 'vitest'
import type { RunSummary } from '../src/api/contracts'
import { LineLog, LineView } from '../src/model/line_log'
import type { Group } from '../src/model/event_lines'
import { nextSort, readSort, sortText, visibleRuns } from '../src/model/runs_view'
import { Rotation } from '../src/model/rotation'
import { isAtEnd, scrollToRow, visibleRows } from '../src/model/windowing'

test('only the rows in sight are drawn, and some around them', () => {
  expect(visibleRows(10_000, 40, 0, 400, 5)).toEqual({ begin: 0, end: 16 })
  expect(visibleRows(10_000, 40, 4_000, 400, 5)).toEqual({ begin: 95, end: 116 })
  expect(visibleRows(10_000, 40, 999_999, 400, 5)).toEqual({ begin: 9_994, end: 10_000 })
  expect(visibleRows(0, 40, 100, 400)).toEqual({ begin: 0, end: 0 })
})

test('the end is the end, give or take a row', () => {
  expect(isAtEnd(100, 20, 1_600, 400)).toBe(true)
  expect(isAtEnd(100, 20, 1_581, 400)).toBe(true)
  expect(isAtEnd(100, 20, 1_500, 400)).toBe(false)
})

test('a row is brought into sight by the shortest way', () => {
  expect(scrollToRow(3, 20, 200, 100)).toBe(60)
  expect(scrollToRow(30, 20, 200, 100)).toBe(520)
  expect(scrollToRow(12, 20, 200, 100)).toBeNull()
})

const line = (text: string, group: Group = 'output', turn = 1) => ({ seq: 1, ts: '', turn, group, type: 't', tone: '' as const, text })

test('a filtered view sees what is added, and what is dropped', () => {
  const log = new LineLog(100)
  const view = new LineView(log, { hidden: new Set<Group>(['files']), text: 'KEEP', turn: null })
  log.add(line('keep 1'))
  log.add(line('other'))
  log.add(line('keep 2', 'files'))
  expect(view.update().map((one) => one.text)).toEqual(['keep 1'])
  log.add(line('keep 3'))
  expect(view.update().map((one) => one.text)).toEqual(['keep 1', 'keep 3'])
  for (let number = 0; number < 100; number++) log.add(line(`filler ${number}`))
  expect(log.lines.length).toBeLessThanOrEqual(100)
  expect(log.dropped).toBeGreaterThan(0)
  expect(view.update()).toEqual([])
  expect(log.counts.get('files')).toBe(1)
})

test('a view of one turn', () => {
  const log = new LineLog()
  log.add(line('a', 'output', 1))
  log.add(line('b', 'output', 2))
  expect(new LineView(log, { hidden: new Set(), text: '', turn: 2 }).update().map((one) => one.text)).toEqual(['b'])
})

const run = (id: string, more: Partial<RunSummary> = {}): RunSummary =>
  ({
    runId: id,
    status: 'completed',
    epicId: `epic-${id}`,
    createdAt: `2026-01-01T00:00:0${id}Z`,
    updatedAt: `2026-01-01T00:00:0${id}Z`,
    startedAt: null,
    finishedAt: null,
    host: 'h',
    agent: 'codex',
    workingDir: '/w',
    currentTurn: 1,
    error: null,
    stats: { tokens: Number(id) * 10, filesWritten: 0, testsPassed: 0, testsFailed: 0 },
    ...more,
  }) as unknown as RunSummary

const ids = (runs: RunSummary[]): string => runs.map((one) => one.runId).join('')
const all = [run('1'), run('3', { status: 'running', host: 'big-host' }), run('2', { status: 'failed', error: { code: 'x', message: 'rate limit', retryable: true } })]
const shown = (sort: string | null, query = '', status: RunSummary['status'] | null = null): string =>
  ids(visibleRuns(all, { status, query, sort: readSort(sort), nowMs: 0 }))

test('runs are the newest first, or as a column says', () => {
  expect(shown(null)).toBe('321')
  expect(shown('tokens')).toBe('123')
  expect(shown('status')).toBe('321')
  expect(shown('nonsense')).toBe('321')
})

test('runs are found by their words and their status', () => {
  expect(shown(null, 'EPIC-2')).toBe('2')
  expect(shown(null, 'big epic')).toBe('3')
  expect(shown(null, 'rate limit')).toBe('2')
  expect(shown(null, '', 'failed')).toBe('2')
})

test('a sort goes into the address and back', () => {
  const sort = nextSort(readSort(null), 'tokens')
  expect(sort).toEqual({ key: 'tokens', down: true })
  expect(readSort(sortText(sort))).toEqual(sort)
  expect(nextSort(sort, 'tokens')).toEqual({ key: 'tokens', down: false })
})

test('each of more than one round can hold has its turn', () => {
  const known = Array.from({ length: 150 }, (_, number) => `run ${number}`)
  const looks = new Rotation()
  const seen = new Set<string>()
  for (let round = 0; round < 8; round++) for (const id of looks.take(known, 20)) seen.add(id)
  expect(seen.size).toBe(150)
  // A new one is first, one that has ended takes nobody's place.
  expect(looks.take(['new', ...known.slice(75)], 1)).toEqual(['new'])
  expect(looks.take([], 20)).toEqual([])
})
