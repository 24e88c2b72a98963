// The runs as a table of any length. One stop for Tab; arrows, Page, Home and End move between rows, Enter opens one.

import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'
import type { RunSummary } from '../api/contracts'
import type { Sort, SortKey } from '../model/runs_view'
import { go } from '../router'
import { ago, compact, duration, elapsedMs, folderName, moment } from '../text/format'
import { Status } from './bits'
import { VirtualList } from './VirtualList'

const COLUMNS: { key: SortKey; title: string; number?: boolean }[] = [
  { key: 'epic', title: 'Epic' },
  { key: 'status', title: 'Status' },
  { key: 'turn', title: 'Turn', number: true },
  { key: 'elapsed', title: 'Elapsed', number: true },
  { key: 'tokens', title: 'Tokens', number: true },
  { key: 'files', title: 'Files', number: true },
  { key: 'tests', title: 'Tests', number: true },
  { key: 'activity', title: 'Last activity', number: true },
  { key: 'host', title: 'Host' },
]
const ROW_PX = 40
const NARROW_ROW_PX = 68
const PAGE_ROWS = 12

interface Props {
  runs: RunSummary[]
  isComplete: boolean
  sort: Sort
  nowMs: number
  onSort: (key: SortKey) => void
  onNearEnd: () => void
}

export function RunsTable({ runs, isComplete, sort, nowMs, onSort, onNearEnd }: Props) {
  const narrow = useNarrow()
  const [activeId, setActiveId] = useState<string | null>(null)
  const wantsFocus = useRef(false)
  const found = runs.findIndex((run) => run.runId === activeId)
  const active = found < 0 ? 0 : found

  useLayoutEffect(() => {
    if (!wantsFocus.current || !activeId) return
    const link = document.getElementById(`run-${activeId}`)
    if (link) {
      wantsFocus.current = false
      link.focus({ preventScroll: true })
    }
  })

  const onKey = (event: KeyboardEvent): void => {
    const to = rowAfter(event.key, active, runs.length)
    if (to === null || (event.target as Element).closest('.runs-head')) return
    event.preventDefault()
    wantsFocus.current = true
    setActiveId(runs[to]?.runId ?? null)
  }
  return (
    <div class="runs" role="table" aria-label="Runs" aria-rowcount={isComplete ? runs.length + 1 : -1} onKeyDown={onKey}>
      <Head sort={sort} onSort={onSort} />
      <VirtualList
        class="runs-rows"
        role="rowgroup"
        count={runs.length}
        rowPx={narrow ? NARROW_ROW_PX : ROW_PX}
        reveal={activeId === null ? null : active}
        onNearEnd={onNearEnd}
        row={(index) => {
          const run = runs[index] as RunSummary
          return <Row key={run.runId} run={run} index={index} isActive={index === active} nowMs={nowMs} onActive={setActiveId} />
        }}
      />
    </div>
  )
}

function Head({ sort, onSort }: { sort: Sort; onSort: (key: SortKey) => void }) {
  return (
    <div class="runs-head" role="rowgroup">
      <div class="runs-row" role="row" aria-rowindex={1}>
        {COLUMNS.map(({ key, title, number }) => (
          <span
            key={key}
            role="columnheader"
            class={`cell-${key} ${number ? 'number' : ''}`}
            aria-sort={sort.key !== key ? undefined : sort.down ? 'descending' : 'ascending'}
          >
            <button type="button" onClick={() => onSort(key)}>
              {title}
              <span class="sort-mark" aria-hidden="true">
                {sort.key === key ? (sort.down ? '↓' : '↑') : ''}
              </span>
            </button>
          </span>
        ))}
      </div>
    </div>
  )
}

function rowAfter(key: string, at: number, count: number): number | null {
  const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE_ROWS, PageUp: -PAGE_ROWS }
  if (key === 'Home') return 0
  if (key === 'End') return count - 1
  const by = steps[key]
  return by === undefined ? null : Math.min(count - 1, Math.max(0, at + by))
}

interface RowProps {
  run: RunSummary
  index: number
  isActive: boolean
  nowMs: number
  onActive: (runId: string) => void
}

function Row({ run, index, isActive, nowMs, onActive }: RowProps) {
  const { stats } = run
  const elapsed = elapsedMs(run, nowMs)
  const tests = stats.testsPassed + stats.testsFailed
  const address = `/runs/${run.runId}`
  const onClick = (event: MouseEvent): void => {
    if (!(event.target as Element).closest('a')) go(address)
  }
  return (
    <div class="runs-row" role="row" aria-rowindex={index + 2} onClick={onClick}>
      <span role="cell" class="cell-epic">
        <a id={`run-${run.runId}`} href={address} tabIndex={isActive ? 0 : -1} onFocus={() => onActive(run.runId)} title={run.workingDir}>
          {run.epicId}
        </a>
        <span class="run-folder">{folderName(run.workingDir)}</span>
        <span class="run-id">{run.runId.slice(0, 8)}</span>
      </span>
      <span role="cell" class="cell-status">
        <Status status={run.status} />
      </span>
      <span role="cell" class="cell-turn number" data-name="turn">
        {run.currentTurn ?? '–'}
      </span>
      <span role="cell" class="cell-elapsed number">
        {elapsed === null ? '–' : duration(elapsed)}
      </span>
      <span role="cell" class={`cell-tokens number ${stats.tokens ? '' : 'none'}`}>
        {stats.tokens ? compact(stats.tokens) : '–'}
      </span>
      <span role="cell" class="cell-files number">
        {stats.filesWritten || '–'}
      </span>
      <span role="cell" class="cell-tests number" title="Passed of all, summed over the turns">
        {tests ? `${compact(stats.testsPassed)}/${compact(tests)}` : '–'}
      </span>
      <span role="cell" class="cell-activity number" title={moment(run.updatedAt)}>
        {ago(run.updatedAt, nowMs)}
      </span>
      <span role="cell" class="cell-host">
        {run.host ?? '–'}
      </span>
    </div>
  )
}

const NARROW = '(max-width: 760px)'

function useNarrow(): boolean {
  const [narrow, setNarrow] = useState(() => matchMedia(NARROW).matches)
  useEffect(() => {
    const query = matchMedia(NARROW)
    const changed = (): void => setNarrow(query.matches)
    query.addEventListener('change', changed)
    return () => query.removeEventListener('change', changed)
  }, [])
  return narrow
}
