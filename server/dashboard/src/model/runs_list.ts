// The runs that the page knows: loaded page by page as they are scrolled to, kept up to date, sorted and searched.

import { type RunStatus, type RunSummary, TERMINAL } from '../api/contracts'
import { ApiError } from '../api/http'
import { listRuns, readRun } from '../api/runs'
import { Rotation } from './rotation'
import { Store } from './store'

const PAGE = 100
/** Active runs beyond the newest page that are asked for one by one, at most, in each round; the next round goes on with others. */
const SINGLE_LOOKS = 20

export interface Loading {
  /** Every run of this filter is loaded. */
  complete: boolean
  busy: boolean
}

interface Place {
  cursor: string | null
  complete: boolean
}

export class RunsList {
  readonly runs = new Store<ReadonlyMap<string, RunSummary>>(new Map())
  readonly loading = new Store<Loading>({ complete: false, busy: true })
  private readonly places = new Map<string, Place>()
  private readonly looks = new Rotation()
  private more: Promise<void> | null = null

  constructor(private status: RunStatus | null) {}

  setStatus(status: RunStatus | null): void {
    if (status === this.status) return
    this.status = status
    this.loading.set({ complete: this.place?.complete ?? false, busy: !this.place })
  }

  /** Bring the newest page, and every active run, up to date. */
  async refresh(signal: AbortSignal): Promise<void> {
    const known = this.runs.value
    const fresh = new Map<string, RunSummary>()
    let cursor: string | null = null
    const { status } = this
    // More may have come since the last round than one page holds; the first round starts the list.
    do {
      const page = await listRuns({ limit: PAGE, status, cursor }, signal)
      for (const run of page.runs) fresh.set(run.runId, run)
      cursor = page.nextCursor
      if (!this.places.has(status ?? '')) {
        this.places.set(status ?? '', { cursor, complete: cursor === null })
        break
      }
      if (page.runs.some((run) => known.has(run.runId))) break
    } while (cursor)
    const gone = await this.lookAgain(known, fresh, signal)
    this.merge(fresh, gone)
    this.loading.set({ complete: this.place?.complete ?? false, busy: this.more !== null })
  }

  /** Load the next page, unless all are loaded or one is on its way. */
  loadMore(signal: AbortSignal): Promise<void> {
    this.more ??= this.nextPage(signal).finally(() => {
      this.more = null
      this.loading.set({ complete: this.place?.complete ?? false, busy: false })
    })
    return this.more
  }

  private get place(): Place | undefined {
    return this.places.get(this.status ?? '')
  }

  private async nextPage(signal: AbortSignal): Promise<void> {
    const place = this.place
    if (!place || place.complete) return
    this.loading.set({ complete: false, busy: true })
    const page = await listRuns({ limit: PAGE, status: this.status, cursor: place.cursor }, signal)
    place.cursor = page.nextCursor
    place.complete = page.nextCursor === null
    this.merge(new Map(page.runs.map((run) => [run.runId, run])), [])
  }

  /** Active runs that were not among the newest; gives the ids of those that are gone. */
  private async lookAgain(
    known: ReadonlyMap<string, RunSummary>,
    fresh: Map<string, RunSummary>,
    signal: AbortSignal,
  ): Promise<string[]> {
    const unseen = (): RunSummary[] => [...known.values()].filter((run) => !TERMINAL.has(run.status) && !fresh.has(run.runId))
    for (const status of new Set(unseen().map((run) => run.status))) {
      for (const run of (await listRuns({ limit: PAGE, status }, signal)).runs) {
        if (known.has(run.runId)) fresh.set(run.runId, run)
      }
    }
    const gone: string[] = []
    const waiting = unseen().map((run) => run.runId)
    for (const runId of this.looks.take(waiting, SINGLE_LOOKS)) {
      try {
        fresh.set(runId, await readRun(runId, signal))
      } catch (error) {
        if (!(error instanceof ApiError && error.status === 404)) throw error
        gone.push(runId)
      }
    }
    return gone
  }

  private merge(fresh: ReadonlyMap<string, RunSummary>, gone: string[]): void {
    const known = this.runs.value
    const changed = gone.length > 0 || [...fresh].some(([id, run]) => !isSame(known.get(id), run))
    if (!changed) return
    const all = new Map(known)
    for (const [id, run] of fresh) all.set(id, run)
    for (const id of gone) all.delete(id)
    this.runs.set(all)
  }
}

const isSame = (left: RunSummary | undefined, right: RunSummary): boolean =>
  left !== undefined && left.updatedAt === right.updatedAt && JSON.stringify(left) === JSON.stringify(right)
