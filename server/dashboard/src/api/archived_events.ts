// A run's events as the archive has them, all from the first: what the live stream no longer keeps.
//
// The export is one JSON object a line: {"kind": "event", "id", "event"} for each event, and others (cody/pipeline/export.py).

import { type RunEvent, toEvent } from './contracts'
import { refusal } from './http'

/** Batches of events, in order. Raises ApiError when the archive has no such run or is away, and what fetch raises. */
export async function* archivedEvents(runId: string, signal: AbortSignal): AsyncGenerator<RunEvent[]> {
  const response = await fetch(`/api/runs/${runId}/export?format=jsonl`, { credentials: 'same-origin', signal })
  if (!response.ok || !response.body) throw await refusal(response)
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  for (;;) {
    const { done, value } = await reader.read()
    const lines = (rest + (value ?? '')).split('\n')
    rest = done ? '' : (lines.pop() ?? '')
    const batch = lines.map(eventOf).filter((event) => event !== null)
    if (batch.length) yield batch
    if (done) return
  }
}

/** Null for a line of another kind, and for one that was cut off. */
export function eventOf(line: string): RunEvent | null {
  if (!line.startsWith('{"kind":"event"')) return null
  try {
    return toEvent((JSON.parse(line) as { event: Record<string, unknown> }).event)
  } catch {
    return null
  }
}
