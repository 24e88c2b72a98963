// One run, as the run page has it open: its snapshot, the model its events build, and the state of its stream.

import { type RunEvent, type RunSnapshot, TERMINAL } from '../api/contracts'
import { ApiError } from '../api/http'
import { RunStream, type StreamState } from '../api/run_stream'
import { readRun, readTurns } from '../api/runs'
import { connection } from './connection'
import { RunModel } from './run_model'
import { FrameBatch, Store } from './store'

const SNAPSHOT_MS = 3_000
const SOON_MS = 150

export class RunSession {
  readonly snapshot = new Store<RunSnapshot | null>(null)
  readonly problem = new Store<string | null>(null)
  readonly model = new RunModel()
  /** Counts up when the model has changed; at most once a frame. */
  readonly version = new Store(0)
  /** What the stream had to say last that the reader should know, such as events that are gone. */
  readonly notice = new Store<string | null>(null)

  private readonly batch = new FrameBatch(() => this.version.set(this.version.value + 1))
  private readonly stream: RunStream
  private readonly stopped = new AbortController()
  private timer = 0
  private dueMs = Infinity

  constructor(readonly runId: string) {
    this.stream = new RunStream(runId, {
      events: (events) => this.take(events),
      state: (state) => this.told(state),
      trimmed: () => this.trimmed(),
    })
  }

  start(): void {
    this.stream.start()
    void this.read()
    void this.readRecords()
  }

  stop(): void {
    this.stopped.abort()
    clearTimeout(this.timer)
    this.batch.cancel()
    this.stream.stop()
  }

  /** Read the snapshot again shortly. */
  readSoon(afterMs = SOON_MS): void {
    const dueMs = Date.now() + afterMs
    if (this.stopped.signal.aborted || dueMs >= this.dueMs) return
    clearTimeout(this.timer)
    this.dueMs = dueMs
    this.timer = window.setTimeout(() => void this.read(), afterMs)
  }

  readonly retryNow = (): void => this.stream.hurry()

  private take(events: RunEvent[]): void {
    let told = false
    for (const event of events) {
      if (!this.model.apply(event)) continue
      told ||= event.type.startsWith('run_') || event.type.startsWith('turn_')
    }
    if (told) this.readSoon()
    if (this.model.gaps.length && !this.notice.value) {
      this.notice.set('The oldest events of this run are no longer kept. What is known of those turns is from their record.')
      void this.readRecords()
    }
    this.batch.ask()
  }

  private trimmed(): void {
    this.notice.set(
      'While the connection was away, the server let go of events that this page had not seen yet. ' +
        'It was loaded again from the oldest that are kept; the log marks the place.',
    )
    void this.readRecords()
    this.readSoon()
  }

  private told(state: StreamState): void {
    if (state.kind === 'refused') {
      this.problem.set(state.message)
      connection.set({ kind: 'live' })
    } else connection.set(state)
    if (state.kind === 'live' || state.kind === 'ended') this.readSoon()
  }

  private async read(): Promise<void> {
    this.dueMs = Infinity
    try {
      this.snapshot.set(await readRun(this.runId, this.stopped.signal))
      this.problem.set(null)
    } catch (error) {
      if (this.stopped.signal.aborted) return
      if (error instanceof ApiError && error.status === 404) {
        this.problem.set(error.message)
        return
      }
    }
    const status = this.snapshot.value?.status
    if (!status || !TERMINAL.has(status)) this.readSoon(SNAPSHOT_MS)
  }

  private async readRecords(): Promise<void> {
    try {
      this.model.takeRecords(await readTurns(this.runId, this.stopped.signal))
      this.batch.ask()
    } catch {
      // The stream tells of the same trouble, and keeps trying.
    }
  }
}
