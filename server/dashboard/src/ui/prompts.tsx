// Prompts: what a turn was told, and what the next one would be.

import { useEffect, useState } from 'preact/hooks'
import type { PromptAnswer } from '../api/contracts'
import { readPrompt, readTurnPrompt } from '../api/runs'
import { grouped } from '../text/format'
import { Notice } from './bits'

type Found<T> = { value: T } | { problem: string } | null

/** What `ask` gives, asked again when `when` changes; null until then. */
function useAnswer<T>(ask: ((signal: AbortSignal) => Promise<T>) | null, when: unknown[]): Found<T> {
  const [found, setFound] = useState<Found<T>>(null)
  useEffect(() => {
    if (!ask) return
    const gone = new AbortController()
    ask(gone.signal).then(
      (value) => setFound({ value }),
      (error: Error) => gone.signal.aborted || setFound({ problem: error.message }),
    )
    return () => gone.abort()
  }, when)
  return found
}

/** The prompt that a turn got; read when it is opened. `attempt`: a turn that is made again gets a new one. */
export function TurnPrompt({ runId, turn, attempt }: { runId: string; turn: number; attempt: number }) {
  const [open, setOpen] = useState(false)
  const found = useAnswer(open ? (signal) => readTurnPrompt(runId, turn, signal) : null, [open, runId, turn, attempt])
  return (
    <details class="section" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Prompt</summary>
      {!found && <p class="dim">Loading …</p>}
      {found && 'problem' in found && <Notice tone="bad">{found.problem}</Notice>}
      {found && 'value' in found && <PromptText text={found.value} label={`Prompt of turn ${turn}`} />}
    </details>
  )
}

/** Each turn changes the logs that the prompt is made of. */
export function NextPrompt({ runId, turns }: { runId: string; turns: number }) {
  const found = useAnswer<PromptAnswer>((signal) => readPrompt(runId, signal), [runId, turns])
  if (!found) return <p class="dim">Loading …</p>
  if ('problem' in found) return <Notice tone="bad">{found.problem}</Notice>
  return <PromptText text={found.value.prompt} sha256={found.value.sha256} label="Prompt" />
}

export function PromptText({ text, label, sha256 }: { text: string; label: string; sha256?: string }) {
  return (
    <div class="prompt">
      <p class="dim small">
        {grouped(new Blob([text]).size)} bytes
        {sha256 && (
          <>
            {' '}
            · sha256 <code>{sha256.slice(0, 16)}</code>
          </>
        )}
      </p>
      <pre class="block wrap" tabIndex={0} aria-label={label}>
        {text}
      </pre>
    </div>
  )
}
