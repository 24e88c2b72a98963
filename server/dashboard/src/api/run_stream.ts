// A run's events as they come. A lost connection is taken up behind the last event; nothing is missing or twice. Where the server
// has let go of events meanwhile (410) it goes on with the oldest that are kept: their numbers show the gap.
//
// Not EventSource: it hides the status of a refusal, so a 401 and a 410 would look like a server that is away.

import { type RunEvent, readEvent } from './contracts'
import { ApiError, refusal, signedIn } from './http'
import { type Frame, SseParser } from './sse'
import { within } from './within'

export type StreamState =
  | { kind: 'connecting' }
  | { kind: 'live' }
  | { kind: 'lost'; reason: string; sinceMs: number }
  | { kind: 'signed-out' }
  | { kind: 'ended' }
  | { kind: 'refused'; message: string }

export interface StreamListener {
  events(batch: RunEvent[]): void
  state(state: StreamState): void
}

const FIRST_WAIT_MS = 500
const LONGEST_WAIT_MS = 5_000
/** A server that runs says at once whether it has the stream. */
const HEADERS_MS = 8_000
/** Three keepalives of the server's default. A connection that said nothing for so long may be dead, or its server has longer
 * keepalives: it is made anew, and lost only if that fails. */
const SILENCE_MS = 45_000

class Lost extends Error {}
/** Given up for another connection at once; nothing is known to be wrong. */
class Renewed extends Error {}

export class RunStream {
  private lastId: string | null = null
  private waitMs = FIRST_WAIT_MS
  private lostSinceMs: number | null = null
  private stopped = false
  private connection = new AbortController()
  private isOpen = false
  private heardMs = 0
  private wake: () => void = () => {}

  constructor(
    private readonly runId: string,
    private readonly listener: StreamListener,
  ) {}

  start(): void {
    addEventListener('online', this.hurry)
    document.addEventListener('visibilitychange', this.hurry)
    void this.follow()
  }

  stop(): void {
    this.stopped = true
    removeEventListener('online', this.hurry)
    document.removeEventListener('visibilitychange', this.hurry)
    this.connection.abort()
    this.wake()
  }

  /** Try again now instead of when the wait is over, or when the server that does not answer is given up. */
  readonly hurry = (): void => {
    if (document.hidden) return
    this.wake()
    if (!this.isOpen) this.connection.abort(new Renewed())
  }

  /** The server did not answer another question, asked then: a connection that was silent since is no better. */
  doubt(askedMs: number, reason: string): void {
    if (this.isOpen && this.heardMs < askedMs) this.connection.abort(new Lost(reason))
  }

  private async follow(): Promise<void> {
    this.listener.state({ kind: 'connecting' })
    while (!this.stopped) {
      try {
        await this.connect()
        this.listener.state({ kind: 'ended' })
        return
      } catch (error) {
        this.isOpen = false
        const why = this.connection.signal.aborted ? this.connection.signal.reason : error
        if (this.stopped) return
        if (why instanceof Renewed) continue
        if (this.settled(why)) return
      }
      await this.pause()
    }
  }

  /** What a failure means; true when trying again can't help. */
  private settled(error: unknown): boolean {
    if (error instanceof ApiError) {
      if (error.status === 410 || error.code === 'stream_trimmed') {
        this.lastId = null
        this.waitMs = 0
        return false
      }
      if (error.status === 401) {
        this.listener.state({ kind: 'signed-out' })
        return false
      }
      if (error.status === 400 || error.status === 403 || error.status === 404) {
        this.listener.state({ kind: 'refused', message: error.message })
        return true
      }
    }
    this.lostSinceMs ??= Date.now()
    const reason = error instanceof ApiError || error instanceof Lost ? error.message : 'the server does not answer'
    this.listener.state({ kind: 'lost', reason, sinceMs: this.lostSinceMs })
    return false
  }

  private async pause(): Promise<void> {
    const waitMs = this.waitMs * (0.5 + Math.random() / 2)
    this.waitMs = Math.min(LONGEST_WAIT_MS, Math.max(FIRST_WAIT_MS, this.waitMs * 2))
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, waitMs)
      this.wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
    this.wake = () => {}
  }

  /** Returns at the run's end; everything else is raised. */
  private async connect(): Promise<void> {
    const connection = new AbortController()
    this.connection = connection
    const asked = fetch(`/api/runs/${this.runId}/stream${this.lastId ? '' : '?from=0'}`, {
      headers: { Accept: 'text/event-stream', ...(this.lastId ? { 'Last-Event-ID': this.lastId } : {}) },
      credentials: 'same-origin',
      cache: 'no-store',
      signal: connection.signal,
    })
    const response = await within(HEADERS_MS, asked, () => connection.abort(new Lost('the server does not answer')))
    if (!response.ok) throw await refusal(response)
    if (!response.body) throw new Lost('the server sent no stream')
    signedIn.set(true)
    this.isOpen = true
    this.heardMs = Date.now()
    this.lostSinceMs = null
    this.listener.state({ kind: 'live' })
    await this.read(response.body)
  }

  private async read(body: ReadableStream<Uint8Array>): Promise<void> {
    const parser = new SseParser()
    const decoder = new TextDecoder()
    const reader = body.getReader()
    for (;;) {
      const { done, value } = await within(SILENCE_MS, reader.read(), () => this.connection.abort(new Renewed()))
      this.heardMs = Date.now()
      if (done) throw new Lost('the server closed the stream')
      if (this.stopped) return
      if (this.take(parser.feed(decoder.decode(value, { stream: true })))) return
    }
  }

  /** Hands the events on; true when the frames say that the run has ended. */
  private take(frames: Frame[]): boolean {
    const batch: RunEvent[] = []
    let ended = false
    let failure: ApiError | null = null
    for (const frame of frames) {
      if (frame.event === 'error') failure = frameError(frame.data)
      else if (frame.data === '[DONE]') ended = true
      else {
        if (frame.id) this.lastId = frame.id
        const event = readEvent(frame.data)
        if (event) batch.push(event)
      }
    }
    if (batch.length) {
      this.waitMs = FIRST_WAIT_MS
      this.listener.events(batch)
    }
    if (failure) throw failure
    return ended
  }
}

function frameError(data: string): ApiError {
  try {
    const { error } = JSON.parse(data) as { error: { code: string; message: string } }
    return new ApiError(200, error.code, error.message)
  } catch {
    return new ApiError(200, 'unreadable', 'the stream ended with an error that can not be read')
  }
}
