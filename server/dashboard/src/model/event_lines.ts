// Events as lines of the live log. Pure.

import type { RunEvent } from '../api/contracts'
import { bytes, duration, grouped } from '../text/format'
import { entryOf } from './transcript'

export const GROUPS = ['lifecycle', 'output', 'agent', 'files', 'tests', 'tokens', 'logs', 'warnings'] as const
export type Group = (typeof GROUPS)[number]
export type Tone = '' | 'good' | 'bad' | 'warn' | 'dim'

export interface Line {
  /** Stays the same while older lines are dropped. */
  key: number
  seq: number
  ts: string
  turn: number | null
  group: Group
  type: string
  tone: Tone
  /** May have ANSI escapes where `group` is output. */
  text: string
}

type Text = { group: Group; tone: Tone; text: string }

/** What an event says: several lines where its text has several. */
export function linesOf(event: RunEvent): Omit<Line, 'key'>[] {
  const { group, tone, text } = described(event)
  const { seq, ts, type, turn } = event
  const parts = text.includes('\n') ? text.replace(/\n+$/, '').split('\n') : [text]
  return parts.map((part) => ({ seq, ts, turn: turn ?? null, group, type, tone, text: part }))
}

/** An event that lacks what its type should have, from another version of the server, is shown as it is. */
function described(event: RunEvent): Text {
  try {
    return describe(event)
  } catch {
    const { ts: _ts, runId: _runId, seq: _seq, ...rest } = event
    return { group: 'warnings', tone: 'dim', text: JSON.stringify(rest) }
  }
}

function describe(event: RunEvent): Text {
  switch (event.type) {
    case 'run_queued':
      return life(`queued for epic ${event.epicId}`)
    case 'run_started':
      return life(`started on ${event.host}`)
    case 'run_pausing':
      return life(`will pause after this turn (${event.reason ?? 'manual'})`, 'warn')
    case 'run_paused':
      return life(`paused (${event.reason ?? 'manual'})`, 'warn')
    case 'run_resumed':
      return life('resumed')
    case 'run_cancelling':
      return life(`cancelling (${event.reason ?? 'manual'})`, 'warn')
    case 'run_cancelled':
      return life(`cancelled (${event.reason ?? 'manual'})`, 'warn')
    case 'run_completed':
      return life(`completed by ${event.source.replaceAll('_', ' ')}${event.line ? `: ${event.line}` : ''}`, 'good')
    case 'run_failed':
      return life(`failed: ${event.error.message}`, 'bad')
    case 'run_recovered':
      return life(`taken over by worker ${event.toWorker.slice(0, 8)}`, 'warn')
    case 'turn_started':
      return life(`turn ${event.turn ?? '?'} started (pid ${event.pid})`)
    case 'turn_completed':
      return life(`turn ${event.turn ?? '?'} completed in ${duration(event.durationMs)}`, 'good')
    case 'turn_failed':
      return life(`turn ${event.turn ?? '?'} failed: ${event.error.message}`, 'bad')
    case 'turn_interrupted':
      return life(`turn ${event.turn ?? '?'} interrupted: ${event.reason}`, 'warn')
    case 'completion_detected':
      return life(`completion seen: ${event.source.replaceAll('_', ' ')}`, 'good')
    case 'subprocess_output':
      return { group: 'output', tone: event.stream === 'stderr' ? 'warn' : '', text: event.text }
    case 'output_dropped':
      return { group: 'output', tone: 'dim', text: `… ${bytes(event.bytes)} of ${event.stream} not shown here: whole in the turn's raw output` }
    case 'file_written':
      return { group: 'files', tone: '', text: `wrote ${event.path}` }
    case 'file_read':
      return { group: 'files', tone: 'dim', text: `read ${event.path}` }
    case 'file_deleted':
      return { group: 'files', tone: 'warn', text: `deleted ${event.path}` }
    case 'log_updated':
      return { group: 'logs', tone: '', text: `${event.log} +${bytes(event.appendedBytes)}` }
    case 'test_run_started':
      return { group: 'tests', tone: 'dim', text: `tests: ${event.command}` }
    case 'test_run_completed':
      return { group: 'tests', tone: event.failed ? 'bad' : 'good', text: testsText(event) }
    case 'token_usage':
      return { group: 'tokens', tone: 'dim', text: `${grouped(event.inputTokens)} in (${grouped(event.cachedInputTokens)} cached), ${grouped(event.outputTokens)} out` }
    case 'turn_item':
      return itemText(event.item, event)
    case 'warning':
      return { group: 'warnings', tone: 'warn', text: `${event.code}: ${event.message}` }
    case 'custom':
      return { group: 'agent', tone: 'dim', text: `${event.name} ${JSON.stringify(event.data)}` }
  }
}

const life = (text: string, tone: Tone = ''): Text => ({ group: 'lifecycle', tone, text })

function testsText(event: { passed: number; failed: number; skipped: number; durationMs?: number | null }): string {
  const skipped = event.skipped ? `, ${event.skipped} skipped` : ''
  const took = event.durationMs ? ` in ${duration(event.durationMs)}` : ''
  return `${event.passed} passed, ${event.failed} failed${skipped}${took}`
}

function itemText(item: Record<string, unknown>, event: RunEvent): Text {
  if (typeof item.type === 'string' && item.type.endsWith('_output')) {
    const code = typeof item.exit_code === 'number' ? `exit ${item.exit_code}` : item.status === 'incomplete' ? 'unfinished' : 'done'
    const last = String(item.output ?? '').trimEnd().split('\n').at(-1) ?? ''
    return { group: 'agent', tone: item.exit_code ? 'warn' : 'dim', text: `${code}${last ? ` · ${last}` : ''}` }
  }
  const entry = entryOf(item, event.seq, event.ts)
  switch (entry.kind) {
    case 'message':
      return { group: 'agent', tone: '', text: firstLine(entry.text) }
    case 'reasoning':
      return { group: 'agent', tone: 'dim', text: entry.title || firstLine(entry.text) }
    case 'command':
      return { group: 'agent', tone: '', text: `$ ${firstLine(entry.script)}` }
    case 'patch':
      return { group: 'agent', tone: '', text: `patch: ${entry.paths.map((one) => `${one.change} ${one.path}`).join(', ')}` }
    case 'plan':
      return { group: 'agent', tone: 'dim', text: `plan: ${entry.steps.map((step) => step.text).join('; ')}` }
    case 'tool':
      return { group: 'agent', tone: '', text: `${entry.name} ${entry.input.replace(/\s+/g, ' ')}` }
    case 'other':
      return { group: 'agent', tone: 'dim', text: entry.name }
  }
}

const firstLine = (text: string): string => text.trim().split('\n', 1)[0] ?? ''
