// What the API says, as types. Source: cody/contracts/run.py and run_events.py; camelCase as on the wire.

export const STATUSES = [
  'queued',
  'running',
  'pausing',
  'paused',
  'cancelling',
  'cancelled',
  'completed',
  'failed',
] as const
export type RunStatus = (typeof STATUSES)[number]
export type TurnStatus = 'running' | 'completed' | 'failed' | 'interrupted'
export type ControlAction = 'pause' | 'resume' | 'cancel'
export type AgentName = 'codex' | 'claude' | 'command'

export interface RunError {
  code: string
  message: string
  retryable: boolean
}

export interface RunStats {
  turns: number
  tokens: number
  inputTokens: number
  cachedInputTokens: number
  outputTokens: number
  filesWritten: number
  testsPassed: number
  testsFailed: number
}

export interface RunSummary {
  runId: string
  status: RunStatus
  reason: string | null
  createdAt: string
  updatedAt: string
  startedAt: string | null
  finishedAt: string | null
  epicId: string
  workingDir: string
  agent: AgentName
  pid: number | null
  workerId: string | null
  host: string | null
  currentTurn: number | null
  stats: RunStats
  completion: { detected: boolean; line: string | null; source: string | null }
  error: RunError | null
  subscribers: number
  fence: number
}

export interface RunConfig {
  workingDir: string
  model: string | null
  maxTurns: number | null
  session: 'fresh' | 'resume'
  sandbox: string
  agent: AgentName
  command: string[] | null
  [field: string]: unknown
}

export interface RunSnapshot extends RunSummary {
  config: RunConfig
  queuePlace: number | null
}

export interface RunPage {
  runs: RunSummary[]
  nextCursor: string | null
}

export interface TokenUsage {
  inputTokens: number
  cachedInputTokens: number
  outputTokens: number
  reasoningTokens: number
  totalTokens: number
}

export interface TurnRecord {
  runId: string
  turn: number
  status: TurnStatus
  startedAt: string
  finishedAt: string | null
  durationMs: number | null
  pid: number | null
  threadId: string | null
  exitCode: number | null
  tokenUsage: TokenUsage
  files: string[]
  filesWritten: number
  testsPassed: number
  testsFailed: number
  lastMessage: string | null
  outputBytes: number
  error: RunError | null
}

export interface PromptAnswer {
  prompt: string
  sha256: string
  bytes: number
}

export interface Readiness {
  ready: boolean
  checks: Record<string, string>
  degraded: string[]
}

export interface WorkerHealth {
  workerId: string
  host: string
  runs: string[]
  leaseAgeMs: number
}

export interface Backlog {
  waiting: number
  oldestMs: number
}

export interface ArchiveHealth {
  ok: boolean
  state: string
  projects: boolean
  runs: Backlog | null
  responses: Backlog | null
  halted: { runId: string; reason: string }[]
}

export interface Health {
  workers: WorkerHealth[]
  queued: number
  redis: { ok: boolean; state: string; persistence: string | null }
  archive: ArchiveHealth
}

export interface EpicLog {
  runId: string
  name: LogName
  path: string
  text: string
  size: number
  omittedBytes: number
}

export type FileSource = 'agent' | 'watch' | 'sentinel'
export type LogName = 'codys-log.md' | 'decision-log.md'

interface Envelope {
  ts: string
  runId: string
  seq: number
  turn?: number | null
}

type Body =
  | { type: 'run_queued'; epicId: string }
  | { type: 'run_started'; workerId: string; host: string; fence: number }
  | { type: 'run_pausing' | 'run_paused' | 'run_cancelling' | 'run_cancelled'; reason?: string }
  | { type: 'run_resumed'; reason?: string | null }
  | { type: 'run_completed'; source: string; line?: string | null }
  | { type: 'run_failed'; error: RunError }
  | { type: 'run_recovered'; fromWorker?: string | null; toWorker: string; fence: number }
  | { type: 'turn_started'; pid: number; responseId: string; threadId?: string | null }
  | { type: 'turn_completed'; tokenUsage: TokenUsage; durationMs: number; exitCode?: number | null }
  | { type: 'turn_failed'; exitCode?: number | null; error: RunError; durationMs: number }
  | { type: 'turn_interrupted'; reason: string; durationMs?: number | null }
  | { type: 'subprocess_output'; stream: 'stdout' | 'stderr'; text: string }
  | { type: 'output_dropped'; stream: 'stdout' | 'stderr'; bytes: number; logOffset: number }
  | { type: 'file_written' | 'file_read' | 'file_deleted'; path: string; source: FileSource }
  | { type: 'log_updated'; log: LogName; path: string; appendedBytes: number; tail: string }
  | { type: 'test_run_started'; command: string }
  | {
      type: 'test_run_completed'
      passed: number
      failed: number
      skipped: number
      durationMs?: number | null
      command?: string | null
      framework?: string | null
    }
  | ({ type: 'token_usage' } & TokenUsage)
  | { type: 'completion_detected'; source: string; line?: string | null }
  | { type: 'turn_item'; item: Record<string, unknown> }
  | { type: 'warning'; code: string; message: string }
  | { type: 'custom'; name: string; data: Record<string, unknown> }

export type RunEvent = Envelope & Body
export type EventType = RunEvent['type']

const KNOWN = new Set<string>([
  ...['run_queued', 'run_started', 'run_pausing', 'run_paused', 'run_cancelling', 'run_cancelled', 'run_resumed'],
  ...['run_completed', 'run_failed', 'run_recovered', 'turn_started', 'turn_completed', 'turn_failed'],
  ...['turn_interrupted', 'subprocess_output', 'output_dropped', 'file_written', 'file_read', 'file_deleted'],
  ...['log_updated', 'test_run_started', 'test_run_completed', 'token_usage', 'completion_detected', 'turn_item'],
  ...['warning', 'custom'],
])

export const TERMINAL: ReadonlySet<RunStatus> = new Set<RunStatus>(['completed', 'failed', 'cancelled'])

/** The event of an SSE frame's data; a type this page does not know is kept as `custom`; null for what is no event. */
export function readEvent(data: string): RunEvent | null {
  let found: unknown
  try {
    found = JSON.parse(data)
  } catch {
    return null
  }
  if (typeof found !== 'object' || found === null) return null
  return toEvent(found as Record<string, unknown>)
}

/** The same for data that was read already. */
export function toEvent(event: Record<string, unknown>): RunEvent | null {
  if (typeof event.type !== 'string' || typeof event.seq !== 'number' || typeof event.ts !== 'string') return null
  if (KNOWN.has(event.type)) return event as unknown as RunEvent
  const { type, ts, runId, seq, turn, ...data_ } = event
  return { type: 'custom', ts, runId, seq, turn, name: type, data: data_ } as RunEvent
}
