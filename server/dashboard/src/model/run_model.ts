// What a run's events add up to: the same numbers as the server's own, from the same rules (harness/tally.py). Pure but for
// being changed in place: a copy per event would make 50,000 events quadratic.

import type { LogName, RunError, RunEvent, TokenUsage, TurnRecord, TurnStatus } from '../api/contracts'
import { linesOf } from './event_lines'
import { LineLog } from './line_log'
import { type Entry, addItem } from './transcript'

export interface TestRun {
  ts: string
  command: string | null
  framework: string | null
  passed: number
  failed: number
  skipped: number
  durationMs: number | null
}

export interface Turn {
  turn: number
  status: TurnStatus
  startedAt: string | null
  durationMs: number | null
  pid: number | null
  exitCode: number | null
  usage: TokenUsage
  /** Path -> what happened to it last. */
  files: Map<string, 'written' | 'deleted'>
  filesWritten: number
  testRuns: TestRun[]
  testsPassed: number
  testsFailed: number
  entries: Entry[]
  error: RunError | null
  interrupted: string | null
  droppedBytes: number
  attempts: number
  lastMessage: string | null
  /** True when this page has all of the turn's events; else the server's record knows better. */
  whole: boolean
}

export interface LogPart {
  ts: string
  turn: number | null
  text: string
  /** Bytes that were added before `text` and did not fit into the event. */
  missingBytes: number
}

const NO_USAGE: TokenUsage = { inputTokens: 0, cachedInputTokens: 0, outputTokens: 0, reasoningTokens: 0, totalTokens: 0 }

export class RunModel {
  private readonly turns = new Map<number, Turn>()
  private readonly records = new Map<number, TurnRecord>()
  readonly log = new LineLog()
  readonly parts: Record<LogName, LogPart[]> = { 'codys-log.md': [], 'decision-log.md': [] }
  lastSeq = 0
  lastTs: string | null = null
  /** Ranges of sequence numbers that the server no longer keeps. */
  readonly gaps: { from: number; to: number }[] = []

  /** The turns in order; one whose events are not all here has the numbers of the server's record. */
  get ordered(): Turn[] {
    return [...this.turns.values()]
      .sort((a, b) => a.turn - b.turn)
      .map((turn) => {
        const record = turn.whole ? undefined : this.records.get(turn.turn)
        return record ? withRecord(turn, record) : turn
      })
  }

  /** Takes an event in; false for one that is known already. */
  apply(event: RunEvent): boolean {
    if (event.seq <= this.lastSeq) return false
    if (event.seq > this.lastSeq + 1) this.noteGap(this.lastSeq + 1, event.seq - 1, event.ts)
    this.lastSeq = event.seq
    this.lastTs = event.ts
    for (const line of linesOf(event)) this.log.add(line)
    if (event.type === 'log_updated') this.takeLog(event)
    if (event.turn != null) takeTurnEvent(this.turn(event.turn), event)
    return true
  }

  /** What the server keeps of each turn, for those whose events are gone. */
  takeRecords(records: readonly TurnRecord[]): void {
    for (const record of records) {
      this.records.set(record.turn, record)
      this.turn(record.turn)
    }
  }

  private turn(number: number): Turn {
    let turn = this.turns.get(number)
    if (!turn) this.turns.set(number, (turn = newTurn(number)))
    return turn
  }

  private noteGap(from: number, to: number, ts: string): void {
    this.gaps.push({ from, to })
    // The turn in which events are missing may be any of those that had not ended.
    for (const turn of this.turns.values()) if (turn.status === 'running') turn.whole = false
    const text = `events ${from} to ${to} are no longer kept by the server; the turns below are from its record`
    this.log.add({ seq: to, ts, turn: null, group: 'warnings', type: 'gap', tone: 'warn', text })
  }

  private takeLog(event: Extract<RunEvent, { type: 'log_updated' }>): void {
    const parts = this.parts[event.log]
    if (!parts) return
    const shown = new TextEncoder().encode(event.tail).length
    const missingBytes = Math.max(0, event.appendedBytes - shown)
    parts.push({ ts: event.ts, turn: event.turn ?? null, text: event.tail, missingBytes })
  }
}

function newTurn(turn: number): Turn {
  return {
    turn,
    status: 'running',
    startedAt: null,
    durationMs: null,
    pid: null,
    exitCode: null,
    usage: { ...NO_USAGE },
    files: new Map(),
    filesWritten: 0,
    testRuns: [],
    testsPassed: 0,
    testsFailed: 0,
    entries: [],
    error: null,
    interrupted: null,
    droppedBytes: 0,
    attempts: 0,
    lastMessage: null,
    whole: false,
  }
}

function takeTurnEvent(turn: Turn, event: RunEvent): void {
  switch (event.type) {
    case 'turn_started':
      // An interrupted turn is done again under its number; what it cost and did the first time does not count.
      if (turn.attempts > 0) Object.assign(turn, { ...newTurn(turn.turn), attempts: turn.attempts })
      turn.attempts++
      turn.whole = true
      turn.startedAt = event.ts
      turn.pid = event.pid
      break
    case 'turn_completed':
      turn.status = 'completed'
      turn.durationMs = event.durationMs
      turn.exitCode = event.exitCode ?? null
      turn.usage = event.tokenUsage
      break
    case 'turn_failed':
      turn.status = 'failed'
      turn.durationMs = event.durationMs
      turn.exitCode = event.exitCode ?? null
      turn.error = event.error
      break
    case 'turn_interrupted':
      turn.status = 'interrupted'
      turn.durationMs = event.durationMs ?? null
      turn.interrupted = event.reason
      break
    case 'token_usage':
      turn.usage = sum(turn.usage, event)
      break
    case 'file_written':
      if (!turn.files.has(event.path)) turn.filesWritten++
      turn.files.set(event.path, 'written')
      break
    case 'file_deleted':
      turn.files.set(event.path, 'deleted')
      break
    case 'test_run_completed':
      turn.testsPassed += event.passed
      turn.testsFailed += event.failed
      turn.testRuns.push({
        ts: event.ts,
        command: event.command ?? null,
        framework: event.framework ?? null,
        passed: event.passed,
        failed: event.failed,
        skipped: event.skipped,
        durationMs: event.durationMs ?? null,
      })
      break
    case 'turn_item':
      addItem(turn.entries, event.item, event.seq, event.ts)
      break
    case 'output_dropped':
      turn.droppedBytes += event.bytes
      break
    default:
      break
  }
}

function withRecord(turn: Turn, record: TurnRecord): Turn {
  return {
    ...turn,
    status: record.status,
    startedAt: record.startedAt,
    durationMs: record.durationMs,
    pid: record.pid,
    exitCode: record.exitCode,
    usage: record.tokenUsage,
    files: new Map([...record.files.map((path) => [path, 'written'] as const), ...turn.files]),
    filesWritten: record.filesWritten,
    testsPassed: record.testsPassed,
    testsFailed: record.testsFailed,
    error: record.error,
    lastMessage: record.lastMessage,
  }
}

function sum(left: TokenUsage, right: TokenUsage): TokenUsage {
  return {
    inputTokens: left.inputTokens + right.inputTokens,
    cachedInputTokens: left.cachedInputTokens + right.cachedInputTokens,
    outputTokens: left.outputTokens + right.outputTokens,
    reasoningTokens: left.reasoningTokens + right.reasoningTokens,
    totalTokens: left.totalTokens + right.totalTokens,
  }
}
