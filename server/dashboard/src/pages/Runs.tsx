// Every run, live: found, sorted and opened with the mouse or the keyboard.

import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import { type RunStatus, STATUSES } from '../api/contracts'
import { useNow } from '../model/clock'
import { connection } from '../model/connection'
import { poll } from '../model/polling'
import { RunsList } from '../model/runs_list'
import { type SortKey, isNewestFirst, nextSort, readSort, sortText, visibleRuns } from '../model/runs_view'
import { useStore } from '../model/store'
import { go, place, withQuery } from '../router'
import { grouped, plural } from '../text/format'
import { Empty } from '../ui/bits'
import { RunsTable } from '../ui/RunsTable'

const REFRESH_MS = 2_000

export function Runs() {
  const { query } = useStore(place)
  const status = STATUSES.find((one) => one === query.get('status')) ?? null
  const search = query.get('q') ?? ''
  const sort = readSort(query.get('sort'))
  const list = useMemo(() => new RunsList(status), [])
  const stopped = useMemo(() => new AbortController(), [])
  const runs = useStore(list.runs)
  const loading = useStore(list.loading)
  const now = useNow()
  const [answered, setAnswered] = useState(false)

  useEffect(() => {
    document.title = 'Runs · Cody'
    connection.set({ kind: 'connecting' })
    return () => stopped.abort()
  }, [stopped])
  useEffect(() => {
    list.setStatus(status)
    return poll(REFRESH_MS, async (signal) => {
      await list.refresh(signal)
      setAnswered(true)
    })
  }, [list, status])

  // What is to be found or sorted may be on any page, so all of them are loaded, one behind the other.
  const needsAll = search !== '' || !isNewestFirst(sort)
  const loadMore = useMemo(() => () => void list.loadMore(stopped.signal).catch(() => {}), [list, stopped])
  useEffect(() => {
    if (needsAll && answered && !loading.complete && !loading.busy) loadMore()
  }, [needsAll, answered, loading, loadMore])

  // The clock only matters to the order while it is sorted by elapsed time.
  const orderMs = sort.key === 'elapsed' ? now : 0
  const shown = useMemo(
    () => visibleRuns(runs.values(), { status, query: search, sort, nowMs: orderMs || Date.now() }),
    [runs, status, search, sort.key, sort.down, orderMs],
  )
  const onSort = (key: SortKey): void => {
    const next = nextSort(sort, key)
    go(withQuery({ sort: isNewestFirst(next) ? null : sortText(next) }), { replace: true })
  }
  return (
    <>
      <div class="page-head">
        <h1>Runs</h1>
        <p class="dim counted" role="status">
          {answered && counted(shown.length, runs.size, loading.complete, needsAll)}
        </p>
        <Filters status={status} search={search} />
      </div>
      {answered && shown.length === 0 && (loading.complete || !needsAll) ? (
        <NoRuns filtered={search !== '' || status !== null} />
      ) : (
        <RunsTable runs={shown} isComplete={loading.complete} sort={sort} nowMs={now} onSort={onSort} onNearEnd={loadMore} />
      )}
    </>
  )
}

function counted(shown: number, known: number, complete: boolean, needsAll: boolean): string {
  if (complete) return grouped(shown)
  return needsAll ? `${grouped(shown)} of the ${plural(known, 'run')} looked at so far` : `the newest ${grouped(shown)}`
}

function Filters({ status, search }: { status: RunStatus | null; search: string }) {
  const box = useRef<HTMLInputElement>(null)
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const typing = (event.target as Element).closest('input, textarea, select')
      if (event.key !== '/' || typing || event.ctrlKey || event.metaKey || event.altKey) return
      event.preventDefault()
      box.current?.focus()
    }
    addEventListener('keydown', onKey)
    return () => removeEventListener('keydown', onKey)
  }, [])
  return (
    <div class="filters">
      <input
        ref={box}
        type="search"
        class="search"
        placeholder="Search epic, id, host, folder  ( / )"
        aria-label="Search the runs"
        value={search}
        onInput={(event) => go(withQuery({ q: event.currentTarget.value }), { replace: true })}
      />
      <select
        aria-label="Status"
        value={status ?? ''}
        onChange={(event) => go(withQuery({ status: event.currentTarget.value }), { replace: true })}
      >
        <option value="">Every status</option>
        {STATUSES.map((one) => (
          <option key={one} value={one}>
            {one}
          </option>
        ))}
      </select>
    </div>
  )
}

function NoRuns({ filtered }: { filtered: boolean }) {
  if (filtered) {
    return (
      <Empty title="No run matches">
        <a href="/">Show all runs</a>
      </Empty>
    )
  }
  return (
    <Empty title="No runs yet">
      <p>
        Start one here, or in a repository: <code>cody init</code>, then <code>cody run</code>.
      </p>
      <a class="button primary" href="/new">
        New run
      </a>
    </Empty>
  )
}
