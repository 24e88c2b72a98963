// One run, as the run page has it open: its snapshot, the model its events build, and the state of its stream.

import { archivedEvents } from '../api/archived_events'
import { type RunEvent, type RunSnapshot, TERMINAL } from '../api/contracts'
import { ApiError } from '../api/http'
import { RunStream, type StreamState } from '../api/run_stream'
import { readRun, readTurns } from '../api/runs'
import { connection } from './connection'
import { RunModel } from './run_model'
import { FrameBatch, Store } from './store'

const SNAPSHOT_MS = 3_000
const SOON_MS = 150

interface SessionNotice {
  tone: 'info' | 'warn'
  text: string
}

const FROM_ARCHIVE: SessionNotice = {
  tone: 'info',
  text: 'The server had let go of events that this page had not seen. It has read them from the archive: nothing is missing.',
}
const GONE: SessionNotice = {
  tone: 'warn',
  text:
    'The server has let go of events that this page had not seen, and the archive does not have them either. The log marks ' +
    'the place; what is known of those turns is from their record.',
}

export class RunSession {
  readonly snapshot = new Store<RunSnapshot | null>(null)
  readonly problem = new Store<string | null>(null)
  readonly model = new RunModel()
  /** Counts up when the model has changed; at most once a frame. */
  readonly version = new Store(0)
  /** What there was to say last of events that the stream no longer has. */
  readonly notice = new Store<SessionNotice | null>(null)

  private readonly batch = new FrameBatch(() => this.version.set(this.version.value + 1))
  private readonly stream: RunStream
  private readonly stopped = new AbortController()
  /** Events that came while those before them are read from the archive; null while nothing is. */
  private waiting: RunEvent[] | null = null
  private timer = 0
  private dueMs = Infinity

  constructor(readonly runId: string) {
    this.stream = new RunStream(runId, { events: (events) => this.take(events), state: (state) => this.told(state) })
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
    if (this.waiting) {
      this.waiting.push(...events)
      return
    }
    const next = events.find((event) => event.seq > this.model.lastSeq)
    if (next && next.seq > this.model.lastSeq + 1) void this.fill(events)
    else this.apply(events)
  }

  private apply(events: RunEvent[]): void {
    let told = false
    for (const event of events) {
      if (!this.model.apply(event)) continue
      told ||= event.type.startsWith('run_') || event.type.startsWith('turn_')
    }
    if (told) this.readSoon()
    this.batch.ask()
  }

  /** Events are missing before these: read what the archive has of them, then go on. */
  private async fill(events: RunEvent[]): Promise<void> {
    this.waiting = [...events]
    const gaps = this.model.gaps.length
    await this.readArchive()
    const waiting = this.waiting
    this.waiting = null
    if (this.stopped.signal.aborted) return
    this.apply(waiting)
    if (this.model.gaps.length === gaps) this.notice.set(FROM_ARCHIVE)
    else {
      this.notice.set(GONE)
      void this.readRecords()
    }
  }

  private async readArchive(): Promise<void> {
    try {
      for await (const events of archivedEvents(this.runId, this.stopped.signal)) this.apply(events)
    } catch {
      // It is away, or has not got the run yet: what is missing then is told by the numbers.
    }
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
