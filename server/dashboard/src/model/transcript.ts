// What the agent said and did in a turn, item by item, read leniently: any field may be anything, the agent wrote it. Pure.
//
// Shape: items of the OpenAI Responses API as Cody's agents write them (harness/agents/codex_items.py). A call and its
// output are two items with one call_id; here they are one entry.

import { looksLikeDiff } from '../text/diff'

export interface CallOutput {
  text: string
  exitCode: number | null
  completed: boolean
  truncated: boolean
  /** Of a patch: what it changed, where that is known. */
  diff: string
  diffTruncated: boolean
  /** Of a patch: a sentence for each file that is not in the diff. */
  diffMissing: string[]
}

export interface PlanStep {
  text: string
  status: string
}

export type Entry = { seq: number; ts: string } & (
  | { kind: 'message'; text: string; role: string }
  | { kind: 'reasoning'; title: string; text: string }
  | { kind: 'command'; callId: string; script: string; output: CallOutput | null }
  | { kind: 'patch'; callId: string; paths: { path: string; change: string }[]; patch: string; output: CallOutput | null }
  | { kind: 'plan'; callId: string; steps: PlanStep[] }
  | { kind: 'tool'; callId: string; name: string; input: string; output: CallOutput | null }
  | { kind: 'other'; name: string; json: string }
)

const SHELL_TOOLS = new Set(['exec_command', 'shell', 'local_shell', 'Bash'])

/** Takes the item in: adds an entry, or completes the one that it is the output of. */
export function addItem(entries: Entry[], item: Record<string, unknown>, seq: number, ts: string): void {
  const type = text(item.type)
  if (type === 'function_call_output' || type === 'custom_tool_call_output') {
    const callId = text(item.call_id)
    const entry = entries.findLast((one) => 'callId' in one && one.callId === callId)
    if (entry?.kind === 'plan') return
    if (entry && 'output' in entry) entry.output = outputOf(item)
    else entries.push({ seq, ts, kind: 'tool', callId, name: 'output', input: '', output: outputOf(item) })
    return
  }
  entries.push(entryOf(item, seq, ts))
}

/** The entry that an item begins; outputs complete one instead. */
export function entryOf(item: Record<string, unknown>, seq: number, ts: string): Entry {
  const type = text(item.type)
  if (type === 'message') return { seq, ts, kind: 'message', text: texts(item.content), role: text(item.role) }
  if (type === 'reasoning') {
    const whole = texts(item.summary) || texts(item.content)
    const title = /^\s*\*\*(.+?)\*\*\s*/.exec(whole)
    return { seq, ts, kind: 'reasoning', title: title?.[1] ?? '', text: title ? whole.slice(title[0].length) : whole }
  }
  if (type === 'function_call' || type === 'custom_tool_call') return callOf(item, seq, ts)
  return { seq, ts, kind: 'other', name: type || 'item', json: JSON.stringify(item, null, 2) }
}

function callOf(item: Record<string, unknown>, seq: number, ts: string): Entry {
  const name = text(item.name) || 'a tool'
  const callId = text(item.call_id)
  const given = argumentsOf(item)
  if (SHELL_TOOLS.has(name)) {
    const script = shellScript(commandText(given.cmd ?? given.command))
    return { seq, ts, kind: 'command', callId, script, output: null }
  }
  if (name === 'update_plan') {
    const steps = Array.isArray(given.plan) ? given.plan.map(stepOf) : []
    return { seq, ts, kind: 'plan', callId, steps }
  }
  const patch = text(given.patch) || text(given.input)
  if (name === 'apply_patch' || looksLikeDiff(patch)) {
    const changes = Array.isArray(given.changes) ? given.changes : []
    const paths = changes.filter(isRecord).map((one) => ({ path: text(one.path), change: text(one.kind) }))
    const diffs = changes.filter(isRecord).map((one) => text(one.diff) || text(one.unified_diff)).filter(Boolean)
    return { seq, ts, kind: 'patch', callId, paths, patch: patch || diffs.join('\n'), output: null }
  }
  return { seq, ts, kind: 'tool', callId, name, input: JSON.stringify(given, null, 2), output: null }
}

function outputOf(item: Record<string, unknown>): CallOutput {
  return {
    text: text(item.output) || texts(item.output),
    exitCode: typeof item.exit_code === 'number' ? item.exit_code : null,
    completed: item.status !== 'incomplete',
    truncated: item.truncated === true,
    diff: text(item.diff),
    diffTruncated: item.diff_truncated === true,
    diffMissing: Array.isArray(item.diff_missing) ? item.diff_missing.map(text).filter(Boolean) : [],
  }
}

/** The script of `/bin/bash -lc 'SCRIPT'`, as codex wraps what the model asked for; else the command as it is. */
export function shellScript(command: string): string {
  const found = /^\S*sh -l?c ([\s\S]+)$/.exec(command)
  if (!found?.[1]) return command
  return unquoted(found[1]) ?? command
}

/** One shell word without its quotes; null when it is not exactly one. */
function unquoted(word: string): string | null {
  let out = ''
  let quote = ''
  for (let place = 0; place < word.length; place++) {
    const char = word[place] as string
    if (quote === "'") {
      if (char === "'") quote = ''
      else out += char
    } else if (char === '\\') {
      const next = word[place + 1] ?? ''
      out += quote === '"' && !'"\\$`'.includes(next) ? `\\${next}` : next
      place++
    } else if (quote === '"') {
      if (char === '"') quote = ''
      else out += char
    } else if (char === "'" || char === '"') quote = char
    else if (/\s/.test(char)) return null
    else out += char
  }
  return quote ? null : out
}

function argumentsOf(item: Record<string, unknown>): Record<string, unknown> {
  const given = item.arguments ?? item.input
  if (isRecord(given)) return given
  try {
    const parsed: unknown = JSON.parse(text(given))
    return isRecord(parsed) ? parsed : { input: text(given) }
  } catch {
    return { input: text(given) }
  }
}

const stepOf = (step: unknown): PlanStep =>
  isRecord(step) ? { text: text(step.step), status: text(step.status) } : { text: String(step), status: '' }

const commandText = (value: unknown): string => (Array.isArray(value) ? value.map(String).join(' ') : text(value))

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const text = (value: unknown): string => (typeof value === 'string' ? value : '')

/** The text of a content list: `[{type: "output_text", text}]`. */
function texts(value: unknown): string {
  if (typeof value === 'string') return value
  if (!Array.isArray(value)) return ''
  return value
    .filter(isRecord)
    .map((part) => text(part.text))
    .filter(Boolean)
    .join('\n')
}
