// A run's events as the archive has them, all from the first: what the live stream no longer keeps.
//
// The export is one JSON object a line: {"kind": "event", "id", "event"} for each event, and others (cody/pipeline/export.py).

import { type RunEvent, toEvent } from './contracts'
import { Unreachable, refusal } from './http'
import { within } from './within'

/** An archive that sends nothing for so long has stopped; how long all of it takes depends on the run. */
const SILENCE_MS = 15_000

/** Batches of events, in order. Raises ApiError when the archive has no such run or is away, Unreachable when it stops on the
 * way, and what fetch raises. */
export async function* archivedEvents(runId: string, stopped: AbortSignal): AsyncGenerator<RunEvent[]> {
  const silent = new AbortController()
  const late = (): void => silent.abort(new Unreachable('the archive does not answer'))
  const signal = AbortSignal.any([stopped, silent.signal])
  const asked = fetch(`/api/runs/${runId}/export?format=jsonl`, { credentials: 'same-origin', signal })
  const response = await within(SILENCE_MS, asked, late)
  if (!response.ok || !response.body) throw await refusal(response)
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  for (;;) {
    const { done, value } = await within(SILENCE_MS, reader.read(), late)
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
