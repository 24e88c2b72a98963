// The form of a new run: its fields as text, and the request they make. Pure.
//
// The defaults and choices are those of cody/contracts/run.py; a test holds run_defaults.json and that model together. What is left
// as it was is not sent, so that the server's own default holds.

import type { StartRequest } from '../api/runs'
import type { RunConfig } from '../api/contracts'
import contract from './run_defaults.json'

const { choices, defaults } = contract

export type Kind = 'text' | 'number' | 'lines' | 'words' | 'env' | 'choice'

export interface Field {
  /** Where it goes in the request: `epicId`, `config.budget.maxTurnSec`. */
  path: string
  label: string
  kind: Kind
  hint?: string
  choices?: readonly string[]
  /** What an empty field means. */
  empty?: string
  section: 'work' | 'agent' | 'limits' | 'more'
  /** Only for this agent. */
  agent?: string
}

export const FIELDS: readonly Field[] = [
  { path: 'config.workingDir', label: 'Working folder', kind: 'text', section: 'work', hint: 'Absolute path of the repository that the agent works in' },
  { path: 'epicId', label: 'Epic', kind: 'text', section: 'work', hint: 'Folder in the harness folder with the mission and the work log' },
  { path: 'config.agent', label: 'Agent', kind: 'choice', choices: choices['config.agent'], section: 'agent' },
  { path: 'config.command', label: 'Command', kind: 'words', section: 'agent', agent: 'command', hint: 'The program and its arguments, one a line; it reads the prompt on stdin' },
  { path: 'config.model', label: 'Model', kind: 'text', section: 'agent', empty: "the agent's default" },
  { path: 'config.reasoning', label: 'Reasoning', kind: 'text', section: 'agent', empty: "the agent's default", hint: 'minimal, low, medium, high, xhigh' },
  { path: 'config.session', label: 'Session', kind: 'choice', choices: choices['config.session'], section: 'agent', hint: 'fresh: each turn is a new conversation; resume: it goes on in the one before' },
  { path: 'config.sandbox', label: 'Sandbox', kind: 'choice', choices: choices['config.sandbox'], section: 'agent' },
  { path: 'config.approval', label: 'Approval', kind: 'choice', choices: choices['config.approval'], section: 'agent' },
  { path: 'config.maxTurns', label: 'Turns at most', kind: 'number', section: 'limits', empty: 'no limit' },
  { path: 'config.loopDelaySec', label: 'Delay between turns (s)', kind: 'number', section: 'limits' },
  { path: 'config.budget.maxTurnSec', label: 'A turn takes at most (s)', kind: 'number', section: 'limits', empty: 'no limit' },
  { path: 'config.budget.maxIdleSec', label: 'Silence at most (s)', kind: 'number', section: 'limits', empty: 'no limit' },
  { path: 'config.gracePeriodSec', label: 'Grace before SIGKILL (s)', kind: 'number', section: 'limits', empty: "the server's" },
  { path: 'config.completion.pattern', label: 'Completion pattern', kind: 'text', section: 'limits', empty: 'the stop file only', hint: 'Regular expression, looked for in what the run writes to codys-log.md' },
  { path: 'config.completion.scanTailLines', label: 'Lines looked at', kind: 'number', section: 'limits' },
  { path: 'config.harnessDir', label: 'Harness folder', kind: 'text', section: 'more' },
  { path: 'config.env', label: 'Environment', kind: 'env', section: 'more', hint: 'NAME=value, one a line; added to what the agent gets' },
  { path: 'config.watch.include', label: 'Watched files', kind: 'lines', section: 'more', hint: 'Globs, one a line' },
  { path: 'config.watch.exclude', label: 'Not watched', kind: 'lines', section: 'more', hint: 'Globs, one a line' },
]

export type FormText = Record<string, string>

/** The form as it is at first: the config's defaults. */
export function emptyForm(): FormText {
  return Object.fromEntries(FIELDS.map((field) => [field.path, textOf(field, valueAt(defaults, field.path))]))
}

interface Like {
  epicId: string
  config: RunConfig
}

/** The form of a run like this one, without what is withheld. */
export function formOf(run: Like): FormText {
  const form = emptyForm()
  for (const field of FIELDS) {
    const value = field.kind === 'env' ? toldEnv(run) : valueAt(run, field.path)
    if (value !== undefined) form[field.path] = textOf(field, value)
  }
  return form
}

/** The names of the environment that the form of a run like this one lacks: secrets, whose values the API does not tell, and
 * what a line of the form can't hold. */
export const withheldOf = (run: Like): string[] => envOf(run).filter((one) => !isTold(one)).map(([name]) => name)

const toldEnv = (run: Like): Record<string, string> => Object.fromEntries(envOf(run).filter(isTold))
const envOf = (run: Like): [string, string][] => Object.entries((run.config.env ?? {}) as Record<string, string>)
/** Source: cody/sealing.py shown_env. Lines are trimmed, so a value that would not come back as it is counts as withheld. */
const isTold = ([, value]: [string, string]): boolean =>
  !value.includes('[redacted:') && !value.includes('\n') && value === value.trim()

export const isShown = (field: Field, form: FormText): boolean => !field.agent || form['config.agent'] === field.agent

/** The request's body: what differs from the defaults, and what has none. Text that is no number is sent as it is, so that
 * the server says what is wrong with it. */
export function requestOf(form: FormText): StartRequest {
  const body: Record<string, unknown> = { epicId: '', config: {} }
  for (const field of FIELDS) {
    const text = form[field.path] ?? ''
    const isDefault = text === textOf(field, valueAt(defaults, field.path))
    const always = field.path === 'epicId' || field.path === 'config.workingDir'
    if (isShown(field, form) && (always || !isDefault)) put(body, field.path, valueOf(field, text))
  }
  return body as unknown as StartRequest
}

function valueOf(field: Field, text: string): unknown {
  const lines = text.split('\n').map((line) => line.trim()).filter(Boolean)
  switch (field.kind) {
    case 'number':
      return text.trim() === '' ? null : Number.isFinite(Number(text)) ? Number(text) : text
    case 'lines':
      return lines
    case 'words':
      return lines.length ? text.split('\n').filter((line) => line !== '') : null
    case 'env':
      return Object.fromEntries(lines.map((line) => [line.split('=', 1)[0] ?? '', line.slice(line.indexOf('=') + 1 || line.length)]))
    default:
      return text.trim() === '' && field.empty ? null : text.trim()
  }
}

function textOf(field: Field, value: unknown): string {
  if (value === null || value === undefined) return ''
  if (Array.isArray(value)) return value.join('\n')
  if (field.kind === 'env') return Object.entries(value as object).map(([name, one]) => `${name}=${one}`).join('\n')
  return String(value)
}

function valueAt(root: unknown, path: string): unknown {
  return path.split('.').reduce<unknown>((at, name) => (at as Record<string, unknown> | undefined)?.[name], root)
}

function put(root: Record<string, unknown>, path: string, value: unknown): void {
  const names = path.split('.')
  const last = names.pop() as string
  let at = root
  for (const name of names) at = (at[name] ??= {}) as Record<string, unknown>
  at[last] = value
}

/** The field that a place in the request belongs to: `config.command[2]` is `config.command`'s; null for none of them. */
export function fieldOf(place: string): string | null {
  const plain = place.replace(/\[\d+\]/g, '')
  const found = FIELDS.filter((field) => plain === field.path || plain.startsWith(`${field.path}.`))
  return found.at(-1)?.path ?? null
}
