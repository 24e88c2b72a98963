// One run, as the run page has it open: its snapshot, the model its events build, and the state of its stream.

import { archivedEvents } from '../api/archived_events'
import { type RunEvent, type RunSnapshot, TERMINAL } from '../api/contracts'
import { ApiError, Unreachable } from '../api/http'
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

const READING: SessionNotice = {
  tone: 'info',
  text: 'The server has let go of events that this page had not seen. It reads them from the archive; what is new waits for them.',
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

const NOT_READ: SessionNotice = {
  tone: 'warn',
  text:
    'The server has let go of events that this page had not seen, and the archive did not answer. The log marks the place. ' +
    'Loading the page again asks the archive again.',
}

export class RunSession {
  readonly snapshot = new Store<RunSnapshot | null>(null)
  readonly problem = new Store<string | null>(null)
  /** Why the server gives no events of this run: it will not change by asking again. */
  readonly refused = new Store<string | null>(null)
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
  private isReading = false
  private isDue = false
  /** The stream has told all there is, or will not. */
  private isSettled = false

  constructor(readonly runId: string) {
    this.stream = new RunStream(runId, { events: (events) => this.take(events), state: (state) => this.told(state) })
  }

  start(): void {
    addEventListener('offline', this.readNow)
    this.stream.start()
    void this.read()
    void this.readRecords()
  }

  stop(): void {
    this.stopped.abort()
    removeEventListener('offline', this.readNow)
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

  /** A browser without a network may still reach a server on its own machine: only asking tells. */
  private readonly readNow = (): void => this.readSoon(0)

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
    this.notice.set(READING)
    const hasAnswered = await this.readArchive()
    const waiting = this.waiting
    this.waiting = null
    if (this.stopped.signal.aborted) return
    this.apply(waiting)
    if (this.model.gaps.length === gaps) this.notice.set(FROM_ARCHIVE)
    else {
      this.notice.set(hasAnswered ? GONE : NOT_READ)
      void this.readRecords()
    }
  }

  /** False when the archive is away or stopped on the way: what is missing then is told by the numbers. */
  private async readArchive(): Promise<boolean> {
    try {
      for await (const events of archivedEvents(this.runId, this.stopped.signal)) this.apply(events)
      return true
    } catch (error) {
      return error instanceof ApiError && error.status === 404
    }
  }

  private told(state: StreamState): void {
    connection.set(state)
    this.isSettled = state.kind === 'refused' || state.kind === 'ended'
    this.refused.set(state.kind === 'refused' ? state.message : null)
    if (state.kind === 'live' || state.kind === 'ended') this.readSoon()
  }

  /** The snapshot, again and again until the run has ended and all its events are here: also what tells that a server whose
   * stream is silent still answers. One question at a time. */
  private async read(): Promise<void> {
    this.dueMs = Infinity
    if (this.isReading) {
      this.isDue = true
      return
    }
    this.isReading = true
    this.isDue = false
    const askedMs = Date.now()
    try {
      this.snapshot.set(await readRun(this.runId, this.stopped.signal))
      this.problem.set(null)
    } catch (error) {
      if (this.stopped.signal.aborted) return
      if (error instanceof ApiError && error.status === 404) {
        this.problem.set(error.message)
        return
      }
      if (error instanceof Unreachable) this.stream.doubt(askedMs, error.message)
      else if (error instanceof ApiError && error.status === 401) this.stream.doubt(Infinity, error.message)
    } finally {
      this.isReading = false
    }
    const status = this.snapshot.value?.status
    if (!status || !TERMINAL.has(status) || !this.isSettled || this.isDue) this.readSoon(this.isDue ? SOON_MS : SNAPSHOT_MS)
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
